"""Names to paths: local ones, and repositories of a hub that runs on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from receptance import CheckpointError, catalogue
from receptance.checkpoints import convert, find, load_model, open_checkpoint

from .fake_hub import Hub, serving
from .weights import CONFIGS, official_weights, same

OLDER, NEWER = "rwkv7-g1j-0.4b-20260831-ctx16384.pth", "rwkv7-g1k-0.4b-20260930-ctx25600.pth"


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return official_weights(CONFIGS["7"])


@pytest.fixture(scope="module")
def contents(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("repository")
    torch.save(weights, folder / "model.pth")
    convert(folder / "model.pth", folder / "sharded", shard_bytes=20_000)
    pth = (folder / "model.pth").read_bytes()
    sharded = {file.name: file.read_bytes() for file in (folder / "sharded").iterdir()}
    return {
        "user/one": {"README.md": b"One.", "model.pth": pth},
        "user/several": {"small.pth": pth, "old/large.pth": pth, "README.md": b"Two."},
        "user/sharded": sharded | {"README.md": b"Parts.", "pytorch_model.bin": b"the same once more"},
        "user/nothing": {"README.md": b"Nothing."},
        "BlinkDL/rwkv7-g1": {OLDER: pth, NEWER: pth, "README.md": b"G1."},
        "BlinkDL/rwkv-4-pile-169m": {catalogue.KNOWN["rwkv4-pile-169m"].file: pth},
    }


@pytest.fixture
def hub(contents: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The stand-in, and a cache of its own.  The library reads its settings once, so they are changed in there."""
    with serving(contents) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield hub


def refusal(name: str) -> str:
    with pytest.raises(CheckpointError) as error:
        find(name)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_local_paths_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user" / "one").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find("user/one") == Path("user/one")


@pytest.mark.parametrize("name", ["absent.pth", "folder/absent.safetensors", "no such name", "a/b/c", "~/absent.pth"])
def test_what_is_neither_a_path_nor_a_repository_is_not_asked_for(name: str, hub: Hub) -> None:
    assert "there is no file or folder" in refusal(name)
    assert not hub.asked


def test_a_repository_with_one_checkpoint(hub: Hub, weights: dict[str, torch.Tensor]) -> None:
    checkpoint = open_checkpoint("user/one")
    assert same({name: checkpoint.tensor(name) for name in checkpoint.tensors}, weights)
    assert [file for file, _ in hub.asked] == ["model.pth"]
    # A second time nothing is transferred.
    assert find("user/one") == checkpoint.path and len(hub.asked) == 1


def test_a_repository_with_several_lists_them(hub: Hub) -> None:
    assert "user/several:old/large.pth, user/several:small.pth" in refusal("user/several")
    assert not hub.asked


@pytest.mark.parametrize("file", ["small.pth", "old/large.pth"])
def test_one_file_of_a_repository(file: str, hub: Hub) -> None:
    assert open_checkpoint(f"user/several:{file}").config == CONFIGS["7"]
    assert [name for name, _ in hub.asked] == [file]


def test_a_sharded_folder_without_its_copy_in_another_form(hub: Hub, weights: dict[str, torch.Tensor]) -> None:
    assert same(dict(load_model("user/sharded").state_dict()), weights)
    asked = {name for name, _ in hub.asked}
    assert len(asked) > 4 and "pytorch_model.bin" not in asked and "README.md" not in asked


def test_a_known_name(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    known = catalogue.KNOWN["rwkv4-pile-169m"]
    assert known.here() is None
    assert find("rwkv4-pile-169m").name == known.file
    assert capsys.readouterr().err.startswith(f"rwkv4-pile-169m: taking BlinkDL/rwkv-4-pile-169m:{known.file}\n")
    assert known.here() == find(f"BlinkDL/rwkv-4-pile-169m:{known.file}")


def test_of_a_known_name_the_newest_file_is_taken(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    assert find("RWKV7-g1-0.4b").name == NEWER and [file for file, _ in hub.asked] == [NEWER]
    assert f"taking BlinkDL/rwkv7-g1:{NEWER}\n" in capsys.readouterr().err


def test_a_local_file_hides_a_known_name(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rwkv4-pile-169m").write_bytes(b"mine")
    monkeypatch.chdir(tmp_path)
    assert find("rwkv4-pile-169m") == Path("rwkv4-pile-169m") and not hub.asked


def test_a_misspelt_name_gets_a_suggestion(hub: Hub) -> None:
    assert "did you mean rwkv7-g1-0.4b, a model that can be downloaded?" in refusal("rwkv7-g1-04b")
    assert "`receptance models` lists" in refusal("llama")


REFUSALS = {
    "user/nothing": "holds no checkpoint",
    "user/absent": "neither a local file nor a repository",
    "user/one:absent.pth": "the repository has no such file",
    "user/absent:model.pth": "neither a local file nor a repository",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals(name: str, hub: Hub) -> None:
    assert REFUSALS[name] in refusal(name)


def test_a_download_goes_on_where_the_line_broke(
    hub: Hub, contents: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # What is not a whole piece is lost with the line; by default a piece is 10 MB.
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cuts = 2
    assert find("user/one:model.pth").read_bytes() == contents["user/one"]["model.pth"]
    assert hub.asked == [("model.pth", None), ("model.pth", "bytes=10000-"), ("model.pth", "bytes=20000-")]


def test_a_folder_keeps_the_files_that_were_complete(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    # Enough breaks for the library to give up; those that come into the way of small files do not count.
    hub.cuts = 1000
    assert "files that were complete are kept" in refusal("user/sharded")
    done = {file.name for file in Path(constants.HF_HUB_CACHE).rglob("snapshots/*/*")}
    assert "config.json" in done and not any(name.endswith(".safetensors") for name in done)
    hub.cuts = 0
    hub.asked.clear()
    assert load_model("user/sharded").config == CONFIGS["7"]
    asked = {file for file, _ in hub.asked}
    assert asked and not asked & done


@pytest.mark.parametrize("name", ["user/one", "user/sharded", "user/one:model.pth"])
def test_without_a_connection_an_earlier_download_serves(name: str, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    path = find(name)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert find(name) == path and not hub.asked


def test_without_a_connection_a_known_name_is_the_newest_that_is_here(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = find(f"BlinkDL/rwkv7-g1:{OLDER}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    assert find("rwkv7-g1-0.4b") == older and not hub.asked


def test_a_file_that_the_repository_no_longer_has_serves_from_an_earlier_download(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = find("user/several:small.pth")
    monkeypatch.setitem(hub.repositories, "user/several", {"new.pth": b"new"})
    assert find("user/several:small.pth") == path


def test_without_a_connection_and_without_an_earlier_download(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in ("user/one", "user/one:model.pth"):
        assert "cannot get user/one" in refusal(name)


def test_the_librarys_environment_variables_are_respected(
    contents: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    with serving(contents) as hub:
        environment = os.environ | {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
        }
        command = [sys.executable, "-m", "receptance", "info", "user/one"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "RWKV-7" in done.stdout and [file for file, _ in hub.asked] == ["model.pth"]
    assert list((tmp_path / "home").rglob("model.pth"))
