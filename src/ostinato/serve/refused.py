"""`Refused`: a request that is answered by an error."""

from __future__ import annotations

import math


class Refused(Exception):  # noqa: N818  it is an answer
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
