"""The routes as one table, and the application made of it.

A row of `routes` is an address with its handler and the schema of its body. The OpenAPI page at
`/openapi.json` is made of the same rows, and a handler's docstring is its summary there.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.routing import Route as StarletteRoute

import ostinato
from ostinato_learn.serve.guard import Guard, answer_of
from ostinato_learn.serve.metrics import Metrics
from ostinato_learn.serve.models import Models
from ostinato_learn.serve.page import Page, Shown
from ostinato_learn.serve.protocol import Protocol
from ostinato_learn.serve.refused import Refusal
from ostinato_learn.serve.sessions import Sessions
from ostinato_learn.serve.settings import Settings

JSON, BINARY, TEXT = "application/json", "application/octet-stream", "text/plain"
EVENTS = "text/event-stream"
MODEL = "/v2/models/{model}"
VERSION = MODEL + "/versions/{version}"
SESSION = MODEL + "/sessions/{session}"


def _object(*required: str, more: bool = False, **properties: Any) -> dict[str, Any]:
    """The JSON schema of an object; `more`: it may have further names."""
    found = {"type": "object", "properties": properties}
    found |= {"required": list(required)} if required else {}
    return found if more else {**found, "additionalProperties": False}


_TEXT, _BOOL, _ANY = {"type": "string"}, {"type": "boolean"}, {"type": "object"}
_FROM_0, _FROM_1 = ({"type": "integer", "minimum": least} for least in (0, 1))
# JSON schemas of bodies, by the names that the table gives them.
SCHEMAS: dict[str, Any] = {
    "infer": _object(
        "inputs",
        more=True,
        id=_TEXT,
        parameters=_object(
            more=True,
            sequence_id={"oneOf": [{"type": "integer"}, _TEXT]},
            sequence_start=_BOOL,
            sequence_end=_BOOL,
            n=_FROM_1,
        ),
        inputs={
            "type": "array",
            "minItems": 1,
            "items": _object(
                "name",
                "shape",
                "datatype",
                more=True,
                name=_TEXT,
                shape={"type": "array", "items": _FROM_0},
                datatype=_TEXT,
                parameters=_ANY,
                data={"type": "array"},
            ),
        },
        outputs={"type": "array", "items": _object("name", more=True, name=_TEXT, parameters=_ANY)},
    ),
    "begin": _object(id={**_TEXT, "minLength": 1, "maxLength": 200}),
    "steps": _object(
        "x", n=_FROM_1, x={"oneOf": [{"type": "array"}, _TEXT]}, each=_BOOL, end=_BOOL
    ),
    "load": _object(more=True, parameters=_ANY),
    "state": {**_TEXT, "format": "binary"},
    "table": _TEXT,
    "suggest": _object("text", text=_TEXT, n={**_FROM_1, "maximum": 20}),
    "write": _object(
        prompt=_TEXT,
        n={**_FROM_1, "maximum": 10_000},
        temperature={"type": "number", "minimum": 0},
        seed=_FROM_0,
    ),
    "error": _object("error", more=True, error=_TEXT),
}


@dataclass(frozen=True)
class Row:
    """A route: a method and an address, with the handler that answers there.

    Attributes:
        body: the name of the body's schema in `SCHEMAS`; None: the request has no body.
        gives: the media type of the answer.
        status: the HTTP status of a successful answer.
        needs_body: whether the body is required.
    """

    method: str
    path: str
    handler: Callable[[Request], Awaitable[Response]]
    body: str | None = None
    gives: str = JSON
    status: int = 200
    needs_body: bool = True


def routes(protocol: Protocol, sessions: Sessions, page: Page) -> list[Row]:
    """The table of routes; the most frequent requests come first."""
    return [
        Row("POST", MODEL + "/infer", protocol.infer, "infer"),
        Row("POST", SESSION + "/steps", sessions.steps, "steps"),
        Row("POST", VERSION + "/infer", protocol.infer, "infer"),
        Row("GET", "/v2", protocol.server),
        Row("GET", "/v2/health/live", protocol.live),
        Row("GET", "/v2/health/ready", protocol.ready),
        Row("GET", MODEL, protocol.metadata),
        Row("GET", MODEL + "/ready", protocol.model_ready),
        Row("GET", MODEL + "/config", protocol.config),
        Row("GET", VERSION, protocol.metadata),
        Row("GET", VERSION + "/ready", protocol.model_ready),
        Row("POST", "/v2/repository/index", protocol.index, "load", needs_body=False),
        Row("POST", "/v2/repository/models/{model}/load", protocol.load, "load", needs_body=False),
        Row("POST", MODEL + "/sessions", sessions.begin, "begin", status=201, needs_body=False),
        Row("GET", SESSION, sessions.tell),
        Row("DELETE", SESSION, sessions.end),
        Row("GET", SESSION + "/state", sessions.state, gives=BINARY),
        Row("PUT", SESSION + "/state", sessions.put_state, "state", status=201),
        Row("GET", SESSION + "/events", sessions.events, gives=EVENTS),
        Row("GET", MODEL + "/card", page.card),
        Row("GET", MODEL + "/examples", page.examples),
        Row("POST", MODEL + "/table", page.table, "table"),
        Row("POST", MODEL + "/suggest", page.suggest, "suggest"),
        Row("POST", MODEL + "/write", page.write, "write", gives=TEXT),
    ]


def application(
    models: Models, settings: Settings, metrics: Metrics, shown: dict[str, Shown] | None = None
) -> Guard:
    """The application of a server; `shown` has the data of the page by the name of each model."""
    protocol, sessions, page = Protocol(models), Sessions(models), Page(models, shown or {})
    table = routes(protocol, sessions, page)

    async def read_metrics(request: Request) -> Response:
        """The counters of the server in the text format of Prometheus."""
        return Response(metrics.text(models), media_type=TEXT)

    async def openapi(request: Request) -> Response:
        """This page."""
        return JSONResponse(described(table))

    table.append(Row("GET", "/metrics", read_metrics, gives=TEXT))
    table.append(Row("GET", "/openapi.json", openapi))
    every: list[BaseRoute] = [
        StarletteRoute(row.path, row.handler, methods=[row.method]) for row in table
    ]
    every.append(StarletteRoute("/", page.file, methods=["GET"]))
    every.append(StarletteRoute("/page/{name}", page.file, methods=["GET"]))
    every.append(WebSocketRoute(SESSION + "/socket", sessions.socket))
    handlers: Any = dict.fromkeys((HTTPException, Refusal, Exception), _error)
    app = Starlette(routes=every, exception_handlers=handlers)
    return Guard(app, settings, metrics)


async def _error(request: Request, problem: Exception) -> Response:
    if isinstance(problem, HTTPException):
        detail = f"{request.method} {request.url.path[:200]}: {problem.detail}"
        return JSONResponse({"error": detail}, problem.status_code, headers=problem.headers)
    if isinstance(problem, Refusal):
        return answer_of(problem)
    return answer_of(Refusal(500, "the server failed; its log has the reason"))


def described(table: list[Row]) -> dict[str, Any]:
    """The OpenAPI page of a table of routes."""
    paths: dict[str, Any] = {}
    for row in table:
        names = [part[1:-1] for part in row.path.split("/") if part.startswith("{")]
        entry: dict[str, Any] = {
            "summary": (row.handler.__doc__ or "").strip().split("\n")[0],
            "operationId": f"{row.method.lower()}{row.path}",
            "parameters": [
                {"name": n, "in": "path", "required": True, "schema": {"type": "string"}}
                for n in names
            ],
            "responses": _responses(row),
        }
        if row.body is not None:
            kind = {"state": BINARY, "table": "text/csv"}.get(row.body, JSON)
            schema = {"$ref": f"#/components/schemas/{row.body}"}
            content = {kind: {"schema": schema}}
            entry["requestBody"] = {"required": row.needs_body, "content": content}
        paths.setdefault(row.path, {})[row.method.lower()] = entry
    return {
        "openapi": "3.1.0",
        "info": {"title": "ostinato", "version": ostinato.__version__},
        "paths": paths,
        "components": {"schemas": SCHEMAS},
    }


def _responses(row: Row) -> dict[str, Any]:
    problem = {JSON: {"schema": {"$ref": "#/components/schemas/error"}}}
    statuses = {"200", str(row.status)} if row.body == "state" else {str(row.status)}
    content: dict[str, Any] = {row.gives: {}}
    if row.body == "infer":
        content[BINARY] = {}
    found: dict[str, Any] = {
        status: {"description": "the answer", "content": content} for status in sorted(statuses)
    }
    for status, meaning in (("4XX", "the request cannot be answered"), ("5XX", "not now")):
        found[status] = {"description": meaning, "content": problem}
    return found
