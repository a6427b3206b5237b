"""`Refusal`: a request that is answered by an error; and the body of one that is read."""

from __future__ import annotations

import math
from typing import Any

BODY = "ostinato.body"  # in the scope of a request: its body, which the guard has read


def body_of(request: Any) -> bytes:
    """The body of a Starlette request; unlike its own `body()` without a copy."""
    found: bytes = request.scope[BODY]
    return found


class Refusal(Exception):  # noqa: N818  it is an answer
    """Ends a request with a status and a message, which says what came and what was wanted.

    Args:
        status: of HTTP.
        message: for the client.
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
