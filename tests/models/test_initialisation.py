"""The official initialisation, number by number, and which parameters learn faster or decay.

The formulas are written here once more, one channel at a time in plain Python, from the papers and the official code.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from receptance import RWKV, Config, build

CONFIGS = {
    "4": Config(version="4", vocab_size=48, num_layers=3, dim=32),
    "4 wide attention, small vocabulary": Config(version="4", vocab_size=9, num_layers=2, dim=16, attention_dim=24),
    "5.0": Config(version="5.0", vocab_size=48, num_layers=3, dim=32, head_size=8),
    "5.0 log bonus": Config(version="5.0", vocab_size=48, num_layers=3, dim=32, head_size=4, log_bonus=True),
    "5.1": Config(version="5.1", vocab_size=48, num_layers=2, dim=32, attention_dim=48, head_size=8),
    "5.2": Config(version="5.2", vocab_size=48, num_layers=3, dim=32, head_size=8),
    "5.2 wide attention": Config(version="5.2", vocab_size=48, num_layers=2, dim=32, attention_dim=48, head_size=16),
    "6": Config(version="6", vocab_size=48, num_layers=3, dim=32, head_size=8),
    # Some ranks above the width: those factors are taller than wide and get a larger gain.
    "7": Config(version="7", vocab_size=48, num_layers=3, dim=32, head_size=8, decay_rank=8, gate_rank=48),
    "7 small vocabulary": Config(version="7", vocab_size=20, num_layers=2, dim=32, head_size=16),
}

Channel = Callable[[int], float]


def vectors(config: Config, layer: int) -> dict[str, Channel]:
    """What channel i of each vector of a layer starts at."""
    C, A, L, N = config.dim, config.attention_dim, config.num_layers, config.head_size
    r0, r1 = layer / (L - 1), 1 - layer / L
    version = config.version
    found: dict[str, Channel] = {}
    for norm in ("ln1", "ln2", *(["ln0"] if layer == 0 else [])):
        found |= {f"{norm}.weight": lambda i: 1.0, f"{norm}.bias": lambda i: 0.0}
    if version != "4":
        found |= {"att.ln_x.weight": lambda i: ((1 + layer) / L) ** 0.7, "att.ln_x.bias": lambda i: 0.0}
    if version == "7":
        return found | _vectors_7(config, layer, r0, r1)

    mixes: dict[str, Channel] = {
        "k": lambda i: (i / C) ** r1,
        "v": lambda i: (i / C) ** r1 + 0.3 * r0,
        "r": lambda i: (i / C) ** (0.5 * r1),
        "g": lambda i: (i / C) ** (0.5 * r1),
    }
    if version == "6":
        mixes |= {"x": mixes["k"], "w": mixes["k"]}
        found |= {f"att.time_maa_{name}": lambda i, mix=mix: 1 - mix(i) for name, mix in mixes.items()}
        found |= {f"ffn.time_maa_{name}": lambda i: 1 - (i / C) ** (r1**3) for name in "kr"}
    else:
        names = "kvrg" if version in ("5.1", "5.2") else "kvr"
        found |= {f"att.time_mix_{name}": mixes[name] for name in names}
        found |= {f"ffn.time_mix_{name}": mixes["k"] for name in "kr"}

    if version == "4":
        found["att.time_decay"] = lambda n: -5 + 8 * (n / (A - 1)) ** (0.7 + 1.3 * r0)
        found["att.time_first"] = lambda n: math.log(0.3) + 0.5 * ((n + 1) % 3 - 1)
        return found
    width = A // N if version in ("5.0", "5.1") else A
    found["att.time_decay"] = lambda n: -6 + 5 * (n / (width - 1)) ** (0.7 + 1.3 * r0)
    if config.log_bonus:
        found["att.time_first"] = lambda h: -3.0
    elif version in ("5.0", "5.1"):
        found["att.time_faaaa"] = lambda h: r0 * (1 - h / (width - 1))
    else:
        found["att.time_faaaa"] = lambda n: r0 * (1 - n / (width - 1)) + 0.1 * ((n + 1) % 3 - 1)
    return found


def _vectors_7(config: Config, layer: int, r0: float, r1: float) -> dict[str, Channel]:
    C, N = config.dim, config.head_size

    def linear(n: int) -> float:
        return n / (C - 1) - 0.5

    def zigzag(n: int) -> float:
        z = ((n % N) - (N - 1) / 2) / ((N - 1) / 2)
        return z * abs(z)

    found: dict[str, Channel] = {
        "att.x_r": lambda i: 1 - (i / C) ** (0.2 * r1),
        "att.x_g": lambda i: 1 - (i / C) ** (0.2 * r1),
        "att.x_w": lambda i: 0.9,
        "att.x_a": lambda i: 0.9,
        "att.x_k": lambda i: 0.7,
        "att.x_v": lambda i: 0.7,
        "ffn.x_k": lambda i: 1 - (i / C) ** (r1**4),
        "att.w0": lambda n: -6 + 6 * (n / (C - 1)) ** (1 + r0**0.3) + 0.5 + 2.5 * zigzag(n),
        "att.a0": lambda n: -0.19 + 0.3 * zigzag(n) + 0.4 * linear(n),
        "att.k_k": lambda n: 0.71 - 0.1 * linear(n),
        "att.k_a": lambda n: 1.02,
        "att.r_k": lambda n: -0.04,
    }
    if layer > 0:
        found["att.v0"] = lambda n: 0.73 - 0.4 * linear(n)
    return found


def gains(config: Config, layer: int) -> dict[str, float]:
    """The gain of each orthogonal matrix of a layer; 0: a matrix of zeros."""
    C, A, F = config.dim, config.attention_dim, config.ffn_dim

    def tall(rows: int, columns: int) -> float:
        return math.sqrt(max(1, rows / columns))

    if config.version == "7":
        ranks = {"w": config.decay_rank, "a": config.rate_rank, "g": config.gate_rank}
        if layer > 0:
            ranks["v"] = config.value_rank
        found = {f"att.{name}1": 0.0 for name in ranks}
        found |= {f"att.{name}2": 0.1 * tall(rank, C) for name, rank in ranks.items()}
        found |= {"att.receptance.weight": 1.0, "att.value.weight": 1.0, "att.key.weight": 0.1}
        return found | {"att.output.weight": 0.0, "ffn.key.weight": 1.0, "ffn.value.weight": 0.0}

    found = {"att.output.weight": 0.0, "ffn.receptance.weight": 0.0, "ffn.value.weight": 0.0}
    if config.version in ("5.2", "6"):
        found |= {"att.receptance.weight": 1.0, "att.value.weight": 1.0, "ffn.key.weight": 1.0}
        found |= {"att.key.weight": 0.1, "att.gate.weight": 0.1}
        if config.version == "6":
            found |= {"att.time_maa_w1": 0.0, "att.time_decay_w1": 0.0}
        return found
    found |= {"att.value.weight": tall(A, C), "ffn.key.weight": tall(F, C)}
    if config.version == "4":
        return found | {"att.key.weight": 0.0, "att.receptance.weight": 0.0}
    others = ("key", "receptance", "gate") if config.version == "5.1" else ("key", "receptance")
    return found | {f"att.{name}.weight": tall(A, C) for name in others}


def bounds(config: Config) -> dict[str, float]:
    """The bound of each uniform matrix of a layer."""
    return {"att.time_maa_w2": 0.01, "att.time_decay_w2": 0.01} if config.version == "6" else {}


def assert_orthogonal(matrix: Tensor, gain: float) -> None:
    matrix = matrix.double()
    small = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    torch.testing.assert_close(small, gain**2 * torch.eye(len(small), dtype=torch.float64), atol=1e-5, rtol=0)


def assert_uniform(matrix: Tensor, bound: float) -> None:
    matrix = matrix.detach()
    assert float(matrix.abs().max()) <= bound
    # Of hundreds of numbers some come near the bound, and the spread is that of a uniform distribution.
    assert float(matrix.max()) > 0.95 * bound and float(matrix.min()) < -0.95 * bound
    assert float(matrix.std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> RWKV:
    return build(CONFIGS[request.param])


def test_every_parameter_of_a_layer_has_one_rule(model: RWKV) -> None:
    for layer, block in enumerate(model.blocks):
        rules = [*vectors(model.config, layer), *gains(model.config, layer), *bounds(model.config)]
        assert sorted(rules) == sorted(name for name, _ in block.named_parameters())


def test_vectors(model: RWKV) -> None:
    for layer, block in enumerate(model.blocks):
        for name, formula in vectors(model.config, layer).items():
            got = block.get_parameter(name).flatten().double()
            expected = torch.tensor([formula(i) for i in range(len(got))], dtype=torch.float64)
            torch.testing.assert_close(got, expected, atol=3e-6, rtol=3e-6, msg=lambda m, n=name: f"{n} {m}")


def test_matrices(model: RWKV) -> None:
    for layer, block in enumerate(model.blocks):
        for name, gain in gains(model.config, layer).items():
            if gain == 0:
                assert not block.get_parameter(name).any(), name
            else:
                assert_orthogonal(block.get_parameter(name), gain)
        for name, bound in bounds(model.config).items():
            assert_uniform(block.get_parameter(name), bound)


def test_embedding_head_and_last_norm(model: RWKV) -> None:
    V, D = model.config.vocab_size, model.config.dim
    assert_uniform(build(model.config.replace(vocab_size=500)).emb.weight, 1e-4)
    emb = model.emb.weight.detach()
    assert float(emb.abs().max()) <= 1e-4 and emb.any()
    assert_orthogonal(model.head.weight, 0.5 * math.sqrt(V / D) if V > D else 0.5)
    assert bool((model.ln_out.weight == 1).all()) and not model.ln_out.bias.any()


def test_the_first_trainer_put_its_learning_rate_into_the_embedding() -> None:
    assert_uniform(build(CONFIGS["4"].replace(vocab_size=500), emb_scale=6e-4).emb.weight, 6e-4)


def test_layers_and_seeds_differ_and_a_seed_repeats(model: RWKV) -> None:
    name = "ffn.key.weight"
    first, second = (block.get_parameter(name) for block in model.blocks[:2])
    assert not torch.allclose(first, second)
    torch.manual_seed(1)
    one = build(model.config).state_dict()
    torch.manual_seed(1)
    same = build(model.config).state_dict()
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one[f"blocks.0.{name}"], first)


def test_in_half_precision_it_is_the_same_rounded() -> None:
    config = CONFIGS["7"]
    half = build(config, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    for (name, got), wanted in zip(half.named_parameters(), build(config).parameters(), strict=True):
        if got.squeeze().dim() < 2:
            assert torch.equal(got, wanted.bfloat16()), name


def test_one_layer_has_finite_values() -> None:
    """The official code divides by L - 1; where L is 1 the first layer of many is what comes nearest."""
    for config in CONFIGS.values():
        one = build(config.replace(num_layers=1))
        assert all(bool(parameter.isfinite().all()) for parameter in one.parameters())


# Parameters with a learning rate of their own, and those that decay, as the official trainers choose them by name;
# all others learn at the common rate and do not decay.
FASTER = {
    "4": {"time_decay": 2.0, "time_first": 3.0},
    "5.0": {"time_decay": 2.0},
    "5.0 log bonus": {"time_decay": 2.0, "time_first": 3.0},
    "5.1": {"time_decay": 2.0},
    "5.2": {"time_decay": 2.0},
    "6": {"time_decay": 2.0},
    "7": {"w0": 2.0},
}
DECAYING = {
    "4": ["att.key", "att.value", "att.receptance", "att.output", "ffn.key", "ffn.receptance", "ffn.value"],
    "7": ["att.key", "att.value", "att.receptance", "att.output", "ffn.key", "ffn.value"],
}
DECAYING |= {"5.0": DECAYING["4"], "5.0 log bonus": DECAYING["4"]}
DECAYING |= {name: [*DECAYING["4"], "att.gate"] for name in ("5.1", "5.2", "6")}


@pytest.mark.parametrize("name", FASTER)
def test_groups_of_the_optimiser(name: str) -> None:
    model = build(CONFIGS[name])
    layers = range(len(model.blocks))
    faster = {f"blocks.{i}.att.{part}": multiple for i in layers for part, multiple in FASTER[name].items()}
    decaying = {"emb.weight", "head.weight"} | {f"blocks.{i}.{part}.weight" for i in layers for part in DECAYING[name]}
    parameters = dict(model.named_parameters())
    assert faster.keys() | decaying <= parameters.keys()

    groups = model.param_groups(lr=0.5, weight_decay=0.25)
    got = {member: group for group in groups for member in group["names"]}
    assert sorted(member for group in groups for member in group["names"]) == sorted(parameters)
    for member, group in got.items():
        multiple = faster.get(member, 1.0)
        assert (group["lr_multiple"], group["lr"]) == (multiple, 0.5 * multiple), member
        assert group["weight_decay"] == (0.25 if member in decaying else 0.0), member
    for group in groups:
        assert len(group["params"]) == len(group["names"])
        assert all(p is parameters[member] for p, member in zip(group["params"], group["names"], strict=True))


def test_groups_leave_out_what_is_frozen_and_drive_an_optimiser() -> None:
    model = build(CONFIGS["7"])
    model.emb.weight.requires_grad_(False)
    groups = model.param_groups(lr=0.01)
    assert "emb.weight" not in {name for group in groups for name in group["names"]}
    assert {group["weight_decay"] for group in groups} == {0.0}
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimiser = torch.optim.SGD(groups)
    # Every gradient is 1, so that the step of each parameter is its learning rate.
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    for name, parameter in model.named_parameters():
        step = 0.0 if name == "emb.weight" else 0.02 if name.endswith("w0") else 0.01
        torch.testing.assert_close(before[name] - parameter, torch.full_like(parameter, step))


def test_the_checks_can_fail() -> None:
    with pytest.raises(AssertionError):
        assert_orthogonal(nn.init.orthogonal_(torch.empty(6, 4)) * 1.01, 1.0)
    with pytest.raises(AssertionError):
        assert_uniform(torch.rand(500), 1.0)
