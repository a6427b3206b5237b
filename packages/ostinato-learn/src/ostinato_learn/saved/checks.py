"""Checks of the parts of a saved model besides its network: labels, columns, and so on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato_learn.data.sequences.as_sequences import one_sequence
from ostinato_learn.data.sequences.labels import LabelEncoder
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.text.vocabulary import Vocabulary
from ostinato_learn.data.text.words import WordVocabulary
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.runtime.values import Array, entries, fail, items, text, whole

if TYPE_CHECKING:
    from ostinato_learn.data.series.windows import Columns, SeriesWindows

MAX_LABELS = 1 << 20
MAX_FEATURES = 1 << 20
MAX_CONTEXT = 1 << 20  # steps
BOUNDS = ("nonnegative", "whole")  # of forecasts; early models had none
_DTYPE = re.compile(r"[<>|=]?(?:[biuf][1248]|U[1-9]\d{0,4}|O)")
_FEATURE = {"name", "words", "mean", "scale", "fill"}


def names(
    fitted: dict[str, Any], wanted: set[str], where: str, optional: Sequence[str] = ()
) -> None:
    """Check that the entry "fitted" of a configuration has the wanted names, and no unknown one.

    Raises:
        ValueError: a name is missing or unknown.
    """
    entries(fitted, f"{where}: 'fitted'", wanted, frozenset(optional))


def labels(value: Any, graph: ModelGraph | None, where: str) -> LabelEncoder:
    """The labels of a network's classes."""
    where = f"{where}: 'classes'"
    value = entries(value, where, {"dtype", "values"})
    found = items(value["values"], where, MAX_LABELS)
    if not isinstance(value["dtype"], str) or not _DTYPE.fullmatch(value["dtype"]):
        fail(f"{where} have the unknown type {str(value['dtype'])[:60]!r}")
    if not all(type(label) in (bool, int, float, str) for label in found):
        fail(f"{where} has a label that is neither a number nor a text")
    try:
        encoder = LabelEncoder.from_json(value, where)
    except (ValueError, OverflowError, TypeError) as problem:
        fail(f"{where} are not {value['dtype']} ({str(problem)[:80]})")
    if graph is not None and len(encoder) != graph.n_outputs:
        fail(f"{where} has {len(encoder)} labels for a network of {graph.n_outputs}")
    return encoder


def columns(value: Any, where: str) -> Array | None:
    """The names of a data frame's columns."""
    if value is None:
        return None
    where = f"{where}: 'feature_names'"
    return np.array([text(name, where) for name in items(value, where, MAX_FEATURES)], dtype=object)


def preparation(value: Any, graph: ModelGraph | None, where: str) -> Preparation | None:
    """The preparation of examples for a network."""
    made = columns_of_table(value, where)
    if made is None:
        return None
    where = f"{where}: 'preparation'"
    if graph is None:
        return made
    if made.reads_words != (graph.embed is not None) or len(made.features) < made.reads_words:
        fail(f"{where} does not fit this network")
    if not made.reads_words and len(made.columns) != graph.n_inputs:
        fail(f"{where} makes {len(made.columns)} inputs for a network of {graph.n_inputs}")
    return made


def columns_of_table(value: Any, where: str) -> Preparation | None:
    """The preparation of the columns of a table, for any network."""
    if value is None:
        return None
    where = f"{where}: 'preparation'"
    if not isinstance(value, dict):
        fail(f"{where} is not a JSON object")
    for part in ("features", "statics"):
        for feature in items(value.get(part), f"{where}: {part}", MAX_FEATURES):
            own = {"missing"} & feature.keys() if isinstance(feature, dict) else set()
            _check_feature(entries(feature, f"{where}: {part}", _FEATURE | own), f"{where}: {part}")
    if type(value.get("reads_words")) is not bool or not isinstance(value.get("missing"), str):
        fail(f"{where} does not say what a step is, or what is missing")
    try:
        return Preparation.from_json(value)
    except (ValueError, TypeError) as problem:
        fail(f"{where}: {str(problem)[:120]}")


def _check_feature(value: dict[str, Any], where: str) -> None:
    text(value["name"], f"{where}: name")
    if value["words"] is not None:
        for word in items(value["words"], f"{where}: words", MAX_LABELS):
            text(word, f"{where}: words")
    numbers = [_finite(value[name], f"{where}: {name}") for name in ("mean", "scale", "fill")]
    if numbers[1] <= 0:
        fail(f"{where}: scale is {numbers[1]}; wanted more than 0")


def _finite(value: Any, where: str) -> float:
    if type(value) not in (int, float) or not abs(value) <= float(np.finfo(np.float64).max):
        fail(f"{where} has {str(value)[:60]!r}; wanted a finite number")
    return float(value)


def levels(value: Any, n: int | None, where: str) -> list[float]:
    """The levels of n quantiles, the median among them."""
    where = f"{where}: 'quantiles'"
    found = [_finite(level, where) for level in items(value, where, MAX_LABELS)]
    proper = all(0 < level < 1 for level in found) and found == sorted(set(found))
    n = len(found) if n is None else n
    if len(found) != n or 0.5 not in found or not proper:
        fail(f"{where}: wanted {n} increasing levels between 0 and 1, with 0.5 among them")
    return found


