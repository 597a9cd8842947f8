"""Every generation equals the official runtime: logits at every position and the state, however the text is fed.

Weights are random: the official initialisation, and noise so that no matrix is zero.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from receptance import RWKV, Config, State, official
from receptance.verify import in_pieces, random_pieces, relative_difference
from tests.models.cases import noisy
from tests.oracles import OfficialRuntime, Transformers

BOUND = 1e-4  # of the logits' standard deviation; of the largest entry of each tensor of the state
LENGTH = 67  # more than one chunk of the chunked forms, and no multiple of anything

SHAPES = {
    "4": Config(version="4", vocab_size=53, num_layers=3, dim=37, ffn_dim=61),
    "4, one layer": Config(version="4", vocab_size=31, num_layers=1, dim=16),
    "5.0, heads of 5": Config(version="5.0", vocab_size=47, num_layers=2, dim=35, ffn_dim=45, head_size=5),
    "5.0, u as its logarithm": Config(
        version="5.0", vocab_size=47, num_layers=3, dim=24, ffn_dim=33, head_size=12, log_bonus=True
    ),
    "5.1, heads of 14": Config(version="5.1", vocab_size=41, num_layers=2, dim=42, ffn_dim=50, head_size=14),
    "5.1, u as its logarithm": Config(
        version="5.1", vocab_size=41, num_layers=3, dim=32, ffn_dim=96, head_size=8, log_bonus=True
    ),
    "5.2, heads of 11": Config(version="5.2", vocab_size=43, num_layers=2, dim=33, ffn_dim=77, head_size=11),
    "5.2, heads of 64": Config(version="5.2", vocab_size=60, num_layers=3, dim=128),
    "6, heads of 12": Config(
        version="6", vocab_size=59, num_layers=3, dim=36, ffn_dim=70, head_size=12, mix_rank=3, decay_rank=5
    ),
    "6, one layer": Config(version="6", vocab_size=61, num_layers=1, dim=128),
    "7, heads of 13": Config(
        version="7",
        vocab_size=57,
        num_layers=3,
        dim=39,
        ffn_dim=50,
        head_size=13,
        decay_rank=2,
        rate_rank=3,
        value_rank=5,
        gate_rank=7,
    ),
    "7, heads of 64": Config(version="7", vocab_size=60, num_layers=2, dim=128),
    "7, one layer": Config(version="7", vocab_size=29, num_layers=1, dim=16, head_size=16),
}
WAYS = {
    "whole": [LENGTH],
    "token by token": [1] * LENGTH,
    "pieces": random_pieces(LENGTH, random.Random(0)),
    "other pieces": random_pieces(LENGTH, random.Random(1)),
    "a piece, then tokens": [40, *[1] * (LENGTH - 40)],
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices of 40 x 40 are multiplied faster without waiting for other threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tokens_for(config: Config, length: int = LENGTH) -> list[int]:
    return torch.randint(config.vocab_size, (length,), generator=torch.Generator().manual_seed(1)).tolist()


@torch.no_grad()
def read(model: RWKV, ids: list[int], pieces: list[int], start: State | None = None) -> tuple[Tensor, State]:
    """Ours, in the way that the oracles read."""
    logits, state = in_pieces(model, torch.tensor([ids]), pieces, start)
    return logits[0], state


def assert_same(ours: tuple[Tensor, State], theirs: tuple[Tensor, State]) -> None:
    """Logits by their standard deviation, every tensor of the state by its largest entry."""
    assert ours[0].shape == theirs[0].shape
    assert relative_difference(ours[0], theirs[0], float(theirs[0].std())) < BOUND
    for name, tensor in _parts(ours[1]).items():
        assert relative_difference(tensor, _parts(theirs[1])[name]) < BOUND, name


def _parts(state: State) -> dict[str, Tensor]:
    """Each layer's tensors on their own, so that a large one does not cover for a small one."""
    parts = {f"shift {layer} {i}": x for layer, both in enumerate(state.shift) for i, x in enumerate(both)}
    for layer, wkv in enumerate(state.wkv):
        # RWKV-4: numerator, denominator and maximum have scales of their own.
        parts |= {f"wkv {layer} {i}": x for i, x in enumerate(wkv.unbind(1) if wkv.dim() == 3 else [wkv])}
    return parts


