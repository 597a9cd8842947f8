"""Answers to a data set, as a step of a pipeline of Ray Data.

    prompts = ray.data.read_json("prompts/")                             # {"prompt": "Once upon a time"}, ...
    generate(prompts, "rwkv7-g1-1.5b", workers=8, num_gpus=1, max_tokens=100).write_json("answers/")

It stands beside `receptance generate --batch` and does not take its place: that one writes a file in order and goes on
where it stopped; here rows come and go in any order, and where a pipeline begins again is Ray's affair.  What a
row may say, and what becomes of it, is the same to the token: see `receptance.batch`.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..batch import Defaults, Line, Request, answers, line_of, request_of
from ..batch.requests import SETTINGS
from ..errors import InputError, ReceptanceError
from ..generation import Sampling
from ..generation.noise import LIMIT
from ..generation.sampling import SEED_BITS
from ..language_model import load

if TYPE_CHECKING:
    from pyarrow import Table
    from ray.data import Dataset

# The columns that a request is made of, beside `request`; all others pass through.
FIELDS = SETTINGS | Line.model_fields.keys()
# What is put beside them, with what stands where an answer has no such thing: columns have one type.
ANSWER: dict[str, Any] = {
    "text": "",
    "thought": "",
    "finish_reason": "error",
    "num_prompt_tokens": 0,
    "num_tokens": 0,
    "seed": 0,
    "request": 0,
    "error": "",
}


def generate(
    dataset: Dataset,
    model: str,
    *,
    workers: int | tuple[int, int] = 1,
    batch_size: int = 16,
    num_cpus: float = 1,
    num_gpus: float = 0,
    loading: Mapping[str, Any] | None = None,
    sampling: Sampling | None = None,
    max_tokens: int | None = None,
    stop: str | Sequence[str] = (),
    think: str | None = None,
    seed: int | None = None,
    **settings: Any,
) -> Dataset:
    """The rows of `dataset` with their answers, computed as they are asked for.

    A row has a `prompt` or `messages`, and may have whatever else a line of `receptance generate --batch` may have; its
    other columns stay.  Beside them come `text`, `thought`, `finish_reason`, `num_prompt_tokens` and `num_tokens`;
    `seed` and `request`, from which `lm.generate(prompt, seed=seed, request=request)` draws the same noise; and
    `error`, which says why a row has no answer (its `finish_reason` is then "error").

    model, loading  what `receptance.load` takes; the model has to be found on every machine
    workers         that hold a model each, or the least and the most of them; each has `num_cpus` and `num_gpus`
    batch_size      rows that one of them computes together
    seed            of all rows that bring none; None: one is drawn
    others          as in `receptance.batch.run`

    A row's noise comes from its column `request`, where it has one, as from the number of its line in a file; else from
    what the row asks for, wherever the row stands.  Then rows that ask for the same get the same answer, unless an `id`
    or a `seed` tells them apart.
    """
    import ray.data

    least, most = (workers, workers) if isinstance(workers, int) else workers
    given = {
        "sampling": sampling,
        "changes": settings,
        "max_tokens": max_tokens,
        "stops": (stop,) if isinstance(stop, str) else tuple(stop),
        "think": think,
    }
    return dataset.map_batches(
        _Answerer,
        fn_constructor_args=(model, loading or {}, given, secrets.randbits(SEED_BITS) if seed is None else seed),
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )


class _Answerer:
    """What each worker is."""

    def __init__(self, model: str, loading: Mapping[str, Any], given: Mapping[str, Any], seed: int) -> None:
        self._lm, self._seed = load(model, **loading), seed
        self._defaults = Defaults.of(self._lm, has_state=False, **given)

    def __call__(self, table: Table) -> Table:
        names = [name for name in table.column_names if name in FIELDS or name == "request"]
        if not {"prompt", "messages"} & set(names):
            raise InputError("the data set has no column prompt and no column messages; name one of its columns so")
        asked = [self._asked(row) for row in table.select(names).to_pylist()]
        requests = [one for one in asked if isinstance(one, Request)]
        told = iter(answers(self._lm, requests) if requests else ())
        rows = [ANSWER | (_answer(one, next(told)) if isinstance(one, Request) else {"error": one}) for one in asked]
        table = table.drop_columns([name for name in ANSWER if name in table.column_names])
        for name in ANSWER:
            table = table.append_column(name, [[row[name] for row in rows]])
        return table

    def _asked(self, row: Mapping[str, Any]) -> Request | str:
        """What a row asks for, or the sentence that says why that cannot be."""
        fields = {name: value for name, value in row.items() if name in FIELDS and value is not None}
        number = row.get("request")
        if number is None:
            number = _number_of(fields)
        try:
            if not (isinstance(number, int) and 0 <= number < LIMIT):
                raise InputError(f"request is a whole number from 0 to 2**63 - 1, got {number!r:.60}")
            return request_of(line_of(fields), self._defaults, number).seeded(self._seed)
        except ReceptanceError as error:
            return str(error)


def _answer(request: Request, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {**answer, "seed": request.sampling.seed, "request": request.noise}


def _number_of(fields: Mapping[str, Any]) -> int:
    """The same wherever the same is asked for."""
    said = json.dumps(fields, sort_keys=True, default=str).encode()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest()) % LIMIT
