"""Whole sequences of every task, in JSON and in binary: the bits of the model's own methods."""

from __future__ import annotations

import numpy as np
import pytest
from serving import GOLDEN, arrays, golden, run, serving, step, tensor
from tritonclient.http import InferInput, InferRequestedOutput
from tritonclient.http._utils import _get_inference_request

from ostinato_learn import runtime
from ostinato_learn.cli import app
from ostinato_learn.serve.tensors import HEADER

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 7, 3)).astype(np.float32)
LENGTHS = np.array([7, 1, 3, 7, 2])
RAGGED = [x[:n] for x, n in zip(X, LENGTHS, strict=True)]
WORDS = np.array([["be", "or", "not"], ["to", "b", "x"]], object)
TEXTS = np.array(["to be", "", "a,  b"], object)
SERIES = RNG.normal(size=(4, 12)).cumsum(1)


def of_rows(name, x, lengths):
    """What a classifier or tagger answers, by its own methods."""
    model = runtime.load(GOLDEN / name)
    x = x if lengths is None else [row[:n] for row, n in zip(x, lengths, strict=True)]
    if name not in ("tagger", "words"):
        return {"label": model.predict(x), "probabilities": model.predict_proba(x)}
    labels, proba = model.predict(x), model.predict_proba(x)
    T = max(map(len, labels))
    wide = np.zeros((len(labels), T, proba[0].shape[1]), np.float32)
    names = np.full((len(labels), T), 0 if labels[0].dtype.kind == "i" else "", object)
    for i, (label, p) in enumerate(zip(labels, proba, strict=True)):
        names[i, : len(label)], wide[i, : len(p)] = label, p
    return {"label": names, "probabilities": wide}


def of_texts(name):
    model = runtime.load(GOLDEN / name)
    last = [p[-1] for p in model.predict_proba(TEXTS.tolist())]
    return {"token": model.predict(TEXTS.tolist()), "probabilities": last}


def of_series(name):
    model = runtime.load(GOLDEN / name)
    series = list(SERIES)
    return {"median": model.predict(series), "quantiles": model.predict_quantiles(series)}


CASES = {
    "gru": ({"x": X}, of_rows("gru", X, None)),
    "gru ragged": ({"x": X, "lengths": LENGTHS}, of_rows("gru", X, LENGTHS)),
    "several": ({"x": X}, of_rows("several", X, None)),
    "tagger": ({"x": X}, of_rows("tagger", list(X), None)),
    "tagger ragged": ({"x": X, "lengths": LENGTHS}, of_rows("tagger", X, LENGTHS)),
    "words": ({"words": WORDS}, of_rows("words", WORDS.tolist(), None)),
    "language": ({"text": TEXTS}, of_texts("language")),
    "forecaster": ({"series": SERIES}, of_series("forecaster")),
}


def same(found, wanted):
    """Whether outputs are those of the model, to the bit."""
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        array = np.asarray(array, found[name].dtype)
        assert found[name].shape == array.shape
        assert (found[name] == array).all(), name


@pytest.mark.parametrize("case", CASES)
def test_a_batch_has_the_bits_of_predict(case):
    given, wanted = CASES[case]
    name = case.split()[0]
    json_request = {"id": "7", "inputs": [tensor(k, v) for k, v in given.items()]}
    inputs, outputs = [], [InferRequestedOutput(k, binary_data=True) for k in wanted]
    for k, v in given.items():
        kind = tensor(k, v)["datatype"]
        inputs.append(InferInput(k, list(v.shape), kind).set_data_from_numpy(v, binary_data=True))
    body, size = _get_inference_request(inputs, "", outputs, 0, False, False, 0, None, None)

    async def test():
        async with serving(golden(name)) as client:
            answer = await client.post(f"/v2/models/{name}/infer", json=json_request)
            assert answer.status_code == 200, answer.text
            assert answer.json()["id"] == "7"
            same(arrays(answer.json()), wanted)
            binary = await client.post(
                f"/v2/models/{name}/infer", content=body, headers={HEADER: str(size)}
            )
            same(unpacked(binary), wanted)

    run(test())


