"""Saved models as ONNX files: equal to the runtime, in ONNX Runtime; a few also in OpenVINO.

Both read the same operators, each of which `test_onnx_ops.py` gives to both.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnx_examples as ex
import onnx_models as models
import onnxruntime
import pytest
import torch

import ostinato_learn
from ostinato.engine import native
from ostinato_learn.export import parity
from ostinato_learn.export.onnx import export_onnx, exportable
from ostinato_learn.export.onnx.model import sequence_model, step_model
from zoo.suites import one_in

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason="needs the engine")


class Leaky(torch.nn.Module):
    """A cell of a user's own, with a first carry that is not zero."""

    def __init__(self, n_features, hidden_size):
        super().__init__()
        self.into = torch.nn.Linear(n_features, hidden_size)
        self.first = torch.nn.Parameter(torch.rand(hidden_size))

    def initial(self, x):
        return self.first.expand(len(x), -1)

    def forward(self, h, x):
        return 0.9 * h + torch.tanh(self.into(x)) * torch.softmax(h, 1)


class Memory(torch.nn.Module):
    """A cell of a user's own whose carry is a matrix, written by outer products."""

    def __init__(self, n_features, hidden_size):
        super().__init__()
        self.into = torch.nn.Linear(n_features, 3 * hidden_size)
        self.size = hidden_size

    def initial(self, x):
        return x.new_zeros(len(x), self.size, self.size)

    def forward(self, M, x):
        k, v, q = self.into(x).chunk(3, 1)
        M = 0.9 * M + torch.softmax(k, 1)[:, :, None] * v[:, None, :]
        return M, torch.bmm(q[:, None, :], M)[:, 0]


MODELS = {
    **{cell: lambda cell=cell: models.classifier(cell=cell) for cell in ("rnn", "gru", "lstm")},
    "relu": lambda: models.classifier(cell="rnn", nonlinearity="relu"),
    "two layers": lambda: models.classifier(cell="gru", num_layers=2),
    "two directions": lambda: models.classifier(cell="lstm", num_layers=2, bidirectional=True),
    **{
        kind: lambda kind=kind: models.classifier(cell="gru", readout=kind)
        for kind in ("mean", "max", "attention")
    },
    "attention of two": lambda: models.classifier(readout="attention", bidirectional=True),
    "several labels": lambda: models.classifier(cell="gru", several=True),
    "ensemble": lambda: models.classifier(cell="gru", members=3, num_layers=2),
    "ensemble of two": lambda: models.classifier(cell="lstm", members=2, bidirectional=True),
    "own cell": lambda: models.classifier(cell=Leaky),
    "a matrix as carry": lambda: models.classifier(cell=Memory, readout="max"),
    "tagger": lambda: models.tagger(crf=False),
    "tagger of one direction": lambda: models.tagger(crf=False, bidirectional=False),
    "tagger with a CRF": lambda: models.tagger(crf=True),
    "language model": lambda: models.language_model(cell="lstm", embedding_size=5),
    "one-hot language model": lambda: models.language_model(cell="gru", embedding_size=0),
    "tied language model": lambda: models.language_model(tied=True, embedding_size=5),
    **{
        f"missing {missing}": lambda missing=missing: models.classifier(
            cell="gru", preparation=models.preparation(missing)
        )
        for missing in ("error", "mask", "fill", "forward")
    },
    "far from zero": lambda: models.classifier(preparation=models.preparation("error", far=1e4)),
    "numbers alone": lambda: models.classifier(preparation=models.preparation("mask", False)),
}
BOTH_WAYS = {name for name in MODELS if "two" in name and name != "two layers"}
BOTH_WAYS |= {"tagger", "tagger with a CRF"}
FORMS = [(name, "sequence") for name in MODELS]
FORMS += [(name, "step") for name in MODELS if name not in BOTH_WAYS]


@pytest.mark.parametrize(("name", "form"), one_in(2, FORMS, of_several=True))
def test_equal_to_the_runtime(name, form, tmp_path):
    report = export_onnx(MODELS[name](), tmp_path / "m.onnx", form)
    assert len(report.parity.cases) == 2
    for case in report.parity.cases:
        assert case.error <= case.bound
        assert str(case) in str(report)
    onnx.checker.check_model(str(tmp_path / "m.onnx"), full_check=True)
    assert (form == "sequence") == any("time" in shape for shape in report.inputs.values())


@pytest.mark.parametrize(
    ("name", "form"),
    [("two directions", "sequence"), ("missing forward", "step"), ("language model", "sequence")],
)
def test_equal_to_the_runtime_in_openvino(name, form):
    model = MODELS[name]()
    make = sequence_model if form == "sequence" else step_model
    run = ex.openvino(make(exportable(model)).proto)
    for case in parity.cases(model, run, form):
        assert case.error <= case.bound, case


