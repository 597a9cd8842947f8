"""What all tests share: the machine's cores divided fairly, one seed, and the folder of external fixtures."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# As the command does it: threads that spin for long would keep each other from the cores.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

# pytest-xdist starts one process a worker: without this, each of them would start a thread for every core.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
THREADS = max(1, (os.cpu_count() or 1) // _WORKERS)
os.environ.setdefault("NUMBA_NUM_THREADS", str(THREADS))

# Without a GPU, Triton's kernels are run by its interpreter.  It asks before it is imported.
if not any(Path("/dev").glob("nvidia[0-9]*")) and not Path("/dev/kfd").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    import torch

    torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _seed() -> None:
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """The folder of real weights and expected outputs, which lies beside the checkout and is never committed."""
    folder = ROOT.parent / "shared" / "fixtures"
    if not folder.is_dir():
        pytest.skip("needs ../shared/fixtures, which is not part of the repository")
    return folder


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Path of a small `.pth` of a given version, with weights that leave no part of the model idle."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def write(version: str) -> Path:
        path = folder / f"rwkv{version}.pth"
        if not path.exists():
            from receptance import Config
            from receptance.checkpoints import save_checkpoint

            from .models.cases import noisy

            config = Config(version=version, vocab_size=60, num_layers=2, dim=64, head_size=16)
            save_checkpoint(noisy(config, strength=0.1), path)
        return path

    return write


def pytest_sessionstart(session: pytest.Session) -> None:
    """Compiles what `generate` needs, where it is not in the cache, before tests look at the clock."""
    if hasattr(session.config, "workerinput"):
        return
    import torch

    from receptance import runtime

    from .models.cases import CONFIGS, noisy

    for name in ("4", "6", "7"):
        model = noisy(CONFIGS[name])
        with torch.no_grad():
            model(torch.ones(1, 40, dtype=torch.int64))
        if runtime.refusal(model) is None:
            runtime.compile(model)(torch.tensor([1]))
