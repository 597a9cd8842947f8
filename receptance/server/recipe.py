"""How a service comes to be, as a value: it can be sent to another process, which loads the model there.

    recipe = Recipe(model="rwkv7-g1-0.4b", name="small", loading={"quant": "int8"})
    service = recipe.service()
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..language_model import load
from .service import Options, Service


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A model that is to be served.

    model, draft    what `receptance.load` takes: the model, and a smaller one that guesses for it, if any
    name            the id under which it is asked for
    loading         further arguments of `load`; where the draft is computed, and in what, is the same
    """

    model: str
    name: str
    loading: Mapping[str, Any] = field(default_factory=dict)
    draft: str | None = None
    options: Options = field(default_factory=Options)

    def service(self) -> Service:
        """Loads everything.  Raises what `load` and `Service` raise."""
        lm = load(self.model, **self.loading)
        shared = {name: value for name, value in self.loading.items() if name in ("dtype", "device", "quant")}
        draft = None if self.draft is None else load(self.draft, **shared).model
        return Service(lm, self.name, self.options, draft)
