"""What the documentation shows is run, and what it links to is there; docs_pages.py tells how a page steers this."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

from .conftest import THREADS
from .docs_pages import LINES, PAGES, ROOT, Block, Command, anchors, blocks, commands, links, marks, prints
from .update_links import update
from .update_reference import PAGES as GENERATED

PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
# The generated pages show signatures and fragments of code, which cannot be run by themselves.
WRITTEN = [page for page in PAGES if page.name not in GENERATED]
SECONDS = 180


@pytest.mark.skipif(os.name == "nt", reason="the pages show commands of a POSIX shell")
@pytest.mark.parametrize("page", WRITTEN, ids=[page.relative_to(ROOT).as_posix() for page in WRITTEN])
def test_page_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page.read_text("utf-8")):
        where = f"{page.relative_to(ROOT)}:{block.line}"
        if block.instead:
            for text in block.instead:
                run(Command(text), tmp_path, where)
        elif block.language == "python":
            run_python(block, namespace, where)
        elif block.language in ("sh", "console"):
            for command in commands(block):
                run(command, tmp_path, where)


def run_python(block: Block, namespace: dict[str, Any], where: str) -> None:
    printed = io.StringIO()
    try:
        # Padding makes the line numbers of a traceback those of the page.
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * block.line + block.text, where, "exec"), namespace)
    except Exception:
        pytest.fail(f"{where} does not run\n{printed.getvalue()}\n{traceback.format_exc()}")


def run(command: Command, folder: Path, where: str) -> None:
    if command.text.startswith("make"):
        target = ["make", "--dry-run", "--directory", str(ROOT), *command.text.split()[1:]]
        result = subprocess.run(target, capture_output=True, text=True)
        assert result.returncode == 0, f"{where}: {command.text}\n{result.stderr}"
        assert not command.output, f"{where}: the output of make is not looked at"
        return
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "COLUMNS": "120", "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    environment["OMP_NUM_THREADS"] = str(THREADS)
    result = subprocess.run(
        command.text, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    output = result.stdout + result.stderr
    assert result.returncode == command.exits, f"{where}: {command.text} exits {result.returncode}\n{output}"
    missing = prints(output, command.output)
    assert missing is None, f"{where}: {command.text} does not print {missing!r} (in this order), but\n{output}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for line, match in links(page.read_text("utf-8")):
        where = f"{page.relative_to(ROOT)}:{line}"
        path, _, fragment = match["target"].partition("#")
        if "://" in path or path.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT) and target.exists(), f"{where}: {path} does not exist"
        if fragment and target.suffix == ".md":
            assert fragment in anchors(target.read_text("utf-8")), f"{where}: {path} has no heading #{fragment}"
        elif fragment:
            check_lines(where, target, fragment, match["title"])


def check_lines(where: str, target: Path, fragment: str, title: str | None) -> None:
    lines = LINES.match(fragment)
    assert lines is not None, f"{where}: #{fragment} is neither L1 nor L1-L2"
    assert title, f'{where}: name what the linked lines hold, as in [text](path#L1-L2 "log_w =")'
    source = target.read_text("utf-8").splitlines()
    first, last = int(lines["first"]), int(lines["last"] or lines["first"])
    assert 1 <= first <= last <= len(source), f"{where}: {target.name} has {len(source)} lines; run `make links`"
    begin, end = marks(title)
    assert begin in source[first - 1], f"{where}: line {first} of {target.name} holds no {begin!r}; run `make links`"
    assert end is None or end in source[last - 1], f"{where}: line {last} holds no {end!r}; run `make links`"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_link_numbers_are_up_to_date(page: Path) -> None:
    text, complaints = update(page)
    assert not complaints and text == page.read_text("utf-8"), f"run `make links`; {complaints}"


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    targets = [match["target"].partition("#")[0] for _, match in links(index.read_text("utf-8"))]
    linked = {(index.parent / target).resolve() for target in targets}
    missing = [page.name for page in PAGES if page not in (ROOT / "README.md", index) and page not in linked]
    assert not missing, f"docs/README.md does not mention {missing}"


def test_every_example_is_mentioned() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    missing = [path.name for path in (ROOT / "examples").iterdir() if path.is_file() and path.name not in text]
    assert not missing, f"no page mentions {missing}"


def test_the_harness_sees_what_is_wrong(tmp_path: Path) -> None:
    first = "<!-- run instead: true -->\n```sh\nsleep 900\n```\n"
    found = list(blocks(first + "\n```console\n$ echo one  two\none …\n```\n\n```toml\n```\n"))
    assert [block.language for block in found] == ["sh", "console", "toml"]
    assert found[0].instead == ("true",) and found[1].instead == ()
    (command,) = commands(found[1])
    run(command, tmp_path, "page:1")
    with pytest.raises(AssertionError, match="does not print 'three'"):
        run(Command("echo one two", ("two", "three")), tmp_path, "page:1")
    with pytest.raises(AssertionError, match="exits 3"):
        run(Command("exit 3"), tmp_path, "page:1")
    run(Command("exit 3", exits=3), tmp_path, "page:1")
    with pytest.raises(AssertionError, match="No rule to make target"):
        run(Command("make nothing"), tmp_path, "page:1")
    with pytest.raises(pytest.fail.Exception, match=r"page:7(.|\n)*ZeroDivisionError"):
        run_python(Block("python", 7, "1 / 0"), {}, "page:7")
    with pytest.raises(ValueError, match="never closed"):
        list(blocks("```python\n"))


def test_line_links_are_checked_and_renumbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "model.py"
    source.write_text("\n\ndef decay(x):\n    y = x\n    return y\n", "utf-8")
    page = tmp_path / "page.md"
    page.write_text('See [the decay](model.py#L1-L2 "def decay … return y") and `[code](nowhere.py#L1)`.\n', "utf-8")
    (_, match), *others = links(page.read_text("utf-8"))
    assert not others
    with pytest.raises(AssertionError, match="holds no 'def decay'"):
        check_lines("page.md:1", source, "L1-L2", match["title"])
    text, complaints = update(page)
    assert "model.py#L3-L5" in text and not complaints
    check_lines("page.md:1", source, "L3-L5", match["title"])
    monkeypatch.setattr("tests.update_links.ROOT", tmp_path)
    source.write_text("def rate(x): ...\n", "utf-8")
    assert update(page)[1] == ["page.md: model.py has no 'def decay … return y'"]
