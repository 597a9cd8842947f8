"""Files to models and back: every generation, the official names inside, other programs' dialects outside.

checkpoint = open_checkpoint("model.pth")       # shape and names; nothing else is read
model = load_model(checkpoint, dtype=torch.bfloat16)
save_checkpoint(model, "model.safetensors")
convert("model.pth", "folder")                  # streams, tensor by tensor

read: official `.pth` and `.safetensors`, Hugging Face folders (transformers, flash-linear-attention), llama.cpp's
`.gguf` (not quantised), web-rwkv's `.st`, and all of these from the hub.  written: all but the `.st`.
"""

from .checkpoint import Checkpoint, load_model, open_checkpoint, read_state_tensors
from .convert import check_destination, convert, save_checkpoint, write_state_tensors
from .hub import find

__all__ = [
    "Checkpoint",
    "check_destination",
    "convert",
    "find",
    "load_model",
    "open_checkpoint",
    "read_state_tensors",
    "save_checkpoint",
    "write_state_tensors",
]
