"""The page at `/`, and the handlers of its requests beside those of the protocol.

The page has three files, which need no build and no network: static/index.html, page.js, page.css.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ostinato_learn import files
from ostinato_learn.saved.read import README, model_in
from ostinato_learn.serve.models import Models
from ostinato_learn.serve.refused import Refusal, body_of
from ostinato_learn.serve.tensors import MOST, bad, check_text, object_of, only, shown, whole

_KINDS = {
    "index.html": "text/html; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
TEXT = 5000  # characters, at most, whose information in bits the page shows
PIECES = 8  # tokens that are written between two checks of the connection


@dataclass(frozen=True)
class Shown:
    """The data that the page shows of a model beside its directory; the command line collects it.

    Attributes:
        image: how pictures are read as sequences, "rows", "columns" or "pixels"; None: the model
            reads no pictures.
        examples: gives some of the test part, as [{"x": [T, F], "label"}]; is called once.
        table: gives the answers to the rows of a CSV file: {"csv", "belief"}.
        roles: the roles of the columns of such a file: {"id", "time", "target", "features"}.
    """

    image: str | None = None
    examples: Callable[[], list[dict[str, Any]]] | None = None
    table: Callable[[bytes], dict[str, Any]] | None = None
    roles: dict[str, Any] | None = None


class Page:
    """The handlers of the page.

    Args:
        models: those of the server.
        shown: the data that the page shows, by the names of the models.
    """

    def __init__(self, models: Models, shown: dict[str, Shown]):
        self.models = models
        self._shown = {name: shown.get(name, Shown()) for name in models.names}
        self._examples: dict[str, list[dict[str, Any]]] = {}
        self._lock = asyncio.Lock()

    async def file(self, request: Request) -> Response:
        """The page, its script and its style."""
        name = request.path_params.get("name", "index.html")
        if name not in _KINDS:
            raise Refusal(404, f"there is no {shown(name)}; there are {', '.join(_KINDS)}")
        headers = {
            "content-security-policy": _POLICY,
            "cache-control": "no-cache",
            "x-content-type-options": "nosniff",
        }
        return Response(_content(name), headers=headers, media_type=_KINDS[name])

    async def card(self, request: Request) -> Response:
        """The card of a model, and the parts of the page that apply to it."""
        of = self._of(request)
        version = self.models.newest(request.path_params["model"])
        place = files.current(model_in(self.models.directories[version.served.name]))
        card = place / README
        text = card.read_text("utf-8") if card.is_file() else ""
        facts = {
            "image": of.image,
            "examples": of.examples is not None,
            "table": of.table is not None,
            "roles": of.roles,
            "text": text,
        }
        return JSONResponse(facts)

    async def examples(self, request: Request) -> Response:
        """Some sequences of the test part."""
        of, name = self._of(request), request.path_params["model"]
        if of.examples is None:
            raise Refusal(404, f"{name!r} has no examples: it is a model without its run, or table")
        async with self._lock:
            if name not in self._examples:
                self._examples[name] = await asyncio.to_thread(of.examples)
        return JSONResponse(self._examples[name])

    async def table(self, request: Request) -> Response:
        """Answers to the rows of a table, as `ostinato predict` gives them."""
        of, name = self._of(request), request.path_params["model"]
        if of.table is None:
            raise bad(f"{name!r} was not trained on a table; ask it by /infer")
        content = body_of(request)
        async with self._lock:
            return JSONResponse(await asyncio.to_thread(of.table, content))

    async def suggest(self, request: Request) -> Response:
        """The likeliest next tokens of a text, and the bits of each of its tokens."""
        given = object_of(body_of(request))
        only(given, {"text", "n"})
        text = _checked_text(given.get("text"), "'text'")
        n = whole(given.get("n", 5), "'n'", 1, 20)
        version = self.models.newest(request.path_params["model"])
        return JSONResponse(await asyncio.to_thread(version.served.suggest, text, n))

    async def write(self, request: Request) -> Response:
        """Text of a language model, sent while it is written; a closed connection ends it."""
        given = object_of(body_of(request))
        only(given, {"prompt", "n", "temperature", "seed"})
        prompt = _checked_text(given.get("prompt", ""), "'prompt'")
        n = whole(given.get("n", 400), "'n'", 1, 10_000)
        seed = whole(given.get("seed", 0), "'seed'", 0, MOST)
        temperature = given.get("temperature", 1.0)
        if type(temperature) not in (int, float) or not 0 <= temperature <= 1e6:
            raise bad(f"'temperature' is {shown(temperature)}; wanted a number, 0 or more")
        language = self.models.newest(request.path_params["model"]).served.language
        pieces = language.writing(prompt, n, temperature=temperature, seed=seed)
        return StreamingResponse(_text(pieces), media_type="text/plain")

    def _of(self, request: Request) -> Shown:
        version = self.models.newest(request.path_params["model"])
        return self._shown[version.served.name]


async def _text(pieces: Iterator[str]) -> AsyncIterator[str]:
    def some() -> list[str]:
        return [piece for _, piece in zip(range(PIECES), pieces, strict=False)]

    while found := await asyncio.to_thread(some):
        yield "".join(found)


def _checked_text(text: Any, noun: str) -> str:
    if not isinstance(text, str):
        raise bad(f"{noun} is {shown(text)}; wanted a text")
    if len(text) > TEXT:
        raise Refusal(413, f"{noun} has {len(text):,} characters; wanted {TEXT:,} at most")
    check_text(text, noun)
    return text


@cache
def _content(name: str) -> bytes:
    return (resources.files("ostinato_learn.serve") / "static" / name).read_bytes()
