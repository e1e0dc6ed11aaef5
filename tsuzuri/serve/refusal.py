"""Every way in which a request is refused, and the one funnel through which an error leaves.

In: a `Refusal`, an error of ours, or any exception. Out: a status and a sentence; OpenAI's and Anthropic's shape of it.
Only sentences written for people come out: of an exception that nobody meant there is a number to ask for, nothing else.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import Any

from tsuzuri.errors import BusyError, ConfigError, ContextError, InputError, MissingError, RemoteError, TsuzuriError, Words

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    413: "request_too_large",
    415: "invalid_request_error",
    431: "invalid_request_error",
    429: "rate_limit_error",
    502: "upstream_error",
    503: "overloaded_error",
    504: "timeout_error",
}
FAULT = Words("こちらの不具合で答えられませんでした。", "Something went wrong on our side.")


class Refusal(Exception):
    """`param`: the field of the request that is meant. `retry`: whether the same request may do better, after how many seconds."""

    def __init__(
        self,
        status: int,
        words: Words,
        *,
        param: str | None = None,
        code: str | None = None,
        retry: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, words)
        self.status, self.words, self.param, self.code, self.retry = status, words, param, code, retry
        self._headers = dict(headers or {})

    @property
    def headers(self) -> dict[str, str]:
        """What tells a client whether to come back, and when."""
        found = {**self._headers, "x-should-retry": "false" if self.retry is None else "true"}
        if self.retry is not None:
            found |= {"retry-after": str(max(1, round(self.retry))), "retry-after-ms": str(round(self.retry * 1000))}
        return found


def refused(error: BaseException) -> Refusal:
    """The funnel: what anything that was raised comes to."""
    match error:
        case Refusal():
            return error
        case ContextError():
            return Refusal(400, sentence(error), param="messages", code="context_length_exceeded")
        case ConfigError() | InputError():
            return Refusal(400, sentence(error))
        case BusyError():
            return Refusal(503, sentence(error), code="busy", retry=1)
        case MissingError() | RemoteError():  # what is not installed here; who does not answer elsewhere
            there = isinstance(error, RemoteError)
            return Refusal(502 if there else 501, sentence(error), code="upstream" if there else "not_available")
    return Refusal(500, FAULT, code="internal_error")


def where(error: BaseException) -> str:
    """What a log may say of a fault: its kind and the places in our own code, no values, no paths of this machine."""
    places = [frame for frame in traceback.extract_tb(error.__traceback__) if "tsuzuri" in frame.filename]
    names = [f"{frame.filename.rpartition('tsuzuri/')[2]}:{frame.lineno}" for frame in places[-4:]]
    return f"{type(error).__name__} at {' > '.join(names) or 'elsewhere'}"


def sentence(error: TsuzuriError) -> Words:
    """What an error of ours says, on one line."""
    return Words(f"{error.asked.ja}{error.found.ja}{error.todo.ja}", f"{error.asked.en} {error.found.en} {error.todo.en}")


def openai_shape(refusal: Refusal, request_id: str) -> dict[str, Any]:
    message = f"{refusal.words} ({request_id})" if refusal.status == 500 else str(refusal.words)
    kind = TYPES.get(refusal.status, "server_error")
    return {"error": {"message": message, "type": kind, "param": refusal.param, "code": refusal.code}}


def anthropic_shape(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """Its errors have no place for the field: it stands before the sentence."""
    words = str(refusal.words)
    message = f"{refusal.param}: {words}" if refusal.param and refusal.param not in words else words
    kind = {500: "api_error", 502: "api_error"}.get(refusal.status, TYPES.get(refusal.status, "api_error"))
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
