"""Known models by short names: where their files are, how large they are, which chat template they were trained with.

resolve("rwkv7-g1-1.5b")                # "BlinkDL/rwkv7-g1:rwkv7-g1k-1.5b-20260930-ctx25600.pth", or a newer one
resolve("user/repo")                    # None: no name of this table
KNOWN["rwkv4-pile-169m"].download_bytes

Repositories, file names and sizes were read on public pages that describe, list or load them, in November 2026; the
repositories themselves were not opened.  The G1 files are replaced by newer ones every few weeks: the newest is taken
the first time, and after that what was downloaded.  Numbers of parameters are computed from the shapes.  Loads no
PyTorch.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .hub import kept, list_files

# The little model that the package brings: see its README.md.
HOUSE = "house"
HOUSE_FILE = Path(__file__).parent / "house" / "house.int8.safetensors"
# All of these files hold two bytes a number, be it bfloat16 or float16.
BYTES_STORED, BYTES_FLOAT32 = 2, 4


@dataclass(frozen=True, kw_only=True)
class Known:
    """A model that can be asked for by name.

    file        its file in `repo`; of a model with a `pattern`, the newest one that was seen
    pattern     where files come and go: a regular expression for their names, with the date as its one group
    template    the chat template of `file`; None for models that only continue a text
    precision   in what to compute
    """

    name: str
    repo: str
    file: str
    pattern: str | None
    version: str
    num_layers: int
    dim: int
    parameters: int
    template: str | None
    precision: str
    about: str

    @property
    def download_bytes(self) -> int:
        """Size of the file, which is also the memory that the weights take as they are stored; good to 0.1 %."""
        return self.parameters * BYTES_STORED

    @property
    def float32_bytes(self) -> int:
        """Memory of the weights in float32, which a CPU without products in half precision computes in."""
        return self.parameters * BYTES_FLOAT32

    def newest(self, files: Iterable[str]) -> str | None:
        """The newest of some files of the repository that are this model; None where none is."""
        if self.pattern is None:
            return self.file if self.file in files else None
        found = [(match[1], file) for file in files if (match := re.fullmatch(self.pattern, file))]
        return max(found)[1] if found else None

    def here(self) -> Path | None:
        """The newest file of this model among earlier downloads, which `resolve` names; None where there is none."""
        files = kept(self.repo)
        newest = self.newest(files)
        return files[newest] if newest else None


def resolve(name: str) -> str | None:
    """`repo:file` of a known model; None where no model of the table has this name.

    What was downloaded before is taken.  For a model whose files come and go this asks the hub, and stderr is told of a
    newer file.  Raises CheckpointError where that cannot be done and no earlier download is here.
    """
    known = KNOWN.get(name.lower())
    if known is None:
        return None
    if known.pattern is None:
        return f"{known.repo}:{known.file}"
    here, newest = known.newest(kept(known.repo)), known.newest(list_files(known.repo))
    if here is not None and newest is not None and known.newest([here, newest]) != here:
        size = f"{known.download_bytes / 1e9:.1f} GB"
        print(f"{name}: a newer one can be downloaded ({size}) as {known.repo}:{newest}", file=sys.stderr)
    return f"{known.repo}:{here or newest or known.file}"


def suggestion(name: str) -> str | None:
    """The known name that is most like a misspelt one; None where none is."""
    close = difflib.get_close_matches(name.lower(), KNOWN, n=1, cutoff=0.7)
    return close[0] if close else None


# The official runtime scales the deep layers of these generations down in float16, or their sums leave its range.
_WIDE = "bfloat16 or float32; float16 may overflow"
_ANY = "bfloat16 or float16"


@dataclass(frozen=True)
class _Family:
    """What the sizes of one release share.  `{size}` stands for the size, in `repo` as that repository spells it."""

    prefix: str
    repo: str
    version: str
    template: str | None
    precision: str
    about: str
    pattern: str | None = None


# Which data (g1, g1a, g1a2, ...), how large, of which date, for which context.  Previews, and files of other
# architectures (rwkv7a, rwkv7b), do not fit.
_G1_PATTERN = r"rwkv7-g\d[a-z]?\d?-{size}-(20\d{{6}})-ctx\d+\.pth"
_G1 = _Family("rwkv7-g1", "BlinkDL/rwkv7-g1", "7", "flower", _ANY, "newest: chat, reasoning", _G1_PATTERN)
# The flower template came with G1h, and these have no file that is so new.
_G1_SMALL = replace(_G1, template="g1")
_WORLD7 = _Family("rwkv7-world", "BlinkDL/rwkv-7-world", "7", "world", _ANY, "chat, many languages")
_PILE7 = _Family("rwkv7-pile", "BlinkDL/rwkv-7-pile", "7", None, _ANY, "continues English text")
_WORLD6 = _Family("rwkv6-world", "BlinkDL/rwkv-6-world", "6", "world", _WIDE, "chat, many languages")
_WORLD5 = _Family("rwkv5-world", "BlinkDL/rwkv-5-world", "5.2", "world", _WIDE, "chat, many languages")
_WORLD4 = _Family("rwkv4-world", "BlinkDL/rwkv-4-world", "4", "world", _WIDE, "chat, many languages")
_RAVEN4 = _Family("rwkv4-raven", "BlinkDL/rwkv-4-raven", "4", "raven", _WIDE, "follows English instructions")
_PILE4 = _Family("rwkv4-pile", "BlinkDL/rwkv-4-pile-{size}", "4", None, _WIDE, "continues English text")

# family, size, layers, width, parameters, file
_ROWS = (
    (_G1_SMALL, "0.1b", 12, 768, 191_034_624, "rwkv7-g1d-0.1b-20260129-ctx8192.pth"),
    (_G1_SMALL, "0.4b", 24, 1024, 450_767_872, "rwkv7-g1d-0.4b-20260210-ctx8192.pth"),
    (_G1, "1.5b", 24, 2048, 1_527_404_544, "rwkv7-g1k-1.5b-20260930-ctx25600.pth"),
    (_G1, "2.9b", 32, 2560, 2_947_735_040, "rwkv7-g1k-2.9b-20260930-ctx25600.pth"),
    (_G1, "7.2b", 32, 4096, 7_199_141_888, "rwkv7-g1k-7.2b-20260930-ctx25600.pth"),
    (_G1, "13.3b", 61, 4096, 13_269_245_952, "rwkv7-g1k-13.3b-20260930-ctx25600.pth"),
    (_WORLD7, "0.1b", 12, 768, 191_034_624, "RWKV-x070-World-0.1B-v2.8-20241210-ctx4096.pth"),
    (_WORLD7, "0.4b", 24, 1024, 450_767_872, "RWKV-x070-World-0.4B-v2.9-20250107-ctx4096.pth"),
    (_WORLD7, "1.5b", 24, 2048, 1_527_404_544, "RWKV-x070-World-1.5B-v3-20250127-ctx4096.pth"),
    (_WORLD7, "2.9b", 32, 2560, 2_947_735_040, "RWKV-x070-World-2.9B-v3-20250211-ctx4096.pth"),
    (_PILE7, "168m", 12, 768, 167_638_272, "RWKV-x070-Pile-168M-20241120-ctx4096.pth"),
    (_PILE7, "421m", 24, 1024, 421_080_064, "RWKV-x070-Pile-421M-20241127-ctx4096.pth"),
    (_PILE7, "1.47b", 24, 2048, 1_465_014_272, "RWKV-x070-Pile-1.47B-20241210-ctx4096.pth"),
    (_WORLD6, "1.6b", 24, 2048, 1_599_873_024, "RWKV-x060-World-1B6-v2.1-20240328-ctx4096.pth"),
    (_WORLD6, "3b", 32, 2560, 3_099_863_040, "RWKV-x060-World-3B-v2.1-20240417-ctx4096.pth"),
    (_WORLD6, "7b", 32, 4096, 7_635_746_816, "RWKV-x060-World-7B-v3-20241112-ctx4096.pth"),
    (_WORLD6, "14b", 61, 4096, 14_069_088_256, "RWKV-x060-World-14B-v2.1-20240719-ctx4096.pth"),
    (_WORLD5, "0.4b", 24, 1024, 461_721_600, "RWKV-5-World-0.4B-v2-20231113-ctx4096.pth"),
    (_WORLD5, "1.5b", 24, 2048, 1_577_754_624, "RWKV-5-World-1B5-v2-20231025-ctx4096.pth"),
    (_WORLD5, "3b", 32, 2560, 3_062_999_040, "RWKV-5-World-3B-v2-20231118-ctx16k.pth"),
    (_WORLD5, "7b", 32, 4096, 7_518_044_160, "RWKV-5-World-7B-v2-20240128-ctx4096.pth"),
    (_WORLD4, "0.1b", 12, 768, 192_780_288, "RWKV-4-World-0.1B-v1-20230520-ctx4096.pth"),
    (_WORLD4, "0.4b", 24, 1024, 461_647_872, "RWKV-4-World-0.4B-v1-20230529-ctx4096.pth"),
    (_WORLD4, "1.5b", 24, 2048, 1_577_607_168, "RWKV-4-World-1.5B-v1-fixed-20230612-ctx4096.pth"),
    (_WORLD4, "3b", 32, 2560, 3_062_753_280, "RWKV-4-World-3B-v1-20230619-ctx4096.pth"),
    (_WORLD4, "7b", 32, 4096, 7_517_650_944, "RWKV-4-World-7B-v1-20230626-ctx4096.pth"),
    (_RAVEN4, "1.5b", 24, 2048, 1_515_106_304, "RWKV-4-Raven-1B5-v12-Eng98%-Other2%-20230520-ctx4096.pth"),
    (_RAVEN4, "3b", 32, 2560, 2_984_627_200, "RWKV-4-Raven-3B-v12-Eng98%-Other2%-20230520-ctx4096.pth"),
    (_RAVEN4, "7b", 32, 4096, 7_392_649_216, "RWKV-4-Raven-7B-v12-Eng98%-Other2%-20230521-ctx8192.pth"),
    (_RAVEN4, "14b", 40, 5120, 14_148_597_760, "RWKV-4-Raven-14B-v12-Eng98%-Other2%-20230523-ctx8192.pth"),
    (_PILE4, "169m", 12, 768, 169_342_464, "RWKV-4-Pile-169M-20220807-8023.pth"),
    (_PILE4, "430m", 24, 1024, 430_397_440, "RWKV-4-Pile-430M-20220808-8066.pth"),
    (_PILE4, "1.5b", 24, 2048, 1_515_106_304, "RWKV-4-Pile-1B5-20220929-ctx4096.pth"),
    (_PILE4, "3b", 32, 2560, 2_984_627_200, "RWKV-4-Pile-3B-20221110-ctx4096.pth"),
    (_PILE4, "7b", 32, 4096, 7_392_649_216, "RWKV-4-Pile-7B-20230109-ctx4096.pth"),
    (_PILE4, "14b", 40, 5120, 14_148_597_760, "RWKV-4-Pile-14B-20230313-ctx8192-test1050.pth"),
)


def _known() -> Iterator[Known]:
    for family, size, num_layers, dim, parameters, file in _ROWS:
        yield Known(
            name=f"{family.prefix}-{size}",
            repo=family.repo.format(size=size.replace("1.5b", "1b5")),
            file=file,
            pattern=family.pattern and family.pattern.format(size=re.escape(size)),
            version=family.version,
            num_layers=num_layers,
            dim=dim,
            parameters=parameters,
            template=family.template,
            precision=family.precision,
            about=family.about,
        )


KNOWN: dict[str, Known] = {known.name: known for known in _known()}
