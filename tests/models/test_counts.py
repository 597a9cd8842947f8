"""Sizes: parameters, operations and states, by the papers' formulas, by their tables, and counted one by one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from receptance import RWKV, Config, State, build, ops
from receptance.models import PARTS, flops_per_token, num_parameters

WORLD, PILE = 65536, 50277


def on_meta(config: Config) -> RWKV:
    """A model of names and shapes, which takes no memory."""
    with torch.device("meta"):
        model = RWKV(config)
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    return model


# The papers' parameter counts in V, D, L (RWKV-7: and the sum of the four ranks).


def parameters_4(V: int, D: int, L: int) -> int:
    """2305.13048."""
    return 2 * V * D + 13 * D**2 * L + D * (11 * L + 4)


def parameters_5(V: int, D: int, L: int) -> int:
    """2404.05892."""
    return 13 * D**2 * L + 14 * D * L + 4 * D + 2 * D * V


def parameters_6(V: int, D: int, L: int) -> int:
    """2404.05892, with ranks of 32 and 64."""
    return 13 * D**2 * L + 464 * D * L + 4 * D + 2 * D * V


def parameters_7(V: int, D: int, L: int, w: int, a: int, v: int, g: int) -> int:
    """2503.14456, less the first layer's value residual, which no computation uses."""
    everything = 2 * V * D + 4 * D + L * (12 * D**2 + 19 * D + 2 * D * (w + a + v + g))
    return everything - (D + 2 * D * v)


@pytest.mark.parametrize(("V", "D", "L"), [(50, 64, 2), (999, 192, 5), (65536, 768, 12)])
def test_parameters_by_the_papers_formulas(V: int, D: int, L: int) -> None:
    shape = {"vocab_size": V, "dim": D, "num_layers": L}
    assert num_parameters(on_meta(Config(version="4", **shape))) == parameters_4(V, D, L)
    assert num_parameters(on_meta(Config(version="5.2", **shape))) == parameters_5(V, D, L)
    assert num_parameters(on_meta(Config(version="6", **shape))) == parameters_6(V, D, L)
    ranks = {"decay_rank": 24, "rate_rank": 40, "value_rank": 8, "gate_rank": 56}
    model = on_meta(Config(version="7", **shape, **ranks))
    assert num_parameters(model) == parameters_7(V, D, L, *ranks.values())


def test_parameters_of_a_real_model_are_as_many() -> None:
    """The count on the meta device is that of a model with numbers in it."""
    for version in PARTS:
        config = Config(version=version, vocab_size=50, num_layers=2, dim=64)
        built = build(config)
        assert num_parameters(built) == num_parameters(on_meta(config))
        assert num_parameters(built) == sum(tensor.numel() for tensor in built.state_dict().values())


@pytest.mark.parametrize(
    ("preset", "parameters", "unused"),
    [("rwkv7-0.1b", 191_084_544, 768 + 2 * 768 * 32), ("rwkv7-0.4b", 450_767_872, 0)],
)
def test_parameters_of_the_released_seventh_generation(preset: str, parameters: int, unused: int) -> None:
    """The smaller count includes what its official file has for the first layer's value residual, unused."""
    assert num_parameters(on_meta(Config.preset(preset))) == parameters - unused


def printed(value: float, digits: int) -> float:
    """As a table prints it: `digits` after the point of the power of ten."""
    return float(f"{value:.{digits}e}")


# 2305.13048: layers, width, parameters, forward operations for one token; four digits as printed.
TABLE_4 = {
    "rwkv4-169m": (12, 768, 1.693e8, 2.613e8),
    "rwkv4-430m": (24, 1024, 4.304e8, 7.573e8),
    "rwkv4-1.5b": (24, 2048, 1.515e9, 2.823e9),
    "rwkv4-3b": (32, 2560, 2.985e9, 5.710e9),
    "rwkv4-7b": (32, 4096, 7.393e9, 1.437e10),
    "rwkv4-14b": (40, 5120, 1.415e10, 2.778e10),
}


@pytest.mark.parametrize("preset", TABLE_4)
def test_the_fourth_generations_table(preset: str) -> None:
    layers, width, parameters, flops = TABLE_4[preset]
    config = Config.preset(preset)
    assert (config.version, config.num_layers, config.dim, config.vocab_size) == ("4", layers, width, PILE)
    model = on_meta(config)
    assert printed(num_parameters(model), 3) == parameters
    assert printed(flops_per_token(model), 3) == flops


