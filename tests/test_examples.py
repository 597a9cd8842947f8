"""The examples run, say what they promise, and the conversations that one of them learns from are what it says."""

from __future__ import annotations

import html
import os
import random
import re
import runpy
import shutil
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from receptance import Config
from receptance.templates import TEMPLATES, Message
from receptance.training import Batches, Batching, Optim, Schedule, Training

from .conftest import ROOT

FOLDER = ROOT / "examples"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py"))
WITH_MODEL = ("conversation", "generate", "own_template", "score_a_text", "state_is_memory")


def script(name: str) -> ModuleType:
    """A script as a module, which finds the others beside it."""
    sys.path.insert(0, str(FOLDER))
    try:
        return import_module(name)
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def training() -> ModuleType:
    return script("train_a_chat_model")


@pytest.fixture(scope="module")
def made_up() -> ModuleType:
    return script("made_up_conversations")


@pytest.fixture(scope="module")
def little_model(training: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the training script leaves after some seconds: its answers are wrong, but in the form of answers."""
    path: Path = tmp_path_factory.mktemp("examples") / "new" / "model.pth"
    config = Config(version="7", vocab_size=256, num_layers=1, dim=64, head_size=32)
    recipe = Training(
        batch=Batching(rows=4, length=96, order="packed"), optim=Optim(lr=5e-3), schedule=Schedule(tokens=12_000)
    )
    threads = torch.get_num_threads()
    # So small a model is faster without a second thread, and on a busy machine far faster.
    torch.set_num_threads(1)
    training.main(path, config, recipe, num_bytes=20_000, num_questions=20)
    torch.set_num_threads(threads)
    return path


def run(name: str, *arguments: str | Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """What a script prints."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    capsys.readouterr()
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    return capsys.readouterr().out


def test_every_script_is_short_and_says_how_to_run_it() -> None:
    assert set(SCRIPTS) > {*WITH_MODEL, "train_a_chat_model"}
    for name in SCRIPTS:
        source = (FOLDER / f"{name}.py").read_text("utf-8")
        assert len(source.splitlines()) <= 120, name
        assert re.match(r'""".+?python examples/.+?"""', source, re.DOTALL), name


def test_the_readme_lists_every_file() -> None:
    listed = re.findall(r"\]\((\S+)\)", (FOLDER / "README.md").read_text("utf-8"))
    assert sorted(listed) == sorted(path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".jinja"))


@pytest.mark.parametrize("name", WITH_MODEL)
def test_without_a_model_one_sentence_tells_how_to_get_one(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"python examples/train_a_chat_model\.py"):
        run(name, capsys=capsys, monkeypatch=monkeypatch)
    with pytest.raises(SystemExit, match=r"^there is no file or folder nothing\.pth"):
        run(name, "nothing.pth", capsys=capsys, monkeypatch=monkeypatch)


