"""A built model's one-token step, traced from the model file and compiled.

    step = runtime.compile(model, slots=2)
    logits = step(torch.tensor([5, 7]))           # token 5 after state 0, token 7 after state 1; both move on
    step.write([0], state); state = step.read([0])

Nothing here knows a generation: whatever a model file computes with the functions that `tracing.py` lists is served,
in any mixture of float32, bfloat16 and quantised weights.  The rest is a refusal with a sentence, and the model's own
call serves.  That is for CPUs; on a GPU `record` makes a step of the same kind out of the model's own call.
"""

from __future__ import annotations

from .graphs import RecordedStep, record
from .step import MOST_ROWS, Step, compile, refusal

__all__ = ["MOST_ROWS", "RecordedStep", "Step", "compile", "record", "refusal"]