# 2404.05892: layers, width, numbers in the state, parameters, operations of inference, of training.
TABLE_5_AND_6 = {
    "rwkv5-0.4b": (24, 1024, 1_622_016, 4.62e8, 9.33e8, 2.80e9),
    "rwkv5-1.5b": (24, 2048, 3_244_032, 1.58e9, 3.17e9, 9.52e9),
    "rwkv5-3b": (32, 2560, 5_406_720, 3.06e9, 6.16e9, 1.85e10),
    "rwkv5-7b": (32, 4096, 8_650_752, 7.52e9, 1.51e10, 4.53e10),
    "rwkv6-1.6b": (24, 2048, 3_244_032, 1.60e9, 3.22e9, 9.66e9),
    "rwkv6-3b": (32, 2560, 5_406_720, 3.10e9, 6.23e9, 1.87e10),
}


@pytest.mark.parametrize("preset", TABLE_5_AND_6)
def test_the_fifth_and_sixth_generations_table(preset: str) -> None:
    """The paper counts two operations for every parameter, and 6 D^2 / h in each layer for the recurrence."""
    layers, width, numbers, parameters, inference, training = TABLE_5_AND_6[preset]
    config = Config.preset(preset)
    assert (config.num_layers, config.dim, config.vocab_size) == (layers, width, WORLD)
    model = on_meta(config)
    recurrence = layers * PARTS[config.version][0].recurrence_flops(config)
    assert recurrence == 6 * width**2 * layers // config.num_heads
    flops = 2 * num_parameters(model) + recurrence
    assert printed(num_parameters(model), 2) == parameters
    assert printed(flops, 2) == inference
    assert printed(3 * flops, 2) == training
    # Ours leaves out what is looked up or multiplied elementwise, of which the embedding is nearly all.
    assert 0 < flops - flops_per_token(model) - 2 * WORLD * width < 0.001 * flops
    assert sum(tensor.numel() for tensor in State.zeros(config, 1, device="meta")) == numbers


@pytest.mark.parametrize("version", PARTS)
def test_the_size_of_the_state(version: str) -> None:
    """L (2 D + 64 D) with the usual head size, 5 L D for RWKV-4; and every number has four bytes."""
    L, D = 3, 128
    state = State.zeros(Config(version=version, vocab_size=9, num_layers=L, dim=D), rows=2)
    numbers = 5 * L * D if version == "4" else 66 * L * D
    assert sum(tensor.numel() for tensor in state) == 2 * numbers
    assert state.num_bytes == 2 * numbers * 4


def shapes() -> Iterator[Config]:
    """Sizes that are all different, so that no product can be mistaken for another."""
    for version in PARTS:
        yield Config(version=version, vocab_size=101, num_layers=2, dim=48, ffn_dim=56, head_size=16)
    yield Config(version="4", vocab_size=101, num_layers=3, dim=24, attention_dim=40, ffn_dim=56)
    yield Config(version="6", vocab_size=101, num_layers=2, dim=48, attention_dim=64, head_size=16, mix_rank=5)


@contextlib.contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """PyTorch's own count of the operations in matrix products, with the recurrence as a plain loop."""
    with torch.no_grad(), ops.use("reference"), FlopCounterMode(display=False) as counter:
        yield counter


def recurrence_products(config: Config) -> int:
    """What the reference loop does in matrix products in one layer and for one token."""
    if config.version == "4":
        return 0
    x, S = torch.rand(1, 1, config.num_heads, config.head_size), torch.rand(1, *config.state_shape)
    with counted() as counter:
        if config.version == "7":
            ops.wkv7(x, -x, x, x, x, x, S)
        else:
            ops.wkv6(x, -x, x, x, S)
    return counter.get_total_flops()


@pytest.mark.parametrize("config", list(shapes()), ids=lambda config: f"{config.version}, A = {config.attention_dim}")
def test_operations_are_those_that_are_done(config: Config) -> None:
    model = build(config)
    with counted() as counter:
        model(torch.tensor([[1]]))
    done = counter.get_total_flops() - config.num_layers * recurrence_products(config)
    ours = config.num_layers * PARTS[config.version][0].recurrence_flops(config)
    assert flops_per_token(model) - ours == done > 0


class _OfTheState(TorchDispatchMode):
    """Counts operations whose result has the shape of the state, and products of the state with a vector."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.count = shape, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        packet = function.overloadpacket
        if packet in (torch.ops.aten.mul, torch.ops.aten.add) and result.shape == self.shape:
            self.count += result.numel()
        if packet in (torch.ops.aten.bmm, torch.ops.aten.mm):
            self.count += 2 * args[0].numel() * args[1].shape[-1]
        return result


def test_operations_of_the_seventh_generations_recurrence() -> None:
    config = Config(version="7", vocab_size=9, num_layers=1, dim=48, head_size=16)
    x, S = torch.rand(1, 1, config.num_heads, config.head_size), torch.rand(1, *config.state_shape)
    with ops.use("reference"), _OfTheState(S.shape) as counter:
        ops.wkv7(x, -x, x, x, x, x, S)
    assert counter.count == PARTS["7"][0].recurrence_flops(config)
