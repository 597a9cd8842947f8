"""Training from scratch: text in, a checkpoint out.

corpus = ByteCorpus.read(Path("books"))
recipe = Recipe(schedule=Schedule(start=3e-3, end=3e-4), rows=8, length=256, seconds=90)
outcome = Trainer(model, corpus.train, recipe).train(save_to=Path("model.pth"))
print(bits(mean_loss(model, corpus.held_out)))
"""

from .data import ByteCorpus, ByteText
from .loss import next_token_loss
from .progress import LiveProgress
from .schedule import Schedule
from .trainer import Outcome, Recipe, Step, Trainer
from .validation import bits, mean_loss

__all__ = [
    "ByteCorpus",
    "ByteText",
    "LiveProgress",
    "Outcome",
    "Recipe",
    "Schedule",
    "Step",
    "Trainer",
    "bits",
    "mean_loss",
    "next_token_loss",
]
