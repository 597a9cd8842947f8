"""The little model of the package, from the training of its recipe: `make house`, or

    python -m tests.update_house runs/house

Quantises what the training left, measures it on the files that were held out, and writes its card.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import sys
from datetime import date
from pathlib import Path

import receptance
from benchmarks.protocol import machine
from receptance.catalogue import HOUSE_FILE
from receptance.data import Tokens, documents, is_held_out
from receptance.models import num_parameters
from receptance.quant import dequantize, quantize_checkpoint
from receptance.training import Recipe, bits, mean_loss, read_metrics, shipped_recipes

PROMPT = "import os\n\ndef "
LICENCES = {
    "python:": "Python's standard library, PSF-2.0",
    "python:numpy": "NumPy, BSD-3-Clause",
    "python:numba": "Numba, BSD-2-Clause",
    "python:huggingface_hub": "huggingface_hub, Apache-2.0",
    "python:pydantic": "Pydantic, MIT",
    "python:prompt_toolkit": "prompt_toolkit, BSD-3-Clause",
    "python:rich": "Rich, MIT",
    "python:jinja2": "Jinja, BSD-3-Clause",
    "python:typer": "Typer, MIT",
    "python:safetensors": "safetensors, Apache-2.0",
}
CARD = """# The house model

A little RWKV-7 that goes on with Python source, byte by byte. It comes with the package, so that
`receptance generate "def "` works on a fresh machine without a download, and so that tests and examples have a model
that has really learnt something. It is no assistant, knows no facts, and its programs do not work.

| | |
|---|---|
| shape | RWKV-7, {config.num_layers} layers of width {config.dim}, {parameters:,} parameters, bytes as tokens |
| file | `{file}`, int8 with the rest in float32, {megabytes:.1f} MB, SHA-256 `{digest}` |
| learnt from | {train:,} bytes in {num_train:,} files: see below |
| trained | {tokens:,} tokens, {minutes:.0f} minutes on {processor}, {when} |
| held out | {held:,} bytes in {num_held} files: **{measured:.3f} bits per byte**, {whole:.3f} before rounding |
| licence | Apache-2.0, as the package |

The loss is measured on all held-out files, read as eight streams with the state carried on. `make acceptance
PART=house` measures again, on the versions of the packages that are installed then.

After `import os` and `def `, at temperature 0.7 and `top_p` 0.9:

```text
{sample}
```

## Made by

`make house` trains it again from this recipe, and writes this page:

```toml
{recipe}```

## Data

Source files in Python, docstrings included, without tests: of Python {python} and of these packages.

| source | version | |
|---|---|---|
{sources}

Held out, and never learnt from, is every file the SHA-256 of whose relative path is 0 mod 20:

{listed}
"""


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/house")
    recipe = Recipe.read(folder / "recipe.toml")
    HOUSE_FILE.parent.mkdir(exist_ok=True)
    quantize_checkpoint(folder / "model.pth", HOUSE_FILE, "int8")
    (HOUSE_FILE.parent / "README.md").write_text(card(folder, recipe), "utf-8")
    print(f"wrote {HOUSE_FILE.parent}")


def card(folder: Path, recipe: Recipe) -> str:
    """The page of the model, with what is measured now."""
    house, original = receptance.load(HOUSE_FILE, dtype="float32"), receptance.load(folder / "model.pth")
    train, held = (Tokens.open(folder / "tokens" / name) for name in ("train", "held-out"))
    steps = read_metrics(folder)
    text = PROMPT + house.generate(PROMPT, 300, temperature=0.7, top_p=0.9, seed=2).text
    return CARD.format(
        config=house.config,
        parameters=num_parameters(dequantize(receptance.load(HOUSE_FILE).model)),
        file=HOUSE_FILE.name,
        megabytes=HOUSE_FILE.stat().st_size / 1e6,
        digest=hashlib.sha256(HOUSE_FILE.read_bytes()).hexdigest(),
        train=train.num_tokens,
        num_train=train.num_documents,
        tokens=steps[-1]["tokens"],
        minutes=steps[-1]["seconds"] / 60,
        processor=machine()["processor"],
        when=date.today().isoformat(),
        held=held.num_tokens,
        num_held=held.num_documents,
        measured=bits(mean_loss(house.model, held)),
        whole=bits(mean_loss(original.model, held)),
        sample=text.rstrip(),
        recipe=shipped_recipes()["house"],
        python=platform.python_version(),
        sources="\n".join(sources(recipe)),
        listed="\n".join(f"- `{name}`" for name in held_out(recipe)),
    )


def sources(recipe: Recipe) -> list[str]:
    """A row for each source."""
    rows = []
    for source in recipe.data.train:
        package = source.partition(":")[2]
        version = importlib.metadata.version(package) if package else platform.python_version()
        rows.append(f"| `{source}` | {version} | {LICENCES[source]} |")
    return rows


def held_out(recipe: Recipe) -> list[str]:
    """The names of the files that were not learnt from."""
    names = [document.name for source in recipe.data.train for document in documents(source)]
    return sorted(name for name in names if is_held_out(name, recipe.data.held_out_one_in))


if __name__ == "__main__":
    main()
