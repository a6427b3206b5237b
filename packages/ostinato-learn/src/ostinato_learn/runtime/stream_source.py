"""`StreamSource`: the common part of all streams and pools of one model.

It has the model's step and answer for the native player, the conversion of a user's row, the names
of the answers, and the batch engine for chunks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ostinato.internal import native
from ostinato_learn.data.tables.feature_names import row_in_order
from ostinato_learn.data.tables.names import Names, known_names
from ostinato_learn.data.text.words import Words, words_of
from ostinato_learn.runtime.network import Chunks, Network
from ostinato_learn.runtime.programs import bound
from ostinato_learn.runtime.values import Array

if TYPE_CHECKING:
    from ostinato_learn.data.sequences.preparation import Preparation


@dataclass(frozen=True)
class RowScaling:
    """The scaling of a row for the network: (x − mean) / scale, in float64; a name, given by its
    place, becomes a column of zeros and ones for each known name.

    Attributes:
        mean, scale, fill: `[F]`; fill replaces a missing number, NaN if it is refused.
        mask: whether a further column after each feature is 1 where its number is missing.
        names: the names of each feature, None for a number; () if all are numbers.
    """

    mean: Array
    scale: Array
    fill: Array
    mask: bool = False
    names: tuple[Names | None, ...] = ()

    @property
    def n_names(self) -> list[int]:
        """For each feature, the number of known names; 0 for a number."""
        return [len(names or ()) for names in self.names] or [0] * len(self.mean)

    def places(self, rows: Any) -> Array:
        """Rows of numbers and names, `[F]` or `[T, F]`, with the places of the names.

        Raises:
            TypeError: a value is a number in place of a name, or the reverse.
        """
        array = np.array(rows, object)
        if array.ndim == 0:
            array = array[None]
        if array.shape[-1] != len(self.names):
            return np.zeros(array.shape)  # refused later
        found = np.empty(array.shape)
        for at, value in np.ndenumerate(array):
            names = self.names[at[-1]]
            found[at] = _number(at[-1], value) if names is None else _place(names, value)
        return found


def _number(feature: int, x: Any) -> float:
    if isinstance(x, str):
        raise TypeError(f"feature {feature} of x is {x[:40]!r}; wanted a number")
    return math.nan if x is None else float(x)


def _place(names: Names, x: Any) -> float:
    if x is not None and not isinstance(x, str):
        raise TypeError(
            f"feature {names.feature!r} of x is {x!r:.40}; wanted a name, or None (an array of "
            "float32 has the places of names)"
        )
    return names.place(x)


class StreamSource:
    """A network that runs step by step: from a user's rows to those of the network, and back.

    Args:
        network: the model's network.
        names: the names of the columns of an answer.
        several: whether each column is a label of its own.
        scaling: the scaling of a row; None: rows are not scaled.
        reader: for a model of tokens or words, the conversion of these to rows `[T, F]`.
        fingerprint: that of the saved model, in hexadecimal.
        sure_from: the probability from which on an answer is sure, if the model has one.
        columns: the names of a row's features, if the model knows them.
        naming: from an answer's row to its label; None: the name of its largest value.
        begin: rows that a new stream reads before its first step.

    Raises:
        ValueError: the model cannot answer step by step; the message names the layer.
    """

    def __init__(
        self,
        network: Network,
        names: Sequence[Any],
        *,
        several: bool = False,
        scaling: RowScaling | None = None,
        reader: Callable[[Any], Array] | None = None,
        fingerprint: str = "",
        sure_from: float | None = None,
        columns: Sequence[str] | None = None,
        naming: Callable[[Array], Any] | None = None,
        begin: Array | None = None,
    ):
        why_not = network.graph.why_not_streamable()
        if why_not is not None:
            raise ValueError(
                f"this model cannot answer step by step: {why_not}. Train one that reads in one "
                "direction, or give predict whole sequences"
            )
        self.naming = naming
        self.columns = columns
        self.network, self.names, self.several = network, list(names), several
        self.fingerprint, self._reader, self.sure_from = fingerprint, reader, sure_from
        self.scaling = scaling
        self.n_inputs = network.graph.n_inputs if scaling is None else len(scaling.mean)
        self.each = network.graph.readout.kind == "each"  # whether every step has its answer
        self.chunks = Chunks(network)
        step, answer = network.graph.composed()
        carry = np.zeros(sum(n.width for n in step.states), np.float32)
        if begin is not None:
            carry = self.chunks.answers(begin, carry[None], each=False)[1][0]
        none = np.zeros(0)
        scaling = self.scaling or RowScaling(none, none, none)
        self.native = native.stream_model(
            step.inputs[0].width,
            bound(step, network.tensors),
            bound(answer, network.tensors),
            carry.tolist(),
            scaling.mean.tolist(),
            scaling.scale.tolist(),
            scaling.fill.tolist(),
            scaling.n_names,
            scaling.mask,
        )
        self.n_answers: int = self.native.answer_floats
        self.n_carry: int = self.native.carry_floats

    # ---- from a user's rows

    def rows(self, x: Any) -> tuple[Array, bool]:
        """Rows `[T, F]` as they are pushed, of one row or of several; and whether x is one row.

        Raises:
            ValueError, TypeError: x has another form.
        """
        if self._reader is not None:
            found = np.ascontiguousarray(self._reader(x), np.float32)
            return found, len(found) == 1
        x = row_in_order(x, self.columns)
        numbers = isinstance(x, np.ndarray) and x.dtype.kind in "biuf"
        if self.scaling is not None and self.scaling.names and not numbers:
            x = self.scaling.places(x)
        array = np.asarray(x)
        if array.dtype.kind not in "biuf":
            raise TypeError(f"x has dtype {array.dtype}; wanted real numbers")
        if array.ndim == 0 and self.n_inputs == 1:
            array = array[None]
        if array.ndim not in (1, 2) or array.shape[-1] != self.n_inputs:
            raise ValueError(
                f"x has shape {list(array.shape)}; wanted [{self.n_inputs}], a number for each "
                f"feature of one step, or [T, {self.n_inputs}] for T steps"
            )
        if len(array) == 0:
            raise ValueError("x has no steps; wanted at least one")
        is_one = array.ndim == 1
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        return np.ascontiguousarray(array[None] if is_one else array), is_one

    def row(self, x: Any) -> Array:
        """One row `[F]`; errors as of `rows`."""
        rows, is_one = self.rows(x)
        if not is_one:
            raise ValueError(f"{x!r:.60} has {len(rows)} steps; wanted one")
        return rows[0]

    def prepared(self, rows: Array) -> Array:
        """Rows as the network reads them."""
        if self.scaling is None:
            return rows
        found = np.empty((len(rows), self.native.row_floats), np.float32)
        self.native.prepare(len(rows), rows, found)
        return found

    def check_finite(self, rows: Array) -> None:
        """Raise ValueError if a row would be read with NaN or an infinite value."""
        prepared = self.prepared(rows)
        if not native.all_finite(prepared, *prepared.shape):
            self.refuse_row(rows, int(np.isfinite(prepared).all(1).argmin()))

    def refuse_row(self, rows: Array, row: int, noun: str = "step") -> None:
        """Raise the error that says why row number `row` is not read."""
        values = rows[row]
        wrong = np.flatnonzero(~np.isfinite(values))
        where = f"{noun} {row} of x" if len(rows) > 1 else "x"
        if len(wrong) == 0:
            raise ValueError(
                f"{where} is too far from the values of the training part to be scaled in float32"
            )
        value = "NaN" if np.isnan(values[wrong[0]]) else values[wrong[0]]
        raise ValueError(
            f"{where} has {value} at feature {wrong[0]}; wanted finite float32 numbers. Nothing "
            "was read; finite=False lets such values pass"
        )

    # ---- to answers

    def name(self, at: int, row: Array) -> Any:
        """The label of an answer whose largest value is at a place."""
        if self.naming is not None:
            return self.naming(row)
        if self.several:
            return tuple([name for name, p in zip(self.names, row, strict=True) if p > 0.5])
        return self.names[at]


def rows_of_words(network: Network, vocabulary: Any, texts: bool, x: Any) -> Array:
    """Rows `[T, E]` of a word or, with `texts`, of a text; or of a list of words."""
    words = [x] if isinstance(x, str) else x
    if isinstance(x, str) and texts:
        words = words_of(x)
        if not words:
            raise ValueError(f"there is no word in {x!r:.60}; wanted at least one")
    coded = vocabulary.code(Words.of([words]))
    rows, _ = network.batch(coded, np.array([0]))
    found: Array = rows[0]
    return found


def scaling_of(preparation: Preparation) -> RowScaling:
    """How a preparation scales a row of numbers.

    Raises:
        ValueError: it does more than scale rows.
    """
    if preparation.statics:
        raise ValueError("the model reads static columns, which a stream of rows does not have")
    preparation.check_uniform()
    if preparation.missing == "forward":
        raise ValueError(
            "the model fills a missing value with the one before it (missing='forward'), which a "
            "stream does not keep; train it with missing='fill' or 'mask'"
        )
    features = preparation.features
    mean, scale = (np.array([getattr(f, name) for f in features]) for name in ("mean", "scale"))
    fill = {
        "error": np.full(len(features), np.nan),
        "mask": mean,
        "fill": np.array([f.fill for f in features]),
    }[preparation.missing]
    names = tuple(known_names(preparation))
    return RowScaling(mean, scale, fill, preparation.missing == "mask", names if any(names) else ())
