"""`Refusal`: the error that answers a request; and `body_of`, the body of a request."""

from __future__ import annotations

import math
from typing import Any

BODY = "ostinato-body"  # in the scope of a request: its body, which the guard has read


def body_of(request: Any) -> bytes:
    """The body of a Starlette request, without the copy that its own `body()` makes."""
    found: bytes = request.scope[BODY]
    return found


class Refusal(Exception):  # noqa: N818  it is an answer
    """Ends a request with a status and a message, which says what came and what was wanted.

    Args:
        status: the status of HTTP.
        message: the text for the client.
        retry_after: seconds after which the same request may be answered; None: never.
    """

    def __init__(self, status: int, message: str, retry_after: float | None = None):
        super().__init__(message)
        self.status, self.message = status, message
        self.headers: dict[str, str] = {}
        if retry_after is not None:
            self.headers["Retry-After"] = str(max(1, math.ceil(retry_after)))
        if status == 401:
            self.headers["WWW-Authenticate"] = "Bearer"