@pytest.mark.parametrize("name", ["gru", "lstm", "rnn", "ensemble", "own cell"])
def test_operators(name, tmp_path):
    report = export_onnx(MODELS[name](), tmp_path / "m.onnx")
    wanted = {"own cell": {"Scan": 1}, "ensemble": {"Scan": 2}}
    assert report.operators == wanted.get(name, {name.upper(): 1})


def test_what_the_file_says(tmp_path):
    export_onnx(MODELS["missing forward"](), tmp_path / "m.onnx", "step")
    kept = {p.key: json.loads(p.value) for p in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert kept["ostinato.labels"] == [f"class {i}" for i in range(4)]
    assert kept["ostinato.features"] == ["height", "colour", "level"]
    assert kept["ostinato.words"] == {"colour": ["blue", "green", "red"]}
    assert kept["ostinato.form"] == "step"
    assert kept["ostinato.fingerprint"] == "f" * 64


SMALL = {"hidden_size": 5, "iterations": 20, "embedding_size": 6, "random_state": 0}
TEXTS = ["to be or not", "that is", "be not that", "or to be"] * 4


def test_models_of_words(tmp_path):
    """Numbers of words go in, which the vocabulary in the metadata gives."""
    file = tmp_path / "m.onnx"
    classifier = ostinato_learn.SequenceClassifier(**SMALL).fit(TEXTS, ["a", "b"] * 8)
    classifier.save(tmp_path / "classifier")
    report = export_onnx(ostinato_learn.runtime.load(tmp_path / "classifier"), file)
    assert report.inputs["tokens"] == ["batch", "time"]
    kept = {p.key: json.loads(p.value) for p in onnx.load(file).metadata_props}
    assert "be" in kept["ostinato.vocabulary"]["words"]


@pytest.fixture(scope="module")
def spelling_taggers(tmp_path_factory):
    """Taggers that read letters: of one direction, and of two."""
    words, found = [text.split() for text in TEXTS], []
    for bidirectional in (False, True):
        settings = dict(SMALL, character_size=4, bidirectional=bidirectional)
        tagger = ostinato_learn.SequenceTagger(**settings)
        tagger.fit(words, [["A" if len(w) > 2 else "B" for w in each] for each in words])
        place = tmp_path_factory.mktemp("tagger") / "m"
        tagger.save(place)
        found.append(ostinato_learn.runtime.load(place))
    return found


@pytest.mark.parametrize(("form", "two"), [("sequence", True), ("step", False)])
def test_models_that_read_letters(form, two, spelling_taggers, tmp_path):
    model, file = spelling_taggers[two], tmp_path / "m.onnx"
    report = export_onnx(model, file, form)
    assert list(report.inputs)[:3] == ["tokens", "characters", "n_characters"]
    assert report.operators["GRU"] == 2  # of the letters, which are whole sequences
    for case in report.parity.cases:
        assert case.error <= case.bound, case


def test_words_and_letters_as_the_runtime_reads_them(spelling_taggers, tmp_path):
    """The metadata is enough: a word's number is its place in the vocabulary + 1, 0 if unknown
    of them, and so are those of letters. The padding after the letters of a word has no effect."""
    model = spelling_taggers[True]
    export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    known = json.loads(session.get_modelmeta().custom_metadata_map["ostinato.vocabulary"])
    text = ["that", "is", "the", "question", "to"]
    characters = np.full((1, len(text), 9), 3)
    for i, word in enumerate(text):
        characters[0, i, : len(word)] = [known["characters"].find(c) + 1 for c in word]
    words = [known["words"].index(w) + 1 if w in known["words"] else 0 for w in text]
    (answers,) = session.run(
        None,
        {
            "tokens": np.array([words]),
            "characters": characters,
            "n_characters": np.array([[len(word) for word in text]]),
            "lengths": np.array([len(text)]),
        },
    )
    (meant,) = model.predict_proba([text])
    assert np.abs(answers[0] - meant).max() <= parity.bound(model.graph, len(text))
    (other,) = model.predict_proba([["that", "is", "the", "questiom", "to"]])
    assert np.abs(other - meant).max() > 10 * parity.bound(model.graph, len(text))


def test_a_text_as_the_runtime_reads_it(tmp_path):
    """The metadata is enough to ask the file what the runtime is asked with a text."""
    model = models.language_model(cell="gru")
    export_onnx(model, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    kept = {k: json.loads(v) for k, v in session.get_modelmeta().custom_metadata_map.items()}
    strings = kept["ostinato.labels"]
    tokens = [kept["ostinato.begins_with"], *map(strings.index, "abdc")]
    feeds = {"tokens": np.array([tokens]), "lengths": np.array([len(tokens)])}
    (answers,) = session.run(None, feeds)
    (meant,) = model.predict_proba(["abdc"])
    assert np.abs(answers[0] - meant).max() <= parity.bound(model.graph, len(tokens))


@pytest.mark.parametrize("damage", ["weights", "bias", "lengths"])
def test_a_wrong_file_is_seen_and_not_written(damage, tmp_path, monkeypatch):
    from ostinato_learn.export import onnx as module

    def wrong(source):
        made = sequence_model(source)
        graph = made.proto.graph
        if damage == "lengths":  # every row as long as the longest
            for node in graph.node:
                node.input[:] = ["everyone" if i == "lengths" else i for i in node.input]
            shape = onnx.helper.make_node("Shape", ["x"], ["n"], start=1, end=2)
            rows = onnx.helper.make_node("Shape", ["x"], ["b"], start=0, end=1)
            spread = onnx.helper.make_node("Expand", ["n", "b"], ["everyone"])
            for node in (spread, rows, shape):
                graph.node.insert(0, node)
        else:
            wanted = 3 if damage == "weights" else 2
            for tensor in graph.initializer:
                if len(tensor.dims) == wanted:
                    array = onnx.numpy_helper.to_array(tensor).copy()
                    array.ravel()[0] += 0.01
                    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
                    break
        return made

    monkeypatch.setattr(module, "sequence_model", wrong)
    with pytest.raises(ValueError, match=r"rounding explains .* nothing is written"):
        export_onnx(MODELS["gru"](), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_without_onnx_runtime_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(parity, "find_spec", lambda name: None)
    report = export_onnx(MODELS["gru"](), tmp_path / "m.onnx")
    assert report.parity is None
    assert "not checked: pip install onnxruntime" in str(report)


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match="form='both' is not known; wanted one of sequence, step"):
        export_onnx(MODELS["gru"](), tmp_path / "m.onnx", "both")
    with pytest.raises(ValueError, match="lstm layer 0 also reads from the end"):
        export_onnx(MODELS["two directions"](), tmp_path / "m.onnx", "step")
    assert not list(tmp_path.iterdir())


def test_a_bound_is_about_rounding():
    """A hundred times what is found, and far below what a wrong gate gives."""
    model = MODELS["gru"]()
    assert 1e-6 < parity.bound(model.graph, 23) < 1e-3
    assert parity.bound(model.graph, 46) > 1.9 * parity.bound(model.graph, 23)
    assert np.isclose(parity.bound(model.graph, 5, 8.0), 8 * parity.bound(model.graph, 5))


def test_a_network_that_amplifies_rounding(tmp_path):
    """Chaos: the weights of the carry are large, so that a rounding grows from step to step. The
    file is right, and written; the bound says how precise the comparison is."""
    model = models.classifier(cell="rnn", size=64)
    model.tensors["body.weight_hh_l0"] = 3 * model.tensors["body.weight_hh_l0"]
    report = export_onnx(model, tmp_path / "m.onnx")
    last = report.parity.cases[-1]
    assert parity.bound(model.graph, 23) < last.error < last.bound


@pytest.mark.parametrize("form", ["sequence", "step"])
@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_nan_is_answered_with_nan(cell, form):
    """As in the runtime, which refuses it; the GRU and LSTM of ONNX Runtime answer numbers."""
    prepared = {"preparation": models.preparation("error"), "F": 3}
    for given in ({}, prepared, {"bidirectional": True, "num_layers": 2}):
        if form == "step" and "num_layers" in given:
            continue
        source = exportable(models.classifier(**{"cell": cell, "F": 2, **given}))
        for column in range(given.get("F", 2)):
            x = np.ones((3, 6, given.get("F", 2)), np.float32)
            x[1, 2, column] = x[2, 5] = np.nan
            if form == "step":
                run = ex.onnx_runtime(step_model(source).proto)
                zeros = {
                    i.name: np.zeros((3, 6), np.float32)
                    for i in step_model(source).proto.graph.input
                    if i.name.startswith("state")
                }
                answers = run({"x": x[:, 2], **zeros})[0]
            else:
                run = ex.onnx_runtime(sequence_model(source).proto)
                (answers,) = run({"x": x, "lengths": np.array([6, 6, 5])})
            assert np.isnan(answers).any(1).tolist() == [False, True, False]


@pytest.mark.parametrize("form", ["sequence", "step"])
@pytest.mark.parametrize("size", [0, 5], ids=["zeros and a one", "embeddings"])
def test_a_token_that_is_none_is_refused(size, form):
    """And not counted from the end of the table; padding may be anything."""
    source = exportable(models.language_model(embedding_size=size))
    made = step_model(source) if form == "step" else sequence_model(source)
    run = ex.onnx_runtime(made.proto)
    V = source.graph.embed.n_tokens
    for token in (-1, -V, V):
        tokens = np.array([[1, 2, 1], [1, token, token]])
        feeds = {"tokens": tokens, "lengths": np.array([3, 2])}
        if form == "step":
            states = {i.name: np.zeros((2, 6), np.float32) for i in made.proto.graph.input[1:]}
            feeds = {"tokens": tokens[:, 1], **states}
        with pytest.raises(Exception, match="out of data bounds"):
            run(feeds)
        if form == "sequence":
            assert np.isfinite(run(feeds | {"lengths": np.array([3, 1])})[0]).all()
