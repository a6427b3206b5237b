"""Sequences for requests written by hand: a session is a sequence whose name is a text.

The address names the session. Its steps have numbers from 1. A request may give the number of its
first step, `n`; the same request again then has the same answer.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from ostinato_learn.serve.models import Models
from ostinato_learn.serve.protocol import checked_key
from ostinato_learn.serve.refused import Refusal, body_of
from ostinato_learn.serve.sequences import OpenSequences
from ostinato_learn.serve.tensors import bad, flag, object_of, only, shown

N = "ostinato-n"  # a header: the number of steps that a state has read
_STEPS = {"n", "x", "each", "end"}


class Sessions:
    """The handlers of `/v2/models/{model}/sessions`.

    Args:
        models: those of the server.
    """

    def __init__(self, models: Models):
        self.models = models

    async def begin(self, request: Request) -> Response:
        """Begin a session."""
        body = body_of(request)
        given = object_of(body) if body else {}
        only(given, {"id"})
        key = checked_key(given.get("id", secrets.token_urlsafe(12)))
        if not isinstance(key, str):
            raise bad(f"'id' is {shown(key)}; wanted a text")
        version = self.models.newest(request.path_params["model"])
        if self._where(request, key).is_open(key):
            raise Refusal(409, f"the sequence {key!r} is open already; take another name")
        n = await version.stepwise.begin(key)
        return JSONResponse({"id": key, "n": n, "version": version.served.version}, 201)

    async def tell(self, request: Request) -> Response:
        """The number of steps that a session has read."""
        key = _id(request)
        n, _ = await self._where(request, key).state(key)
        return JSONResponse({"id": key, "n": n})

    async def steps(self, request: Request) -> Response:
        """Read steps of a session, and answer."""
        given = object_of(body_of(request))
        return JSONResponse(await self._played(request, _id(request), given))

    async def _played(self, of: HTTPConnection, key: str, given: dict[str, Any]) -> Any:
        only(given, _STEPS)
        if "x" not in given:
            raise bad("'x' is missing; wanted a row of values, or several rows")
        end, each = (flag(given[k], f"{k!r}") if k in given else None for k in ("end", "each"))
        version, frame = await self.models.play(
            of.path_params["model"],
            key,
            lambda head: head.read(given["x"]),
            n=given.get("n"),
            end=bool(end),
            each=each,
        )
        head = version.served.head
        assert frame.answers is not None
        found = {"id": key, **as_json(frame.answers[-1], head.noun)}
        if frame.each:
            found["each"] = [as_json(answer, head.noun) for answer in frame.answers]
        return found

    async def state(self, request: Request) -> Response:
        """The state of a session as bytes, for `Model.stream` and for any server of this model."""
        key = _id(request)
        n, state = await self._where(request, key).state(key)
        return Response(state, media_type="application/octet-stream", headers={N: str(n)})

    async def put_state(self, request: Request) -> Response:
        """Let a session, new or open, go on from a state."""
        key = _id(request)
        sequences = self._where(request, key)
        replaced = sequences.is_open(key)
        n = await sequences.begin(key, body_of(request), replace=True)
        return JSONResponse({"id": key, "n": n, "replaced": replaced}, 200 if replaced else 201)

    async def end(self, request: Request) -> Response:
        """End a session."""
        key = _id(request)
        n = await self._where(request, key).end(key, "it was ended by DELETE")
        return JSONResponse({"id": key, "n": n})

    async def events(self, request: Request) -> Response:
        """The answers of a session as they come, as server-sent events."""
        key = _id(request)
        sequences = self._where(request, key)
        queue, noun = sequences.listen(key), sequences.served.head.noun

        async def events() -> AsyncIterator[str]:
            try:
                yield ": the answers of this session follow\n\n"
                while (answer := await queue.get()) is not None:
                    yield f"id: {answer.n}\ndata: {json.dumps(as_json(answer, noun))}\n\n"
                yield "event: end\ndata: {}\n\n"
            finally:
                sequences.listeners.remove(key, queue)

        headers = {"cache-control": "no-store"}
        return StreamingResponse(events(), media_type="text/event-stream", headers=headers)

    async def socket(self, socket: WebSocket) -> None:
        """The frames of `steps`, one after the other, over a WebSocket.

        A frame is read when the one before it is answered. The number of waiting frames is
        bounded; at the bound the client's sends block.
        """
        key = _id(socket)
        await socket.accept()
        try:
            while True:
                text = await socket.receive_text()
                try:
                    found = await self._played(socket, key, object_of(text))
                except Refusal as problem:
                    found = {"error": problem.message, "status": problem.status}
                sent = socket.send_text(json.dumps(found))
                await asyncio.wait_for(sent, self.models.settings.timeout)
        except (WebSocketDisconnect, asyncio.TimeoutError):
            return
        except KeyError:  # a binary message
            await socket.close(1003, "wanted text, a JSON object")

    def _where(self, request: HTTPConnection, key: str) -> OpenSequences:
        return self.models.with_sequence(request.path_params["model"], key).stepwise


def as_json(answer: Any, noun: str) -> dict[str, Any]:
    """An answer of the runtime for JSON, with exact floats under the name `noun`."""
    found: dict[str, Any] = {"n": answer.n, "label": answer.label, noun: answer.proba.tolist()}
    if answer.sure is not None:
        found["sure"] = answer.sure
    return found


def _id(request: HTTPConnection) -> str:
    key = checked_key(request.path_params["session"])
    assert isinstance(key, str)
    return key
