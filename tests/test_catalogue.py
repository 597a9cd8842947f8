"""The table of known models agrees with the models, the templates and the published files; names lead to files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from receptance import RWKV, CheckpointError, Config
from receptance.catalogue import KNOWN, Known, resolve, suggestion
from receptance.config import PRESETS
from receptance.models import num_parameters
from receptance.templates import TEMPLATES, template_for

# Sizes of these files or of earlier ones of their kind, as the manifest.json of RWKV-Runner lists them.
PUBLISHED_BYTES = {
    "rwkv7-g1-0.1b": 382_231_495,
    "rwkv7-g1-0.4b": 901_779_157,
    "rwkv7-g1-1.5b": 3_055_445_757,
    "rwkv7-g1-2.9b": 5_896_274_949,
    "rwkv7-g1-7.2b": 14_400_009_333,
    "rwkv7-world-0.1b": 382_195_690,
    "rwkv7-world-2.9b": 5_895_796_446,
    "rwkv6-world-1.6b": 3_199_845_663,
    "rwkv6-world-7b": 15_271_627_549,
    "rwkv6-world-14b": 28_138_429_796,
    "rwkv5-world-0.4b": 923_523_954,
    "rwkv5-world-3b": 6_126_106_467,
    "rwkv5-world-7b": 15_036_197_526,
    "rwkv4-world-0.1b": 385_594_610,
    "rwkv4-world-7b": 15_035_393_586,
    "rwkv4-raven-1.5b": 3_030_279_730,
    "rwkv4-raven-14b": 28_297_309_490,
}
PILE7_RANKS = {"168m": (64, 64, 32, 128), "421m": (64, 64, 64, 128), "1.47b": (96, 96, 64, 256)}
RANKS = ("decay_rank", "rate_rank", "value_rank", "gate_rank")


def config_of(known: Known) -> Config:
    size = known.name.rpartition("-")[2]
    if "pile" in known.name:
        vocab_size = 50304 if known.version == "7" else 50277
    else:
        vocab_size = 50277 if "raven" in known.name else 65536
    config = Config(version=known.version, vocab_size=vocab_size, num_layers=known.num_layers, dim=known.dim)
    if known.version == "7" and size in PILE7_RANKS:
        return config.replace(**dict(zip(RANKS, PILE7_RANKS[size], strict=True)))
    if known.version == "7":
        return config.replace(**{rank: getattr(PRESETS[f"rwkv7-{size}"], rank) for rank in RANKS})
    return config


@pytest.mark.parametrize("name", KNOWN)
def test_the_number_of_parameters_is_the_models(name: str) -> None:
    with torch.device("meta"):
        assert num_parameters(RWKV(config_of(KNOWN[name]))) == KNOWN[name].parameters


@pytest.mark.parametrize("name", PUBLISHED_BYTES)
def test_downloads_are_as_large_as_published(name: str) -> None:
    assert KNOWN[name].download_bytes == pytest.approx(PUBLISHED_BYTES[name], rel=1e-3)


@pytest.mark.parametrize("name", KNOWN)
def test_entries_are_complete(name: str) -> None:
    known = KNOWN[name]
    assert known.name == name == name.lower()
    assert known.newest([known.file]) == known.file
    assert known.newest(["README.md", known.file.replace("-", "_")]) is None
    assert known.template is None or known.template in TEMPLATES
    found = template_for(known.file)
    assert known.template == (found.name if found else None)


def test_names_and_files_are_unique() -> None:
    assert len({(known.repo, known.file) for known in KNOWN.values()}) == len(KNOWN) == 36


FILES = [
    "README.md",
    "rwkv7-g1-1.5b-20250429-ctx4096.pth",
    "rwkv7-g1a2-1.5b-20251005-ctx8192.pth",
    "rwkv7-g1k-1.5b-20260930-ctx25600.pth",
    "rwkv7-g1j-1.5b-20260831-ctx16384.pth",
    "rwkv7-g0a3-13.3b-20251117-ctx8192.pth",
    # Another size, another architecture, a preview, another folder, another format.
    "rwkv7-g1k-7.2b-20261001-ctx25600.pth",
    "rwkv7a-g1d-1.5b-20261101-ctx8192.pth",
    "rwkv7-g1h_preview4673-1.5b-20261101-ctx8192.pth",
    "old/rwkv7-g1k-1.5b-20261101-ctx25600.pth",
    "rwkv7-g1k-1.5b-20261101-ctx25600.gguf",
]


def test_the_newest_file_is_chosen_by_its_date() -> None:
    assert KNOWN["rwkv7-g1-1.5b"].newest(FILES) == "rwkv7-g1k-1.5b-20260930-ctx25600.pth"
    assert KNOWN["rwkv7-g1-13.3b"].newest(FILES) == "rwkv7-g0a3-13.3b-20251117-ctx8192.pth"
    assert KNOWN["rwkv7-g1-0.1b"].newest(FILES) is None


def test_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("receptance.catalogue.kept", lambda repo: {})

    def listed(repo: str) -> list[str]:
        asked.append(repo)
        return FILES

    monkeypatch.setattr("receptance.catalogue.list_files", listed)
    assert resolve("RWKV7-G1-1.5B") == "BlinkDL/rwkv7-g1:rwkv7-g1k-1.5b-20260930-ctx25600.pth"
    assert asked == ["BlinkDL/rwkv7-g1"]
    # Files that stay where they are need no question; where none fits, the one that was seen last is asked for.
    assert resolve("rwkv4-pile-1.5b") == "BlinkDL/rwkv-4-pile-1b5:RWKV-4-Pile-1B5-20220929-ctx4096.pth"
    assert resolve("user/repo") is None and resolve("rwkv7") is None
    assert len(asked) == 1
    assert resolve("rwkv7-g1-0.1b") == f"BlinkDL/rwkv7-g1:{KNOWN['rwkv7-g1-0.1b'].file}"


def test_what_is_here_is_taken_and_a_newer_one_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `here` tells and what `resolve` takes are the same file: a name never downloads twice."""
    known = KNOWN["rwkv7-g1-1.5b"]

    def resolved(here: list[str], listed: list[str]) -> str | None:
        monkeypatch.setattr("receptance.catalogue.kept", lambda repo: {file: Path(file) for file in here})
        monkeypatch.setattr("receptance.catalogue.list_files", lambda repo: listed)
        return resolve(known.name)

    assert resolved(FILES[:3], FILES) == f"{known.repo}:{known.here()}" == f"{known.repo}:{FILES[2]}"
    assert f"{known.repo}:{FILES[3]}" in capsys.readouterr().err
    # What is here may be newer than what is left there, and the hub may be out of reach.
    for listed in (FILES[:3], FILES[:4], []):
        assert resolved(FILES[:4], listed) == f"{known.repo}:{FILES[3]}"
        assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("rwkv7-g1-1.5", "rwkv7-g1-1.5b"), ("RWKV7G1-0.4b", "rwkv7-g1-0.4b"), ("absent.pth", None), ("llama", None)],
)
def test_suggestions(misspelt: str, meant: str | None) -> None:
    assert suggestion(misspelt) == meant


def test_here_is_the_newest_of_the_earlier_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    known = KNOWN["rwkv7-g1-1.5b"]
    monkeypatch.setattr("receptance.catalogue.kept", lambda repo: {file: Path("here", file) for file in FILES[:3]})
    assert known.here() == Path("here", FILES[2])
    monkeypatch.setattr("receptance.catalogue.kept", lambda repo: {})
    assert known.here() is None


def test_without_a_hub_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(repo: str) -> list[str]:
        raise CheckpointError(f"cannot get {repo}")

    monkeypatch.setattr("receptance.catalogue.kept", lambda repo: {})
    monkeypatch.setattr("receptance.catalogue.list_files", unreachable)
    with pytest.raises(CheckpointError, match="cannot get BlinkDL/rwkv7-g1"):
        resolve("rwkv7-g1-0.4b")
