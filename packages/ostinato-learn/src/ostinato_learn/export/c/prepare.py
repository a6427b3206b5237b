"""The preprocessing of a model in C: from the values of a sensor to the network's input.

A refused input does not change the state. In the text @ means the prefix of the model's names.
Numbers are scaled in double, as in `data.Preparation`, so that the bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ostinato_learn.data.sequences.features import Feature
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.export.c.quantize import quantized
from ostinato_learn.runtime.model_graph import Embed

TOKEN = "int32_t token"
_AS_THEY_ARE = " !#$&'()+,-.:;<=>[]^_`{|}~"
_REFUSED = "if (!(@abs({}) <= FLT_MAX))"  # NaN, too


@dataclass(frozen=True)
class Prepare:
    """The C function `prepare`, with its tables.

    Attributes:
        n_inputs: the number of values that a caller gives at each step.
        parameter: the parameter of the C function `step` for them.
        n_columns: the number of values that the network reads.
        text: the text of the function.
        arguments: its arguments: in or token, x if it writes x, and s if it keeps values.
        doubles: tables of float64, by name.
        tables: tables of float32 or int8, by name.
        last: the replacement of missing values before the first value, `[n_columns]`; None if no
            value is carried forward.
        meanings: descriptions of the inputs.
    """

    n_inputs: int
    n_columns: int
    parameter: str
    text: str
    arguments: str
    doubles: dict[str, list[float]]
    tables: dict[str, np.ndarray]
    last: np.ndarray | None
    meanings: tuple[str, ...]


def _numbers(n: int) -> str:
    return f"const float in[{n}]"


def unprepared(n_inputs: int) -> Prepare:
    """Inputs that the network reads unchanged; NaN and infinity are refused."""
    body = [
        f"for (int i = 0; i < {n_inputs}; i++)",
        f"    {_REFUSED.format('in[i]')}",
        "        return i + 1;",
    ]
    text = _function("static int @prepare(const float *in)", body)
    meanings = ("",) * n_inputs
    return Prepare(n_inputs, n_inputs, _numbers(n_inputs), text, "in", {}, {}, None, meanings)


def tokens(
    embed: Embed,
    table: np.ndarray | None,
    int8: bool,
    tied: bool = False,
    words: Sequence[str] = (),
) -> Prepare:
    """The number of a token, as a row of a table `[V, E]`; without one, as V zeros and a one.

    Args:
        tied: whether the table is also the weights `[E, V]` of the answer, whose layout it then
            has: a product reads all of it, a token one column.
        words: the words with the tokens 1, 2, …; () if unknown.

    Raises:
        ValueError: the model reads the letters of a word, too.
    """
    if embed.spelling is not None:
        raise ValueError(
            "this model reads the letters of each word, which C code does not; wanted one that was "
            "trained without them: in Python, SequenceTagger(character_size=0)"
        )
    n, width = embed.n_tokens, embed.width
    tables: dict[str, np.ndarray] = {}
    if table is None:
        value = "token == i ? 1.0f : 0.0f"
    else:
        place = f"{n} * i + token" if tied else f"{width} * token + i"
        lying = table.T if tied else table
        value, tables = f"@tokens[{place}]", {"tokens": lying}
        if int8:
            q = quantized(table.T)  # a scale for each token
            tables = {"tokens": q.values if tied else q.values.T, "tokens_scale": q.scale}
            value = f"@tokens_scale[token] * (float)@tokens[{place}]"
    body = [
        f"if (token < 0 || token >= {n})",
        "    return 1;",
        f"for (int i = 0; i < {width}; i++)",
        f"    x[i] = {value};",
    ]
    text = _function("static int @prepare(int32_t token, float *x)", body)
    meaning = f"the number of a token, from 0 to {n - 1}"
    if words:
        numbered = ", ".join([f"{i} {_in_a_comment(word)!r}" for i, word in enumerate(words, 1)])
        meaning = f"{numbered}; 0 is any other word (a sign as %2A is its code point in base 16)"
    return Prepare(1, width, TOKEN, text, "token, x", {}, tables, None, (meaning,))


def _in_a_comment(word: str) -> str:
    """A word without signs that have a meaning in a C comment."""
    return "".join(c if c.isalnum() or c in _AS_THEY_ARE else f"%{ord(c):02X}" for c in word)


def prepared(p: Preparation) -> Prepare:
    """The preprocessing that a model was trained with.

    Raises:
        ValueError: it does not consist of numbers step by step.
    """
    if p.reads_words or p.statics:
        what = "words" if p.reads_words else "values that a sequence has once (static columns)"
        raise ValueError(
            f"this model reads {what}, which C code does not; wanted a model of numbers, or of "
            "categories, at each step"
        )
    p.check_uniform()
    writer = _Writer(p)
    body = list(writer.body())
    forward = p.missing == "forward"
    state = "const @state *s, " if forward else ""
    text = _function(f"static int @prepare({state}const float *in, float *x)", body)
    last = np.concatenate([_before_the_first(f) for f in p.features]) if forward else None
    meanings = tuple([_meaning(f, p.missing) for f in p.features])
    arguments = "s, in, x" if forward else "in, x"
    n = len(p.features)
    return Prepare(
        n, len(p.columns), _numbers(n), text, arguments, writer.doubles, {}, last, meanings
    )


class _Writer:
    """Writes the statements, a loop for each run of features that are numbers."""

    def __init__(self, p: Preparation):
        self.missing = p.missing
        self.features = p.features
        self.doubles: dict[str, list[float]] = {"mean": [], "deviation": []}
        if p.missing == "fill":
            self.doubles["stand_in"] = []
        self.column = 0

    def body(self) -> Iterator[str]:
        at = 0
        for are_numbers, group in groupby(self.features, lambda f: f.words is None):
            features = list(group)
            if are_numbers:
                yield from self.numbers(at, features)
            else:
                for i, f in enumerate(features):
                    yield from self.words(at + i, f)
            at += len(features)

    def numbers(self, first: int, features: list[Feature]) -> Iterator[str]:
        n, at, stride = len(features), len(self.doubles["mean"]), 1 + (self.missing == "mask")
        self.doubles["mean"] += [f.mean for f in features]
        self.doubles["deviation"] += [f.scale for f in features]
        column = _sum(self.column, f"{stride} * i" if stride > 1 else "i")
        table = _sum(at, "i")
        value = f"(float)(((double)given - @mean[{table}]) / @deviation[{table}])"
        yield f"for (int i = 0; i < {n}; i++) {{"
        yield f"    const float given = in[{_sum(first, 'i')}];"
        yield f"    float value = {value};"
        if self.missing == "mask":
            yield "    value = given != given ? 0.0f : value;"
            yield f"    x[{_sum(self.column + 1, '2 * i')}] = given != given ? 1.0f : 0.0f;"
        elif self.missing == "fill":
            self.doubles["stand_in"] += [_scaled(f) for f in features]
            yield f"    value = given != given ? (float)@stand_in[{table}] : value;"
        elif self.missing == "forward":
            yield f"    value = given != given ? s->last[{column}] : value;"
        yield f"    {_REFUSED.format('value')}"
        yield f"        return {_sum(first + 1, 'i')};"
        yield f"    x[{column}] = value;"
        yield "}"
        self.column += stride * n

    def words(self, i: int, f: Feature) -> Iterator[str]:
        """A column of 0 and 1 for each word that was trained."""
        n = len(f.words or ())
        given = f"in[{i}]"
        allowed = "" if self.missing == "error" else f"{given} == {given} && "
        yield f"if ({allowed}!(@abs({given}) <= FLT_MAX))"
        yield f"    return {i + 1};"
        yield f"for (int i = 0; i < {n}; i++)"
        value = f"{given} == (float)i ? 1.0f : 0.0f"
        column = _sum(self.column, "i")
        if self.missing == "forward":
            value = f"{given} != {given} ? s->last[{column}] : {value}"
        yield f"    x[{column}] = {value};"
        self.column += n
        if self.missing == "mask":
            yield f"x[{self.column}] = {given} != {given} ? 1.0f : 0.0f;"
            self.column += 1


def _before_the_first(f: Feature) -> np.ndarray:
    """The columns of a missing value without a value before it."""
    if f.words is not None:
        return np.zeros(len(f.words), np.float32)
    return np.array([_scaled(f)], np.float32)


def _scaled(f: Feature) -> float:
    return (f.fill - f.mean) / f.scale


def _meaning(f: Feature, missing: str) -> str:
    kind = "a number"
    if f.words is not None:
        known = ", ".join(f"{i} = {word}" for i, word in enumerate(f.words[:20]))
        more = f", ... {len(f.words)} in all" if len(f.words) > 20 else ""
        kind = f"{known}{more}; any other number is an unknown one"
    return f"{f.name}: {kind}" + ("" if missing == "error" else "; NaN if missing")


def _sum(first: int, rest: str) -> str:
    return f"{first} + {rest}" if first else rest


def _function(head: str, body: list[str]) -> str:
    return "\n".join([head, "{", *(f"    {line}" for line in [*body, "return 0;"]), "}", ""])
