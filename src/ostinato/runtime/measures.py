"""How good a saved model is, without torch: the measures that a training ends with.

They agree with those of torch up to rounding. A loss is made of float32 probabilities: one that
was rounded to 0 counts as the smallest number above it, 2⁻¹⁴⁹, and its loss as 103 nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.data.sequences.steps import as_labels, lengths_of
from ostinato.data.series.panel import Panel
from ostinato.data.series.windows import last_windows
from ostinato.data.text.keyboard import SUGGESTED
from ostinato.data.text.vocabulary import END, UNKNOWN
from ostinato.data.text.words import CodedWords
from ostinato.metrics import forecasts as forecast_metrics
from ostinato.metrics.spans import span_scores

if TYPE_CHECKING:
    from ostinato.tasks.classify.model import Classifier
    from ostinato.tasks.forecast.model import Forecaster
    from ostinato.tasks.language.model import LanguageModel
    from ostinato.tasks.tag.model import Tagger

_AT_ONCE = 1 << 22  # probabilities of a language model: 16 MB
_FARTHEST = 700.0  # nats, whose exponential is a float

Measures = dict[str, Any]
_SMALLEST = float(np.finfo(np.float32).smallest_subnormal)


def of_classifier(model: Classifier, X: Any, y: Any) -> Measures:
    """accuracy, loss (mean cross-entropy in nats) and n.

    Args:
        X: as for `predict`.
        y: `[N]` labels; of a model with several labels `[N, C]` zeros and ones, whose loss is that
            of a label and whose accuracy counts the sequences of which all labels are right.

    Raises:
        ValueError: y does not fit X, or has a label that the model does not know.
    """
    proba = model.predict_proba(X)
    if model.several:
        there = np.asarray(y) > 0
        if there.shape != proba.shape:
            raise ValueError(f"y has shape {list(there.shape)}; wanted {list(proba.shape)}")
        loss = nats(np.where(there, proba, 1 - proba)).mean()
        right = ((proba > 0.5) == there).all(1)
    else:
        numbers = model.encoder.encode(y)
        if len(numbers) != len(proba):
            raise ValueError(
                f"X has {len(proba)} examples and y has {len(numbers)}; wanted a label for each"
            )
        loss = nats(proba[np.arange(len(proba)), numbers]).mean()
        right = proba.argmax(1) == numbers
    return {"accuracy": float(right.mean()), "loss": float(loss), "n": len(proba)}


def of_tagger(model: Tagger, X: Any, y: Any) -> Measures:
    """accuracy and loss (−log P of the labels, in nats) of a step, and n, the steps.

    With a scheme also precision, recall and f1 of the spans; with words also unknown, the share of
    them that the training did not have.
    """
    sequences, is_one = model.prepared(X)
    labels = as_labels([y] if is_one else y, lengths_of(sequences), model.scheme)
    loss, right, n = 0.0, 0, sum(map(len, labels))
    predicted: list[Any] = [None] * len(labels)
    for batch in model.answered(sequences):
        for i, answers, steps in zip(*batch, strict=True):
            numbers = model.encoder.encode(labels[i])
            loss += model._labelling.nats(answers[:steps], numbers)
            best = model._labelling.best(answers[:steps])
            right += int((best == numbers).sum())
            predicted[i] = model.encoder.decode(best).tolist()
    measures: Measures = {"loss": loss / n, "accuracy": right / n, "n": n}
    if model.scheme is not None:
        scores = span_scores([each.tolist() for each in labels], predicted)
        measures |= {name: getattr(scores, name) for name in ("precision", "recall", "f1")}
    if isinstance(sequences, CodedWords):
        measures["unknown"] = sequences.n_unknown / n
    return measures


def of_forecaster(
    model: Forecaster, panel: Panel, windows: int = 1, stride: int | None = None
) -> Measures:
    """mase, wql, pinball, mae, coverage of the widest interval and n; see `forecast_metrics`.

    Args:
        panel: the series.
        windows: forecasts of each, the last of which ends with the series.
        stride: steps from one to the next; None: the horizon.

    Raises:
        ValueError: no series is long enough, or the inputs are not those of the model.
    """
    how = model.windows
    stride = stride or how.horizon
    actual, quantiles, scales = [], [], []
    for _, part in panel.parts():
        how.check_inputs(part)
        series, cutoffs = last_windows(part, how.context, how.horizon, windows, stride)
        if not len(series):
            continue
        actual.append(how.actual(part, series, cutoffs))
        quantiles.append(model.quantiles_after(part, series, cutoffs))
        scales += [
            forecast_metrics.seasonal_scale(part.series(i)[:cutoff], how.season)
            for i, cutoff in zip(series, cutoffs, strict=True)
        ]
    if not actual:
        raise ValueError(
            f"no series has a value to forecast in its last {how.horizon} steps and one before them"
        )
    return forecast_metrics.measure(
        np.concatenate(actual), np.concatenate(quantiles), model.labels.tolist(), scales
    )


def of_language_model(model: LanguageModel, documents: Sequence[str]) -> Measures:
    """How well the model predicts documents; the names are those of `LanguageEvaluation`.

    Raises:
        ValueError: the documents have no character.
    """
    vocabulary, characters = model.vocabulary, sum(map(len, documents))
    if not characters:
        raise ValueError(
            f"the {len(documents)} documents have no character; wanted a text to measure"
        )
    loss, first, third, unknown, n = 0.0, 0, 0, 0, 0
    for document in documents:
        whole = np.concatenate([[END], vocabulary.encode(document), [END]]).astype(np.int64)
        carry, at_once = None, max(1, _AT_ONCE // len(vocabulary))
        for start in range(0, len(whole) - 1, at_once):
            targets = whole[start + 1 : start + at_once + 1]
            proba, carry = model.read(whole[start : start + len(targets)], carry, each=True)
            right = np.take_along_axis(proba, targets[:, None], 1)
            better = (proba > right).sum(1)
            loss += float(nats(right).sum())
            first += int((better < 1).sum())
            third += int((better < SUGGESTED).sum())
            unknown += int((targets == UNKNOWN).sum())
            n += len(targets)
    return {
        "loss": loss / n,
        "bits_per_character": loss / math.log(2) / characters,
        "perplexity": math.exp(min(loss / n, _FARTHEST)),
        "n_tokens": n,
        "vocabulary_size": len(vocabulary),
        "unknown": unknown / n,
        "top1": first / n,
        "top3": third / n,
    }


def nats(probability: np.ndarray) -> np.ndarray:
    """−log p in float64; a probability that was rounded to 0 counts as the smallest float32."""
    return -np.log(np.maximum(probability.astype(np.float64), _SMALLEST))
