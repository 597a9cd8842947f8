"""The shape of one model, whatever its generation.

    Config.preset("rwkv7-0.1b")
    Config(version="7", vocab_size=256, num_layers=4, dim=192)

Nothing here says how a model computes; that is `models/`.  A checkpoint's shape is read off its tensors by
`checkpoints/detect.py`, so that a Config is rarely written by hand.
"""

from __future__ import annotations

import difflib
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import ConfigError

VERSIONS = ("4", "5.0", "5.1", "5.2", "6", "7")
RANKS = ("mix_rank", "decay_rank", "rate_rank", "value_rank", "gate_rank")
RANKS_OF = {"6": ("mix_rank", "decay_rank"), "7": ("decay_rank", "rate_rank", "value_rank", "gate_rank")}


def _rank(dim: int, factor: float) -> int:
    """`factor * sqrt(dim)` to the nearest multiple of 32 (a tie goes to the even one), at least 32."""
    return max(32, round(factor * math.sqrt(dim) / 32) * 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Sizes of a model.  Zeros are filled in with what the generation's official code would choose.

    version       "4", "5.0", "5.1", "5.2", "6" or "7"
    vocab_size    V, rows of the embedding and of the head
    num_layers    L
    dim           C, width of the residual stream
    attention_dim A, width of the time mix; C unless said
    ffn_dim       F, width of the channel mix; 4C (RWKV-4, 7) or 3.5C rounded down to a multiple of 32 (5, 6)
    head_size     N, side of a head's state matrix; RWKV-4 has no heads and ignores it
    mix_rank      RWKV-6: rank of the data-dependent token shift
    decay_rank    RWKV-6 and 7: rank of the data-dependent decay
    rate_rank, value_rank, gate_rank
                  RWKV-7: ranks of the in-context learning rate, the value residual and the gate
    log_bonus     RWKV-5.0 and 5.1: the bonus u is stored as its logarithm (`time_first`), not as `time_faaaa`
    norm_eps      epsilon of the layer norms
    group_norm_eps
                  epsilon of the norm over each head's output (RWKV-5 and later)

    Raises ConfigError where the sizes do not fit together.
    """

    version: str
    vocab_size: int
    num_layers: int
    dim: int
    attention_dim: int = 0
    ffn_dim: int = 0
    head_size: int = 64
    mix_rank: int = 0
    decay_rank: int = 0
    rate_rank: int = 0
    value_rank: int = 0
    gate_rank: int = 0
    log_bonus: bool = False
    norm_eps: float = 1e-5
    group_norm_eps: float = 64e-5

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise ConfigError(f"RWKV version {self.version!r} is not one of {', '.join(VERSIONS)}")
        for name, value in (self._defaults() | self._fixed()).items():
            if getattr(self, name) == 0 or name in self._fixed():
                object.__setattr__(self, name, value)
        self._check()

    def _fixed(self) -> dict[str, Any]:
        """Fields that the generation has no use for, at the value that makes equal models equal Configs."""
        return {"head_size": 64, "group_norm_eps": 64e-5} if self.version == "4" else {}

    def _defaults(self) -> dict[str, int]:
        """What a size that was left at 0 becomes."""
        wide = self.version in ("4", "7")
        sizes = {"attention_dim": self.dim, "ffn_dim": 4 * self.dim if wide else int(self.dim * 3.5) // 32 * 32}
        if self.version == "6":
            # Eagle and Finch (2404.05892) double both ranks from 4096 channels on.
            scale = 2 if self.dim >= 4096 else 1
            sizes |= {"mix_rank": 32 * scale, "decay_rank": 64 * scale}
        if self.version == "7":
            factors = {"decay_rank": 2.5, "rate_rank": 2.5, "value_rank": 1.7, "gate_rank": 5.0}
            sizes |= {name: _rank(self.dim, factor) for name, factor in factors.items()}
        return sizes

    def _check(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (type(value) is not int or value < 0):
                raise ConfigError(f"{field.name} is {value!r}; it must be a whole number, 0 or more")
        for name in ("norm_eps", "group_norm_eps"):
            epsilon = getattr(self, name)
            if not isinstance(epsilon, float) or not 0 < epsilon < 1:
                raise ConfigError(f"{name} is {epsilon!r}; an epsilon is a number between 0 and 1")
        for name in set(RANKS) - set(RANKS_OF.get(self.version, ())):
            if getattr(self, name):
                raise ConfigError(f"RWKV-{self.version} has no {name}; leave it at 0")
        for name in ("vocab_size", "num_layers", "dim", "head_size", "ffn_dim"):
            if getattr(self, name) == 0:
                raise ConfigError(f"{name} is 0; a model needs at least 1")
        if self.version != "4" and self.attention_dim % self.head_size:
            raise ConfigError(
                f"a time mix of {self.attention_dim} channels cannot be cut into heads of {self.head_size}; "
                f"choose a head size that divides it"
            )
        if self.version == "7" and self.attention_dim != self.dim:
            raise ConfigError(f"RWKV-7 has no attention width of its own; leave attention_dim at {self.dim}")
        if self.log_bonus and self.version not in ("5.0", "5.1"):
            raise ConfigError(f"log_bonus is a property of RWKV-5.0 and 5.1 files; RWKV-{self.version} has none")

    @property
    def num_heads(self) -> int:
        """H; 0 for RWKV-4, which has none."""
        return 0 if self.version == "4" else self.attention_dim // self.head_size

    @property
    def state_shape(self) -> tuple[int, ...]:
        """Shape of one layer's and one row's recurrent state: [3, A] for RWKV-4, [H, N, N] for the others."""
        if self.version == "4":
            return (3, self.attention_dim)
        return (self.num_heads, self.head_size, self.head_size)

    def to_dict(self) -> dict[str, Any]:
        """All fields, as JSON can hold them."""
        return asdict(self)

    def replace(self, **changes: Any) -> Config:
        """A copy with some fields changed."""
        unknown = set(changes) - {field.name for field in fields(self)}
        if unknown:
            raise ConfigError(f"Config has no field {', '.join(sorted(unknown))}")
        return replace(self, **changes)

    @classmethod
    def preset(cls, name: str) -> Config:
        """The shape of a released model by name, as `rwkv7-0.1b`; `PRESETS` lists them all."""
        if name not in PRESETS:
            close = difflib.get_close_matches(name, PRESETS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(PRESETS)}"
            raise ConfigError(f"no preset is called {name!r}; {hint}")
        return PRESETS[name]


PILE, WORLD = 50277, 65536


def _presets() -> dict[str, Config]:
    """Released sizes; the ranks of RWKV-7 are those of the released files, which follow no single formula."""
    pile4 = {
        "169m": (12, 768),
        "430m": (24, 1024),
        "1.5b": (24, 2048),
        "3b": (32, 2560),
        "7b": (32, 4096),
        "14b": (40, 5120),
    }
    world5 = {"0.4b": (24, 1024), "1.5b": (24, 2048), "3b": (32, 2560), "7b": (32, 4096)}
    world6 = {"1.6b": (24, 2048), "3b": (32, 2560), "7b": (32, 4096)}
    world7 = {  # layers, width, ranks of decay, rate, value, gate
        "0.1b": (12, 768, 64, 64, 32, 128),
        "0.4b": (24, 1024, 64, 64, 32, 128),
        "1.5b": (24, 2048, 96, 96, 64, 256),
        "2.9b": (32, 2560, 96, 96, 64, 320),
        "7.2b": (32, 4096, 128, 128, 96, 480),
        "13.3b": (61, 4096, 192, 192, 128, 384),
    }
    presets: dict[str, Config] = {}
    for sizes, version, vocab, prefix in (
        (pile4, "4", PILE, "rwkv4"),
        (world5, "5.2", WORLD, "rwkv5"),
        (world6, "6", WORLD, "rwkv6"),
    ):
        for size, (layers, dim) in sizes.items():
            presets[f"{prefix}-{size}"] = Config(version=version, vocab_size=vocab, num_layers=layers, dim=dim)
    for size, (layers, dim, decay, rate, value, gate) in world7.items():
        presets[f"rwkv7-{size}"] = Config(
            version="7",
            vocab_size=WORLD,
            num_layers=layers,
            dim=dim,
            decay_rank=decay,
            rate_rank=rate,
            value_rank=value,
            gate_rank=gate,
        )
    return presets


PRESETS = _presets()
