"""Is a checkpoint computed rightly on this machine?  Every way of computing it, compared with the plain time loop.

    report = verify("model.pth")
    report.passed, [(check.name, check.logits) for check in report.checks]

All ways are one function mathematically: whole, cut into pieces, token by token, as a padded row of a batch, and with
each form of the ops.  Where the official runtime is installed, its logits are compared too.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from . import official, ops
from .checkpoints import convert, load_model, open_checkpoint
from .config import Config
from .devices import dtype_name
from .errors import ReceptanceError
from .models import PARTS, RWKV, num_parameters
from .ops import dispatch
from .state import State

# The largest difference that rounding explains, as a share of the logits' standard deviation (of the state: of its
# largest entry).  Products of different shapes add in a different order, and every layer passes the rounding on.
BOUNDS = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 5e-2, torch.bfloat16: 3e-1}
# The official runtime reads the same float32 weights, but rounds in another order.
OFFICIAL_BOUND = 1e-4


@dataclass(frozen=True)
class Check:
    """One way of computing against the reference: largest differences, and how large they may be."""

    name: str
    logits: float
    state: float | None
    bound: float

    @property
    def passed(self) -> bool:
        # Not `max(...) <= bound`, which a NaN in second place would pass.
        return self.logits <= self.bound and (self.state is None or self.state <= self.bound)


@dataclass(frozen=True)
class Report:
    """What was computed and how it came out; `skipped` says why a check could not be made."""

    config: Config
    dtype: torch.dtype
    length: int
    checks: tuple[Check, ...]
    skipped: tuple[tuple[str, str], ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def verify(
    path: str | Path,
    length: int = 128,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    seed: int = 0,
    with_official: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> Report:
    """Check the model in `path` on `length` random tokens; `progress` is told the name of each check before it is made.

    Raises CheckpointError for a file that is none, and ReceptanceError for a length or dtype without a bound.
    """
    if length < 2:
        raise ReceptanceError(f"a length of {length} leaves nothing to cut; give at least 2 tokens")
    if dtype not in BOUNDS:
        choices = ", ".join(map(dtype_name, BOUNDS))
        raise ReceptanceError(f"verify has no bound for {dtype_name(dtype)}; choose {choices}")
    checkpoint = open_checkpoint(path)
    progress("loading")
    model = load_model(checkpoint, dtype=dtype, device=device, mmap=True).eval()
    tokens = torch.randint(checkpoint.config.vocab_size, (1, length), generator=torch.Generator().manual_seed(seed)).to(
        device
    )
    checks = list(own_checks(model, tokens, random.Random(seed), progress))
    del model
    skipped = []
    reason = official.refuses(checkpoint.config) if with_official else "not asked for"
    try:
        if reason is None:
            checks += official_checks(checkpoint.path, checkpoint.config, tokens.cpu(), random.Random(seed), progress)
    except ReceptanceError as error:
        reason = str(error)
    if reason is not None:
        skipped.append(("official runtime", reason))
    return Report(checkpoint.config, dtype, length, tuple(checks), tuple(skipped))


@torch.no_grad()
def own_checks(
    model: RWKV, tokens: Tensor, rng: random.Random, progress: Callable[[str], None] = lambda _: None
) -> Iterator[Check]:
    """Every way of feeding tokens [1, T] to `model`, compared with the time loop over all of them."""
    bound = BOUNDS[model.head.weight.dtype]
    length = tokens.shape[1]
    with ops.use("reference"):
        progress("reference")
        expected = model(tokens)

    def against(name: str, result: tuple[Tensor, State]) -> Check:
        logits = relative_difference(result[0], expected[0], float(expected[0].float().std()))
        states = max(relative_difference(ours, theirs) for ours, theirs in zip(result[1], expected[1], strict=True))
        return Check(name, logits, states, bound)

    call = dispatch.Call(length, tokens.device.type, model.head.weight.dtype, False, model.config.head_size)
    time_mix, _ = PARTS[model.config.version]
    for form in dispatch.FORMS[time_mix.op]:
        if form.name != "reference" and form.refuses(call) is None:
            progress(f"{form.name} form")
            with ops.use(form.name):
                yield against(f"{form.name} form, whole", model(tokens))
    cuts = {"random pieces": random_pieces(length, rng), "token by token": [1] * length}
    for name, pieces in cuts.items():
        progress(name)
        yield against(name, in_pieces(model, tokens, pieces))
    progress("padded row")
    yield against("a padded row of a batch", padded(model, tokens))


def in_pieces(model: RWKV, tokens: Tensor, pieces: list[int], state: State | None = None) -> tuple[Tensor, State]:
    """The logits of tokens [1, T] fed piece by piece, the state handed on."""
    logits = []
    for piece in torch.split(tokens, pieces, dim=1):
        out, state = model(piece, state)
        logits.append(out)
    assert state is not None
    return torch.cat(logits, dim=1), state


def padded(model: RWKV, tokens: Tensor) -> tuple[Tensor, State]:
    """The same as a row of a batch: padded at the end, beside a longer row and an empty one."""
    length = tokens.shape[1]
    longer = tokens.flip(1).repeat(1, 2)[:, : length + length // 2]
    batch = longer.repeat(3, 1)
    batch[1, :length] = tokens[0]
    lengths = torch.tensor([longer.shape[1], length, 0], device=tokens.device)
    logits, state = model(batch, None, lengths)
    return logits[1:2, :length], state.rows(torch.tensor([1], device=tokens.device))


def official_checks(
    path: Path, config: Config, tokens: Tensor, rng: random.Random, progress: Callable[[str], None]
) -> list[Check]:
    """Our float32 logits against the official runtime's, for a few ways of feeding it.

    Raises ReceptanceError where it is not installed, fails, or where a float32 copy of the file has no room.
    """
    progress("official runtime")
    ids: list[int] = tokens[0].tolist()
    pieces = [piece.tolist() for piece in torch.split(tokens[0], random_pieces(len(ids), rng))]
    ways = {"whole": [ids], "random pieces": pieces, "token by token": [[i] for i in ids]}
    with TemporaryDirectory() as folder:
        model = load_model(path, dtype=torch.float32, mmap=True)
        needed = 4 * num_parameters(model)
        if shutil.disk_usage(folder).free < needed:
            raise ReceptanceError(f"{folder} has no room for a float32 copy of {needed / 1e9:.1f} GB; set TMPDIR")
        with torch.no_grad():
            expected = model(tokens)[0][0]
        del model
        copy = Path(folder, "float32.pth")
        convert(path, copy, dtype=torch.float32)
        results = official.logits(copy, config.version, list(ways.values()))
    spread = float(expected.std())
    return [
        Check(f"official runtime, {name}", relative_difference(result, expected, spread), None, OFFICIAL_BOUND)
        for name, result in zip(ways, results, strict=True)
    ]


def random_pieces(length: int, rng: random.Random) -> list[int]:
    """Lengths of at least 1 that add up to `length`."""
    edges = sorted(rng.sample(range(1, length), min(length - 1, 5)))
    return [last - first for first, last in zip([0, *edges], [*edges, length], strict=True)]


def relative_difference(ours: Tensor, theirs: Tensor, unit: float | None = None) -> float:
    """The largest difference in units of `unit`, or of the largest entry; infinity where one of them is not finite."""
    ours, theirs = ours.double().cpu(), theirs.double().cpu()
    largest = float((ours - theirs).abs().max())
    # A NaN would get lost: `max` of several differences keeps it only in first place.
    if not math.isfinite(largest):
        return math.inf
    return largest / max(float(theirs.abs().max()) if unit is None else unit, 1e-30)
