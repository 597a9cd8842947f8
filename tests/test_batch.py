"""Many prompts from a file: every line as if alone, taken up again byte for byte, and nothing of anybody's lost."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from receptance import Config, InputError, StateError
from receptance.batch import Defaults, Summary, run
from receptance.batch.job import Job
from receptance.batch.requests import read_requests
from receptance.checkpoints import save_checkpoint
from receptance.cli import app
from receptance.generation import PRESETS, Sampler, Sampling
from receptance.language_model import LanguageModel
from receptance.state import fingerprint
from receptance.templates import TEMPLATES
from receptance.tokenizers import ByteTokenizer

from .models.cases import noisy, used

# More threads would wait for one another beside the other tests.
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
CONFIG = Config(version="7", vocab_size=256, num_layers=1, dim=16, head_size=8)
LINES: list[dict[str, Any]] = [
    {"prompt": "Once upon a time"},
    {"prompt": "x", "id": "second", "max_tokens": 3},
    {"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}], "id": 7},
    {"prompt": "y", "seed": 5, "temperature": 1.5, "order": "usual"},
    {"prompt": "", "logit_bias": {"65": 90}, "stop": "AAA"},
    {"messages": [{"role": "user", "content": "Think."}], "think": "on", "max_tokens": 5},
    {"prompt": "é", "banned": [0, 10], "stop": []},
]


@pytest.fixture(scope="module")
def lm() -> LanguageModel:
    """A small model of bytes, in a precision in which batches of different sizes agree."""
    model = noisy(CONFIG, torch.float64).requires_grad_(False)
    return LanguageModel(model, Path("bytes.pth"), "bytes", ByteTokenizer(), TEMPLATES["g1"])


def written(path: Path, lines: list[dict[str, Any]] = LINES) -> Path:
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


def results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_every_line_is_what_it_would_be_alone(lm: LanguageModel, tmp_path: Path) -> None:
    summary = run(lm, written(tmp_path / "in"), tmp_path / "out", max_tokens=8, seed=3, batch_size=3)
    found = results(tmp_path / "out")
    assert (summary.num_requests, summary.num_done, summary.num_earlier, summary.num_failed) == (7, 7, 0, 0)
    assert summary.num_tokens == sum(line["num_tokens"] for line in found) and summary.seed == 3
    assert [line["index"] for line in found] == list(range(7))
    assert [line.get("id") for line in found] == [None, "second", 7, None, None, None, None]

    def alone(prompt: str, place: int, **settings: Any) -> str:
        return lm.generate(prompt, **{"max_tokens": 8, "seed": 3, "request": place, **settings}).text

    assert found[0]["text"] == alone("Once upon a time", 0)
    assert found[1]["text"] == alone("x", 1, max_tokens=3) and found[1]["num_tokens"] == 3
    # A line with a seed of its own is what that seed gives anywhere.
    assert found[3]["text"] == alone("y", 0, seed=5, temperature=1.5, order="usual")
    assert (found[3]["seed"], found[3]["request"], found[2]["request"]) == (5, 0, 2)
    assert (found[4]["text"], found[4]["finish_reason"]) == ("", "stop")
    assert found[6]["text"] == alone("é", 6, banned=(0, 10))


def test_messages_are_answered_as_in_a_conversation(lm: LanguageModel, tmp_path: Path) -> None:
    lines = [{**line, "seed": 9} for line in LINES if "messages" in line]
    run(lm, written(tmp_path / "in", lines), tmp_path / "out", max_tokens=8)
    for line, result in zip(lines, results(tmp_path / "out"), strict=True):
        *before, last = line["messages"]
        chat = lm.chat(system=before[0]["content"] if before else None, think=line.get("think"))
        chat.seed, chat.max_tokens = 9, line.get("max_tokens", 8)
        reply = chat.ask(last["content"])
        assert (result["text"], result["thought"]) == (reply.text, reply.thought)
        assert result["num_prompt_tokens"] == reply.num_prompt_tokens
    assert results(tmp_path / "out")[1]["thought"]


def test_a_file_is_taken_up_wherever_it_was_cut(lm: LanguageModel, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 4, "batch_size": 2}
    source = written(tmp_path / "in")
    seed = run(lm, source, tmp_path / "whole", **options).seed
    whole = (tmp_path / "whole").read_bytes()
    ends = [place + 1 for place, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, 5, ends[0], ends[1] - 1, ends[1], ends[3] + 20, ends[4], len(whole) - 1):
        (tmp_path / "out").write_bytes(whole[:cut])
        # The seed was drawn: it is taken from the first result, where there is one.
        given = {"seed": seed} if cut < ends[0] else {}
        summary = run(lm, source, tmp_path / "out", **options, **given)
        assert (tmp_path / "out").read_bytes() == whole, cut
        assert summary.num_earlier == sum(end <= cut for end in ends) // 2 * 2, cut
    before = (tmp_path / "out").stat().st_mtime_ns
    summary = run(lm, source, tmp_path / "out", **options)
    assert (summary.num_earlier, summary.num_done, summary.num_tokens) == (7, 7, 0)
    assert (tmp_path / "out").stat().st_mtime_ns == before


def test_more_lines_can_be_added(lm: LanguageModel, tmp_path: Path) -> None:
    run(lm, written(tmp_path / "in", LINES[:4]), tmp_path / "out", max_tokens=4, seed=1, batch_size=2)
    run(lm, written(tmp_path / "in"), tmp_path / "out", max_tokens=4, batch_size=2)
    run(lm, tmp_path / "in", tmp_path / "whole", max_tokens=4, seed=1, batch_size=2)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


class Turned(ByteTokenizer):
    """Gives other ids their bytes under the same name."""

    def token_bytes(self, token: int) -> bytes:
        return super().token_bytes(255 - token)


# What is changed, and the first result that it would change.
CHANGED: dict[str, tuple[dict[str, Any], int]] = {
    "limit": ({"max_tokens": 5}, 1),
    "seed": ({"seed": 2}, 1),
    "setting": ({"temperature": 0.5}, 1),
    "stop": ({"stop": "x"}, 1),
    "preset": ({"sampling": PRESETS["runner"]}, 1),
}


@pytest.mark.parametrize(("options", "number"), CHANGED.values(), ids=CHANGED)
def test_an_output_of_other_settings_is_left_alone(
    lm: LanguageModel, tmp_path: Path, options: dict[str, Any], number: int
) -> None:
    left_alone(lm, lm, tmp_path, LINES, number, **options)


def test_an_output_of_another_model_is_left_alone(lm: LanguageModel, tmp_path: Path) -> None:
    rough = copy.deepcopy(lm.model).float()
    assert fingerprint(rough) == fingerprint(lm.model)
    larger = noisy(CONFIG.replace(num_layers=2), torch.float64)
    for number, other in (
        (1, replace(lm, model=larger)),
        (1, replace(lm, model=rough)),
        (1, replace(lm, given_tokenizer=Turned())),
        (3, replace(lm, given_template=TEMPLATES["world"])),
    ):
        left_alone(lm, other, tmp_path, LINES, number)


def test_an_output_of_other_lines_or_another_state_is_left_alone(lm: LanguageModel, tmp_path: Path) -> None:
    left_alone(lm, lm, tmp_path, [LINES[0], *LINES[3:], LINES[1]], 2)
    left_alone(lm, lm, tmp_path, LINES[:4] + LINES[5:], 1, state=used(lm.model, 1))


def left_alone(
    lm: LanguageModel, other: LanguageModel, folder: Path, lines: list[dict[str, Any]], number: int, **options: Any
) -> None:
    """Answers LINES, and asserts that a run with another model, lines or options refuses that result."""
    out = folder / "out"
    run(lm, written(folder / "in"), out, max_tokens=4, seed=1)
    kept = out.read_bytes()
    source = written(folder / "other", lines)
    with pytest.raises(InputError, match=rf"result {number} in .* another prompt, setting or model"):
        run(other, source, out, **{"max_tokens": 4, "seed": 1, **options})
    assert out.read_bytes() == kept


def test_an_output_of_something_else_is_left_alone(lm: LanguageModel, tmp_path: Path) -> None:
    source, out = written(tmp_path / "in"), tmp_path / "out"
    run(lm, source, out, max_tokens=4, seed=1)
    kept = out.read_bytes()
    with pytest.raises(InputError, match="holds more results"):
        run(lm, written(tmp_path / "short", LINES[:3]), out, max_tokens=4, seed=1)
    assert out.read_bytes() == kept
    for notes in (b"my notes", b"my notes\n", b'{"index":0,"text":"a"}\n', kept[kept.index(b"\n") + 1 :], b"[]\n"):
        out.write_bytes(notes)
        with pytest.raises(InputError, match="name another file"):
            run(lm, source, out, max_tokens=4, seed=1)
        assert out.read_bytes() == notes


WRONG = {
    "no JSON": ('{"prompt": "a"', "EOF"),
    "no object": ("[1]", "object"),
    "neither": ("{}", "either a prompt or messages"),
    "both": ('{"prompt": "a", "messages": [{"role": "user", "content": "a"}]}', "either a prompt or messages"),
    "number": ('{"prompt": 1}', "prompt: Input should be a valid string"),
    "typing error": ('{"prompt": "a", "max_token": 5}', "'max_token' is no setting"),
    "limit": ('{"prompt": "a", "max_tokens": 0}', "max_tokens"),
    "temperature": ('{"prompt": "a", "temperature": -1}', "temperature must be"),
    "text": ('{"prompt": "a", "temperature": "1"}', "temperature must be"),
    "truth": ('{"prompt": "a", "top_k": true}', "top_k must be"),
    "no number": ('{"prompt": "a", "top_p": NaN}', "top_p must be"),
    "bias": ('{"prompt": "a", "logit_bias": {"a": 1}}', "logit_bias"),
    "vocabulary": ('{"prompt": "a", "banned": [256]}', "banned names token 256"),
    "stop": ('{"prompt": "a", "stop": ["x", ""]}', "a stop cannot be empty"),
    "think": ('{"prompt": "a", "think": "on"}', "think goes with messages"),
    "mode": ('{"messages": [{"role": "user", "content": "a"}], "think": "hard"}', "no think mode 'hard'"),
    "role": ('{"messages": [{"role": "cat", "content": "a"}]}', "the role 'cat'"),
    "nobody": ('{"messages": []}', "messages"),
    "last word": ('{"messages": [{"role": "assistant", "content": "a"}]}', "the assistant's own"),
    "surrogate": ('{"prompt": "\\ud800"}', "hex escape"),
    "deep": ("[" * 5000, "recursion"),
}


@pytest.mark.parametrize(("line", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_line_is_named_before_anything_is_computed(
    lm: LanguageModel, tmp_path: Path, line: str, words: str
) -> None:
    (tmp_path / "in").write_text(f'{{"prompt": "a"}}\n\n{line}\n{{"prompt": "b"}}\n')
    with pytest.raises(InputError, match=r"line 3 of .* cannot be served") as caught:
        run(lm, tmp_path / "in", tmp_path / "out")
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_other_refusals(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = written(tmp_path / "in")
    with pytest.raises(InputError, match="is no file"):
        run(lm, tmp_path / "missing", tmp_path / "out")
    with pytest.raises(InputError, match="is the input"):
        run(lm, source, source)
    with pytest.raises(InputError, match="no ordinary file"):
        run(lm, source, tmp_path)
    with pytest.raises(InputError, match="batch_size"):
        run(lm, source, tmp_path / "out", batch_size=0)
    with pytest.raises(InputError, match="max_tokens"):
        run(lm, source, tmp_path / "out", max_tokens=0)
    with pytest.raises(InputError, match="no tokenizer is known"):
        run(LanguageModel(noisy(CONFIG.replace(vocab_size=99)), tmp_path / "m.pth"), source, tmp_path / "out")
    with pytest.raises(InputError, match="the prompt is empty"):
        run(lm, source, tmp_path / "out", state=used(lm.model, 1))
    with pytest.raises(StateError):
        run(lm, source, tmp_path / "out", state=used(lm.model, 2))
    monkeypatch.setattr("receptance.batch.requests.LONGEST_LINE", 30)
    with pytest.raises(InputError, match=r"line 1 .*longer than 30 bytes"):
        run(lm, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_line_that_the_model_cannot_answer_takes_no_other_with_it(tmp_path: Path) -> None:
    model = noisy(CONFIG, torch.float64).requires_grad_(False)
    model.emb.weight[ord("Q")] = float("nan")
    lm = LanguageModel(model, Path("m.pth"), "m", ByteTokenizer(), None)
    lines = [{"prompt": prompt, "banned": [ord("Q")]} for prompt in ("a", "Q", "b", "c")]
    summary = run(lm, written(tmp_path / "in", lines), tmp_path / "out", max_tokens=4, seed=1, batch_size=3)
    found = results(tmp_path / "out")
    assert (summary.num_done, summary.num_failed) == (4, 1)
    assert found[1]["finish_reason"] == "error" and "not finite" in found[1]["error"] and found[1]["text"] == ""
    for place in (0, 2, 3):
        alone = lm.generate(lines[place]["prompt"], 4, seed=1, request=place, banned=(ord("Q"),))
        assert found[place]["text"] == alone.text and "error" not in found[place]


def test_errors_are_counted_and_tokens_are_not_counted_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second line fails at its second token, when its batch has some already."""
    model = noisy(CONFIG, torch.float64).requires_grad_(False)
    model.emb.weight[ord("Q")] = float("nan")
    broken = LanguageModel(model, Path("m.pth"), "m", ByteTokenizer(), None)
    monkeypatch.setattr("receptance.language_model.load", lambda *_, **__: broken)
    well: dict[str, Any] = {"prompt": "a", "banned": [ord("Q")]}
    lines = [well, {"prompt": "b", "logit_bias": {ord("Q"): 100}}, {**well, "max_tokens": 2}]
    source, out = written(tmp_path / "in", lines), tmp_path / "out"
    command = ["generate", "--batch", str(source), str(out), "-m", "m.pth", "-n", "4", "--seed", "1"]
    first = CliRunner().invoke(app, [*command, "--json"])
    found = results(out)
    assert [line["finish_reason"] for line in found] == ["length", "error", "length"]
    summary = json.loads(first.stdout)
    assert (first.exit_code, summary["num_failed"], summary["num_done"]) == (1, 1, 3)
    assert summary["num_tokens"] == sum(line["num_tokens"] for line in found) == 6
    # Nothing is tried again, and nothing is kept quiet.
    kept = out.read_bytes()
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 1 and "has all 3 results, 1 of them errors" in again.stderr
    written(source, [*lines, well])
    more = CliRunner().invoke(app, [*command, "--batch-size", "1"])
    assert more.exit_code == 1 and "3 of them from before, 1 of them errors" in more.stderr
    assert out.read_bytes().startswith(kept)


