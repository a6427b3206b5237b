"""`serve`: `ostinato serve` beside an echo server of the same stack, over sockets of this machine.

The echo server is uvicorn and Starlette with the same settings; it reads the JSON of a request and
returns one of the same size. Both are asked by the same clients, in turns of some seconds.

A client of `serve/steps` sends its steps at fixed times, whether or not the answer before came in
time; its latency is that from the planned time to the answer. Afterwards every answer is compared,
bit for bit, with the model's own stream of the client's rows.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from benchmarks.batch import saved_classifier
from benchmarks.results import Bound, Row, Spec, Timing

F, H, T = 8, 64, 28
P99_OVER_ECHO, FRAME_STEPS_S, BATCH_OVER_PREDICT = 1.5, 500_000, 0.7
SEQUENCES, PER_SECOND, SECONDS, TURN = 200, 10, 60, 10
FRAME = 20_000
PATH = "/v2/models/model/infer"


def specs(quick: bool) -> list[Spec]:
    return [
        Spec("serve/steps", lambda: _steps(quick)),
        Spec("serve/frames", lambda: _frames(2 if quick else 20)),
        Spec("serve/batch", lambda: _batch(2 if quick else 20)),
    ]


@contextmanager
def server(*arguments: str) -> Iterator[str]:
    """A server in a process of its own; gives its address."""
    command = [sys.executable, "-m", *arguments, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().rpartition("http://")[2].strip()
        finally:
            process.terminate()


@contextmanager
def ours(model: str) -> Iterator[str]:
    """`ostinato serve`."""
    with server("ostinato_learn", "serve", f"model={model}", "--quiet") as address:
        yield address


def _rows(n: int, seed: int) -> Any:
    return np.random.default_rng(seed).standard_normal((n, F)).astype(np.float32)


# ---- many sequences, step by step


class _Client:
    """A sequence: a connection, its rows, and what was answered."""

    def __init__(self, address: str, number: int):
        self.host, port = address.split(":")
        self.port, self.number = int(port), number
        self.rows = _rows(SECONDS * PER_SECOND + 10, number)
        self.seconds: list[float] = []
        self.answers: list[bytes] = []

    async def open(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(self.host, self.port)

    async def ask(self, at: float) -> None:
        n = len(self.answers)
        about = {"sequence_id": self.number + 1, "sequence_start": n == 0, "n": n + 1}
        x = {"name": "x", "shape": [1, F], "datatype": "FP32", "data": self.rows[n].tolist()}
        body = json.dumps({"parameters": about, "inputs": [x]}).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        self.writer.write(head.encode() + body)
        head_of = await self.reader.readuntil(b"\r\n\r\n")
        size = int(head_of.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        self.answers.append(await self.reader.readexactly(size))
        self.seconds.append(time.perf_counter() - at)

    async def play(self, n: int, begin: float) -> None:
        """n steps at their times, which the sequences share out evenly."""
        begin += self.number / SEQUENCES / PER_SECOND
        for i in range(n):
            at = begin + i / PER_SECOND
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            await self.ask(at)


def wrong(client: _Client, model: Any) -> int:
    """How many answers are not those of the model's own stream, or not there."""
    stream, found = model.stream(), 0
    for row, body in zip(client.rows, client.answers, strict=False):
        wanted, told = stream.push(row), json.loads(body)
        outputs = {each["name"]: each["data"] for each in told.get("outputs", [])}
        same = outputs.get("probabilities") == wanted.proba.tolist()
        found += not (same and told["parameters"]["n"] == wanted.n)
    return found


async def _load(addresses: list[str], n: int, turns: int, steps: int) -> list[list[_Client]]:
    """The clients of each server, after all turns."""
    every = [[_Client(address, i) for i in range(n)] for address in addresses]
    for clients in every:
        await asyncio.gather(*(client.open() for client in clients))
    for _ in range(turns):
        for clients in every:
            begin = time.perf_counter() + 0.1
            await asyncio.gather(*(client.play(steps, begin) for client in clients))
    for clients in every:
        for client in clients:
            client.writer.close()
    return every