@pytest.mark.parametrize("loss, targets", [("squared", 1), ("quantiles", 2)])
def test_numbers_have_the_bits_of_predict(tmp_path, loss, targets):
    """A batch, and the same sequence step by step."""
    from ostinato_learn import SequenceRegressor

    y = np.stack([X.mean((1, 2)), X.max((1, 2))], axis=1)
    trained = SequenceRegressor(hidden_size=4, iterations=2, loss=loss, bidirectional=False)
    trained.fit(X, y if targets == 2 else y[:, 0]).save(tmp_path / "model")
    model = runtime.load(tmp_path / "model")
    wanted = {"value": model.predict(X).reshape(len(X), targets)}
    if loss == "quantiles":
        wanted["quantiles"] = model.predict_quantiles(X)

    async def test():
        async with serving({"m": tmp_path / "model"}) as client:
            answer = await client.post("/v2/models/m/infer", json={"inputs": [tensor("x", X)]})
            same(arrays(answer.json()), wanted)
            first = {name: array[:1] for name, array in wanted.items()}
            for t in range(X.shape[1]):
                body = step("a", X[None, 0, t], t == 0)
                answer = await client.post("/v2/models/m/infer", json=body)
            same(arrays(answer.json()), first)
            await client.post("/v2/models/m/sessions", json={"id": "s"})
            given = {"x": X[0].tolist()}
            answer = await client.post("/v2/models/m/sessions/s/steps", json=given)
            assert np.ravel(answer.json()["label"]).tolist() == wanted["value"][0].tolist()
            assert len(answer.json()["values"]) == len(model.labels)

    run(test())


@pytest.mark.slow
def test_names_are_read_as_in_the_training(tmp_path):
    """Whole sequences, rows by hand and rows with names; a missing name, and an unknown one."""
    lines = [f"{i},{(i + t) % 5},{'nsw'[(i * t) % 3]},{i % 2}" for i in range(40) for t in range(4)]
    (tmp_path / "winds.csv").write_text("id,speed,from,rain\n" + "\n".join(lines) + "\n")
    command = ["train", str(tmp_path / "winds.csv"), "--classify", "rain", "--id", "id"]
    command += ["--features", "speed,from", "--missing", "mask", "--no-bidirectional"]
    command += ["--iterations", "3", "-q", "-o", str(tmp_path / "run")]
    assert app.main(command) == 0
    model = runtime.load(tmp_path / "run")
    cells = np.array([[["1", "n"], ["", "s"], ["3", ""], ["4", "nowhere"]]], object)
    rows = [[1.0, "n"], [None, "s"], [3.0, None], [4.0, "nowhere"]]
    stream = model.stream()
    wanted = [stream.push(row) for row in rows][-1].proba

    async def test():
        async with serving({"m": tmp_path / "run"}) as client:
            answer = await client.post("/v2/models/m/infer", json={"inputs": [tensor("x", cells)]})
            assert (arrays(answer.json())["probabilities"][0] == wanted).all()
            named = [dict(zip(["from", "speed"], row[::-1], strict=True)) for row in rows]
            for key, x in (("rows", rows), ("named", named)):
                await client.post("/v2/models/m/sessions", json={"id": key})
                answer = await client.post(f"/v2/models/m/sessions/{key}/steps", json={"x": x})
                assert np.float32(answer.json()["probabilities"]).tolist() == wanted.tolist()

    run(test())


def unpacked(answer):
    """The outputs of a binary answer, as tritonclient reads them."""
    from tritonclient.http import InferResult

    assert answer.status_code == 200, answer.text
    length = int(answer.headers[HEADER])
    result = InferResult.from_response_body(answer.content, False, length)
    names = [each["name"] for each in result.get_response()["outputs"]]
    found = {name: result.as_numpy(name) for name in names}
    return {
        name: array if array.dtype != object else np.vectorize(bytes.decode, otypes=[object])(array)
        for name, array in found.items()
    }


