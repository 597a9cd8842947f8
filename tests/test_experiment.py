"""Recipes from their files to what they leave: every shipped one, and what is done with what was learnt."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import receptance
from receptance import official
from receptance.checkpoints import save_checkpoint
from receptance.config import Config
from receptance.data import Tokens
from receptance.errors import CheckpointError, ConfigError, DataError, ReceptanceError
from receptance.experiment import Learnt, model_of, run
from receptance.training import Batches, Recipe, next_token_loss, read_metrics, shipped_recipes

VERSIONS = ("4", "6", "7")
TALK = {"messages": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Yes, and two."}]}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """So small models are faster without a second thread, and beside other work far faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def perturbed(config: Config) -> torch.nn.Module:
    """A new model looks at nothing yet; this one does."""
    torch.manual_seed(0)
    model = receptance.build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small model of each generation, on disk."""
    folder, made = tmp_path_factory.mktemp("bases"), {}
    for version in VERSIONS:
        made[version] = folder / f"small-v{version}.pth"
        config = Config(version=version, vocab_size=256, num_layers=2, dim=64, head_size=32)
        save_checkpoint(perturbed(config), made[version])
    return made


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with texts, and beside it a file of conversations."""
    folder = tmp_path_factory.mktemp("texts") / "texts"
    folder.mkdir()
    for number in range(30):
        (folder / f"{number}.txt").write_text(f"This is text number {number}, which says nothing of {number + 1}. " * 4)
    (folder.parent / "talks.jsonl").write_text(f"{json.dumps(TALK)}\n" * 40)
    return folder


def shrunk(name: str, bases: dict[str, Path], texts: Path, version: str = "7", **more: Any) -> Recipe:
    """A shipped recipe at a size for the tests, on a model of a generation where it starts from one."""
    recipe = Recipe.read(name)
    changes: dict[str, Any] = {
        "batch.rows": 2,
        "batch.length": 16,
        "batch.rows_at_once": 1 if recipe.batch.rows_at_once else 0,
        "data.train": str(texts.parent / "talks.jsonl" if recipe.data.conversations else texts),
        "schedule.steps": 2,
        "watch.held_out_every": 2,
        "watch.sample_tokens": 3,
    }
    if recipe.model.start is None:
        changes |= {"model.num_layers": 2, "model.dim": 64, "model.vocab_size": 256, "data.tokenizer": "bytes"}
    else:
        changes["model.start"] = str(bases[version])
    if recipe.data.conversations:
        # An answer begins after 24 letters.
        changes["batch.length"] = 48
    if recipe.data.held_out_one_in:
        changes["data.held_out_one_in"] = 4
    return Recipe.read(name, changes | {key.replace("__", "."): value for key, value in more.items()})


def do(recipe: Recipe, folder: Path, **options: Any) -> Learnt:
    return run(recipe, folder, Console(file=io.StringIO()), **options)


# Each with every generation that it is for: RWKV-4 has no state of the kind that is tuned.
CASES = [
    (name, version)
    for name in shipped_recipes()
    for version in VERSIONS
    if (Recipe.read(name).model.start is not None or version == "7") and (name, version) != ("state", "4")
]


@pytest.mark.parametrize(("name", "version"), CASES)
def test_every_shipped_recipe_runs(
    name: str, version: str, bases: dict[str, Path], texts: Path, tmp_path: Path
) -> None:
    recipe = shrunk(name, bases, texts, version)
    learnt = do(recipe, tmp_path / "run")
    steps = read_metrics(tmp_path / "run")
    assert len(steps) == 2 and all(step["loss"] is not None for step in steps)
    if recipe.data.held_out_one_in:
        assert steps[-1]["held_out"] is not None
    assert Recipe.read(tmp_path / "run" / "recipe.toml") == recipe
    start = bases[version]
    text = "This is text number"
    if recipe.finetune.method == "full":
        assert receptance.load(learnt.path).generate(text, 3, temperature=0).text is not None
    elif recipe.finetune.method == "state":
        lm = receptance.load(start)
        assert lm.load_state(learnt.path).wkv.abs().sum() > 0
    else:
        assert receptance.load(start, adapter=learnt.path).config.dim == 64


def is_adapted(model: torch.nn.Module) -> bool:
    return any("lora_" in name for name, _ in model.named_modules())