def test_two_runs_do_not_write_to_one_file(lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out = written(tmp_path / "in", [{"prompt": "a"}] * 4), tmp_path / "out"
    options: dict[str, Any] = {"max_tokens": 2, "seed": 1, "batch_size": 1}
    refused: list[str] = []

    def meanwhile(now: Summary) -> None:
        # When all results are there, the second run has nothing to write.
        if now.num_done < now.num_requests:
            with pytest.raises(InputError, match="another run is writing to") as caught:
                run(lm, source, out, **options)
            refused.append(str(caught.value))

    run(lm, source, out, **options, on_progress=meanwhile)
    assert len(refused) >= 4 and len(results(out)) == 4
    # One that began and ended between our reading of the file and our writing to it.
    check, whole = Job.check, out.read_bytes()
    out.write_bytes(whole[: whole.index(b"\n") + 1])

    def overtaken(self: Job, seed: int | None) -> Summary:
        found = check(self, seed)
        out.write_bytes(whole)
        return found

    monkeypatch.setattr(Job, "check", overtaken)
    with pytest.raises(InputError, match="another run is writing to"):
        run(lm, source, out, **options)
    assert out.read_bytes() == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_lines_are_checked_without_the_work_of_sampling(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="logit_bias names token 256, and the vocabulary ends at 255"):
        Sampling(logit_bias={256: 1.0}).check(256)
    with pytest.raises(InputError, match="all 2 tokens"):
        Sampling(banned=(0, 1)).check(2)
    monkeypatch.setattr(Sampler, "__init__", None)
    defaults = Defaults.of(lm, has_state=False, think=None, sampling=None, changes={}, max_tokens=1, stops=())
    assert len(list(read_requests(written(tmp_path / "in"), defaults))) == len(LINES)


def test_a_template_that_is_a_guess_is_told(model_path: Path, tmp_path: Path) -> None:
    arguments = ["generate", "-m", str(model_path), "-n", "2", "--batch"]
    for lines, told in ((LINES[:2], False), (LINES[:3], True)):
        source = written(tmp_path / f"in{told}", lines)
        result = CliRunner().invoke(app, [*arguments, str(source), str(tmp_path / f"out{told}")])
        assert result.exit_code == 0 and ("template g1 (a guess" in result.stderr) == told


def test_a_state_goes_before_every_prompt(lm: LanguageModel, tmp_path: Path) -> None:
    state = used(lm.model, 1)
    run(lm, written(tmp_path / "in", LINES[:2]), tmp_path / "out", max_tokens=4, seed=1, state=state)
    assert results(tmp_path / "out")[0]["text"] == lm.generate("Once upon a time", 4, seed=1, state=state).text


def test_progress_and_settings(lm: LanguageModel, tmp_path: Path) -> None:
    seen: list[Summary] = []
    source = written(tmp_path / "in", [{"prompt": "a"}] * 5)
    given = Sampling(temperature=2.0, seed=8)
    run(lm, source, tmp_path / "new" / "out", max_tokens=3, sampling=given, batch_size=2, on_progress=seen.append)
    assert [now.num_done for now in seen if now.num_done] and seen[-1].num_done == 5
    assert all(a.num_tokens <= b.num_tokens for a, b in pairwise(seen))
    found = results(tmp_path / "new" / "out")
    assert {line["seed"] for line in found} == {8}
    assert found[0]["text"] == lm.generate("a", 3, sampling=given).text
    assert len({line["text"] for line in found}) > 1  # the same prompt, other noise


def test_empty_files(lm: LanguageModel, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"\n\n")
    assert run(lm, tmp_path / "in", tmp_path / "out").num_requests == 0
    # As Windows writes it.
    (tmp_path / "in").write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n\r\n')
    assert run(lm, tmp_path / "in", tmp_path / "out", max_tokens=2).num_done == 1


def test_memory_does_not_grow_with_the_file(lm: LanguageModel, tmp_path: Path) -> None:
    def peak(count: int) -> int:
        source = written(tmp_path / f"in{count}", [{"prompt": "x", "id": "y" * 20_000}] * count)
        tracemalloc.start()
        run(lm, source, tmp_path / f"out{count}", max_tokens=1, batch_size=4)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(4)  # what is loaded once
    assert peak(120) < peak(12) + 50 * 20_000


@pytest.fixture(scope="module")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "bytes.pth"
    save_checkpoint(noisy(CONFIG), path)
    return path


def test_killed_and_taken_up_by_the_command(model_path: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "in", [{"prompt": str(number)} for number in range(8)])

    def arguments(out: str) -> list[str]:
        options = ["-m", str(model_path), "-n", "40", "--seed", "1", "--batch-size", "2", "--dtype", "float64"]
        return ["generate", "--batch", str(source), str(tmp_path / out), *options]

    process = subprocess.Popen(
        [sys.executable, "-m", "receptance", *arguments("out")], stderr=subprocess.PIPE, env=ONE_THREAD
    )
    deadline = time.monotonic() + 60
    while not ((tmp_path / "out").exists() and (tmp_path / "out").stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert process.returncode != 0
    done = len((tmp_path / "out").read_bytes().splitlines())
    assert 0 < done < 8
    with (tmp_path / "out").open("ab") as file:
        file.write(b'{"index":%d,"te' % done)  # as a kill within a write would leave it

    resumed = CliRunner().invoke(app, arguments("out"))
    assert resumed.exit_code == 0 and f"8 results in {tmp_path / 'out'}, {done} of them from before" in resumed.stderr
    whole = CliRunner().invoke(app, [*arguments("whole"), "--json"])
    assert json.loads(whole.stdout)["num_done"] == 8
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
    again = CliRunner().invoke(app, arguments("out"))
    assert (again.exit_code, again.stdout) == (0, "") and "nothing to do" in again.stderr


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_ctrl_c_tells_what_is_safe(model_path: Path, tmp_path: Path) -> None:
    endless = {"prompt": "a", "max_tokens": 10**7, "banned": [0]}  # 0 would end the text, by chance before the signal
    source = written(tmp_path / "in", [{"prompt": "a", "max_tokens": 20}, endless])
    arguments = ["--batch", source, tmp_path / "out", "-m", model_path, "--batch-size", 1]
    command = [sys.executable, "-m", "receptance", "generate", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ONE_THREAD)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "out").exists() and (tmp_path / "out").stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)  # it knows of the line a moment after it is there
    process.send_signal(signal.SIGINT)
    try:
        out, said = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "1 of 2 results are in" in said and "the same command goes on" in said
    assert said.endswith("receptance: stopped\n")


def test_the_command_says_what_is_wrong(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "in").write_text('{"prompt": "a"}\nno JSON\n')
    for arguments, words in [
        ([tmp_path / "missing", tmp_path / "out"], "is no file"),
        ([tmp_path / "in", tmp_path / "in"], "is the input"),
        ([tmp_path / "in", tmp_path / "out"], "line 2 of"),
    ]:
        result = CliRunner().invoke(app, ["generate", "-m", str(model_path), "--batch", *map(str, arguments)])
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("receptance: ") and words in result.stderr
