"""`batch`: its contenders answer the same question, and one that does not is not timed."""

import numpy as np
import pytest
from benchmarks.cells import GRU, LSTM, RNN, Shape
from benchmarks.problem import Entrant, Maker, admit, tolerance
from benchmarks.results import Absent

from benchmarks import batch, peers_inference

TINY = Shape("tiny", B=4, T=5, F=3, H=8)
X = np.random.default_rng(0).standard_normal((TINY.B, TINY.T, TINY.F), np.float32)


def ours(model):
    return Maker("runtime", lambda: Entrant(lambda: model.predict_proba(X), peers_inference.answer))


@pytest.mark.slow
@pytest.mark.parametrize("cell", [GRU, RNN, LSTM], ids=lambda c: c.name)
@pytest.mark.parametrize("threads", [1, 2])
def test_all_contenders_give_the_answer_of_float64(cell, threads):
    for package in ("onnx", "onnxruntime", "openvino"):
        pytest.importorskip(package)
    model = batch.classifier(cell.name, TINY.F, TINY.H)
    peers = peers_inference.peers(model, X, threads)
    right = peers_inference.right(model, X)
    assert np.ptp(right["answer"], axis=0).min() > 100 * tolerance(TINY)  # the rows differ
    with batch.on_threads(threads):
        found = admit(ours(model), peers, right, tolerance(TINY))
    assert [f for f in found if isinstance(f, Absent)] == []
    assert len(found) == 1 + (3 if threads == 1 else 5)


def test_a_contender_of_another_model_is_not_timed():
    model, other = (batch.classifier(cell, TINY.F, TINY.H) for cell in ("gru", "rnn"))
    right = peers_inference.right(model, X)
    wrong = Maker("PyTorch", lambda: peers_inference._torch(other, X))
    _, found = admit(ours(model), [wrong], right, tolerance(TINY))
    assert isinstance(found, Absent)
    assert "answer is off" in found.reason
