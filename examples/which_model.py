"""The model that an example is run with: the one named behind the script, else one that was trained here.

python examples/generate.py                          # little-chat/model.pth, else quickstart/model.pth
python examples/generate.py rwkv7-g1-0.4b            # whatever `receptance.load` takes
"""

from __future__ import annotations

import sys
from pathlib import Path

import receptance

TRAINED_HERE = ("little-chat/model.pth", "quickstart/model.pth")
ADVICE = """\
There is no model here yet; name one, or make one in a few minutes:
  python examples/train_a_chat_model.py       learns to answer small questions; the examples are made for it
  receptance quickstart                       learns to write Python"""


def load() -> receptance.LanguageModel:
    """Loads it; where that cannot be done, one sentence tells why, and the script ends."""
    found = sys.argv[1:2] or [path for path in TRAINED_HERE if Path(path).is_file()]
    if not found:
        sys.exit(ADVICE)
    try:
        lm = receptance.load(found[0])
    except receptance.ReceptanceError as error:
        sys.exit(str(error))
    print(f"{lm.path}: RWKV-{lm.config.version}, {lm.config.num_layers} layers of {lm.config.dim}\n")
    return lm
