"""Answers that are sure before a sequence ends."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
import torch

from ostinato_learn import SequenceClassifier, load, runtime
from ostinato_learn.cli import main
from ostinato_learn.tasks.classify.by_step import calibrated

N_STEPS = 20


def walks(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise around ±1: the more steps are read, the surer is the sign."""
    generator = np.random.default_rng(seed)
    y = np.arange(n) % 2
    X = generator.normal(size=(n, N_STEPS, 1)) * 2 + np.where(y, 1, -1)[:, None, None]
    return X.astype(np.float32), y


@pytest.fixture(scope="module")
def model() -> SequenceClassifier:
    made = SequenceClassifier(
        recipe="notebook",
        cell="gru",
        hidden_size=8,
        iterations=300,
        batch_size=50,
        optimizer="adam",
        learning_rate=0.01,
        validation_fraction=0.5,
        early_error=0.1,
    )
    return made.fit(*walks(800, 0))


class Fixed(torch.nn.Module):
    """Gives x as logits."""

    def __init__(self):
        super().__init__()
        self.config = {"hidden_size": 2, "num_layers": 1, "n_classes": 2}

    def forward_steps(self, x, lengths=None):
        return x, x


def probabilities(*rows: list[float]) -> np.ndarray:
    """`[T, 2]` logits whose second class has these probabilities."""
    p = np.array(rows, np.float32)
    return np.stack([np.log(1 - p), np.log(p)], axis=-1)


def test_the_threshold_is_the_lowest_with_few_enough_wrong_answers():
    # After one step all are at 0.7, a third of them wrongly; after three all are right, at 0.97.
    wrong, right = [0.3, 0.5, 0.97], [0.7, 0.6, 0.97]
    X = probabilities(*[right] * 20, *[wrong] * 10)
    y = np.ones(30, np.int64)
    few = calibrated(Fixed(), X, y, 0.4)
    assert few.threshold <= 0.7
    assert (few.error, few.read, few.share) == pytest.approx((1 / 3, 1 / 3, 1))
    none = calibrated(Fixed(), X, y, 0.05)
    assert 0.7 < none.threshold <= 0.97 and none.error == 0 and none.read == 1.0
    with pytest.raises(ValueError, match=r"smallest share is 0\.031 on 30 validation"):
        calibrated(Fixed(), X, y, 0.01)


def test_what_was_promised_holds_on_other_data(model):
    assert model.early_.error <= 0.1 and 0 < model.early_.read < 1
    X, y = walks(1000, 1)
    proba = torch.softmax(model.net_.forward_steps(torch.from_numpy(X))[0], 2).detach().numpy()
    reached = proba.max(2) >= model.early_.threshold
    first, sure = reached.argmax(1), reached.any(1)
    answers = proba[np.arange(len(y)), first].argmax(1)
    assert np.mean(answers[sure] != y[sure]) < 0.1 + 3 * (0.1 * 0.9 / sure.sum()) ** 0.5
    assert first[sure].mean() < 0.8 * N_STEPS


def test_a_stream_a_chunk_and_a_pool_say_when_it_is_sure(model, tmp_path):
    model.save(tmp_path / "model")
    assert load(tmp_path / "model").early_ == model.early_
    small = runtime.load(tmp_path / "model")
    assert small.sure_from == model.early_.threshold
    x = walks(1, 2)[0][0]
    stream = small.stream()
    answers = [stream.push(step) for step in x]
    wanted = [bool(answer.proba.max() >= model.early_.threshold) for answer in answers]
    assert [answer.sure for answer in answers] == wanted and len(set(wanted)) == 2
    assert [answer.sure for answer in small.stream().push(x, each=True)] == wanted
    pool = small.pool(capacity=2)
    assert [pool.push({"a": step})["a"].sure for step in x] == wanted


def test_the_command_answers_once_it_is_sure(model, tmp_path, capsys):
    model.save(tmp_path / "model")
    X, _ = walks(5, 3)
    lines = [f"{i},{step[0]}" for i, x in enumerate(X) for step in x]
    (tmp_path / "rows.csv").write_text("\n".join(["key,a", *lines]) + "\n", encoding="utf-8")
    arguments = ["stream", str(tmp_path / "model"), str(tmp_path / "rows.csv"), "--key", "key"]
    assert main([*arguments, "--until-confidence", "sure"]) == 0
    answers = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert answers and all(float(a["probability"]) >= model.early_.threshold for a in answers)
    assert main([*arguments, "--until-confidence", "1.5"]) == 2
    assert "wanted a probability from 0 to 1, or sure" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"validation_fraction": 0.0}, "needs validation data"),
        ({"bidirectional": True}, "bidirectional"),
        ({"early_error": 1.0}, "wanted a share"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(changed, wanted):
    settings = {"iterations": 2, "hidden_size": 4, "validation_fraction": 0.5, "early_error": 0.4}
    settings |= {"bidirectional": False}
    with pytest.raises(ValueError, match=wanted):
        SequenceClassifier(**settings | changed).fit(*walks(40, 0))


def test_without_it_an_answer_does_not_say(tmp_path):
    model = SequenceClassifier(iterations=2, hidden_size=4, bidirectional=False)
    model.fit(*walks(40, 0)).save(tmp_path / "model")
    assert runtime.load(tmp_path / "model").stream().push(np.zeros(1, np.float32)).sure is None
