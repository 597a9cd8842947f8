"""RWKV, generations 4 to 7, as one model: `model(tokens, state) -> (logits, state)`.

    import receptance

    lm = receptance.load("model.pth")                    # any official checkpoint, a hub id, a Hugging Face folder
    lm.generate("Once upon a time").text                 # also lm.stream(...), and lm.chat() for a conversation
    logits, state = lm.model(tokens)                     # one token or a whole book, in training and in use

    model = receptance.build(receptance.Config.preset("rwkv7-0.1b"))      # officially initialised, ready to train

Importing this package costs nothing: PyTorch is loaded when a name that needs it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config import Config
    from .errors import (
        CheckpointError,
        ConfigError,
        DataError,
        InputError,
        MissingExtraError,
        ReceptanceError,
        StateError,
        TrainingError,
    )
    from .generation import Chat, Completion, Reply, Sampling
    from .language_model import LanguageModel, load
    from .models import RWKV, build
    from .state import State
    from .templates import Message

__version__ = "0.1.0"

__all__ = [
    "RWKV",
    "Chat",
    "CheckpointError",
    "Completion",
    "Config",
    "ConfigError",
    "DataError",
    "InputError",
    "LanguageModel",
    "Message",
    "MissingExtraError",
    "ReceptanceError",
    "Reply",
    "Sampling",
    "State",
    "StateError",
    "TrainingError",
    "__version__",
    "build",
    "load",
]

# Which module a public name comes from.
_HOMES = {
    "config": ("Config",),
    "errors": (
        "CheckpointError",
        "ConfigError",
        "DataError",
        "InputError",
        "MissingExtraError",
        "ReceptanceError",
        "StateError",
        "TrainingError",
    ),
    "generation": ("Chat", "Completion", "Reply", "Sampling"),
    "language_model": ("LanguageModel", "load"),
    "models": ("RWKV", "build"),
    "state": ("State",),
    "templates": ("Message",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