@pytest.fixture(scope="module", params=SHAPES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[RWKV, OfficialRuntime]:
    """One of our models, and the official runtime with the same weights."""
    pytest.importorskip("rwkv", reason="needs the official runtime: pip install rwkv")
    config = SHAPES[request.param]
    assert official.refuses(config) is None
    model = noisy(config)
    return model, OfficialRuntime(model, tmp_path_factory.mktemp("official"))


@pytest.mark.parametrize("way", WAYS)
def test_logits_and_state_are_the_official_ones(pair: tuple[RWKV, OfficialRuntime], way: str) -> None:
    model, runtime = pair
    ids = tokens_for(model.config)
    assert_same(read(model, ids, WAYS[way]), runtime.read(ids, WAYS[way]))


def test_the_shapes_cover_every_generation() -> None:
    assert {config.version for config in SHAPES.values()} == {"4", "5.0", "5.1", "5.2", "6", "7"}


@pytest.mark.parametrize("version", ["5.0", "5.1", "5.2"])
def test_one_layer_of_the_fifth_generation(version: str, tmp_path: Path) -> None:
    """The official runtime finds the heads of such a file only where it meets the norm over them first."""
    pytest.importorskip("rwkv", reason="needs the official runtime: pip install rwkv")
    config = Config(version=version, vocab_size=37, num_layers=1, dim=32, head_size=16)
    model = noisy(config)
    runtime = OfficialRuntime(model, tmp_path, first="ln_x")
    ids = tokens_for(config)
    assert_same(read(model, ids, WAYS["pieces"]), runtime.read(ids, WAYS["pieces"]))


def test_a_wider_attention_of_the_fourth_generation(tmp_path: Path) -> None:
    """The official runtime reads it token by token only."""
    pytest.importorskip("rwkv", reason="needs the official runtime: pip install rwkv")
    model = noisy(Config(version="4", vocab_size=37, num_layers=2, dim=24, attention_dim=40))
    ids = tokens_for(model.config)
    theirs = OfficialRuntime(model, tmp_path).read(ids, WAYS["token by token"])
    for way in ("whole", "token by token", "pieces"):
        assert_same(read(model, ids, WAYS[way]), theirs)


@pytest.mark.parametrize("version", ["5.2", "6"])
def test_a_tuned_state_stands_the_same_way_round(version: str, tmp_path: Path) -> None:
    """The official runtime starts from the tuned state in a file; the matrices are not symmetric."""
    pytest.importorskip("rwkv", reason="needs the official runtime: pip install rwkv")
    config = Config(version=version, vocab_size=37, num_layers=2, dim=32, head_size=16)
    model = noisy(config)
    tuned = {f"blocks.{i}.att.time_state": torch.randn(2, 16, 16) for i in range(2)}
    ids, pieces = tokens_for(config), WAYS["pieces"]
    theirs = OfficialRuntime(model, tmp_path, tuned=tuned).read(ids, pieces)
    assert_same(read(model, ids, pieces, State.from_tuned(tuned, config)), theirs)


@pytest.fixture(scope="module")
def transformers_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[RWKV, Transformers]:
    pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
    model = noisy(SHAPES["4"])
    return model, Transformers(model, tmp_path_factory.mktemp("transformers"))


@pytest.mark.parametrize("way", WAYS)
def test_logits_and_state_are_those_of_transformers(transformers_pair: tuple[RWKV, Transformers], way: str) -> None:
    model, theirs = transformers_pair
    ids = tokens_for(model.config)
    assert_same(read(model, ids, WAYS[way]), theirs.read(ids, WAYS[way]))


@torch.no_grad()
def test_a_batch_with_a_wider_attention_as_in_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="needs transformers: pip install transformers")
    model = noisy(Config(version="4", vocab_size=37, num_layers=2, dim=24, attention_dim=40, ffn_dim=56))
    ids = torch.tensor(tokens_for(model.config, 3 * LENGTH)).view(3, LENGTH)
    theirs = Transformers(model, tmp_path).logits(ids)
    assert relative_difference(model(ids)[0], theirs, float(theirs.std())) < BOUND
