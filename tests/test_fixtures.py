"""Weights that others trained give what others computed with them; both lie in `../shared/fixtures`."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from receptance import Config
from receptance.checkpoints import load_model
from receptance.models.layers import Rows
from receptance.models.rwkv7 import ChannelMix, TimeMix

PROMPT = torch.tensor([[34, 105, 110]])
# The RWKV-5 file was trained and its logits computed before the official epsilon became 64e-5.
TINY = {"4v0-660K": {}, "5v2-730K": {"group_norm_eps": 1e-5}, "6v0-1m": {}}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_trained_models_give_the_expected_logits(name: str, dtype: torch.dtype, fixtures: Path) -> None:
    model = load_model(fixtures / f"tiny/tiny-rwkv-{name}-FP32.pth", dtype=dtype, **TINY[name])
    expected = torch.from_numpy(np.fromfile(fixtures / f"tiny/expected-logits-{name}.bin", "<f4"))
    whole, _ = model(PROMPT)
    assert float((whole[0, -1] - expected).abs().max()) < 1e-5

    state = None
    for token in PROMPT[0]:
        logits, state = model(token.view(1, 1), state)
    assert float((logits[0, -1] - expected).abs().max()) < 1e-5


@torch.no_grad()
def test_the_epsilon_of_the_group_norm_matters(fixtures: Path) -> None:
    """Were it not used, the test above could pass for a wrong reason."""
    expected = torch.from_numpy(np.fromfile(fixtures / "tiny/expected-logits-5v2-730K.bin", "<f4"))
    model = load_model(fixtures / "tiny/tiny-rwkv-5v2-730K-FP32.pth")
    assert float((model(PROMPT)[0][0, -1] - expected).abs().max()) > 0.1


class Reverser(nn.Module):
    """The digit reverser of RWKV-LM: RWKV-7 without `ln0`, and with biases on each `att.output` and on the head."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.emb = nn.Embedding(config.vocab_size, config.dim)
        self.blocks = nn.ModuleList(self._block(layer) for layer in range(config.num_layers))
        self.ln_out = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocab_size)

    def _block(self, layer: int) -> nn.ModuleDict:
        att, ffn = TimeMix(self.config, layer), ChannelMix(self.config, layer)
        att.output = nn.Linear(self.config.dim, self.config.dim)
        norms = {name: nn.LayerNorm(self.config.dim) for name in ("ln1", "ln2")}
        return nn.ModuleDict({"att": att, "ffn": ffn, **norms})

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> logits [B, T, V], from an empty state."""
        x, v_first = self.emb(tokens), None
        empty = x.new_zeros(len(x), self.config.dim)
        for block in self.blocks:
            S = x.new_zeros(len(x), *self.config.state_shape)
            dx, v_first, _, _ = block["att"](block["ln1"](x), v_first, empty, S, Rows())
            x = x + dx
            x = x + block["ffn"](block["ln2"](x), empty, Rows())[0]
        logits: Tensor = self.head(self.ln_out(x))
        return logits


@pytest.fixture(scope="module")
def reverser(fixtures: Path) -> Reverser:
    weights = torch.load(
        fixtures / "reverse/260123_reverse_L2_only_rwkv7.blinkdl.pth", map_location="cpu", weights_only=True
    )
    ranks = {"decay_rank": 8, "rate_rank": 8, "value_rank": 8, "gate_rank": 8}
    model = Reverser(Config(version="7", vocab_size=12, num_layers=2, dim=32, head_size=16, **ranks))
    # As in all official files, the first layer's value residual is there and means nothing.
    unused = {f"blocks.0.att.v{i}" for i in range(3)}
    model.load_state_dict({name: tensor for name, tensor in weights.items() if name not in unused}, strict=True)
    return model


def reversals(rng: random.Random) -> Iterator[str]:
    """Ten numbers of 1 to 60 digits each: `12345,54321#`, as the model's own script draws them."""
    for digits in range(1, 61):
        for _ in range(10):
            number = str(rng.randint(10 ** (digits - 1) if digits > 1 else 0, 10**digits - 1))
            yield f"{number},{number[::-1]}#"


def right_answers(model: nn.Module, texts: list[str]) -> int:
    """How many characters after the comma are the likeliest where all before them are given."""
    longest = max(map(len, texts))
    ids = torch.tensor([["0123456789,#".index(c) for c in text.ljust(longest, "#")] for text in texts])
    guessed = model(ids[:, :-1]).argmax(-1)
    right = 0
    for text, row, guess in zip(texts, ids, guessed, strict=True):
        answer = slice(text.index(","), len(text) - 1)
        right += int((row[1:][answer] == guess[answer]).sum())
    return right


@torch.no_grad()
def test_the_trained_rwkv7_reverses_every_digit(reverser: Reverser) -> None:
    texts = list(reversals(random.Random(42)))
    assert sum(len(text) - 1 - text.index(",") for text in texts) == 18_900
    # Those of about the same length together, so that little is padded.
    assert sum(right_answers(reverser, texts[i : i + 50]) for i in range(0, len(texts), 50)) == 18_900


@torch.no_grad()
def test_without_its_biases_it_fails(reverser: Reverser) -> None:
    """Most answers are wrong then: the count above does tell a right model from a slightly wrong one."""
    biases = [layer.bias for layer in (reverser.head, *(block["att"].output for block in reverser.blocks))]
    kept = [bias.clone() for bias in biases]
    texts = list(reversals(random.Random(42)))[::10]
    try:
        for bias in biases:
            bias.zero_()
        right = right_answers(reverser, texts)
    finally:
        for bias, values in zip(biases, kept, strict=True):
            bias.copy_(values)
    assert right < 0.6 * sum(len(text) - 1 - text.index(",") for text in texts)
