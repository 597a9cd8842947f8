"""Training: a recipe, text and a model in; a checkpoint out.

corpus = Corpus.of_bytes(documents(Path("books")))                             # of receptance.data
recipe = Training(batch=Batching(rows=8, length=256), schedule=Schedule(seconds=90), optim=Optim(lr=3e-3))
outcome = Trainer(model, corpus.train, recipe).train(save_to=Path("model.pth"))
print(bits(mean_loss(model, corpus.held_out)))
"""

from .batches import Batch, Batches
from .checkpoint import read_weights
from .initial_state import InitialState
from .learner import Learner
from .loss import next_token_loss
from .parallel import Ranks
from .progress import LiveProgress
from .recipe import (
    Batching,
    Checkpoints,
    Compute,
    DataChoice,
    Finetuning,
    ModelChoice,
    Optim,
    Recipe,
    Training,
    Watching,
    parse_changes,
    shipped_recipes,
)
from .run import Run, read_metrics
from .schedule import Schedule
from .step import Outcome, Position, Step
from .trainer import Trainer
from .validation import bits, mean_loss

__all__ = [
    "Batch",
    "Batches",
    "Batching",
    "Checkpoints",
    "Compute",
    "DataChoice",
    "Finetuning",
    "InitialState",
    "Learner",
    "LiveProgress",
    "ModelChoice",
    "Optim",
    "Outcome",
    "Position",
    "Ranks",
    "Recipe",
    "Run",
    "Schedule",
    "Step",
    "Trainer",
    "Training",
    "Watching",
    "bits",
    "mean_loss",
    "next_token_loss",
    "parse_changes",
    "read_metrics",
    "read_weights",
    "shipped_recipes",
]
