"""Destinations: what is written over, what is left alone, and what is said where nothing can be written."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from receptance import CheckpointError
from receptance.checkpoints import check_destination, convert, find, open_checkpoint
from receptance.replacing import replacing

from .checkpoints.weights import CONFIGS, official_weights, same


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save(official_weights(CONFIGS["7"]), tmp_path / "source.pth")
    return tmp_path / "source.pth"


def test_a_users_own_partial_is_left_alone(saved: Path) -> None:
    own = saved.parent / "model.pth.partial"
    own.mkdir()
    (own / "diary.txt").write_text("precious")
    convert(saved, saved.parent / "model.pth")
    assert (own / "diary.txt").read_text() == "precious"


def test_two_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    both_write = threading.Barrier(2, timeout=20)

    def write(content: str) -> None:
        with replacing(tmp_path / "model.pth") as partial:
            partial.write_text(content)
            both_write.wait()
            assert partial.read_text() == content

    threads = [threading.Thread(target=write, args=(content,)) for content in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not both_write.broken
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    assert (tmp_path / "model.pth").read_text() in ("one", "two")


def test_permissions_are_the_ordinary_ones(saved: Path) -> None:
    (saved.parent / "ordinary").touch()
    (saved.parent / "ordinary folder").mkdir()
    convert(saved, saved.parent / "model.pth")
    convert(saved, saved.parent / "folder")
    pairs = (("model.pth", "ordinary"), ("folder/model.safetensors", "ordinary"), ("folder", "ordinary folder"))
    for made, like in pairs:
        assert (saved.parent / made).stat().st_mode == (saved.parent / like).stat().st_mode


def test_only_stale_weights_go_from_a_folder(saved: Path) -> None:
    folder = saved.parent / "folder"
    folder.mkdir()
    stale = {
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model-00002-of-00002.bin",
        "pytorch_model.bin.index.json",
    }
    own = {"model_backup.safetensors", "pytorch_model_old.bin", "model-best.safetensors", "tokenizer.json"}
    for name in stale | own:
        (folder / name).write_text("{}")
    convert(saved, folder)
    assert {file.name for file in folder.iterdir()} == own | {"config.json", "model.safetensors"}


@pytest.mark.parametrize("name", ["model.pth", "folder"])
def test_a_link_stays_and_leads_to_the_new_content(name: str, saved: Path) -> None:
    real, link = saved.parent / "real" / name, saved.parent / name
    convert(saved, real)
    link.symlink_to(real)
    convert(saved, link, dtype="bfloat16")
    assert link.is_symlink() and open_checkpoint(real).dtype == torch.bfloat16
    assert sorted(path.name for path in real.parent.iterdir()) == [name]


def test_endings_are_endings_in_capitals_too(saved: Path) -> None:
    for name in ("model.PTH", "model.SafeTensors"):
        convert(saved, saved.parent / name)
        assert (saved.parent / name).is_file() and open_checkpoint(saved.parent / name).config == CONFIGS["7"]
    with pytest.raises(CheckpointError, match="choose a name ending in"):
        convert(saved, saved.parent / "model.ONNX")
    (saved.parent / "folder").mkdir()
    (saved.parent / "model.PTH").rename(saved.parent / "folder" / "model.PTH")
    assert open_checkpoint(saved.parent / "folder").config == CONFIGS["7"]


def test_what_is_no_name_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(saved.parent)
    for name in ("", ".", "/"):
        with pytest.raises(CheckpointError, match="no name of a file or folder"):
            convert(saved, name)
    os.mkfifo("pipe.pth")
    with pytest.raises(CheckpointError, match="no ordinary file"):
        convert(saved, "pipe.pth")
    assert sorted(path.name for path in saved.parent.iterdir()) == ["pipe.pth", "source.pth"]


def test_a_full_disk_is_named(saved: Path) -> None:
    # A limit on the size of files: the nearest thing to a full disk that a test can have.
    script = (
        "import resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from receptance.cli import app\n"
        "app(['convert', sys.argv[1], sys.argv[2]])\n"
    )
    for name in ("model.pth", "model.safetensors", "folder"):
        target = saved.parent / "out" / name
        ended = subprocess.run([sys.executable, "-c", script, saved, target], capture_output=True, text=True)
        assert ended.returncode == 2, ended.stderr
        assert ended.stderr.startswith(f"receptance: cannot use {target}: file too large")
        assert not list(target.parent.iterdir())


def test_a_destination_is_checked_where_its_link_leads(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "model.pth").symlink_to(tmp_path / "file" / "model.pth")
    with pytest.raises(CheckpointError, match="is no folder that can be written to"):
        check_destination(tmp_path / "model.pth", "7")
    check_destination(tmp_path / "new" / "model.pth", "7")


def test_a_folder_that_may_not_be_searched_is_not_taken_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = os.stat

    def refuses(path: str | Path, **options: bool) -> os.stat_result:
        # In a test that runs as root no folder is closed.
        if Path(path).name == "closed.pth":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)

    monkeypatch.setattr(os, "stat", refuses)
    with pytest.raises(CheckpointError, match=r"closed\.pth: permission denied"):
        find(tmp_path / "closed.pth")
    monkeypatch.undo()
    (tmp_path / "nowhere.pth").symlink_to(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match=r"cannot read .*nowhere\.pth: no such file"):
        open_checkpoint(tmp_path / "nowhere.pth")
    weights = official_weights(CONFIGS["4"])
    torch.save(weights, tmp_path / "a.pth")
    (tmp_path / "link.pth").symlink_to(tmp_path / "a.pth")
    convert(tmp_path / "link.pth", tmp_path / "b.pth")
    assert same(torch.load(tmp_path / "b.pth", weights_only=True), weights)
