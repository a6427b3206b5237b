"""The echo server of `serve`: the stack of `ostinato serve` without a model."""

from __future__ import annotations

import asyncio
import json

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ostinato_learn.serve.server import IDLE, bounded, listening
from ostinato_learn.serve.settings import Settings


async def echo(request: Request) -> Response:
    """What came, read and written again."""
    text = json.dumps(json.loads(await request.body()))
    return Response(text, media_type="application/json")


def main() -> None:
    """Serve on any port, whose address is printed."""
    app = Starlette(routes=[Route("/v2/models/{model}/infer", echo, methods=["POST"])])
    config = uvicorn.Config(
        app,
        http=bounded(30),
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        timeout_keep_alive=IDLE,
    )
    socket = listening(Settings(port=0))
    print(f"echo at http://127.0.0.1:{socket.getsockname()[1]}", flush=True)
    asyncio.run(uvicorn.Server(config).serve(sockets=[socket]))


if __name__ == "__main__":
    main()
