"""Servers for tests: in this process without sockets, and in one of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ostinato_learn.serve.app import application
from ostinato_learn.serve.metrics import Metrics
from ostinato_learn.serve.models import Models
from ostinato_learn.serve.settings import Settings

GOLDEN = Path(__file__).parents[1] / "runtime" / "golden" / "0.1.0"


def golden(*names: str) -> dict[str, Path]:
    return {name: GOLDEN / name for name in names}


@contextlib.asynccontextmanager
async def serving(
    directories: dict[str, Path], *, clean: bool = True, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a server without sockets; with clean=False it ends as by kill -9."""
    bounds = Settings(**{"access_log": False, **settings})
    metrics = Metrics()
    models = Models(directories, bounds, metrics)
    guard = application(models, bounds, metrics)
    models.start()
    transport = httpx.ASGITransport(guard, raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")
    client.models, client.guard = models, guard
    try:
        yield client
    finally:
        await client.aclose()
        if clean:
            await models.close()
        else:
            for name in models.names:
                for version in models.versions(name):
                    await models._stop(version)
            models._unlock()


def run(test: Any) -> None:
    """A test that is a coroutine."""
    asyncio.run(asyncio.wait_for(test, 60))


def tensor(name: str, array: Any) -> dict[str, Any]:
    """An input of a request in JSON."""
    array = np.asarray(array)
    kinds = {"f4": "FP32", "f8": "FP64", "i8": "INT64"}
    kind = kinds.get(array.dtype.str[1:], "BYTES")
    return {
        "name": name,
        "shape": list(array.shape),
        "datatype": kind,
        "data": array.ravel().tolist(),
    }


def arrays(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    """The outputs of an answer in JSON."""
    kinds = {"FP32": np.float32, "FP64": np.float64, "INT64": np.int64, "BYTES": object}
    return {
        each["name"]: np.array(each["data"], kinds[each["datatype"]]).reshape(each["shape"])
        for each in answer["outputs"]
    }


def step(key: Any, x: Any, start: bool = False, end: bool = False, **more: Any) -> dict[str, Any]:
    """A request of steps `[1, T, F]` of a sequence."""
    parameters = {"sequence_id": key, "sequence_start": start, "sequence_end": end, **more}
    return {"parameters": parameters, "inputs": [tensor("x", np.asarray(x, np.float32))]}


class Process:
    """`ostinato serve` in a process of its own, on any port."""

    def __init__(self, *arguments: str, **options: Any):
        script = "import sys; from ostinato_learn.cli import main; sys.exit(main())"
        command = [sys.executable, "-c", script, "serve", *map(str, arguments), "--port", "0"]
        # A file: a pipe that nobody reads would hold the server.
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, text=True, **options
        )
        line = self.process.stdout.readline()
        if " at http://" not in line:
            self.process.wait()
            self._log.seek(0)
            raise RuntimeError(line + self._log.read())
        self.url = line.split(" at ")[-1].strip()
        self.address = self.url.removeprefix("http://")
        self.client = httpx.Client(timeout=30)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.client.post(self.url + path, content=json.dumps(body), **more)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self._wait()

    def terminate(self) -> int:
        """By SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self._wait()

    def _wait(self) -> int:
        code = self.process.wait(30)
        self.client.close()
        self._log.seek(0)
        self.errors = self._log.read()
        self._log.close()
        self.process.stdout.close()
        return code

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            self.kill()
