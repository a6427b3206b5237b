"""The server as a process: kills, signals, other people's clients, cut and slow connections."""

from __future__ import annotations

import random
import resource
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from serving import GOLDEN, Process, arrays, step

from ostinato_learn import runtime

pytestmark = pytest.mark.process
GRU = str(GOLDEN / "gru")
MODEL = runtime.load(GOLDEN / "gru")
INFER = "/v2/models/gru/infer"
X = np.random.default_rng(1).normal(size=(400, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def server():
    with Process(GRU, str(GOLDEN / "language"), "--timeout", "1", "--body", "1") as process:
        yield process


def test_torch_is_never_imported():
    script = """
        import sys
        sys.modules["torch"] = None  # an import of it fails
        import ostinato_learn.serve.server, ostinato_learn.cli.serve
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("ids", [(1001, 1002), ("left", "right")])
def test_tritonclient_plays_sequences_as_in_its_own_examples(server, binary, ids):
    """Two sequences in turn, by numbers or texts, then once more without an end between."""
    with triton.InferenceServerClient(server.address) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("gru")
        assert client.get_model_metadata("gru")["outputs"][1]["name"] == "probabilities"
        assert client.get_model_config("gru")["input"][0]["dims"] == [-1, 3]
        assert client.get_model_repository_index()[0]["state"] == "READY"
        for _ in range(2):
            for t in range(6):
                for i, key in enumerate(ids):
                    x = triton.InferInput("x", [1, 3], "FP32")
                    x.set_data_from_numpy(X[None, 9 * i + t], binary_data=binary)
                    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary)
                    answer = client.infer(
                        "gru", [x], outputs=[wanted], sequence_id=key, sequence_start=t == 0
                    )
                    rows = X[None, 9 * i : 9 * i + t + 1]
                    found = answer.as_numpy("probabilities")
                    assert (found == MODEL.predict_proba(rows)).all()
        text = triton.InferInput("text", [2], "BYTES")
        text.set_data_from_numpy(np.array(["to be", "or "], object), binary_data=binary)
        tokens = client.infer("language", [text]).as_numpy("token")
        wanted = runtime.load(GOLDEN / "language").predict(["to be", "or "])
        assert [token.decode() for token in tokens] == wanted
        with pytest.raises(triton.InferenceServerException, match="no sequence"):
            client.infer("gru", [x], sequence_id=99)


@pytest.mark.slow
@pytest.mark.parametrize("draw", range(4))
def test_kills_at_any_moment_lose_nothing(tmp_path, draw):
    """Five kills of a server that several clients ask without pause; each asks again after it."""
    rng = random.Random(draw)
    read = dict.fromkeys(range(1, 5), 0)
    at: list[Process] = []
    done = threading.Event()
    wrong: list[str] = []

    def client(key):
        body, n, http = None, 0, httpx.Client(timeout=30)
        while not done.is_set() or body is not None:
            if body is None:
                T = 1 + (n % 4 == 0) * 3
                rows = X[None, (key * 50 + n) % 300 :][:, :T]
                body, n = step(key, rows, n == 0, n=n + 1), n + T
            try:
                answer = http.post(at[-1].url + INFER, json=body)
            except httpx.TransportError:
                time.sleep(0.01)
                continue
            if answer.status_code != 200:
                wrong.append(answer.text)
                return
            found_n = answer.json()["parameters"]["n"]
            seen = rows_of(key, n)
            if found_n != n or (arrays(answer.json())["probabilities"] != belief(seen)).any():
                wrong.append(f"sequence {key} at {n}: {found_n}")
            read[key], body = n, None

    def rows_of(key, n):
        rows, k = [], 0
        while k < n:
            T = 1 + (k % 4 == 0) * 3
            rows.append(X[(key * 50 + k) % 300 :][:T])
            k += T
        return np.concatenate(rows)

    def belief(rows):
        stream = MODEL.stream()
        return stream.push(rows).proba if len(rows) > 1 else stream.push(rows[0]).proba

    arguments = (GRU, "--state", tmp_path, "--state-every", "1", "--quiet")
    at.append(Process(*arguments))
    threads = [threading.Thread(target=client, args=(key,)) for key in read]
    for thread in threads:
        thread.start()
    for _ in range(5):
        time.sleep(rng.uniform(0.05, 1.5))
        at[-1].kill()
        at.append(Process(*arguments))
    time.sleep(0.3)
    done.set()
    for thread in threads:
        thread.join(30)
    assert at[-1].terminate() == 0
    assert wrong == []
    assert all(n > 10 for n in read.values()), read
    at.append(Process(*arguments))
    with at[-1] as last:
        for key, n in read.items():
            answer = last.post(INFER, step(key, X[None, :1], n=n + 1))
            assert answer.status_code == 200, answer.text


@pytest.mark.slow
def test_a_file_that_cannot_grow_refuses_until_it_can(tmp_path):
    """The kernel's own refusal, as of a disk that is full; then a kill."""
    rows = np.tile(X, (100, 1))

    def ask(process, n):
        return process.post(INFER, step("a", rows[None, n : n + 100], n == 0, n=n + 1))

    with Process(GRU, "--state", tmp_path, "--quiet") as process:
        pid, n = process.process.pid, 0
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))
        while (answer := ask(process, n)).status_code == 200:
            n += 100
        assert (answer.status_code, n > 0) == (503, True) and answer.headers["retry-after"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        ask(process, n).raise_for_status()
        process.kill()
    with Process(GRU, "--state", tmp_path, "--quiet") as process:
        found = arrays(ask(process, n + 100).json())["probabilities"]
        assert (found == MODEL.predict_proba(rows[None, : n + 200])).all()


def test_sigterm_answers_what_is_under_way_and_ends(tmp_path):
    with Process(GRU, "--state", tmp_path) as process:
        assert process.post(INFER, step("a", X[None, :3], True)).status_code == 200
        found = []
        # a request whose body is half there when the signal comes
        with socket.create_connection(tuple(process.address.split(":"))) as slow:
            body = b'{"inputs": [{"name": "x", "shape": [1, 1, 3], "datatype": "FP32", '
            rest = b'"data": [1, 2, 3]}]}'
            head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\ncontent-length: "
            slow.sendall(f"{head}{len(body + rest)}\r\n\r\n".encode() + body)
            time.sleep(0.2)
            ending = threading.Thread(target=lambda: found.append(process.terminate()))
            ending.start()
            time.sleep(0.3)
            slow.sendall(rest)
            assert slow.recv(1 << 16).startswith(b"HTTP/1.1 200")
        ending.join(20)
        assert found == [0]
        assert "Traceback" not in process.errors
    with Process(GRU, "--state", tmp_path) as process:
        answer = process.post(INFER, step("a", X[None, 3:4], n=4))
        assert (arrays(answer.json())["probabilities"] == MODEL.predict_proba(X[None, :4])).all()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nx: " + b"a" * 200_000, b"431"),
        (b"GET / HTTP/1.1\r\nHost: local", b"408"),
        (b"", b"408"),
        (
            b"POST "
            + INFER.encode()
            + b" HTTP/1.1\r\nHost: localhost\r\ncontent-length: 9\r\n\r\n{",
            b"408",
        ),
        (
            b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: localhost\r\n"
            b"content-length: 99999999999\r\n\r\n",
            b"413",
        ),
        (
            b"POST " + INFER.encode() + b" HTTP/1.1\r\nHost: localhost\r\ncontent-length: 3000000"
            b"\r\n\r\n" + b" " * 3_000_000,
            b"413",
        ),
        (b"nonsense\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x00\xa5\x01\x00", b"400"),
    ],
)
def test_what_is_no_request_or_comes_too_slowly_is_let_go(server, sent, status):
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(sent)  # all of it, also if the answer comes before
        answer = b""
        while piece := connection.recv(1 << 16):  # and the server closes it
            answer += piece
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:99]


