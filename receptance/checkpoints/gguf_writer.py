"""llama.cpp's `.gguf`, written as a stream: tensors, metadata, and the tokenizer where llama.cpp has one like it.

check_writable(config)                          # raises CheckpointError for what llama.cpp does not compute
write_gguf(path, items, config, about)

Only the metadata is written here; names and layouts of the tensors are dialects in `names.py`.  Needs the package
`gguf`, which knows llama.cpp's keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ..config import Config
from ..devices import dtype_name
from ..errors import CheckpointError, MissingExtraError
from ..templates import template_for
from ..tokenizers import ByteTokenizer, Tokenizer, WorldTokenizer, tokenizer_for
from ..tokenizers.find import KIND_OF_SIZE
from .files import Item, as_bytes
from .gguf import TYPE_NUMBERS

if TYPE_CHECKING:
    from gguf import GGUFWriter

# The dialect that a file is written in, by generation.
GGUF_DIALECTS = {"6": "gguf rwkv6", "7": "gguf rwkv7"}
# What `general.file_type` says of the dtype of most numbers.
FILE_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 32}
# What llama.cpp computes with, whatever a file says.
GROUP_NORM_EPS = 64e-5
# Its WKV kernels take this many channels of a head at once, and forget the rest.
HEAD_STEP = 64
# There is no such limit; llama.cpp wants to be told one.
CONTEXT_LENGTH = 2**20

# llama.cpp finds the names of special tokens anywhere in a text, so they must be what nobody writes.  `<s>`, which its
# own converter takes for id 0, stands in HTML.
END_OF_TEXT, UNUSED = "<|endoftext|>", "[PAD{id}]"
# The comment is how llama.cpp's own code for templates, which knows no Jinja, recognises the family.
CHAT_TEMPLATE = (
    "{#- rwkv-world -#}"
    "{%- set names = {'system': 'System', 'user': 'User', 'assistant': 'Assistant'} -%}"
    "{%- for message in messages -%}"
    "{{- names[message['role']] + ': ' + message['content'] | trim + '\\n\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- 'Assistant:' -}}{%- endif -%}"
)
CHAT_TEMPLATES = ("world", "g1")


class About(NamedTuple):
    """What a file says of itself besides its numbers: the checkpoint that it is made from, and the matrices' dtype."""

    source: Path
    dtype: torch.dtype


def check_writable(config: Config) -> None:
    """Raise CheckpointError for a model that llama.cpp would refuse or compute wrongly."""
    wrong = {
        f"a time mix of {config.attention_dim} channels beside {config.dim}": config.attention_dim != config.dim,
        f"a group norm epsilon of {config.group_norm_eps:g}": abs(config.group_norm_eps / GROUP_NORM_EPS - 1) > 1e-3,
        f"heads of {config.head_size}, which is no multiple of {HEAD_STEP}": config.head_size % HEAD_STEP > 0,
    }
    if reason := next((reason for reason, applies in wrong.items() if applies), None):
        raise CheckpointError(f"llama.cpp cannot compute this model: it has {reason}; choose another format")


def write_gguf(path: Path, items: Sequence[Item], config: Config, about: About) -> None:
    """Write `items`, named and laid out as llama.cpp has them, one tensor in memory at a time.

    Raises CheckpointError for numbers in float64, MissingExtraError without the package `gguf` or the World vocabulary.
    """
    if wide := next((item for item in items if item.like.dtype not in FILE_TYPES), None):
        raise CheckpointError(f"llama.cpp reads no {dtype_name(wide.like.dtype)}; choose --dtype float32")
    writer = _writer(path, f"rwkv{config.version}")
    try:
        _add_sizes(writer, config)
        writer.add_name(about.source.stem)
        writer.add_file_type(FILE_TYPES[about.dtype])
        _add_tokenizer(writer, about.source, config.vocab_size)
        _write_tensors(writer, [*items, *_unused(config)])
    finally:
        writer.close()


def _writer(path: Path, architecture: str) -> GGUFWriter:
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise MissingExtraError("a .gguf needs gguf; install it with: pip install 'receptance[gguf]'") from error
    return GGUFWriter(path, architecture)