def _steps(quick: bool) -> Row:
    from ostinato_learn import runtime

    n, turns = (20, 1) if quick else (SEQUENCES, SECONDS // TURN)
    steps = PER_SECOND * (1 if quick else TURN)
    with (
        saved_classifier("gru", F, H) as model,
        ours(model) as own,
        server("benchmarks.serve_echo") as echo,
    ):
        found, echoed = asyncio.run(_load([own, echo], n, turns, steps))
        loaded = runtime.load(model)
    mixed = sum(wrong(client, loaded) for client in found)
    lost = sum(turns * steps - len(client.answers) for client in found)
    p50, p99 = np.percentile([s for client in found for s in client.seconds], [50, 99])
    e50, e99 = np.percentile([s for client in echoed for s in client.seconds], [50, 99])
    told = f"{n} sequences, {PER_SECOND} steps a second each, {turns * steps} steps"
    timings = (
        Timing("ostinato serve, p99", p99, p50, p99, turns * steps * n, note=_ms(p50, p99)),
        Timing("the echo, p99", e99, e50, e99, turns * steps * n, e99 / p99, note=_ms(e50, e99)),
    )
    bounds = (
        Bound("p99 over the echo's", P99_OVER_ECHO, p99 / e99, False),
        Bound("answers of another sequence or step", 0, mixed, False),
        Bound("steps without an answer", 0, lost, False),
    )
    return Row("serve/steps", f"GRU, {H} units; {told}", timings, bounds=bounds)


def _ms(p50: float, p99: float) -> str:
    return f"p50 {1000 * p50:.2f} ms, p99 {1000 * p99:.2f} ms"


# ---- frames of many steps, and batches, in binary


def _client(address: str) -> Any:
    import tritonclient.http as triton

    return triton.InferenceServerClient(address)


def _asked(client: Any, x: Any, **sequence: Any) -> tuple[float, Any]:
    import tritonclient.http as triton

    given = triton.InferInput("x", x.shape, "FP32")
    given.set_data_from_numpy(x)
    begin = time.perf_counter()
    answer = client.infer("model", [given], **sequence).as_numpy("probabilities")
    return time.perf_counter() - begin, answer


def _frames(rounds: int) -> Row:
    from ostinato_learn import runtime

    x = _rows(FRAME, 1)[None]
    with saved_classifier("gru", F, H) as model, ours(model) as address:
        client, stream = _client(address), runtime.load(model).stream()
        own, alone = [], []
        for i in range(rounds + 1):
            seconds, answer = _asked(client, x, sequence_id=1, sequence_start=i == 0)
            begin = time.perf_counter()
            wanted = stream.push(x[0], each=False)
            alone.append(time.perf_counter() - begin)
            assert (answer[0] == wanted.proba).all()
            own.append(seconds)
    timings = (Timing.of("ostinato serve", own[1:]), _beside("push(xs) of a stream", alone, own))
    rate = FRAME / timings[0].median_s
    bound = Bound("steps a second", FRAME_STEPS_S, rate, unit="steps")
    title = f"{FRAME:,} steps of one sequence in a request, GRU, {H} units"
    return Row("serve/frames", title, timings, bounds=(bound,))


def _batch(rounds: int) -> Row:
    from ostinato_learn import runtime

    X = np.random.default_rng(2).standard_normal((1000, T, T)).astype(np.float32)
    with saved_classifier("gru", T, 128) as model, ours(model) as address:
        client, loaded = _client(address), runtime.load(model)
        own, alone = [], []
        for _ in range(rounds + 1):
            seconds, answer = _asked(client, X)
            begin = time.perf_counter()
            wanted = loaded.predict_proba(X)
            alone.append(time.perf_counter() - begin)
            assert (answer == wanted).all()
            own.append(seconds)
    timings = (Timing.of("ostinato serve", own[1:]), _beside("predict_proba", alone, own))
    bound = Bound("predict_proba over ours", BATCH_OVER_PREDICT, timings[1].ratio or 0.0)
    title = "1,000 sequences of 28 steps and 28 features in a request, GRU, 128 units"
    return Row("serve/batch", title, timings, bounds=(bound,))


def _beside(name: str, seconds: list[float], own: list[float]) -> Timing:
    """A contender without its first round, beside ours."""
    at = Timing.of(name, seconds[1:])
    ratio = float(np.median(np.divide(seconds[1:], own[1:])))
    return Timing(name, at.median_s, at.q1_s, at.q3_s, at.rounds, ratio)
