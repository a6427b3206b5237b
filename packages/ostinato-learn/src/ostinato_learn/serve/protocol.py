"""The Open Inference Protocol v2, with Triton's extensions for sequences and for loading models.

A request whose parameters have a `sequence_id` is a step, or several, of an open sequence; all
others are batches of whole sequences. The outputs are the same.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import ostinato
from ostinato_learn.serve.frames import Key
from ostinato_learn.serve.models import Models, Version
from ostinato_learn.serve.refused import Refusal, body_of
from ostinato_learn.serve.tensors import (
    HEADER,
    InferRequest,
    InferResponse,
    bad,
    flag,
    object_of,
    read_request,
    shown,
    write_response,
)

EXTENSIONS = ["binary_tensor_data", "sequence", "model_repository", "model_configuration"]
LARGE = 1 << 16  # bytes of a body that is read in another thread
_FLAGS = ("sequence_start", "sequence_end")


class Protocol:
    """The handlers of `/v2`.

    Args:
        models: those of the server.
    """

    def __init__(self, models: Models):
        self.models = models
        self._batches = ThreadPoolExecutor(1, "batches")  # one at a time, on all cores
        self._waiting = 0

    async def server(self, request: Request) -> Response:
        """Name, version and extensions of the server."""
        return JSONResponse(
            {"name": "ostinato", "version": ostinato.__version__, "extensions": EXTENSIONS}
        )

    async def live(self, request: Request) -> Response:
        """Answer that the server runs."""
        return JSONResponse({"live": True})

    async def ready(self, request: Request) -> Response:
        """Answer that all models are ready."""
        return JSONResponse({"ready": True})

    async def metadata(self, request: Request) -> Response:
        """Inputs and outputs of a model."""
        version = self._version(request)
        found = version.served.metadata()
        name = request.path_params["model"]
        found["versions"] = [each.served.version for each in self.models.versions(name)]
        return JSONResponse(found)

    async def config(self, request: Request) -> Response:
        """The configuration of a model in the form of Triton."""
        served = self._version(request).served

        def tensors(every: list[dict[str, Any]]) -> list[dict[str, Any]]:
            kinds = {"BYTES": "TYPE_STRING"}
            return [
                {
                    "name": each["name"],
                    "data_type": kinds.get(each["datatype"], f"TYPE_{each['datatype']}"),
                    "dims": each["shape"][1:] or [1],
                }
                for each in every
            ]

        found: dict[str, Any] = {
            "name": served.name,
            "platform": "ostinato",
            "max_batch_size": self.models.settings.batch,
            "input": tensors(served.head.inputs),
            "output": tensors(served.head.outputs),
        }
        if served.why_not is None:
            idle = int(self.models.settings.idle * 1e6)
            found["sequence_batching"] = {"max_sequence_idle_microseconds": idle}
        return JSONResponse(found)

    async def model_ready(self, request: Request) -> Response:
        """Answer that a model is ready."""
        version = self._version(request)
        return JSONResponse({"name": version.served.name, "ready": True})

    async def infer(self, request: Request) -> Response:
        """Answers to a batch of whole sequences, or to steps of an open sequence."""
        body, length = body_of(request), request.headers.get(HEADER)
        self._version(request)  # refuses a version that does not exist
        if len(body) > LARGE:
            asked = await asyncio.to_thread(read_request, body, length)
        else:
            asked = read_request(body, length)
        key = _key(asked)
        if key is None:
            found = await self._batch(self._version(request), asked)
        else:
            found = await self._steps(request, asked, key)
        return Response(found.body, headers=found.headers)

    async def _batch(self, version: Version, asked: InferRequest) -> InferResponse:
        settings = self.models.settings
        if self._waiting >= settings.queue:
            raise Refusal(503, f"{self._waiting:,} batches wait; try again", 1)
        served = version.served

        def work() -> InferResponse:
            outputs = served.infer(asked.inputs, settings)
            return write_response(_head(version), outputs, asked)

        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._batches, work)
        finally:
            self._waiting -= 1

    async def _steps(self, request: Request, asked: InferRequest, key: Key) -> InferResponse:
        path = request.path_params
        start, end = (
            flag(asked.parameters.get(name, False), f"the parameter {name}") for name in _FLAGS
        )
        version, frame = await self.models.play(
            path["model"],
            key,
            lambda head: head.steps(asked.inputs),
            version=path.get("version"),
            n=asked.parameters.get("n"),
            start=start,
            end=end,
        )
        assert frame.answers is not None
        about = {
            "sequence_id": key,
            "n": int(frame.answers.n[-1]),
            "restarted": frame.restarted,
        }
        described = {**_head(version), "parameters": about}
        return write_response(described, version.served.head.stepped(frame.answers), asked)

    def _version(self, request: Request) -> Version:
        path = request.path_params
        return self.models.newest(path["model"], path.get("version"))

    # ---- Triton's model repository

    async def index(self, request: Request) -> Response:
        """All models and versions."""
        return JSONResponse(
            [
                {"name": name, "version": each.served.version, "state": "READY", "reason": ""}
                for name in self.models.names
                for each in self.models.versions(name)
            ]
        )

    async def load(self, request: Request) -> Response:
        """Load a model anew from its directory."""
        body = body_of(request)
        if body and object_of(body).get("parameters"):
            raise bad("'parameters' came; this server loads the model that it was started with")
        version = await self.models.reload(request.path_params["model"])
        return JSONResponse({"name": version.served.name, "version": version.served.version})


def _head(version: Version) -> dict[str, Any]:
    return {"model_name": version.served.name, "model_version": version.served.version}


def _key(asked: InferRequest) -> Key | None:
    """The sequence of a request; None without one, which Triton also writes as 0 or \"\"."""
    key = asked.parameters.get("sequence_id")
    if key is None or key == 0 or key == "":
        if any(asked.parameters.get(name) for name in _FLAGS):
            raise bad("sequence_start or sequence_end came without a sequence_id")
        return None
    return checked_key(key)


def checked_key(key: Any) -> Key:
    """The name of a sequence: a text, or a whole number; 7 and "7" are two sequences.

    Raises:
        Refusal: it is not valid.
    """
    if type(key) is int and 0 < key < 1 << 64:
        return key
    if isinstance(key, str) and 0 < len(key) <= 200 and key.isprintable():
        return key
    raise bad(
        f"the sequence is named {shown(key)}; wanted a number from 1 to 2⁶⁴ − 1, or a text of up "
        "to 200 characters that can be printed"
    )
