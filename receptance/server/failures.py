"""What goes wrong, as OpenAI's clients expect to be told: a status, and one sentence in a known shape."""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ..engine import BusyError, EndingError
from ..errors import InputError, ReceptanceError, StateError
from .access import DeniedError, TooManyError
from .refusals import Refusal, refusal_of
from .responses import Error, ErrorBody
from .stored import UnknownError

log = logging.getLogger(__name__)

ABOUT: dict[int | str, str] = {
    400: "The request makes no sense, or asks for what cannot be done.",
    401: "A key is needed, or is not known.",
    404: "There is no such thing.",
    408: "The body took too long to arrive.",
    413: "The body is too large.",
    415: "The body is not said to be JSON.",
    421: "The server is not known by this name.",
    429: "Too much at a time; try again after the seconds that Retry-After tells.",
    503: "The server starts, ends, or is stuck.",
    "default": "Whatever else goes wrong.",
}
# With a default, the framework tells of none of its own.
RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": about} for status, about in ABOUT.items()
}


class NotHereError(Exception):
    """There is no model of that name."""


class NotNowError(Exception):
    """The server cannot serve at the moment."""


class BrokenError(Exception):
    """The model could not answer."""


def failure(status: int, message: str, kind: str, param: str | None = None, code: str | None = None) -> ErrorBody:
    """The body of a response that tells of a failure."""
    return ErrorBody(error=Error(message=message, type=kind, param=param, code=code))


def described(error: Exception) -> tuple[int, ErrorBody, dict[str, str]]:
    """Status, body and headers for what was raised."""
    sentence = str(error)
    match error:
        case DeniedError():
            return 401, failure(401, sentence, "authentication_error", code="invalid_api_key"), {
                "WWW-Authenticate": "Bearer"
            }
        case EndingError() | NotNowError():
            return 503, failure(503, sentence, "server_error", code="unavailable"), {"Retry-After": "5"}
        case TooManyError() | BusyError():
            wait = {"Retry-After": str(math.ceil(error.retry_after))}
            return 429, failure(429, sentence, "rate_limit_error", code="rate_limit_exceeded"), wait
        case NotHereError():
            return 404, failure(404, sentence, "invalid_request_error", "model", "model_not_found"), {}
        case UnknownError():
            return 404, failure(404, sentence, "invalid_request_error", "state", "state_not_found"), {}
        case InputError() | StateError():
            return 400, failure(400, sentence, "invalid_request_error"), {}
        case ReceptanceError() | BrokenError():
            return 500, failure(500, sentence, "server_error"), {}
    return 500, failure(500, "something went wrong within the server; its log says what", "server_error"), {}


def _refusal(error: RequestValidationError) -> Refusal:
    """Also where it is not a body that is wrong."""
    errors = error.errors()
    if errors[0]["loc"] == ("body",) and errors[0]["type"] == "missing":
        return Refusal("there is no body; send JSON", None)
    if errors[0]["loc"][0] == "body":
        return refusal_of(errors, error.body)
    first = errors[0]
    return refusal_of([first], {first["loc"][-1]: first["input"]})


def add_handlers(app: FastAPI) -> None:
    """Every failure of an application in the same shape."""

    async def told(request: Request, error: Exception) -> JSONResponse:
        status, body, headers = described(error)
        if status == 500:
            # What was foreseen says all by itself.
            is_known = isinstance(error, BrokenError | ReceptanceError)
            log.error("%s failed: %s", request.url.path, error, exc_info=None if is_known else error)
        return JSONResponse(body.model_dump(), status, headers)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        refusal = _refusal(error)
        return JSONResponse(failure(400, refusal.message, "invalid_request_error", refusal.param).model_dump(), 400)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        sentences = {
            # The framework's own: JSON that Python cannot read.
            400: "the body is no JSON that can be read; it has to be UTF-8, and not nested deeply",
            404: f"there is nothing at {request.url.path[:200]}; /openapi.json lists what there is",
            405: f"{request.method} is not for {request.url.path[:200]}; /openapi.json tells what is",
        }
        sentence = sentences.get(error.status_code, str(error.detail))
        body = failure(error.status_code, sentence, "invalid_request_error")
        return JSONResponse(body.model_dump(), error.status_code, dict(error.headers or {}))

    for kind in (DeniedError, TooManyError, NotHereError, NotNowError, BrokenError, ReceptanceError, Exception):
        app.add_exception_handler(kind, told)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
