"""int8 and int4 weights: a model in a half or a quarter of its size, and faster by as much where memory is the limit.

quantize(model, "int4")                                         # a model in memory, in place
quantize_checkpoint("model.pth", "model.int4.safetensors", "int4")      # from file to file, of any size
open_quantised("model.int4.safetensors").load()                 # what `receptance.load` does with such a file
"""

from .cache import quantised
from .files import QuantisedFile, is_quantised_file, open_quantised, save_quantised
from .formats import FORMATS
from .linear import QuantFactor, QuantLinear
from .packing import Packed, pack, unpack
from .quantize import dequantize, is_quantised, quantize
from .report import MatrixReport, matrix_reports
from .streaming import quantize_checkpoint

__all__ = [
    "FORMATS",
    "MatrixReport",
    "Packed",
    "QuantFactor",
    "QuantLinear",
    "QuantisedFile",
    "dequantize",
    "is_quantised",
    "is_quantised_file",
    "matrix_reports",
    "open_quantised",
    "pack",
    "quantised",
    "quantize",
    "quantize_checkpoint",
    "save_quantised",
    "unpack",
]
