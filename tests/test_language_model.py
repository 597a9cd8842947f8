"""`receptance.load`: the module, in evaluation mode, in a dtype that this machine can compute."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import receptance
from receptance import CheckpointError, InputError, StateError, devices
from receptance.checkpoints import save_checkpoint
from receptance.language_model import GenerateOptions, Settings

from .models.cases import noisy


@pytest.mark.parametrize("version", ["4", "6", "7"])
def test_load(small_checkpoint: Callable[[str], Path], version: str) -> None:
    path = small_checkpoint(version)
    lm = receptance.load(path)
    assert lm.config.version == version
    assert lm.path == path
    assert not lm.model.training
    logits, state = lm.model(torch.tensor([[1, 2, 3]]))
    again, _ = lm.model(torch.tensor([[4]]), state)
    assert logits.shape == (1, 3, 60)
    assert again.shape == (1, 1, 60)
    assert receptance.load(path, dtype=torch.float64).model.head.weight.dtype == torch.float64


def test_stored_dtype_where_the_machine_multiplies_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = receptance.build(receptance.Config(version="7", vocab_size=20, num_layers=1, dim=64), dtype=torch.bfloat16)
    save_checkpoint(model, tmp_path / "m.pth")
    for able, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: {"avx512_bf16": able}, raising=False)
        assert devices.multiplies(torch.bfloat16) is able
        assert receptance.load(tmp_path / "m.pth", device="cpu").model.head.weight.dtype == dtype
    forced = receptance.load(tmp_path / "m.pth", dtype=torch.bfloat16, device="cpu")
    assert forced.model.head.weight.dtype == torch.bfloat16


def test_load_state(small_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    lm = receptance.load(small_checkpoint("7"), dtype=torch.bfloat16, device="cpu")
    _, state = lm.model(torch.tensor([[1, 2, 3]]))
    state.save(tmp_path / "s.safetensors", lm.model)
    again = lm.load_state(tmp_path / "s.safetensors")
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(again, state, strict=True))

    tuned = {f"blocks.{layer}.att.time_state": torch.randn(4, 16, 16) for layer in range(2)}
    torch.save(tuned, tmp_path / "tuned.pth")
    start = lm.load_state(tmp_path / "tuned.pth")
    assert torch.equal(start.wkv[1, 0], tuned["blocks.1.att.time_state"])
    lm.model(torch.tensor([[1]]), start)

    with pytest.raises(CheckpointError, match=r"missing\.pth"):
        lm.load_state(tmp_path / "missing.pth")
    with pytest.raises(CheckpointError, match="holds no state"):
        lm.load_state(lm.path)


def test_dtypes_and_devices_by_name(small_checkpoint: Callable[[str], Path]) -> None:
    path = small_checkpoint("7")
    assert receptance.load(path, dtype="bfloat16", device="cpu").model.head.weight.dtype == torch.bfloat16
    config = receptance.load(path).config
    assert receptance.build(config, dtype="float64").head.weight.dtype == torch.float64
    for wrong in ("int8", torch.int8, torch.complex64, "half a byte"):
        with pytest.raises(InputError, match="choose float64, float32, bfloat16, float16"):
            receptance.load(path, dtype=wrong)
    with pytest.raises(InputError, match="cannot compute on 'abacus'"):
        receptance.load(path, device="abacus")
    with pytest.raises(InputError, match=r"Config\.preset"):
        receptance.build("rwkv7-0.1b")


def test_overrides_and_refusals(small_checkpoint: Callable[[str], Path]) -> None:
    path = small_checkpoint("7")
    assert receptance.load(path, group_norm_eps=1e-5).config.group_norm_eps == 1e-5
    with pytest.raises(CheckpointError, match="missing"):
        receptance.load(path.with_name("missing.pth"))


def written(folder: Path, name: str, vocab_size: int) -> Path:
    config = receptance.Config(version="7", vocab_size=vocab_size, num_layers=1, dim=16, head_size=8)
    save_checkpoint(noisy(config), folder / name)
    return folder / name


def test_the_tokenizer_follows_from_the_vocabulary(tmp_path: Path) -> None:
    for vocab_size, name in ((256, "bytes"), (65536, "world"), (65530, "world")):
        tokenizer = receptance.load(written(tmp_path, f"{vocab_size}.pth", vocab_size)).tokenizer
        assert tokenizer is not None and tokenizer.name == name


def test_a_model_without_a_known_tokenizer_still_loads(tmp_path: Path) -> None:
    path = written(tmp_path, "model.pth", 60)
    lm = receptance.load(path)
    assert lm.tokenizer is None
    assert lm.model(torch.tensor([[1, 2]]))[0].shape == (1, 2, 60)
    for call in (lm.generate, lm.stream, lambda _: lm.chat()):
        with pytest.raises(InputError, match="no tokenizer is known"):
            call("hello")
    with pytest.raises(InputError, match="no tokenizer is called"):
        receptance.load(path, tokenizer="wrold")


def test_a_tokenizer_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    for vocab_size, tokenizer in ((256, "world"), (65536, "bytes"), (1024, "bytes")):
        with pytest.raises(InputError, match="give the one that the model was trained with"):
            receptance.load(written(tmp_path, "model.pth", vocab_size), tokenizer=tokenizer)
    for vocab_size, tokenizer in ((256, "bytes"), (300, "bytes"), (65530, "world"), (65536, "world")):
        assert receptance.load(written(tmp_path, "model.pth", vocab_size), tokenizer=tokenizer).tokenizer is not None


def test_a_pile_model_loads_without_its_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "model.pth", 50277)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("receptance.hub.download", no_hub)
    lm = receptance.load(path)
    with pytest.raises(CheckpointError, match="cannot be reached"):
        lm.generate("hello")


def no_hub(repo: str, file: str) -> Path:
    raise CheckpointError(f"cannot get {repo}:{file}: the hub cannot be reached")


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("rwkv7-g1h-0.1b-20260715-ctx8192.pth", "flower"),
        ("rwkv7-g1a-0.1b-20250728-ctx4096.pth", "g1"),
        ("RWKV-x070-World-0.1B-v2.8-20241210-ctx4096.pth", "world"),
        ("model.pth", None),
    ],
)
def test_the_template_follows_from_the_name(tmp_path: Path, name: str, template: str | None) -> None:
    lm = receptance.load(written(tmp_path, name, 256))
    assert (lm.template and lm.template.name) == template
    assert lm.chat().template.name == (template or "g1")
    assert receptance.load(tmp_path / name, template="raven").chat().template.name == "raven"


def test_generate_one_or_many(tmp_path: Path) -> None:
    lm = receptance.load(written(tmp_path, "model.pth", 256))
    one = lm.generate("def ", max_tokens=9, seed=4, banned=(0,))
    assert one.finish_reason == "length" and len(one.tokens) == 9 and one.seed == 4
    many = lm.generate(["a", "def ", "class"], max_tokens=9, seed=4, banned=(0,), batch_size=2)
    assert [len(completion.tokens) for completion in many] == [9, 9, 9]
    assert lm.generate("def ", max_tokens=9, seed=4, banned=(0,), request=1) == many[1]
    assert "".join(lm.stream("def ", max_tokens=9, seed=4, banned=(0,))) == one.text
    assert lm.generate([]) == []
    assert (
        lm.generate("def ", max_tokens=9, sampling="greedy", stop=None).tokens
        == lm.generate("def ", max_tokens=9, sampling="greedy", temperature=0).tokens
    )
    cold, greedy = lm.chat(max_tokens=9, temperature=0), lm.chat(max_tokens=9, sampling="greedy")
    assert cold.ask("hi").text == greedy.ask("hi").text
    for wrong in ([97, 98], b"abc", [None]):
        with pytest.raises(InputError, match="must be a text"):
            lm.generate(wrong)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="did you mean temperature"):
        lm.generate("a", temprature=1)  # type: ignore[call-overload]
    with pytest.raises(InputError, match="batch_size"):
        lm.generate(["a"], batch_size=0)
    with pytest.raises(InputError, match="temperature"):
        lm.generate("a", temperature=-1)


def test_a_state_can_be_gone_on_from(tmp_path: Path) -> None:
    lm = receptance.load(written(tmp_path, "model.pth", 256), dtype=torch.float64)
    _, state = lm.model(torch.tensor([[0, *b"a long story: "]]))
    settings = {"max_tokens": 6, "temperature": 0, "banned": (0,), "presence_penalty": 0, "frequency_penalty": 0}
    after = lm.generate(["x", "y"], state=state, **settings)
    assert [completion.tokens for completion in after] == [
        lm.generate(f"a long story: {letter}", **settings).tokens for letter in "xy"
    ]
    with pytest.raises(StateError, match="5 rows for 2 prompts"):
        lm.generate(["x", "y"], state=state.rows([0] * 5), batch_size=2)


def test_the_settings_that_may_be_given_one_by_one_are_all() -> None:
    assert set(Settings.__annotations__) == {field.name for field in fields(receptance.Sampling)}
    options = {"sampling", "stop", "logprobs", "state", "request", "batch_size", "on_step"}
    parameters = set(inspect.signature(receptance.LanguageModel.generate).parameters)
    assert options == set(GenerateOptions.__annotations__) - set(Settings.__annotations__)
    assert options <= parameters