def windows(
    fitted: dict[str, Any], graph: ModelGraph | None, net: dict[str, Any], where: str
) -> SeriesWindows:
    """How windows are cut from series for the network of a forecaster."""
    from ostinato_learn.data.series.panel import column_names_from  # not needed for other models
    from ostinato_learn.data.series.windows import SeriesWindows

    if graph is not None and graph.ahead is None:
        fail(f"{where}: the graph is not that of a forecaster")
    horizon = whole(net.get("horizon"), f"{where}: horizon", 1, MAX_CONTEXT)
    context, season = (
        whole(fitted[name], f"{where}: {name}", 1, MAX_CONTEXT) for name in ("context", "season")
    )
    if fitted["scaling"] not in ("std", "mean_abs"):
        fail(f"{where}: 'scaling' is {str(fitted['scaling'])[:60]!r}")
    columns = []
    for name in ("past", "future", "static"):
        n = len(
            items(
                entries(fitted[name], f"{where}: {name}", {"mean", "deviation"})["mean"],
                f"{where}: {name}",
                MAX_FEATURES,
            )
        )
        found = scale(fitted[name], n, where)
        assert found is not None
        columns.append(found)
    known = column_names_from(fitted["names"], f"{where}: 'names'")
    past, future, static = columns
    bounds = [fitted.get(name, False) for name in BOUNDS]
    if not all(type(bound) is bool for bound in bounds):
        fail(f"{where}: 'nonnegative' or 'whole' is not true or false")
    made = SeriesWindows(
        context, horizon, fitted["scaling"], season, past, future, static, known, *bounds
    )
    if graph is None:
        return made
    assert graph.ahead is not None
    if graph.ahead.n_steps != horizon:
        fail(f"{where}: horizon is {horizon} for a network of {graph.ahead.n_steps} steps")
    n_inputs = 2 + sum(map(len, columns))
    if (n_inputs, len(made.future) + made.n_lags) != (graph.n_inputs, graph.ahead.n_known):
        fail(f"{where}: windows of {n_inputs} inputs and {made.n_lags} lags are not the network's")
    return made


def scale(value: Any, of: ModelGraph | int | None, where: str) -> Columns | None:
    """Mean and deviation that standardise n features, or those of a network."""
    from ostinato_learn.data.series.windows import Columns

    if value is None:
        return None
    where = f"{where}: 'scale'"
    value = entries(value, where, {"mean", "deviation"})
    mean, deviation = (
        np.array([_finite(x, where) for x in items(value[name], where, MAX_FEATURES)])
        for name in ("mean", "deviation")
    )
    n = of.n_inputs if isinstance(of, ModelGraph) else len(mean) if of is None else of
    if not len(mean) == len(deviation) == n or not (deviation > 0).all():
        fail(f"{where}: wanted means and positive deviations of {n} features")
    return Columns(tuple(mean.tolist()), tuple(deviation.tolist()))


def words(value: Any, graph: ModelGraph | None, where: str) -> WordVocabulary | None:
    """The vocabulary of a network that reads words."""
    embed, where = None if graph is None else graph.embed, f"{where}: 'vocabulary'"
    if value is None and embed is None:
        return None
    if value is None or (embed is None and graph is not None):
        fail(f"{where} or the network is for words; wanted both or neither")
    value = entries(value, where, {"words", "characters"})
    known = [text(word, where) for word in items(value["words"], where, MAX_LABELS)]
    made = WordVocabulary(known, text(value["characters"], where))
    if embed is None:
        return made
    if made.n_words != embed.n_tokens:
        fail(f"{where} has {made.n_words} words for a network of {embed.n_tokens}")
    spelt = embed.spelling and embed.spelling.embed
    if spelt and made.n_characters != spelt.n_tokens:
        fail(f"{where} has {made.n_characters} characters for a network of {spelt.n_tokens}")
    return made


def vocabulary(value: Any, n: Any, where: str) -> Vocabulary:
    """The vocabulary of n tokens."""
    where = f"{where}: 'vocabulary'"
    if not isinstance(value, dict):
        fail(f"{where} is not a JSON object")
    if not isinstance(value.get("level"), str):
        fail(f"{where} does not say what a token is")
    try:
        made = Vocabulary.from_json(value, where)
    except ImportError:
        raise
    except Exception as problem:  # the package tokenizers raises plain Exceptions
        fail(f"{where}: {str(problem).removeprefix(where)[:120]}")
    if len(made) != n:
        fail(f"{where} has {len(made)} tokens for a network of {n}")
    return made


def threshold(value: Any, where: str) -> float | None:
    """The probability from which on an answer is sure."""
    if value is None:
        return None
    where = f"{where}: 'early'"
    value = entries(value, where, {"threshold", "error", "share", "read", "n"})
    found = _finite(value["threshold"], where)
    if not 0 <= found <= 1:
        fail(f"{where} has the threshold {found}; wanted a probability")
    return found


def n_features(sequences: Array | Ragged, wanted: int, name: str) -> None:
    """Raise ValueError unless sequences have the features of the model; `name` is its
    estimator's."""
    came = sequences.n_features if isinstance(sequences, Ragged) else sequences.shape[2]
    if came != wanted:
        raise ValueError(
            f"X has {came} features, but {name} is expecting {wanted} features as input, those it "
            "was trained with" + one_sequence(sequences)
        )
