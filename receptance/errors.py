"""The handful of exceptions a user can meet.

Every message is one sentence that says what is wrong and what to do; the command line prints it and exits with code 2.
"""


class ReceptanceError(Exception):
    """Base of all errors that are about the user's input and not about our code."""


class ConfigError(ReceptanceError, ValueError):
    """A model shape that cannot exist, or an unknown preset."""


class CheckpointError(ReceptanceError):
    """A file that is missing, truncated, foreign, unsafe or does not fit the model."""


class StateError(ReceptanceError):
    """A state that belongs to another model or does not have its shape."""


class DataError(ReceptanceError):
    """Training data that is missing, unreadable or too small."""


class TrainingError(ReceptanceError):
    """A training that cannot go on."""


class InputError(ReceptanceError, ValueError):
    """Tensors that a model or an op cannot take, or a form of an op that does not exist."""


class MissingExtraError(ReceptanceError, ImportError):
    """A part of the package whose optional dependency is not installed."""


class CompileError(ReceptanceError):
    """A model that cannot be compiled into a decoding step; `model(tokens, state)` still serves it."""