def test_the_model_that_was_trained_here_is_taken(
    little_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("quickstart", "little-chat"):
        (tmp_path / place).mkdir()
        shutil.copy(little_model, tmp_path / place / "model.pth")
        printed = run("own_template", capsys=capsys, monkeypatch=monkeypatch)
        assert printed.startswith(f"{place}/model.pth: RWKV-7, 1 layers of 64")


def test_generate(little_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run("generate", little_model, capsys=capsys, monkeypatch=monkeypatch)
    # A row of a batch is what it would be alone.
    [together], [alone] = re.findall(r"^spell plum +(.*)$", printed, re.M), re.findall(r"alone: (.*)$", printed, re.M)
    assert together == alone
    # Each line begins with the token that was chosen and its chance.
    chances = [float(chance) for chance in re.findall(r"""^(?:'.*?'|".*?") +([\d.]+)%   """, printed, re.M)]
    assert chances and all(0 < chance <= 100 for chance in chances)


def test_conversation(little_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run("conversation", little_model, capsys=capsys, monkeypatch=monkeypatch)
    undone = re.findall(r"undone: (.*)", printed)
    assert undone == ["what is my name?", "what is 17 + 8?", "my name is Ada"]
    # One question, a word, a name and the question for it stay when the last question is taken back.
    assert re.search(r"8 messages are left\.$", printed.strip())
    # [L, 2, 1, C] and [L, 1, H, N, N] in float32.
    assert f"The state takes {4 * (2 * 64 + 2 * 32 * 32):,} bytes" in printed


def test_state_is_memory(
    little_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = run("state_is_memory", little_model, capsys=capsys, monkeypatch=monkeypatch)
    assert "bit for bit the same state" in printed
    assert len(set(re.findall(r"take[ns] ([\d,]+) bytes", printed))) == 1
    (tmp_path / "text.txt").write_text("hello " * 50)
    printed = run(
        "state_is_memory", little_model, tmp_path / "text.txt", "Why?", capsys=capsys, monkeypatch=monkeypatch
    )
    assert "Read 301 tokens" in printed and re.search(r"^  Why\? ", printed, re.M)


def test_score_a_text(
    little_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = run("score_a_text", little_model, capsys=capsys, monkeypatch=monkeypatch)
    bits = {name: float(value) for name, value in re.findall(r"^([a-z ,]+?) +[\d,]+ +([\d.]+)", printed, re.M)}
    assert 0 < bits["a conversation"] < 6 < bits["its letters, shuffled"]
    (tmp_path / "text.txt").write_text("User: hi\n\n")
    assert re.search(
        r"^text\.txt +10 ",
        run("score_a_text", little_model, tmp_path / "text.txt", capsys=capsys, monkeypatch=monkeypatch),
        re.M,
    )


def test_own_template(little_model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    printed = run("own_template", little_model, capsys=capsys, monkeypatch=monkeypatch)
    told = "User: my name is Ada\n\nAssistant: Your name is Ada.\n\n"
    assert f"{told}User: what is my name?\n\nAssistant:" in printed
    assert printed.count("\n> ") == 3


def test_own_template_goes_on_with_what_was_generated() -> None:
    from receptance.templates import open_template

    template = open_template(FOLDER / "own_template.jinja")
    first = template.prompt([Message("system", "name: Ada"), Message("user", "hi")])
    said = [Message("user", "hi"), Message("assistant", "Hello!", raw="  Hello!"), Message("user", "spell ab")]
    assert template.prompt([Message("system", "name: Ada"), *said]).startswith(first + "  Hello!\n\n")


def test_conversations_are_in_the_template(made_up: ModuleType) -> None:
    exchanges = list(made_up.conversation(random.Random(5)))
    messages = [
        Message(role, text) for each in exchanges for role, text in (("user", each.message), ("assistant", each.answer))
    ]
    text = TEMPLATES["g1"].prompt([*messages, Message("user", "hi")])
    assert text == made_up.as_text(exchanges) + "User: hi\n\nAssistant:"


def test_answers_of_conversations_are_right(made_up: ModuleType) -> None:
    kinds = set()
    for seed in range(200):
        for kind, wanted in replies(list(made_up.conversation(random.Random(seed)))):
            assert wanted[0] == wanted[1], kind
            kinds.add(kind)
    assert kinds == {"sum", "larger", "spell", "backwards", "tell", "recall", "unknown", "greet"}


def replies(exchanges: list[Any]) -> list[tuple[str, tuple[str, str]]]:
    """Kind, the given answer and what a reader of the messages alone would answer."""
    name, found = None, []
    for kind, message, answer in exchanges:
        asked = message.rstrip("?")
        asked = asked[0].lower() + asked[1:]
        last = asked.split()[-1]
        values = [int(number) for number in re.findall(r"\d+", asked)]
        if values:
            right = str(sum(values) if "+" in asked else max(values))
        elif asked.startswith("spell "):
            right = "-".join(last)
        elif asked.startswith("say "):
            right = asked.split()[1][::-1]
        elif asked in ("what is my name", "who am I"):
            right = f"Your name is {name}." if name else "I do not know."
        elif asked.startswith(("my name is ", "i am ")):
            name, right = last, f"Your name is {last}."
        else:
            assert asked in ("hi", "hello", "who are you", "help")
            right = "Hello! I can add, compare, spell, turn words around, and remember."
        found.append((kind, (answer, right)))
    return found


def test_nothing_that_is_held_out_is_learned(made_up: ModuleType) -> None:
    def items(held_out: bool) -> set[tuple[str, ...]]:
        """The pairs of numbers and the words of some conversations."""
        found = set()
        for seed in range(400):
            for kind, message, answer in made_up.conversation(random.Random(seed), held_out):
                if kind in ("sum", "larger"):
                    found.add(tuple(re.findall(r"\d+", message)))
                elif kind in ("spell", "backwards"):
                    found.add((answer.replace("-", "") if kind == "spell" else answer[::-1],))
        return {tuple(part.lower() for part in item) for item in found}

    learned, kept = items(held_out=False), items(held_out=True)
    assert len(learned) > 200 and len(kept) > 200
    assert not learned & kept


def test_pieces_of_the_training_text_begin_with_a_conversation(training: ModuleType) -> None:
    text = training.training_text(5_000)
    whole = bytes(text.window(0, text.num_tokens).tolist())
    batches = Batches(text, training.RECIPE.batch.changed(length=1_000))
    pieces = {bytes(row.tolist()) for step in range(5) for row in batches(step).tokens}
    assert len(pieces) > 3
    for piece in pieces:
        # The last one is moved back, to be whole.
        assert piece in whole and (piece.lstrip(b"\0").startswith(b"User: ") or whole.endswith(piece[1:] + b"\0"))


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_a_terminal_is_drawn() -> None:
    drawing = script("draw_a_terminal")
    # Asks where the cursor is, dims a word, and shows what was typed.
    program = (
        "import sys, tty; tty.setcbreak(0)\n"
        "print('ab\\x1b[6n', end='', flush=True); place = ''\n"
        "while not place.endswith('R'): place += sys.stdin.read(1)\n"
        "print(place[1:], '\\x1b[2mfaint\\x1b[0m', sys.stdin.readline().strip()[::-1])\n"
    )
    terminal = drawing.Terminal([sys.executable, "-c", program], dict(os.environ))
    terminal.wait(quiet=0.3, longest=20)
    terminal.program.send("typed\n")
    terminal.wait(quiet=0.3, longest=20)
    lines = terminal.lines()
    terminal.program.close()
    first = next(line for line in lines if "faint" in line.plain)
    assert first.plain.startswith("ab[1;3R faint") and first.plain.rstrip().endswith("depyt")
    assert [first.plain[span.start : span.end] for span in first.spans if span.style.dim] == ["faint"]
    picture = drawing.as_svg(lines, "a title")
    words = html.unescape(picture).replace("\xa0", " ")
    assert "faint" in words and "a title" in words
    # Nothing is fetched by whoever looks at it.
    assert "url(http" not in picture and 'url("http' not in picture and "font-face" not in picture


def test_accuracy_counts_what_is_right(training: ModuleType) -> None:
    """Of a model that can only add, the sums are right and nothing else."""

    def generate(prompts: list[str], **_: Any) -> list[SimpleNamespace]:
        last = [prompt.rsplit("User: ", 1)[1] for prompt in prompts]
        numbers = [[int(number) for number in re.findall(r"\d+", message)] for message in last]
        return [SimpleNamespace(text=f" {sum(found)}") for found in numbers]

    right = training.accuracy(SimpleNamespace(generate=generate), count=200)
    assert len(right) == 8 and sum(map(len, right.values())) >= 200
    for kind, found in right.items():
        assert all(found) if kind == "sum" else not any(found)
