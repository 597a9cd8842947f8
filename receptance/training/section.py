"""A section of a recipe: named values that are checked when they are given."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from ..errors import ConfigError


class Section(BaseModel):
    """A part of a recipe.  Raises ConfigError, in one sentence, for a value that cannot be and for a name that is none.

    section    what it is called in the file
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    section: ClassVar[str] = ""

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ConfigError(_sentence(type(self), error.errors()[0])) from None

    def changed(self, **changes: Any) -> Self:
        """A copy with other values, checked like any other."""
        return type(self)(**self._given() | changes)

    def _given(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.model_fields_set}


def _sentence(kind: type[Section], error: ErrorDetails) -> str:
    """What is wrong with a value, and what to do."""
    place = [str(part) for part in error["loc"] if not isinstance(part, int)]
    if error["type"] == "value_error":
        return str(error["ctx"]["error"])
    # A choice between types has their names at the end of the place.
    place = [part for part in place if part.isidentifier() and part != "str"]
    name = ".".join([kind.section, *place] if kind.section else place)
    if error["type"] == "missing":
        return f"a recipe needs {name}; give it a value"
    if error["type"] == "extra_forbidden":
        known = list(kind.model_fields)
        owner = f"[{kind.section}]" if kind.section else "a recipe"
        return f"{owner} has no {place[-1]!r}; {suggested(place[-1], known, 'it has')}"
    told = error["msg"].partition(" ")[2] if error["msg"].startswith(("Input ", "Value ", "String ")) else error["msg"]
    return f"{name} is {error['input']!r:.60}; it {told}"


def suggested(name: str, known: Iterable[str], otherwise: str) -> str:
    """What to say of a name that is none: the known one that is closest, or all of them."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else f"{otherwise} {', '.join(known)}"