X_JSON = tensor("x", X[:1])
REFUSED = {
    "not JSON": b"{",
    "no object": b"[]",
    "no inputs": {},
    "deep": b'{"inputs":' + b"[" * 100_000,
    "NaN": b'{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [NaN,1,1]}]}',
    "two of one": {"inputs": [X_JSON, X_JSON]},
    "foreign": {"inputs": [X_JSON, {**X_JSON, "name": "y"}]},
    "shape": {"inputs": [{**X_JSON, "shape": [1, 7, 4]}]},
    "features": {"inputs": [tensor("x", X[:, :, :2])]},
    "no rows": {"inputs": [tensor("x", X[:0])]},
    "null": {"inputs": [tensor("x", X[:1, :1]) | {"data": [1, None, 2]}]},
    "text": {"inputs": [tensor("x", X[:1, :1]) | {"data": [1, "2", 3]}]},
    "objects": {"inputs": [tensor("x", X[:1, :1]) | {"data": [1, {}, 3]}]},
    "large": {"inputs": [tensor("x", X[:1, :1]) | {"data": [1, 1e39, 3]}]},
    "larger": {"inputs": [tensor("x", X[:1, :1]) | {"data": [1, 10**400, 3]}]},
    "datatype": {"inputs": [{**X_JSON, "datatype": "FP8"}]},
    "huge shape": {"inputs": [{**X_JSON, "shape": [1 << 39, 1 << 39, 3]}]},
    "negative": {"inputs": [{**X_JSON, "shape": [-1, -7, 3]}]},
    "lengths": {"inputs": [X_JSON, tensor("lengths", np.array([8]))]},
    "shared memory": {
        "inputs": [{**X_JSON, "data": None, "parameters": {"shared_memory_region": "r"}}]
    },
    "binary size": {
        "inputs": [
            {"name": "x", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4}}
        ]
    },
    "output": {"inputs": [X_JSON], "outputs": [{"name": "y"}]},
    "start of none": {"inputs": [X_JSON], "parameters": {"sequence_start": True}},
    "id": {"inputs": [X_JSON], "parameters": {"sequence_id": 1.5}},
    "flag": {"inputs": [X_JSON], "parameters": {"sequence_id": 1, "sequence_start": "yes"}},
}


def test_what_cannot_be_read_is_a_400_that_says_why():
    async def test():
        async with serving(golden("gru")) as client:
            for name, body in REFUSED.items():
                content = {"content": body} if isinstance(body, bytes) else {"json": body}
                answer = await client.post("/v2/models/gru/infer", **content)
                assert answer.status_code == 400, (name, answer.text)
                assert len(answer.json()["error"]) > 10
            answer = await client.post("/v2/models/gru/infer", json={"inputs": [X_JSON]})
            assert answer.status_code == 200

    run(test())


def test_addresses_that_are_not_there():
    async def test():
        async with serving(golden("gru", "lstm")) as client:
            for method, path, status in (
                ("GET", "/v2/models/gre", 404),
                ("GET", "/v2/models/gru/versions/2", 404),
                ("GET", "/v3", 404),
                ("GET", "/v2/models/gru/infer", 405),
                ("GET", "/v2/models/gru/versions/1/ready", 200),
                ("GET", "/v2", 200),
                ("GET", "/v2/health/live", 200),
                ("GET", "/metrics", 200),
            ):
                answer = await client.request(method, path)
                assert answer.status_code == status, path
                assert status == 200 or "error" in answer.json()
            both_ways = await client.post("/v2/models/lstm/sessions")
            assert both_ways.status_code == 400
            assert "reads from the end" in both_ways.json()["error"]

    run(test())
