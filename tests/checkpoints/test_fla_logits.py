"""flash-linear-attention's own layers compute our logits from a folder of ours.

Its kernels need a GPU, so that the plain forms that it ships beside them, or write-outs of them, take their place here;
everything that says which tensor goes where is its own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from receptance import Config
from receptance.checkpoints import convert, load_model

from .weights import official_weights

pytest.importorskip("triton", reason="flash-linear-attention needs triton")
pytest.importorskip("fla", reason="flash-linear-attention is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")

CONFIGS = {
    "6": Config(version="6", vocab_size=50, num_layers=2, dim=128, ffn_dim=96, mix_rank=3, decay_rank=7),
    "7": Config(version="7", vocab_size=50, num_layers=3, dim=128, ffn_dim=96),
}


def token_shift(x: Tensor, cu_seqlens: None = None, cache: None = None, output_cache: bool = False) -> Any:
    delta = F.pad(x, (0, 0, 1, 0))[:, :-1] - x
    return (delta, x[:, -1]) if output_cache else delta


def recurrence_6(*, r: Tensor, k: Tensor, v: Tensor, w: Tensor, u: Tensor, **_: object) -> tuple[Tensor, None]:
    """r, k, v, w [B, T, H, N]; w is the logarithm of the decay."""
    naive = import_module("fla.ops.rwkv6.recurrent_naive").naive_recurrent_rwkv6
    heads_first = [tensor.transpose(1, 2) for tensor in (r, k, v, w)]
    return naive(*heads_first, u, scale=1.0)[0].transpose(1, 2), None


def recurrence_7(
    *, r: Tensor, w: Tensor, k: Tensor, v: Tensor, kk: Tensor, a: Tensor, **_: object
) -> tuple[Tensor, None]:
    """The state [B, H, K, V], as it keeps it, one token after the other."""
    batch, length, heads, size = r.shape
    state = torch.zeros(batch, heads, size, size)
    out = []
    for t in range(length):
        removed = torch.einsum("bhk,bhkv->bhv", -kk[:, t], state)
        state = state * w[:, t].exp()[..., None] + (kk * a)[:, t, ..., None] * removed[..., None, :]
        state = state + k[:, t, ..., None] * v[:, t, ..., None, :]
        out.append(torch.einsum("bhk,bhkv->bhv", r[:, t], state))
    return torch.stack(out, dim=1), None


def group_norm(self: Any, x: Tensor) -> Tensor:
    return F.group_norm(x.flatten(0, 1), self.num_groups, self.weight, self.bias, self.eps).view(x.shape)


@pytest.fixture
def plain_forms(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    six, seven = import_module("fla.layers.rwkv6"), import_module("fla.layers.rwkv7")
    models = [import_module(f"fla.models.rwkv{n}.modeling_rwkv{n}") for n in (6, 7)]
    for module in (six, seven, *models):
        monkeypatch.setattr(module, "token_shift", token_shift)
    monkeypatch.setattr(six, "fused_recurrent_rwkv6", recurrence_6)
    monkeypatch.setattr(six.GroupNorm, "forward", group_norm)
    monkeypatch.setattr(seven, "fused_mul_recurrent_rwkv7", recurrence_7)
    for name, module, plain in (
        ("fused_addcmul_rwkv7", "fused_addcmul", "torch_addcmul_rwkv7"),
        ("fused_k_rwkv7", "fused_k_update", "k_update_ref"),
        ("gate_output_correction", "gate_output_correction", "gate_output_correction_ref"),
    ):
        monkeypatch.setattr(seven, name, getattr(import_module(f"fla.ops.rwkv7.{module}"), plain))
    yield


@pytest.mark.usefixtures("plain_forms")
@pytest.mark.parametrize("version", CONFIGS)
def test_its_layers_compute_our_logits(version: str, tmp_path: Path) -> None:
    torch.save(official_weights(CONFIGS[version]), tmp_path / "official.pth")
    convert(tmp_path / "official.pth", tmp_path / "folder")
    kind = getattr(import_module("fla.models"), f"RWKV{version}ForCausalLM")
    theirs = kind.from_pretrained(tmp_path / "folder").eval()
    if version == "6":
        for layer in theirs.model.layers:
            layer.attn.gate_fn = F.silu
            layer.ffn.act_fn = lambda x: F.relu(x).square()
            # The one thing that its config.json cannot say.
            layer.attn.g_norm.eps = 64e-5
    tokens = torch.randint(50, (1, 30))
    with torch.no_grad():
        expected = theirs(tokens, use_cache=False).logits
        ours = load_model(tmp_path / "folder")(tokens)[0]
    assert float((ours - expected).abs().max()) < 1e-4 * float(expected.std())
