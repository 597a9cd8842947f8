"""Other programs' files: read from what they write (built here by their own rules), written for what they read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from receptance import CheckpointError, Config
from receptance.checkpoints import convert, load_model, open_checkpoint
from receptance.checkpoints.hf import FOLDER_DIALECTS
from receptance.checkpoints.names import DIALECTS

from .weights import CONFIGS, VERSIONS, official_shapes, official_weights, same

WRITTEN = [(version, name) for version, name in FOLDER_DIALECTS.items()]


def opened(path: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(path)
    return {name: checkpoint.tensor(name) for name in checkpoint.tensors}


def folder(path: Path, version: str, dtype: torch.dtype = torch.float32, config: Config | None = None) -> Path:
    """A folder that we wrote, with the official weights it was made from beside it."""
    torch.save(official_weights(config or CONFIGS[version], dtype), path / "official.pth")
    convert(path / "official.pth", path / "folder")
    return path / "folder"


@pytest.mark.parametrize(("version", "dialect"), WRITTEN)
def test_a_table_has_a_place_for_every_tensor_and_back(version: str, dialect: str) -> None:
    names = official_shapes(CONFIGS[version])
    found: list[str] = []
    for name in names:
        match = DIALECTS[dialect].to_stored(name)
        assert match is not None and name in match.official
        assert DIALECTS[dialect].to_official(match.stored) == match
        found += [match.stored] * (match.official[0] == name)
    assert len(found) == len(set(found))


def test_unknown_tensors_are_refused_by_their_stored_name(tmp_path: Path) -> None:
    path = folder(tmp_path, "7") / "model.safetensors"
    save_file(load_file(path) | {"model.layers.0.attn.q_proj.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"model\.layers\.0\.attn\.q_proj\.weight"):
        open_checkpoint(path)


# --- transformers ------------------------------------------------------------------------------------------------


def test_transformers_computes_the_same_from_a_folder_of_ours(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = Config(version="4", vocab_size=50, num_layers=3, dim=24, ffn_dim=56)
    path = folder(tmp_path, "4", config=config)
    theirs, report = transformers.RwkvForCausalLM.from_pretrained(path, output_loading_info=True)
    assert not any(report.values()), report
    tokens = torch.randint(50, (1, 20))
    with torch.no_grad():
        expected = theirs.eval()(tokens).logits
        logits, _ = load_model(path)(tokens)
    assert float((logits - expected).abs().max()) < 1e-4 * float(expected.std())


def test_a_folder_that_transformers_wrote(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.RwkvConfig(
        vocab_size=50,
        hidden_size=24,
        num_hidden_layers=2,
        attention_hidden_size=40,
        intermediate_size=56,
        layer_norm_epsilon=2e-5,
    )
    theirs = transformers.RwkvForCausalLM(config)
    theirs.save_pretrained(tmp_path, max_shard_size="10KB")
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config == CONFIGS["4"].replace(norm_eps=2e-5)
    name = "rwkv.blocks.1.attention.time_mix_receptance"
    assert torch.equal(checkpoint.tensor("blocks.1.att.time_mix_r"), theirs.state_dict()[name])


def remote_code_name(name: str) -> str:
    """How repositories with RWKV-5 and 6 as code of their own call a tensor (as fla's converter)."""
    if name == "head.weight":
        return name
    for short, long in (("emb.", "embeddings."), (".att.", ".attention."), (".ffn.", ".feed_forward.")):
        name = name.replace(short, long)
    for short, long in (("k", "key"), ("v", "value"), ("r", "receptance"), ("g", "gate")):
        name = name.replace("time_mix_" + short, "time_mix_" + long) if name.endswith("time_mix_" + short) else name
    return "rwkv." + name.replace("blocks.0.ln0.", "blocks.0.pre_ln.")


@pytest.mark.parametrize("ending", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("version", ["5.2", "6"])
def test_repositories_with_code_of_their_own(version: str, ending: str, tmp_path: Path) -> None:
    weights = official_weights(CONFIGS[version])
    renamed = {remote_code_name(name): tensor for name, tensor in weights.items()}
    (save_file if ending.endswith("safetensors") else torch.save)(renamed, tmp_path / ending)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": f"rwkv{version[0]}", "layer_norm_epsilon": 1e-5}))
    assert same(opened(tmp_path), weights)
    assert open_checkpoint(tmp_path).config == CONFIGS[version]


def port_name(name: str) -> str:
    """How the transformers port of RWKV-7 calls a tensor."""
    return {"head.weight": name, "emb.weight": "model.embeddings.weight"}.get(name, f"model.{name}")


def test_the_transformers_port_of_rwkv_7(tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["7"])
    save_file({port_name(name): tensor for name, tensor in weights.items()}, tmp_path / "model.safetensors")
    values: dict[str, Any] = {"model_type": "rwkv7", "group_norm_epsilon": 1e-3, "embedding_layer_norm_fused": False}
    (tmp_path / "config.json").write_text(json.dumps(values))
    assert same(opened(tmp_path), weights)
    assert open_checkpoint(tmp_path).config.group_norm_eps == 1e-3
    (tmp_path / "config.json").write_text(json.dumps(values | {"embedding_layer_norm_fused": True}))
    with pytest.raises(CheckpointError, match="already computed into its embeddings"):
        open_checkpoint(tmp_path)


# --- flash-linear-attention --------------------------------------------------------------------------------------


def fla_models() -> Any:
    pytest.importorskip("triton", reason="flash-linear-attention needs triton")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("fla.models", reason="flash-linear-attention is not installed")


@pytest.mark.parametrize(("version", "name"), [("6", "RWKV6"), ("7", "RWKV7")])
@pytest.mark.filterwarnings("ignore")
def test_flash_linear_attention_loads_a_folder_of_ours(version: str, name: str, tmp_path: Path) -> None:
    fla = fla_models()
    path = folder(tmp_path, version)
    kind = getattr(fla, f"{name}ForCausalLM")
    theirs, report = kind.from_pretrained(path, output_loading_info=True)
    assert not any(report.values()), report
    expected = {key: tuple(tensor.shape) for key, tensor in theirs.state_dict().items()}
    assert {key: tuple(tensor.shape) for key, tensor in load_file(path / "model.safetensors").items()} == expected
    attention = theirs.model.layers[1].attn
    assert attention.num_heads == CONFIGS[version].num_heads
    assert theirs.model.layers[1].ffn.value.in_features == CONFIGS[version].ffn_dim
    if version == "7":
        assert attention.g_norm.eps == pytest.approx(CONFIGS["7"].group_norm_eps, rel=1e-12)


@pytest.mark.parametrize(("version", "name"), [("6", "RWKV6"), ("7", "RWKV7")])
@pytest.mark.filterwarnings("ignore")
def test_a_folder_that_flash_linear_attention_wrote(version: str, name: str, tmp_path: Path) -> None:
    fla = fla_models()
    ours = CONFIGS[version]
    sizes: dict[str, Any] = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": ours.num_layers}
    sizes |= {"intermediate_size": 56, "num_heads": ours.num_heads}
    if version == "6":
        ratio = ours.attention_dim / ours.dim
        sizes |= {"expand_k": ratio, "expand_v": ratio, "proj_low_rank_dim": 3, "gate_low_rank_dim": 7}
    else:
        sizes |= {"head_dim": 8, "decay_low_rank_dim": 5, "a_low_rank_dim": 6, "v_low_rank_dim": 7}
        sizes |= {"gate_low_rank_dim": 9, "norm_eps": 8e-5}
    theirs = getattr(fla, f"{name}ForCausalLM")(getattr(fla, f"{name}Config")(**sizes))
    theirs.save_pretrained(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.config == (ours if version == "6" else ours.replace(norm_eps=8e-5))
    key = (
        "model.layers.1.attn.w_proj.linear.lora.0.weight"
        if version == "6"
        else "model.layers.1.attn.w_lora.lora.0.weight"
    )
    name = "blocks.1.att.time_decay_w1" if version == "6" else "blocks.1.att.w1"
    assert torch.equal(checkpoint.tensor(name), theirs.state_dict()[key].T)


def test_the_mixes_of_rwkv_6_in_their_order(tmp_path: Path) -> None:
    """What their layer computes from x_proj and x_bias, in their order of blocks, is what the official one computes."""
    path = folder(tmp_path, "6")
    official, stored = torch.load(tmp_path / "official.pth"), load_file(path / "model.safetensors")
    rank, attention = CONFIGS["6"].mix_rank, "model.layers.0.attn."
    inner = torch.randn(11, 24)
    # Theirs (layers/rwkv6.py): five blocks of the first product, each with its columns of the second.
    blocks = torch.tanh(inner @ stored[f"{attention}x_proj.0.linear.weight"].T).reshape(11, 5, rank)
    up = stored[f"{attention}x_proj.2.weight"].reshape(24, 5, rank)
    theirs = torch.einsum("bnr,hnr->nbh", blocks, up) + stored[f"{attention}x_bias"][:, None]
    # Official (RWKV-v5/src/model.py): order w, k, v, r, g.
    blocks = torch.tanh(inner @ official["blocks.0.att.time_maa_w1"]).reshape(11, 5, rank).transpose(0, 1)
    ours = torch.bmm(blocks, official["blocks.0.att.time_maa_w2"])
    for number, mix in enumerate("rwkvg"):
        expected = ours["wkvrg".index(mix)] + official[f"blocks.0.att.time_maa_{mix}"][0]
        torch.testing.assert_close(theirs[number], expected, rtol=1e-5, atol=1e-6)


def test_the_epsilons_of_a_folder_come_back(tmp_path: Path) -> None:
    for version in ("4", "6", "7"):
        torch.save(official_weights(CONFIGS[version]), tmp_path / "a.pth")
        folder_path = tmp_path / version
        convert(tmp_path / "a.pth", folder_path)
        values = json.loads((folder_path / "config.json").read_text())
        assert open_checkpoint(folder_path).config == CONFIGS[version]
        values["receptance"] |= {"norm_eps": 3e-5, "group_norm_eps": 7e-4}
        (folder_path / "config.json").write_text(json.dumps(values))
        config = open_checkpoint(folder_path).config
        # RWKV-4 has no group norm, so that nothing but the default can stand there.
        assert (config.norm_eps, config.group_norm_eps) == (3e-5, 64e-5 if version == "4" else 7e-4)


def test_the_official_epsilon_stands_where_theirs_does_not_tell(tmp_path: Path) -> None:
    """Folders of RWKV-6 have one epsilon for all norms, but official weights, which need 64e-5 over the heads."""
    path = folder(tmp_path, "6")
    values = json.loads((path / "config.json").read_text())
    del values["receptance"]
    (path / "config.json").write_text(json.dumps(values))
    assert open_checkpoint(path).config.group_norm_eps == 64e-5


def test_older_files_with_the_six_mixes_in_one_tensor(tmp_path: Path) -> None:
    path = folder(tmp_path, "7") / "model.safetensors"
    stored = load_file(path)
    for layer in range(CONFIGS["7"].num_layers):
        names = [f"model.layers.{layer}.attn.x_{x}" for x in "rwkvag"]
        stored[f"model.layers.{layer}.attn.x_x"] = torch.stack([stored.pop(name).flatten() for name in names])
    save_file(stored, path)
    assert same(opened(path), torch.load(tmp_path / "official.pth"))


# --- files of PyTorch --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_files_from_before_pytorch_1_6(version: str, tmp_path: Path) -> None:
    weights = official_weights(CONFIGS[version])
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(opened(tmp_path / "old.pth"), weights)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_trainers_wrapping_is_taken_off(wrapper: str, tmp_path: Path) -> None:
    weights = official_weights(CONFIGS["4"])
    torch.save({wrapper: weights, "epoch": 3}, tmp_path / "wrapped.pth")
    assert same(opened(tmp_path / "wrapped.pth"), weights)


def test_parameters_views_and_shared_numbers(tmp_path: Path) -> None:
    weights: dict[str, Tensor] = official_weights(CONFIGS["4"])
    other = dict(weights)
    other["emb.weight"] = torch.nn.Parameter(weights["emb.weight"])
    other["head.weight"] = weights["head.weight"].T.contiguous().T
    both = torch.cat([weights["ln_out.weight"], weights["ln_out.bias"]])
    other["ln_out.weight"], other["ln_out.bias"] = both[:24], both[24:]
    torch.save(other, tmp_path / "views.pth")
    assert same(opened(tmp_path / "views.pth"), weights)
