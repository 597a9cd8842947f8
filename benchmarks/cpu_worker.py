"""The engines that run in our own environment, each in a process of its own (see cpu_serve.py).

python benchmarks/cpu_worker.py ours model.pth --dtype bfloat16 --threads 2
python benchmarks/cpu_worker.py official model.pth --dtype float32
python benchmarks/cpu_worker.py transformers folder
python benchmarks/cpu_worker.py bandwidth -
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cpu_serve import serve, tokens_to_read

GIBIBYTE = 2**30


class Ours:
    """receptance: the compiled step for single tokens, the model's own call for many."""

    def __init__(self, path: str, dtype: torch.dtype) -> None:
        from receptance import runtime
        from receptance.checkpoints import load_model
        from receptance.quant import is_quantised_file, open_quantised

        quantised = is_quantised_file(Path(path))
        self.model = (open_quantised(path).load() if quantised else load_model(path, dtype)).eval()
        self._steps = {skip: runtime.compile(self.model, slots=1, skip=skip) for skip in (False, True)}
        self._tokens = self.model.config.vocab_size

    def decode(self, num_tokens: int, skip: bool = False) -> float:
        """See `cpu_serve`; `skip` leaves out weights that are multiplied by 0."""
        step, tokens = self._steps[skip], torch.tensor(tokens_to_read(num_tokens, self._tokens))
        step.write([0], self.model.zero_state(1))
        return seconds(lambda: [step(token) for token in tokens.split(1)])

    def prefill(self, num_tokens: int) -> float:
        """See `cpu_serve`."""
        tokens = torch.tensor([tokens_to_read(num_tokens, self._tokens)])
        return seconds(lambda: self.model.head(self.model.features(tokens)[0][:, -1]))

    def logits(self, tokens: list[int], whole: bool, skip: bool = False) -> np.ndarray:
        """See `cpu_serve`, and `decode` for `skip`."""
        if whole:
            return self.model(torch.tensor([tokens]))[0][0].float().numpy()
        step = self._steps[skip]
        step.write([0], self.model.zero_state(1))
        return torch.cat([step(torch.tensor([token])).clone() for token in tokens]).numpy()

    def zeros(self, num_tokens: int) -> list[float]:
        """The share of a channel mix's activations that are exactly 0, by layer."""
        shares: list[float] = []

        def count(_: torch.nn.Module, inputs: tuple[Tensor, ...]) -> None:
            shares.append(float((inputs[0] == 0).float().mean()))

        hooks = [block.ffn.value.register_forward_pre_hook(count) for block in self.model.blocks]
        self.model(torch.tensor([tokens_to_read(num_tokens, self._tokens)]))
        for hook in hooks:
            hook.remove()
        return shares

    def about(self) -> dict[str, Any]:
        """See `cpu_serve`.  Bytes are those of all parameters and buffers but the embedding."""
        stored = [*self.model.named_parameters(), *self.model.named_buffers()]
        needed = sum(tensor.nbytes for name, tensor in stored if name != "emb.weight")
        return {"engine": "receptance", "version": version("receptance"), "bytes": needed, **settings()}


class Official:
    """The package `rwkv`, through its one call."""

    def __init__(self, path: str, dtype: torch.dtype) -> None:
        seventh = str(int(Path(path).parent.name.startswith("rwkv7")))
        # Generation 7 is another program, chosen by a switch that is read at import.
        os.environ |= {"RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0", "RWKV_V7_ON": seventh}
        from rwkv.model import RWKV

        self._strategy = f"cpu {'fp32' if dtype == torch.float32 else 'bf16'}"
        self._model = RWKV(model=path.removesuffix(".pth"), strategy=self._strategy)
        self._vocab_size = len(self._model.forward([1], None)[0])

    def decode(self, num_tokens: int) -> float:
        """See `cpu_serve`."""

        def read() -> None:
            state = None
            for token in tokens_to_read(num_tokens, self._vocab_size):
                _, state = self._model.forward([token], state)

        return seconds(read)

    def prefill(self, num_tokens: int) -> float:
        """See `cpu_serve`."""
        return seconds(lambda: self._model.forward(tokens_to_read(num_tokens, self._vocab_size), None))

    def logits(self, tokens: list[int], whole: bool) -> np.ndarray:
        """See `cpu_serve`."""
        if whole:
            return self._model.forward(tokens, None, full_output=True)[0].float().numpy()
        state, rows = None, []
        for token in tokens:
            row, state = self._model.forward([token], state)
            rows.append(row.float())
        return torch.stack(rows).numpy()

    def about(self) -> dict[str, Any]:
        """See `cpu_serve`."""
        return {"engine": "rwkv", "version": version("rwkv"), "strategy": self._strategy, **settings()}


class Transformers:
    """transformers' RWKV-4 in float32."""

    def __init__(self, path: str, dtype: torch.dtype) -> None:
        from transformers import RwkvForCausalLM

        self._model = RwkvForCausalLM.from_pretrained(path, dtype=dtype).eval()
        self._vocab_size = self._model.config.vocab_size

    def decode(self, num_tokens: int) -> float:
        """See `cpu_serve`."""

        def read() -> None:
            state = None
            for token in tokens_to_read(num_tokens, self._vocab_size):
                state = self._model(torch.tensor([[token]]), state=state, use_cache=True).state

        return seconds(read)

    def prefill(self, num_tokens: int) -> float:
        """See `cpu_serve`.  It has no way to ask for the last logits only, so the head is applied outside of it."""
        tokens = torch.tensor([tokens_to_read(num_tokens, self._vocab_size)])
        return seconds(lambda: self._model.head(self._model.rwkv(tokens, use_cache=True)[0][:, -1]))

    def logits(self, tokens: list[int], whole: bool) -> np.ndarray:
        """See `cpu_serve`."""
        if whole:
            return self._model(torch.tensor([tokens])).logits[0].float().numpy()
        state, rows = None, []
        for token in tokens:
            out = self._model(torch.tensor([[token]]), state=state, use_cache=True)
            state, rows = out.state, [*rows, out.logits[0, 0].float()]
        return torch.stack(rows).numpy()

    def about(self) -> dict[str, Any]:
        """See `cpu_serve`."""
        return {"engine": "transformers", "version": version("transformers"), **settings()}


class Bandwidth:
    """How fast this machine reads its memory at this moment."""

    def __init__(self, path: str, dtype: torch.dtype) -> None:
        import numba

        @numba.njit(parallel=True, fastmath=True)
        def total(numbers: np.ndarray, num_parts: int) -> float:
            part = len(numbers) // num_parts
            found = 0.0
            for number in numba.prange(num_parts):
                found += numbers[number * part : (number + 1) * part].sum()
            return found

        self._total, self._threads = total, numba.get_num_threads()
        self._numbers = np.ones(GIBIBYTE // 4, np.float32)
        self.read()

    def read(self) -> float:
        """Bytes a second, over a GiB."""
        return GIBIBYTE / seconds(lambda: self._total(self._numbers, self._threads))


def seconds(run: Callable[[], object]) -> float:
    """How long `run` takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def version(package: str) -> str:
    """Of an installed package."""
    return importlib.metadata.version(package)


def settings() -> dict[str, Any]:
    """What these engines have in common."""
    return {"torch": torch.__version__, "threads": torch.get_num_threads()}


ENGINES = {"ours": Ours, "official": Official, "transformers": Transformers, "bandwidth": Bandwidth}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("path")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        serve(lambda: ENGINES[args.engine](args.path, getattr(torch, args.dtype)))


if __name__ == "__main__":
    main()
