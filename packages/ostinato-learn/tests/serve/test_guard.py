"""Who may ask, and how much."""

from __future__ import annotations

import asyncio
import gzip
import json

import pytest
from serving import golden, run, serving, tensor

from ostinato_learn.cli import app

INFER = "/v2/models/gru/infer"
BODY = json.dumps({"inputs": [tensor("x", [[[1.0, 2, 3]] * 4])]}).replace("FP64", "FP32")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "127.0.0.1:9"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "example.org"}, 403),
        ({"host": ""}, 403),
        ({"host": "localhost.example.org:8000"}, 403),
        ({"origin": "http://localhost:8000"}, 200),
        ({"origin": "http://localhost:8001"}, 403),
        ({"origin": "https://example.org"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "https://friend.org"}, 200),
    ],
)
def test_host_and_origin_on_loopback(headers, status):
    async def test():
        async with serving(golden("gru"), origins=("https://friend.org",)) as client:
            answer = await client.post(INFER, content=BODY, headers=headers)
            assert answer.status_code == status, answer.text

    run(test())


def test_a_token_is_wanted_where_tokens_are():
    async def test():
        async with serving(golden("gru"), tokens=("secret-1", "secret-2")) as client:
            for given, status in (
                (None, 401),
                ("Bearer secret-2", 200),
                ("bearer secret-1", 200),
                ("Bearer secret", 401),
                ("Basic secret-1", 401),
                ("Bearer sécret-1", 401),
            ):
                headers = {} if given is None else {"authorization": given.encode("latin-1")}
                answer = await client.post(INFER, content=BODY, headers=headers)
                assert answer.status_code == status, given
                for path in ("/metrics", "/openapi.json", "/v2/models/gru"):
                    assert (await client.get(path, headers=headers)).status_code == status
            assert (await client.get("/v2/health/ready")).status_code == 200

    run(test())


def test_an_address_that_others_reach_wants_a_token(capsys, tmp_path):
    run_of = str(golden("gru")["gru"])
    assert app.main(["serve", run_of, "--host", "0.0.0.0"]) == 2
    assert "--token" in capsys.readouterr().err
    (tmp_path / "tokens").write_text("# none\n\n")
    assert app.main(["serve", run_of, "--token-file", str(tmp_path / "tokens")]) == 2
    assert app.main(["serve", run_of, "--token", "short"]) == 2
    assert app.main(["serve", run_of, f"gru={run_of}"]) == 2
    assert "two models" in capsys.readouterr().err


def test_bounds_of_sizes():
    bounds = {"body": 1 << 14, "steps": 5, "batch": 3}

    async def test():
        async with serving(golden("gru"), **bounds) as client:
            for x, status in (
                ([[[1.0, 2, 3]] * 5] * 3, 200),
                ([[[1.0, 2, 3]] * 6], 413),
                ([[[1.0, 2, 3]]] * 4, 413),
                ([[[1.0, 2, 3]] * 5] * 900, 413),
            ):
                answer = await client.post(INFER, json={"inputs": [tensor("x", x)]})
                assert answer.status_code == status
            sequence = {"parameters": {"sequence_id": 1, "sequence_start": True}}
            body = sequence | {"inputs": [tensor("x", [[[1.0, 2, 3]] * 6])]}
            assert (await client.post(INFER, json=body)).status_code == 413

    run(test())


def test_packed_bodies_are_unpacked_within_the_bound():
    async def test():
        async with serving(golden("gru"), body=1 << 14) as client:
            headers = {"content-encoding": "gzip"}
            for content, status in (
                (gzip.compress(BODY.encode()), 200),
                (gzip.compress(b" " * (1 << 22)), 413),
                (b"not packed", 400),
                (gzip.compress(BODY.encode())[:-9], 400),
            ):
                answer = await client.post(INFER, content=content, headers=headers)
                assert answer.status_code == status
            headers = {"content-encoding": "br"}
            assert (await client.post(INFER, content=b"", headers=headers)).status_code == 415

    run(test())


def test_a_body_that_does_not_come_is_a_408_and_one_that_breaks_off_is_let_go():
    async def test():
        async with serving(golden("gru"), timeout=0.1) as client:

            async def slow():
                yield b"{"
                await asyncio.sleep(1)
                yield b"}"

            # httpx's transport without sockets reads the body as the server asks for it
            answer = await client.post(INFER, content=slow())
            assert answer.status_code == 408
            assert client.guard._bytes == 0 and client.guard.under_way == 0

    run(test())
