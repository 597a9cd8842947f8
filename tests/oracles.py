"""Other people's programs, run beside ours: the official runtime (`rwkv`) and transformers' RWKV-4.

    runtime = OfficialRuntime(model, folder)
    logits, state = runtime.read(ids, [3, 1, 5])        # in pieces of 3, 1 and 5 tokens

Both take one of our models through a file, and give logits [T, V] and a State of one row in our layout.
`receptance.official` asks the same runtime for logits only, in a process of its own; the tests ask often and want its
states too, so they import it here, once for each setting of the switches that it reads at import.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from receptance import RWKV, State
from receptance.checkpoints import save_checkpoint


@contextlib.contextmanager
def _switches(version: str) -> Iterator[None]:
    """The environment that the official runtime wants at import and later, and without what it prints."""
    values = {"RWKV_V7_ON": str(int(version == "7")), "RWKV_JIT_ON": "1", "RWKV_CUDA_ON": "0"}
    with mock.patch.dict(os.environ, values), contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # It is TorchScript, which is deprecated, and which would spend minutes on optimising for every new length.
        warnings.simplefilter("ignore", DeprecationWarning)
        with torch.jit.optimized_execution(False):
            yield


@cache
def _official_module(seventh: bool) -> ModuleType:
    """`rwkv/model.py`, which is another program for RWKV-7 than for the rest: executed under a name for each."""
    package = importlib.util.find_spec("rwkv")
    assert package is not None and package.submodule_search_locations
    path = Path(package.submodule_search_locations[0], "model.py")
    spec = importlib.util.spec_from_file_location(f"rwkv_model_{'7' if seventh else '4_to_6'}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class OfficialRuntime:
    """The package `rwkv` in float32 on the CPU."""

    def __init__(
        self, model: RWKV, folder: Path, first: str = "", tuned: Mapping[str, Tensor] | None = None
    ) -> None:
        """`first`: names that contain it are written before all others; the runtime depends on their order.
        `tuned`: initial states to be put into the file, as the state-tuning programs do."""
        self.version, self.config = model.config.version, model.config
        path = folder / "model.pth"
        save_checkpoint(model, path)
        if first or tuned:
            tensors = torch.load(path, weights_only=True) | dict(tuned or {})
            torch.save({name: tensors[name] for name in sorted(tensors, key=lambda name: first not in name)}, path)
        # It collects garbage at every layer, which takes longer than all the rest of a test.
        with _switches(self.version), mock.patch("gc.collect"):
            # The ending is given to generations up to 6 and added for generation 7.
            self.runtime: Any = _official_module(self.version == "7").RWKV(str(path.with_suffix("")), "cpu fp32")

    def read(self, ids: list[int], pieces: Sequence[int]) -> tuple[Tensor, State]:
        """The logits at every position and the state at the end."""
        state, rows = None, []
        with _switches(self.version), torch.no_grad():
            for piece in torch.tensor(ids).split(list(pieces)):
                logits, state = self.runtime.forward(piece.tolist(), state, full_output=True)
                rows.append(logits.reshape(len(piece), -1))
        return torch.cat(rows), self._in_our_layout(state)

    def _in_our_layout(self, flat: list[Tensor]) -> State:
        per_layer = len(flat) // self.config.num_layers
        layers = [flat[i : i + per_layer] for i in range(0, len(flat), per_layer)]
        shift = torch.stack([torch.stack([layer[0], layer[-1]]) for layer in layers])
        wkv = torch.stack([torch.stack(layer[1:4]) if self.version == "4" else layer[1] for layer in layers])
        # Generations 5 and 6 keep S[k, v], 7 keeps S[v, k] as we do.
        if self.version in ("5.0", "5.1", "5.2", "6"):
            wkv = wkv.transpose(-2, -1)
        return State(shift[:, :, None], wkv[:, None])


class Transformers:
    """`RwkvForCausalLM`, RWKV-4 only."""

    def __init__(self, model: RWKV, folder: Path) -> None:
        import transformers

        save_checkpoint(model, folder / "hf")
        # Its first forward pass is not allowed to divide weights in place: that moves logits by 1e-3.
        loaded, info = transformers.RwkvForCausalLM.from_pretrained(
            folder / "hf", rescale_every=0, output_loading_info=True
        )
        assert not any(info.values()), f"the names do not fit: {info}"
        self.model: Any = loaded.eval()

    @torch.no_grad()
    def read(self, ids: list[int], pieces: Sequence[int]) -> tuple[Tensor, State]:
        """As OfficialRuntime.read."""
        state, rows = None, []
        for piece in torch.tensor([ids]).split(list(pieces), dim=1):
            out = self.model(piece, state=state, use_cache=True)
            state = out.state
            rows.append(out.logits[0])
        # Five tensors [1, C, L]: the channel mix's last input, the time mix's, numerator, denominator, maximum.
        ffn, att, *wkv = (tensor.permute(2, 0, 1) for tensor in state)
        return torch.cat(rows), State(torch.stack([att, ffn], 1), torch.stack(wkv, 2))

    @torch.no_grad()
    def logits(self, ids: Tensor) -> Tensor:
        """ids [B, T] -> [B, T, V], without a state."""
        logits: Tensor = self.model(ids, use_cache=False).logits
        return logits