@pytest.mark.slow
def test_a_thousand_malformed_requests_leave_memory_as_it_was(server):
    rng = np.random.default_rng(0)
    good = httpx.Request("POST", server.url, json=step("m", X[None, :1], True)).content
    client = httpx.Client()

    def memory():
        pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()

    before = 0
    for i in range(1200):
        body = bytearray(good)
        for at in rng.integers(0, len(body), 1 + i % 4):
            body[at] = rng.integers(0, 256)
        answer = client.post(server.url + INFER, content=bytes(body))
        assert answer.status_code < 500, (bytes(body), answer.text)
        before = memory() if i == 200 else before
    assert memory() - before < 20e6


def test_a_reader_that_is_slow_or_has_gone_holds_nobody(server):
    """Readers of events that never read; connections that are cut in the middle of a body."""
    host, port = server.address.split(":")
    httpx.delete(f"{server.url}/v2/models/gru/sessions/e")
    assert server.post("/v2/models/gru/sessions", {"id": "e"}).status_code == 201
    lazy = socket.create_connection((host, int(port)))
    lazy.sendall(b"GET /v2/models/gru/sessions/e/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for _ in range(20):
        with socket.create_connection((host, int(port))) as cut:
            cut.sendall(f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\n".encode())
            cut.sendall(b"content-length: 1000\r\n\r\n{")
    for n in range(0, 400, 100):
        body = {"n": n + 1, "x": X[n : n + 100].tolist(), "each": True}
        answer = server.post("/v2/models/gru/sessions/e/steps", body)
        assert answer.status_code == 200 and answer.json()["n"] == n + 100
    lazy.close()
    assert httpx.delete(f"{server.url}/v2/models/gru/sessions/e").json()["n"] == 400


def test_a_websocket_has_the_answers_of_steps(server):
    import json

    from websockets.sync.client import connect

    httpx.delete(f"{server.url}/v2/models/gru/sessions/w")
    server.post("/v2/models/gru/sessions", {"id": "w"})
    path = f"ws://{server.address}/v2/models/gru/sessions/w/socket"
    with connect(path) as socket:
        for n in range(8):  # sent before the first answer is read
            socket.send(json.dumps({"n": n + 1, "x": X[n].tolist()}))
        socket.send(json.dumps({"n": 20, "x": X[0].tolist()}))
        socket.send("{")
        for n in range(8):
            answer = json.loads(socket.recv())
            assert answer["n"] == n + 1
            wanted = MODEL.predict_proba(X[None, : n + 1])[0]
            assert np.float32(answer["probabilities"]).tolist() == wanted.tolist()
        assert [json.loads(socket.recv())["status"] for _ in range(2)] == [409, 400]
    with pytest.raises(Exception, match="403"):
        connect(path, origin="http://example.org")