def logits(model: Any, state: Any = None) -> torch.Tensor:
    with torch.no_grad():
        found, _ = model(torch.arange(40)[None] + 60, state)
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
def test_an_adapter_is_loaded_and_merged_as_it_was_learnt(
    method: str, version: str, bases: dict[str, Path], texts: Path, tmp_path: Path
) -> None:
    more = {"finetune__method": method, "finetune__rank": 3, "optim__lr": 1e-2, "schedule__steps": 5}
    recipe = shrunk("lora", bases, texts, version, **more)
    learnt = do(recipe, tmp_path / "run")
    first, last = (read_metrics(tmp_path / "run")[place]["loss"] for place in (0, -1))
    assert last < first
    base = receptance.load(bases[version], dtype="float32").model
    adapted = receptance.load(bases[version], dtype="float32", adapter=learnt.path).model
    assert not is_adapted(adapted) and (logits(adapted) - logits(base)).abs().max() > 1e-3
    # What peft makes of the same folder, beside a model of its own.
    peft = pytest.importorskip("peft")
    beside = receptance.load(bases[version], dtype="float32").model
    theirs = peft.PeftModel.from_pretrained(beside, str(learnt.path)).eval()
    torch.testing.assert_close(logits(theirs.base_model.model), logits(adapted), rtol=1e-3, atol=1e-4)
    # And a training that goes on begins where that one stopped: with the loss of the adapted model.
    again = do(recipe.changed(schedule={"steps": 6, "warmup_steps": 0}), tmp_path / "run")
    (step,) = again.outcome.steps
    batch = Batches(Tokens.open(tmp_path / "run/tokens/train"), recipe.batch)(5)
    with torch.no_grad():
        x, _ = adapted.features(batch.tokens, first=batch.first)
        assert step.loss == pytest.approx(next_token_loss(adapted.head, x, batch.targets).item(), rel=2e-2)


@pytest.mark.parametrize("quant", ["int8", "int4"])
@pytest.mark.parametrize("method", ["lora", "dora", "pissa"])
def test_an_adapter_learns_beside_quantised_matrices(
    method: str, quant: str, bases: dict[str, Path], texts: Path, tmp_path: Path
) -> None:
    more = {"finetune__method": method, "finetune__quant": quant, "optim__lr": 1e-2, "schedule__steps": 5}
    recipe = shrunk("chat", bases, texts, **more)
    learnt = do(recipe, tmp_path / "run")
    steps = read_metrics(tmp_path / "run")
    assert steps[-1]["loss"] < steps[0]["loss"]
    base, lm = (receptance.load(bases["7"], quant=quant, adapter=path) for path in (None, learnt.path))
    assert is_adapted(lm.model) and not is_adapted(base.model)
    assert (logits(lm.model) - logits(base.model)).abs().max() > 1e-3
    assert len(lm.generate("One?", 3, temperature=0).tokens) == 3
    # It begins with what the model is, and a training that goes on, with what was learnt.
    (step,) = do(recipe.changed(schedule={"steps": 6, "warmup_steps": 0}), tmp_path / "run").outcome.steps
    for model, number, loss in ((base.model, 0, steps[0]["loss"]), (lm.model, 5, step.loss)):
        batch = Batches(Tokens.open(tmp_path / "run/tokens/train"), recipe.batch)(number)
        with torch.no_grad():
            x, _ = model.features(batch.tokens, first=batch.first)
            found = next_token_loss(model.head, x, batch.targets)
        assert loss == pytest.approx(found.item(), rel=2e-2)


@pytest.mark.parametrize(("version", "quant"), [("6", None), ("7", None), ("7", "int8"), ("7", "int4")])
def test_a_tuned_state_is_what_was_learnt(
    version: str, quant: str | None, bases: dict[str, Path], texts: Path, tmp_path: Path
) -> None:
    more = {"finetune__quant": quant} if quant else {}
    learnt = do(shrunk("state", bases, texts, version, schedule__steps=6, optim__lr=0.05, **more), tmp_path / "run")
    steps = read_metrics(tmp_path / "run")
    assert steps[-1]["loss"] < steps[0]["loss"]
    lm = receptance.load(bases[version], quant=quant)
    state = lm.load_state(learnt.path)
    assert state.shift.abs().sum() == 0 and state.wkv.shape == (2, 1, 2, 32, 32)
    tensors = torch.load(learnt.path, weights_only=True)
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {
        f"blocks.{layer}.att.time_state": [2, 32, 32] for layer in range(2)
    }
    assert (logits(lm.model, state) - logits(lm.model)).abs().max() > 1e-3


def test_a_checkpoint_of_a_training_becomes_a_model(bases: dict[str, Path], texts: Path, tmp_path: Path) -> None:
    learnt = do(shrunk("quickstart", bases, texts), tmp_path / "run")
    last = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    torch.testing.assert_close(logits(model_of(last)), logits(receptance.load(learnt.path).model))
    do(shrunk("lora", bases, texts), tmp_path / "adapted")
    with pytest.raises(CheckpointError, match="holds no whole model"):
        model_of(sorted((tmp_path / "adapted" / "checkpoints").iterdir())[-1])


