"""A block can be traced at one token into a graph without branches, which `runtime` will compile; torch.compile too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, fx, nn

from receptance import ops
from receptance.models import RWKV, Block
from receptance.models.layers import Rows
from tests.ops.cases import relative

from .cases import CONFIGS, small, used


class Leaves(fx.Tracer):
    """Ops and layers stay whole."""

    def __init__(self) -> None:
        super().__init__(autowrap_functions=tuple(ops.OPS.values()))

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, nn.Linear | nn.LayerNorm | nn.GroupNorm | nn.Identity)


class Step(nn.Module):
    """One block, one token, no ragged rows."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, v_first: Tensor | None, shift: Tensor, wkv: Tensor) -> tuple[Tensor | None, ...]:
        return self.block(x, v_first, shift, wkv, Rows())


def trace(model: RWKV, layer: int) -> fx.GraphModule:
    step = Step(model.blocks[layer])
    graph = Leaves().trace(step, {"v_first": None} if layer == 0 else None)
    return fx.GraphModule(step, graph)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_blocks_trace_to_the_same_numbers(name: str) -> None:
    model = small(name)
    state = used(model, 2)
    x = torch.randn(2, 1, 16, dtype=torch.float64)
    v_first: Tensor | None = None
    for layer, block in enumerate(model.blocks):
        graph = trace(model, layer)
        inputs = (x, v_first, state.shift[layer], state.wkv[layer])
        want = block(*inputs, Rows())
        got = graph(*inputs)
        assert all((w is None and g is None) or relative(g, w) < 1e-12 for g, w in zip(got, want, strict=True))
        called = {node.target for node in graph.graph.nodes if node.op == "call_function"}
        assert ops.token_shift in called
        assert called & {ops.wkv4, ops.wkv6, ops.wkv7}, "the recurrence was traced through"
        x, v_first = want[0], want[1]


@pytest.mark.parametrize("name", ["4", "6", "7"])
def test_the_whole_graph_compiles(name: str) -> None:
    """No graph break, forward and backward (the backend that only records: code generation is PyTorch's affair)."""
    model = small(name)
    tokens = torch.randint(31, (2, 33))
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    want, got = model(tokens)[0], compiled(tokens)[0]
    assert relative(got, want) < 1e-12
    got.sum().backward()
