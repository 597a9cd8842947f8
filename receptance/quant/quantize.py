"""A built model, made smaller from outside: its matrices become int8 or int4.

    quantize(model, "int4")                             # in place, and returns the model
    quantize(model, "int4", keep=["head.weight"])       # but for some

A few tokens go through the model, block by block, and show what each matrix is multiplied with.  A matrix whose outputs
would be too far from what they were gets the next higher precision: int4, int8, and at last what it was.  That happens
where a channel of the inputs is far larger than its neighbours, which share a scale with it.

Norms, vectors and the embedding stay as they are, and so does a matrix whose inputs 32 does not divide.  Low-rank
factors become int8 even where all else is int4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ..config import Config
from ..errors import InputError
from ..models import RWKV
from ..models.layers import Part, Rows
from ..ops.cpu.storage import GROUP, TILE
from ..state import State
from .formats import FORMATS, INT8, Format, format_of
from .linear import MATMULS, QuantFactor, Quantised, QuantLinear, multiply
from .packing import Packed, pack, unpack

__all__ = [
    "LIMITS",
    "Matrix",
    "Walk",
    "check_patterns",
    "dequantize",
    "is_quantised",
    "matrices",
    "probe_tokens",
    "quantised_layers",
    "quantize",
]

# Up to which error of its outputs a matrix is kept in a format.  Ordinary ones have 0.008 in int4 and 0.0001 in int8.
LIMITS = {"int4": 0.04, "int8": 0.004}
NUM_PROBE_TOKENS = 64
# The odd number nearest to 2^16 over the golden ratio: its multiples are spread evenly over any vocabulary.
PROBE_STRIDE = 40503

Progress = Callable[[int, int], None]


def quantize(
    model: RWKV,
    to: str,
    keep: Sequence[str] = (),
    tokens: Tensor | None = None,
    progress: Progress | None = None,
) -> RWKV:
    """Turn the matrices of `model` into "int8" or "int4", in place; returns the model.

    keep       names of tensors that stay as they are, with * and ?: `blocks.0.att.*`
    tokens     [1, T] int64, of a text that is like what the model will read; None: T numbers out of the vocabulary
    progress   is called as progress(done, total) after each block

    Raises InputError for another format, for a pattern of `keep` that fits no tensor, for a model that is quantised
    already and for weights with NaN or infinity.
    """
    if is_quantised(model):
        raise InputError("this model is quantised already; quantise the one that it was made from")
    check_patterns(keep, model.state_dict())
    tokens = probe_tokens(model.config, model.emb.weight.device) if tokens is None else tokens
    with torch.no_grad():
        walk = Walk(model.config, to, keep, model.emb(tokens))
        for layer, block in enumerate(model.blocks):
            walk.block(block, f"blocks.{layer}.")
            if progress is not None:
                progress(layer + 1, len(model.blocks) + 1)
        walk.head(model)
    if progress is not None:
        progress(len(model.blocks) + 1, len(model.blocks) + 1)
    return model


def is_quantised(model: nn.Module) -> bool:
    """Whether any part of a model is quantised."""
    return any(True for _ in quantised_layers(model))


def dequantize(model: RWKV) -> RWKV:
    """Turn the matrices of a quantised model into ordinary ones, in place; returns the model.

    They have the values that were left of them: what was rounded off does not come back.
    """
    for path, layer in [(path, layer) for path, layer in model.named_modules() if isinstance(layer, Quantised)]:
        weight, (owner, _, name) = unpack(layer.matrix, layer.dtype), path.rpartition(".")
        parent = model.get_submodule(owner)
        if isinstance(layer, QuantLinear):
            plain = nn.Linear(layer.num_in, layer.num_out, bias=False, device="meta")
            plain.weight, plain.bias = nn.Parameter(weight), layer.bias
            setattr(parent, name, plain)
        else:
            delattr(parent, name)
            parent.register_parameter(name, nn.Parameter(weight.T.contiguous()))
    return model


def probe_tokens(config: Config, device: torch.device | str = "cpu") -> Tensor:
    """Ids [1, T] from all over the vocabulary, always the same."""
    return (torch.arange(1, NUM_PROBE_TOKENS + 1, device=device) * PROBE_STRIDE % config.vocab_size)[None]


def check_patterns(keep: Sequence[str], names: Any) -> None:
    """Raise InputError for a pattern that fits none of the names."""
    for pattern in keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(f"no tensor is called {pattern!r}; `receptance info MODEL --tensors` lists the names")


class Matrix(NamedTuple):
    """A matrix that can be quantised: where it hangs, and its weight [out, in]."""

    parent: nn.Module
    attribute: str
    name: str
    weight: Tensor
    by_input: bool

    @property
    def is_factor(self) -> bool:
        return isinstance(getattr(self.parent, self.attribute), nn.Parameter)

    @property
    def fits(self) -> bool:
        """Whether its sizes are such that it can be stored in groups."""
        num_out, num_in = self.weight.shape
        return num_in % GROUP == 0 and (not self.is_factor or num_out % TILE == 0)

    def replace(self, packed: Packed, error: float | None) -> None:
        """Put a quantised layer or factor into its place."""
        old = getattr(self.parent, self.attribute)
        new: Quantised = (
            QuantFactor(packed, old.dtype) if self.is_factor else QuantLinear(packed, old.bias, old.weight.dtype)
        )
        new.error = error
        # A parameter gives way to a module of the same name.
        delattr(self.parent, self.attribute)
        setattr(self.parent, self.attribute, new.train(self.parent.training))


class Walk:
    """On the way through a model with a few tokens.

    Each block is computed as it is and then quantised, so that the next one sees what the original would give it.

    to       the format that matrices are wanted in
    x        [1, T, C], the tokens' embeddings
    """

    def __init__(self, config: Config, to: str, keep: Sequence[str], x: Tensor) -> None:
        self.format, self.keep, self.x = format_of(to), tuple(keep), x
        self.v_first: Tensor | None = None
        self.state = State.zeros(config.replace(num_layers=1), 1, x.device, x.dtype)

    def block(self, block: nn.Module, prefix: str) -> None:
        """Take the tokens through a block, and quantise it."""
        found = list(matrices(block, prefix))
        with _Inputs(found) as seen:
            self.x, self.v_first, _, _ = block(self.x, self.v_first, self.state.shift[0], self.state.wkv[0], Rows())
        self._replace(found, seen.inputs)

    def head(self, model: RWKV) -> None:
        """Quantise the head, behind the last block."""
        matrix = Matrix(model, "head", "head.weight", model.head.weight, by_input=False)
        self._replace([matrix], {matrix.name: model.ln_out(self.x)[0]})

    def _replace(self, found: Sequence[Matrix], inputs: dict[str, Tensor]) -> None:
        for matrix in found:
            kept = any(fnmatchcase(matrix.name, pattern) for pattern in self.keep)
            if not kept and matrix.fits:
                wanted = INT8 if matrix.is_factor else self.format
                packed, error = _best(matrix, inputs[matrix.name].float(), wanted)
                if packed is not None:
                    matrix.replace(packed, error)


def matrices(module: nn.Module, prefix: str = "") -> Iterator[Matrix]:
    """All linear layers and low-rank factors of a model, or of a part of it whose names begin with `prefix`."""
    for path, part in list(module.named_modules()):
        start = f"{prefix}{path}." if path else prefix
        sparse = part.sparse_inputs if isinstance(part, Part) else frozenset[str]()
        for child, layer in part.named_children():
            if isinstance(layer, nn.Linear):
                yield Matrix(part, child, f"{start}{child}.weight", layer.weight.detach(), child in sparse)
        if isinstance(part, Part):
            for attribute, parameter in list(part.named_parameters(recurse=False)):
                if parameter.dim() == 2 and attribute not in part.elementwise:
                    yield Matrix(part, attribute, f"{start}{attribute}", parameter.detach().mT, False)


def quantised_layers(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Quantised]]:
    """The quantised matrices of a model, or of a part of it, by their official names."""
    for path, layer in module.named_modules():
        if isinstance(layer, Quantised):
            name = (prefix + path).removesuffix(".")
            yield (f"{name}.weight" if isinstance(layer, nn.Linear) else name), layer


class _Inputs(TorchFunctionMode):
    """What the matrices are multiplied with meanwhile: name -> [T, in]."""

    def __init__(self, matrices: Sequence[Matrix]) -> None:
        super().__init__()
        # By address: what a module hands to a function need not be the very object that it keeps.
        self._names = {matrix.weight.data_ptr(): matrix.name for matrix in matrices}
        self.inputs: dict[str, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.linear, *MATMULS) and args[1].data_ptr() in self._names:
            self.inputs[self._names[args[1].data_ptr()]] = args[0].flatten(0, -2)
        return func(*args, **(kwargs or {}))


def _best(matrix: Matrix, x: Tensor, wanted: Format) -> tuple[Packed | None, float]:
    """The matrix in the lowest precision from `wanted` on that does no harm, with its error; None: in none."""
    before = F.linear(x, matrix.weight.to(x.dtype))
    formats = [format for format in FORMATS.values() if format.num_bits >= wanted.num_bits]
    for format in sorted(formats, key=lambda format: format.num_bits):
        packed = pack(matrix.weight, format, matrix.by_input)
        error = _error(before, multiply(x, packed))
        if error <= LIMITS[format.name]:
            return packed, error
    return None, 0.0


def _error(before: Tensor, after: Tensor) -> float:
    """The squared error as a share of the squares, each token's at most 1, averaged: no token outweighs the others."""
    wrong, whole = (after - before).square().sum(-1), before.square().sum(-1)
    share = torch.where(wrong == 0, 0.0, (wrong / whole).clamp(max=1.0))
    return float(share.mean())
