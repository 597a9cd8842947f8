"""llama.cpp, asked through its C functions: no Python but a call for each batch stands in its way.

    PEERS_PYTHON benchmarks/cpu_llama.py model.gguf --threads 2                 # serves the engine, see cpu_serve.py
    PEERS_PYTHON benchmarks/cpu_llama.py model.gguf --quantize Q4_0 out.gguf

Runs in the environment of `make bench-peers`.  Settings: weights mapped and repacked for the processor (its own
default), batches of 512, logits for the last token of a prefill only.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp as llama
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.cpu_serve import serve, tokens_to_read

BATCH = 512


class Llama:
    """One model and one sequence."""

    def __init__(self, path: str, threads: int) -> None:
        llama.llama_backend_init()
        model_settings = llama.llama_model_default_params()
        model_settings.load_mode = llama.LLAMA_LOAD_MODE_MMAP
        model_settings.n_gpu_layers = 0
        self._model = llama.llama_model_load_from_file(path.encode(), model_settings)
        if not self._model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        settings = llama.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = BATCH
        settings.n_outputs_max = BATCH
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama.llama_init_from_model(self._model, settings)
        self._memory = llama.llama_get_memory(self._context)
        self._vocabulary = llama.llama_model_get_vocab(self._model)
        self._vocab_size = llama.llama_vocab_n_tokens(self._vocabulary)
        self._batch = llama.llama_batch_init(BATCH, 0, 1)
        self._path, self._threads = path, threads

    def decode(self, num_tokens: int) -> float:
        """See `cpu_serve`."""
        tokens = tokens_to_read(num_tokens, self._vocab_size)
        llama.llama_memory_clear(self._memory, True)
        start = time.perf_counter()
        for position, token in enumerate(tokens):
            self._read([token], position)
            llama.llama_get_logits_ith(self._context, -1)
        return time.perf_counter() - start

    def prefill(self, num_tokens: int) -> float:
        """See `cpu_serve`."""
        tokens = tokens_to_read(num_tokens, self._vocab_size)
        llama.llama_memory_clear(self._memory, True)
        start = time.perf_counter()
        for position in range(0, num_tokens, BATCH):
            self._read(tokens[position : position + BATCH], position)
        llama.llama_get_logits_ith(self._context, -1)
        return time.perf_counter() - start

    def logits(self, tokens: list[int], whole: bool) -> np.ndarray:
        """See `cpu_serve`; at most BATCH tokens."""
        llama.llama_memory_clear(self._memory, True)
        if whole:
            self._read(tokens, 0, all_logits=True)
            return np.stack([self._logits(number) for number in range(len(tokens))])
        rows = []
        for position, token in enumerate(tokens):
            self._read([token], position)
            rows.append(self._logits(-1))
        return np.stack(rows)

    def tokenize(self, text: str) -> list[int]:
        """The ids of a text, without special tokens."""
        data = text.encode()
        room = (llama.llama_token * (len(data) + 8))()
        count = llama.llama_tokenize(self._vocabulary, data, len(data), room, len(room), False, False)
        return list(room[:count])

    def special(self) -> dict[str, Any]:
        """The ids that end a text or a turn, and the chat template."""
        template = llama.llama_model_chat_template(self._model, None)
        ends = [token for token in range(self._vocab_size) if llama.llama_vocab_is_eog(self._vocabulary, token)]
        return {"eos": llama.llama_vocab_eos(self._vocabulary), "ends": ends, "template": (template or b"").decode()}

    def about(self) -> dict[str, Any]:
        """See `cpu_serve`."""
        return {
            "engine": "llama.cpp through llama-cpp-python",
            "version": llama.__version__,
            "system": llama.llama_print_system_info().decode(),
            "settings": {"threads": self._threads, "n_batch": BATCH, "n_ubatch": BATCH, "load_mode": "mmap"},
            "file": Path(self._path).name,
        }

    def _read(self, tokens: Sequence[int], position: int, all_logits: bool = False) -> None:
        batch = self._batch
        batch.n_tokens = len(tokens)
        for number, token in enumerate(tokens):
            batch.token[number], batch.pos[number] = token, position + number
            batch.n_seq_id[number], batch.seq_id[number][0] = 1, 0
            batch.logits[number] = all_logits
        batch.logits[len(tokens) - 1] = True
        if code := llama.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {code}")

    def _logits(self, number: int) -> np.ndarray:
        numbers = llama.llama_get_logits_ith(self._context, number)
        return np.ctypeslib.as_array(numbers, (self._vocab_size,)).copy()


def quantize(source: str, kind: str, target: str, threads: int) -> None:
    """Write a quantised copy of a `.gguf`."""
    settings = llama.llama_model_quantize_default_params()
    settings.ftype = getattr(llama, f"LLAMA_FTYPE_MOSTLY_{kind}")
    settings.nthread = threads
    if code := llama.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(settings)):
        raise SystemExit(f"llama.cpp cannot quantise {source}: code {code}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quantize", nargs=2, metavar=("KIND", "OUT"))
    args = parser.parse_args()
    if args.quantize:
        quantize(args.model, *args.quantize, args.threads)
    else:
        serve(lambda: Llama(args.model, args.threads))


if __name__ == "__main__":
    main()
