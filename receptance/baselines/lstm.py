"""PyTorch's LSTM between an embedding and a head, with its hidden and cell vectors as the state.

Letters: B rows, T tokens, L layers, C width.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from .peer import Peer, closest_size


class LSTMState(NamedTuple):
    """An LSTM's state: hidden and cell, each [L, B, C]."""

    hidden: Tensor
    cell: Tensor

    @property
    def num_bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self)

    def rows(self, index: Any) -> LSTMState:
        """The rows of the batch that `index` picks, copied."""
        return LSTMState(self.hidden[:, index].clone(), self.cell[:, index].clone())

    def detach(self) -> LSTMState:
        """The same values, cut off from the graph that made them."""
        return LSTMState(self.hidden.detach(), self.cell.detach())


class LSTM(Peer):
    """Embedding, PyTorch's stacked LSTM, layer norm, head."""

    def __init__(self, vocab_size: int, num_layers: int, dim: int) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocab_size, dim)
        self.lstm = nn.LSTM(dim, dim, num_layers, batch_first=True)
        self.ln_out = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab_size, bias=False)
        nn.init.normal_(self.emb.weight, std=0.02)
        for name, bias in self.lstm.named_parameters():
            # The gates lie as input, forget, cell, output; a forget gate that starts open lets gradients through.
            if name.startswith("bias_ih"):
                nn.init.ones_(bias[dim : 2 * dim])

    @classmethod
    def like(cls, model: Any) -> Self:
        """Depth of an RWKV, and the width that gives about as many parameters."""
        make = partial(cls, model.config.vocab_size, model.config.num_layers)
        return make(closest_size(model, make))

    def zero_state(self, rows: int) -> LSTMState:
        """The state before the first token, for `rows` sequences."""
        zeros = self.emb.weight.detach().new_zeros(self.lstm.num_layers, rows, self.lstm.hidden_size)
        return LSTMState(zeros, zeros.clone())

    def features(self, tokens: Tensor, state: LSTMState | None = None) -> tuple[Tensor, LSTMState]:
        """Tokens [B, T] to what the head reads [B, T, C], and the state after them."""
        state = self.zero_state(tokens.shape[0]) if state is None else state
        x, (hidden, cell) = self.lstm(self.emb(tokens), tuple(state))
        return self.ln_out(x), LSTMState(hidden, cell)