def _add_sizes(writer: GGUFWriter, config: Config) -> None:
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(config.dim)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ffn_dim)
    writer.add_layer_norm_eps(config.norm_eps)
    writer.add_wkv_head_size(config.head_size)
    writer.add_vocab_size(config.vocab_size)
    # llama.cpp wants the number of attention's heads and does not use it.
    writer.add_head_count(0)
    if config.version == "6":
        writer.add_rescale_every_n_layers(0)
        writer.add_time_mix_extra_dim(config.mix_rank)
        writer.add_time_decay_extra_dim(config.decay_rank)
    else:
        writer.add_decay_lora_rank(config.decay_rank)
        writer.add_iclr_lora_rank(config.rate_rank)
        writer.add_value_residual_mix_lora_rank(config.value_rank)
        writer.add_gate_lora_rank(config.gate_rank)


def _add_tokenizer(writer: GGUFWriter, source: Path, vocab_size: int) -> None:
    """The World vocabulary, or bytes; for all others llama.cpp is told that there are ids only."""
    if KIND_OF_SIZE.get(vocab_size) not in (WorldTokenizer.name, ByteTokenizer.name):
        writer.add_tokenizer_model("none")
        return
    tokenizer = tokenizer_for(source, vocab_size)
    assert tokenizer is not None
    writer.add_tokenizer_model("rwkv")
    writer.add_token_list(_token_texts(tokenizer, vocab_size))
    writer.add_token_types(_token_types(tokenizer, vocab_size))
    writer.add_bos_token_id(tokenizer.end_of_text)
    writer.add_eos_token_id(tokenizer.end_of_text)
    template = template_for(source.name)
    blank_line = tokenizer.encode("\n\n")
    # The one token that ends an answer besides the end of a text.  Models of other families write blank lines in it.
    if len(blank_line) == 1 and (template is None or "\n\n" in template.stops):
        writer.add_eot_token_id(blank_line[0])
    if template is None or template.name in CHAT_TEMPLATES:
        writer.add_chat_template(CHAT_TEMPLATE)


def _token_texts(tokenizer: Tokenizer, vocab_size: int) -> list[bytes]:
    """The bytes of each id as llama.cpp's tokenizer for RWKV reads them: in ASCII, all others as `\\xff`."""
    texts = []
    for token in range(vocab_size):
        value = tokenizer.token_bytes(token)
        special = END_OF_TEXT if token == tokenizer.end_of_text else UNUSED.format(id=token)
        texts.append("".join(map(_escaped, value)).encode() if value else special.encode())
    return texts


def _escaped(byte: int) -> str:
    character = chr(byte)
    return character if " " <= character <= "~" and character != "\\" else f"\\x{byte:02x}"


def _token_types(tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    from gguf import TokenType

    types = [int(TokenType.NORMAL if tokenizer.token_bytes(id) else TokenType.UNUSED) for id in range(vocab_size)]
    types[tokenizer.end_of_text] = int(TokenType.CONTROL)
    return types


def _unused(config: Config) -> list[Item]:
    """The value residual of layer 0, which RWKV-7 has not and llama.cpp wants all the same, with the rates' rank."""
    if config.version != "7":
        return []
    shapes = ((config.dim,), (config.rate_rank, config.dim), (config.dim, config.rate_rank))
    zeros = [torch.zeros(shape) for shape in shapes]
    return [Item(f"blk.0.time_mix_v{number}.weight", zero, zero.clone) for number, zero in enumerate(zeros)]


def _write_tensors(writer: GGUFWriter, items: Sequence[Item]) -> None:
    from gguf import GGMLQuantizationType

    for item in items:
        # Any width will do: the type is given by its number, because NumPy has no bfloat16.
        width: Any = np.dtype(np.uint16)
        kind = GGMLQuantizationType(TYPE_NUMBERS[item.like.dtype])
        writer.add_tensor_info(item.name, item.like.shape, width, item.like.nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for item in items:
        writer.write_tensor_data(np.frombuffer(as_bytes(item.tensor()), np.uint8))
