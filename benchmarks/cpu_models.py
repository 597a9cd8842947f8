"""Checkpoints with random weights at the official sizes, in every format that an engine wants; made once and kept.

    models = Models(Path("work"), "rwkv7-0.1b", peers_python(), threads=2)
    models.official()                       # work/rwkv7-0.1b-w1/model.pth, bfloat16
    models.gguf("Q4_0")                     # the same weights for llama.cpp
    models.quantised("int4")                # and in our own formats

The weights are drawn so that activations stay near 1, every part does work, and logits spread like a trained model's.
Half of a channel mix's activations are 0; `zeros=0.9` shifts `ffn.key` so that 90 % are, as trained RWKV-7 has it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import NormalDist

import torch
from torch import Tensor

from benchmarks.cpu_peers import quantize
from receptance import Config
from receptance.checkpoints import convert
from receptance.checkpoints.checkpoint import shapes_of
from receptance.checkpoints.files import Item
from receptance.checkpoints.pth_writer import write_pth
from receptance.quant import quantize_checkpoint
from receptance.replacing import replacing

# Vectors by the end of their names: their mean, and how far they spread.
VECTORS = {
    r"(att\.)?ln\w*\.weight": (1.0, 0.0),
    r"(att\.)?ln\w*\.bias": (0.0, 0.0),
    r"att\.w0|att\.time_decay": (-3.0, 2.0),
    r"att\.(a0|time_first)": (-0.2, 0.4),
    r"att\.v0": (0.7, 0.1),
    r"att\.k_k": (0.7, 0.05),
    r"att\.k_a": (1.0, 0.05),
    r"att\.r_k": (0.0, 0.1),
}
MIXES = re.compile(r".*\.(x_[rwkvag]|time_mix_[kvr])")
# Matrices keep the size of what they multiply, but for these; the logits' spread is that of a sure model.
GAINS = {r"head\.weight": 3.0, r"att\.output\.weight": 0.5, r"ffn\.value\.weight": 0.5, r"att\.[wav]2": 0.3}
# Another number whenever the weights are drawn otherwise: no file of an earlier run is taken then.
RECIPE = "w1"
# The share of variance that is left where an input is mixed with the one before.
MIXED = 2 / 3


def random_weight(name: str, shape: torch.Size, seed: int, zeros: float = 0.5) -> Tensor:
    """One tensor of a model that was never trained, in bfloat16; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randn(shape, generator=generator)
    end = re.sub(r"blocks\.\d+\.", "", name)
    if MIXES.fullmatch(name):
        numbers = torch.rand(shape, generator=generator)
    elif found := next((values for pattern, values in VECTORS.items() if re.fullmatch(pattern, end)), None):
        mean, spread = found
        numbers = mean + spread * numbers
    elif end != "emb.weight":
        # Official low-rank factors are [in, out], all other matrices [out, in].
        fan_in = shape[1] if end.endswith(".weight") else shape[0]
        gain = next((gain for pattern, gain in GAINS.items() if re.fullmatch(pattern, end)), 1.0)
        numbers *= gain / fan_in**0.5
    if zeros != 0.5 and end == "ln2.bias":
        numbers.fill_(1.0)
    if zeros != 0.5 and end == "ffn.key.weight":
        # Rows that sum to 0 take nothing from the norm's bias of 1, so that it shifts all activations alike.
        numbers -= numbers.mean(1, keepdim=True)
        numbers -= NormalDist().inv_cdf(zeros) * MIXED**0.5 / shape[1]
    return numbers.bfloat16()


@dataclass(frozen=True)
class Models:
    """One model's files below `work`; what is missing is made when it is asked for."""

    work: Path
    preset: str
    peers: Path | None
    threads: int
    zeros: float = 0.5

    @property
    def config(self) -> Config:
        return Config.preset(self.preset)

    @property
    def folder(self) -> Path:
        shifted = "" if self.zeros == 0.5 else f"-zeros{self.zeros:g}"
        return self.work / f"{self.preset}{shifted}-{RECIPE}"

    def official(self) -> Path:
        """The official `.pth` in bfloat16."""

        def write(path: Path) -> None:
            shapes: Mapping[str, torch.Size] = shapes_of(self.config)
            items = []
            for number, (name, shape) in enumerate(shapes.items()):
                like = torch.empty(shape, dtype=torch.bfloat16, device="meta")
                items.append(Item(name, like, partial(random_weight, name, shape, number, self.zeros)))
            with replacing(path) as unfinished:
                write_pth(unfinished, items)

        return self._made("model.pth", write)

    def quantised(self, kind: str) -> Path:
        """Ours in int8 or int4."""

        def write(path: Path) -> None:
            quantize_checkpoint(self.official(), path, kind)

        return self._made(f"model.{kind}.safetensors", write)

    def transformers(self) -> Path:
        """A folder for transformers."""
        return self._made("transformers", lambda path: convert(self.official(), path, torch.float32) and None)

    def gguf(self, kind: str) -> Path:
        """For llama.cpp: "BF16" from our converter, others from its own quantisation of that."""
        assert self.peers, "llama.cpp's files are made by llama.cpp"
        python = self.peers

        def write(path: Path) -> None:
            if kind == "BF16":
                convert(self.official(), path)
            else:
                quantize(python, self.gguf("BF16"), kind, path, self.threads)

        return self._made(f"model.{kind}.gguf", write)

    def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        """The file, made now unless an earlier run made it."""
        path = self.folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            print(f"making {path.relative_to(self.work)}", flush=True)
            write(path)
        return path


def gguf_bytes(path: Path) -> int:
    """Bytes of weights that a token needs in a `.gguf`: all but the embedding."""
    from gguf import GGUFReader

    return sum(int(tensor.n_bytes) for tensor in GGUFReader(path).tensors if tensor.name != "token_embd.weight")
