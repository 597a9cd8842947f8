"""What RWKV is compared with: a Transformer and an LSTM with the same call, `model(tokens, state)`.

    model = Transformer.like(rwkv)                 # same depth and width, about as many parameters
    logits, state = model(tokens)                  # tokens [B, T]
    logits, state = model(more_tokens, state)      # goes on where the first call stopped

Whole, cut anywhere or token by token gives the same logits.  An RWKV's `lengths` and `first` are not offered: all rows
have T tokens and are one document each.  Both peers are modern and honest: the Transformer is pre-norm with RMS norms,
rotary positions (2104.09864), SwiGLU (2002.05202), PyTorch's fused attention and a cache of keys and values that costs
one write a token; the LSTM is PyTorch's own fused one.
"""

from .lstm import LSTM, LSTMState
from .tape import Tape
from .transformer import KeyValues, Transformer, rotary, rotate

__all__ = ["LSTM", "KeyValues", "LSTMState", "Tape", "Transformer", "rotary", "rotate"]
