"""Which checkpoint has which template."""

import subprocess
import sys
from pathlib import Path

import pytest

from receptance import templates
from receptance.errors import InputError
from receptance.templates import JinjaTemplate, open_template, template_for

NAMES = {
    "RWKV-4-Pile-169M-20220807-8023.pth": None,
    "RWKV-4-Pile-14B-20230313-ctx8192-test1050.pth": None,
    "RWKV-4-Novel-7B-v1-ChnEng-20230426-ctx8192.pth": None,
    "RWKV-4-Raven-7B-v12-Eng98%-Other2%-20230521-ctx8192.pth": "raven",
    "RWKV/rwkv-raven-7b": "raven",
    "BlinkDL/rwkv-4-raven": "raven",
    "rwkv-4-world": "world",
    "RWKV-4-World-CHNtuned-3B-v1-20230625-ctx4096.pth": "world",
    "RWKV-5-World-0.4B-v2-20231113-ctx4096.pth": "world",
    "RWKV/v5-Eagle-7B-HF": "world",
    "RWKV/v6-Finch-1B6-HF": "world",
    "RWKV-x060-World-7B-v3-20241112-ctx4096.pth": "world",
    "RWKV-x070-World-1.5B-v3-20250127-ctx4096.pth": "world",
    "RWKV/RWKV7-Goose-World3-1.5B-HF": "world",
    "fla-hub/rwkv7-1.5B-world": "world",
    "RWKV-x070-Pile-168M-20241120-ctx4096.pth": None,
    "BlinkDL/rwkv-7-pile": None,
    "rwkv7-g0-7.2b-20250722-ctx4096.pth": "g1",
    "rwkv7-g0a2-7.2b-20251005-ctx4096.pth": "g1",
    "rwkv7-g1-0.4b-20250324-ctx4096.pth": "g1",
    "rwkv7-g1a-0.1b-20250728-ctx4096.pth": "g1",
    "rwkv7-g1a4-1.5b-20251005-ctx8192.pth": "g1",
    "rwkv7-g1f-7.2b-20260414-ctx8192.pth": "g1",
    "rwkv7a-g1d-0.1b-20260101-ctx8192.pth": "g1",
    "fla-hub/rwkv7-1.5B-g1": "g1",
    "BlinkDL/rwkv7-g1": "g1",
    "rwkv7-g1h-7.2b-20260715-ctx8192.pth": "flower",
    "rwkv7-g1h_preview4673-2.9b-20260701-ctx8192.st": "flower",
    "BlinkDL/rwkv7-g1:rwkv7-g1h-7.2b-20260715-ctx8192.pth": "flower",
    "rwkv-g1i-7b-3275.pth": "flower",
    "rwkv7-g2-7.2b.pth": "flower",
    "/home/me/world/rwkv7-g1h-7.2b.pth": "flower",
    r"C:\models\rwkv7-g1\rwkv7-g1g-2.9b.pth": "g1",
    "rwkv-4-world/model.pth": "world",
    "/home/me/world/model.pth": None,
    "model.pth": None,
    "my-ggg1-model.pth": None,
    "rwkv-final.pth": None,
    "": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_template_of_a_checkpoint(name: str) -> None:
    template = template_for(name)
    assert (template and template.name) == NAMES[name]


def test_a_file_in_ones_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "x.jinja").write_text("{{ messages[0].content }}", "utf-8")
    assert isinstance(open_template("~/x.jinja"), JinjaTemplate)
    for absent in ("~/y.jinja", "~nobody-of-this-name/x.jinja"):
        with pytest.raises(InputError, match=f"the template {absent} does not exist; give a Jinja file or one of:"):
            open_template(absent)


def test_every_public_name_can_be_had() -> None:
    assert all(getattr(templates, name) is not None for name in templates.__all__)
    assert not hasattr(templates, "jinja2")


def test_jinja_is_loaded_when_it_is_needed() -> None:
    program = (
        "import sys; from receptance import templates; templates.open_template('g1'); "
        "assert 'jinja2' not in sys.modules; templates.JinjaTemplate; assert 'jinja2' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