def test_text_is_made_tokens_of_once(bases: dict[str, Path], texts: Path, tmp_path: Path) -> None:
    recipe = shrunk("quickstart", bases, texts, data__held_out_one_in=5)
    do(recipe, tmp_path)
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tokens").iterdir()}
    do(recipe.changed(schedule={"steps": 3}), tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "tokens").iterdir()} == made
    sizes = [Tokens.open(tmp_path / "tokens" / name).num_documents for name in ("train", "held-out")]
    assert sum(sizes) == 30 and all(sizes)
    # With other settings the tokens are others, too.
    with pytest.raises(DataError, match="there is no document to hold out"):
        do(recipe.changed(data={"train": str(texts), "tokenizer": "bytes", "held_out_one_in": 10**9}), tmp_path)


def test_a_data_set_that_was_made_before_is_read_as_it_is(
    bases: dict[str, Path], texts: Path, tmp_path: Path
) -> None:
    do(shrunk("quickstart", bases, texts), tmp_path / "first")
    made = str(tmp_path / "first" / "tokens" / "train")
    recipe = shrunk("quickstart", bases, texts, data__train=made, data__held_out_one_in=0, data__held_out=made)
    do(recipe, tmp_path / "second")
    assert not (tmp_path / "second" / "tokens").exists()
    assert read_metrics(tmp_path / "second")[-1]["held_out"] is not None


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such text": ("quickstart", {"data__train": "nowhere"}, "there is no file or folder nowhere"),
    "no such checkpoint": ("lora", {"model__start": "no/such.pth"}, "no/such.pth"),
    "no such tokenizer": ("quickstart", {"data__tokenizer": "words"}, "no tokenizer is called 'words'"),
    "no such template": ("chat", {"data__template": "g9"}, "no template is called 'g9'"),
    "no such target": ("lora", {"finetune__targets": ["att.kye"]}, "no matrix .* ends in att.kye; there are"),
    "a state of RWKV-4": ("state", {"model__start": "{rwkv-4}"}, "RWKV-4 has no matrices to tune"),
    "a state apart": ("state", {"batch__apart": True}, "set batch.order to documents and apart to false"),
    "a start and a shape": ("lora", {"model__dim": 64}, "model.start has a shape of its own; leave model.dim out"),
    "held out twice": ("quickstart", {"data__held_out": "{texts}"}, "leave data.held_out_one_in out"),
    "groups of one device": ("quickstart", {"compute__replicas": 2}, "set compute.parallel to fsdp"),
    "nothing by name": ("quickstart", {"data__train": "."}, "has no file that ends in"),
    "nothing to adapt": ("quickstart", {"finetune__method": "lora"}, "the checkpoint to start from in model.start"),
    "quantised and full": ("continue", {"finetune__quant": "int8"}, "with 'full' all are"),
    "a rank of all": ("continue", {"finetune__rank": 4}, "finetune.rank is of low-rank additions, and 'full' has none"),
    "a state's matrices": ("state", {"finetune__targets": ["att.key"]}, "finetune.targets is of low-rank additions"),
    "too little text": ("quickstart", {"batch__length": 10**6}, "too few for 2 pieces of 1000000"),
    "no conversations": ("chat", {"data__train": "{texts}"}, "this is no conversation"),
    "no records of text": ("quickstart", {"data__train": "{talks}"}, "line 1: there is no 'text' but messages"),
    "nothing held out": ("quickstart", {"data__held_out_one_in": 10**9}, "there is no document to hold out"),
    "another vocabulary": ("lora", {"data__tokenizer": "world"}, "knows only those below 256"),
    "a device that is not there": ("quickstart", {"compute__device": "cuda:77"}, "cannot compute on"),
    "a sampled fsdp": ("quickstart", {"compute__parallel": "fsdp"}, "watch.sample_every needs a whole model"),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_is_told_in_one_sentence(
    kind: str, bases: dict[str, Path], texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, changes, words = BAD[kind]
    places = {"{texts}": str(texts), "{talks}": str(texts.parent / "talks.jsonl"), "{rwkv-4}": str(bases["4"])}
    monkeypatch.chdir(tmp_path)
    changes = {key: places.get(str(value), value) for key, value in changes.items()}
    with pytest.raises(ReceptanceError, match=words) as caught:
        do(shrunk(name, bases, texts, **changes), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "model.pth").exists()


def test_a_training_is_not_gone_on_with_by_mistake(bases: dict[str, Path], texts: Path, tmp_path: Path) -> None:
    recipe = shrunk("quickstart", bases, texts)
    do(recipe, tmp_path, fresh=True)
    with pytest.raises(ConfigError, match="has a training in it; give --resume"):
        do(recipe, tmp_path, fresh=True)


def test_samples_are_written_and_kept(bases: dict[str, Path], texts: Path, tmp_path: Path) -> None:
    recipe = shrunk("quickstart", bases, texts, watch__sample_every=1, watch__prompt="This")
    do(recipe, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1] and all(line["text"].startswith("This") for line in lines)


def test_steps_of_which_nothing_is_to_be_learnt_are_left_out(
    bases: dict[str, Path], texts: Path, tmp_path: Path
) -> None:
    """Of pieces of 8 letters, half are a user's words alone."""
    recipe = shrunk("state", bases, texts, batch__length=8, batch__rows=1, batch__rows_at_once=1, schedule__steps=12)
    steps = do(recipe, tmp_path).outcome.steps
    assert {step.skipped.partition(";")[0] for step in steps} == {"", "nothing in it is to be learnt"}


def test_a_tuned_state_is_read_by_the_official_runtime(bases: dict[str, Path], texts: Path, tmp_path: Path) -> None:
    """It reads states of RWKV-5 and 6, where they lie in the model's own file."""
    pytest.importorskip("rwkv")
    learnt = do(shrunk("state", bases, texts, "6", schedule__steps=6, optim__lr=0.2), tmp_path / "run")
    whole = torch.load(bases["6"], weights_only=True) | torch.load(learnt.path, weights_only=True)
    torch.save(whole, tmp_path / "with-state.pth")
    tokens = list(b"User: One?")
    (theirs,) = official.logits(tmp_path / "with-state.pth", "6", [[tokens]])
    lm = receptance.load(bases["6"])
    with torch.no_grad():
        ours, _ = lm.model(torch.tensor([tokens]), lm.load_state(learnt.path))
        without, _ = lm.model(torch.tensor([tokens]))
    torch.testing.assert_close(ours[0], theirs, rtol=1e-3, atol=1e-4)
    assert (without[0] - theirs).abs().max() > 1e-2


def test_what_pissa_begins_with_is_of_this_rank_and_these_matrices(
    bases: dict[str, Path], texts: Path, tmp_path: Path
) -> None:
    """An attempt that was given up leaves a file that another one cannot use."""
    first = shrunk("lora", bases, texts, finetune__method="pissa", finetune__rank=2)
    do(first, tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    for more in ({"rank": 3}, {"rank": 3, "targets": ["att.key"]}):
        do(first.changed(finetune={"method": "pissa", **more}), tmp_path)
        shutil.rmtree(tmp_path / "checkpoints")


def test_tokens_half_made_are_made_again(bases: dict[str, Path], texts: Path, tmp_path: Path) -> None:
    recipe = shrunk("quickstart", bases, texts)
    do(recipe, tmp_path)
    whole = (tmp_path / "tokens" / "train.bin").read_bytes()
    other = recipe.changed(data={"train": str(texts.parent / "talks.jsonl"), "column": "id", "tokenizer": "bytes"})
    with pytest.raises(DataError):
        do(other, tmp_path)
    assert not (tmp_path / "tokens" / "sources.json").exists()
    do(recipe.changed(schedule={"steps": 3}), tmp_path)
    assert (tmp_path / "tokens" / "train.bin").read_bytes() == whole


def test_the_held_out_loss_is_of_what_is_learnt(bases: dict[str, Path], texts: Path, tmp_path: Path) -> None:
    """Of conversations that is the assistant's words; and a tuned state is measured where it is used."""
    more = {"schedule__steps": 30, "optim__lr": 0.3, "watch__held_out_every": 10, "compute__precision": "float32"}
    recipe = shrunk("state", bases, texts, **more)
    do(recipe, tmp_path)
    steps = read_metrics(tmp_path)
    measured = [step["held_out"] for step in steps if step["held_out"] is not None]
    # All conversations are alike, so both losses are of the same words.
    assert measured[-1] < measured[0]
    lm, held = receptance.load(bases["7"], dtype="float32"), Tokens.open(tmp_path / "tokens" / "held-out")
    batch = Batches(held, recipe.batch.changed(rows=held.num_documents, rows_at_once=0))(0)
    state = lm.load_state(tmp_path / "state.pth").rows([0] * held.num_documents)
    with torch.no_grad():
        x, _ = lm.model.features(batch.tokens, state, batch.lengths)
        answers, words = (
            next_token_loss(lm.model.head, x, targets).item()
            for targets in (batch.targets, torch.cat([batch.tokens[:, 1:], batch.targets[:, -1:]], 1))
        )
    assert measured[-1] == pytest.approx(answers, rel=1e-3) and abs(words / answers - 1) > 0.01
