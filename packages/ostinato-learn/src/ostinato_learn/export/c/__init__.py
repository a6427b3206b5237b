"""A model as one C file: C99, one step at a time, without malloc, stdio or variables of its own.

x.h        x_state, x_init(x_state *), x_step(x_state *, const float in[], float out[])
x.c        the tables of weights, the preprocessing, the layers, the readout and the head
x_test.c   computes some steps and compares them with the runtime's answers
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.features import Feature
from ostinato_learn.data.sequences.preparation import Preparation
from ostinato_learn.data.text.words import WordVocabulary
from ostinato_learn.export.c.play import PartPlayer, answers, bound
from ostinato_learn.export.c.prepare import Prepare, prepared, tokens, unprepared
from ostinato_learn.export.c.program import Part, part
from ostinato_learn.export.c.quantize import quantized
from ostinato_learn.export.c.selftest import sample, test_source
from ostinato_learn.export.c.write import Source, header, parts_of, source, table_bytes, tied
from ostinato_learn.files import write_bytes, write_text
from ostinato_learn.runtime.model import Model
from ostinato_learn.runtime.model_graph import ModelGraph
from ostinato_learn.runtime.programs import StepProgram

Array = np.ndarray[Any, np.dtype[Any]]
_HEADERS = {"float", "math", "stdint", "stdio"}  # the file would include itself instead


@dataclass(frozen=True)
class Report:
    """The written files, and the resources that they need.

    Attributes:
        files: the .c file, the header, the self-test.
        products: multiplications of a step in matrix products; those of the answer included.
        state: bytes of one stream.
        tables: bytes of weights and other constants.
    """

    files: tuple[Path, ...]
    products: int
    state: int
    tables: int

    def __str__(self) -> str:
        return "\n".join(
            [
                f"wrote {', '.join(map(str, self.files))}",
                f"a step: {self.products:,} multiplications in matrix products",
                f"RAM: {self.state:,} bytes for each stream",
                f"flash: {self.tables:,} bytes of tables, and the code",
            ]
        )


@dataclass(frozen=True)
class Given:
    """A network to be exported, and its descriptions.

    Attributes:
        graph, tensors: the network; its tensors float32.
        preparation: from the caller's input to the network's input; None: nothing.
        title: the title in the comment at the top.
        outputs: descriptions of the K outputs, () if unknown.
        words: for a model of words, the words with the tokens 1, 2, …; () if unknown.
    """

    graph: ModelGraph
    tensors: Mapping[str, Array]
    preparation: Preparation | None = None
    title: str = "A recurrent network"
    outputs: tuple[str, ...] = ()
    words: tuple[str, ...] = ()


def export_c(
    model: Model,
    path: str | Path,
    *,
    name: str | None = None,
    int8: bool = False,
) -> Report:
    """Write a saved model as C that answers after every step.

    The answer is that of `predict_proba` for the sequence up to this step, in the order of
    `model.labels`; for a forecaster that of `predict_quantiles`, for a language model the
    probability of each next token. It differs from the runtime's only by rounding, and with int8
    weights by the amount in the report.

    Args:
        model: a model from `ostinato_learn.runtime.load`.
        path: the .c file, or the directory for it; the header and the self-test are written next to
            it.
        name: the prefix of all C names; by default the name of the file, or "model".
        int8: weights as int8 with a scale for each row: a quarter of the flash. States stay float.

    Returns:
        A `Report`: bytes of tables and of a stream, multiplications; print it.

    Raises:
        ValueError: the model cannot answer step by step, or has inputs that C code cannot read, or
            the name is not valid in C; nothing is written.
        OSError: a file cannot be written.

    Example:
        >>> import ostinato_learn.runtime
        >>> from ostinato_learn.export.c import export_c
        >>> model = ostinato_learn.runtime.load("runs/gru/model")            # doctest: +SKIP
        >>> print(export_c(model, "firmware/gesture.c", int8=True))    # doctest: +SKIP
    """
    model.graph.composed()  # refuses a model that cannot answer step by step
    return export_network(_given(model), path, name=name, int8=int8)


def export_network(
    given: Given,
    path: str | Path,
    *,
    name: str | None = None,
    int8: bool = False,
) -> Report:
    """`export_c` of a network."""
    file, name = _place(Path(path), name)
    made = _source(given, name, int8)
    files = {
        file: source(made),
        file.with_suffix(".h"): header(made),
        file.with_name(f"{name}_test.c"): _test(given, made),
    }
    _write_all(files)
    prepare = made.prepare
    tables = table_bytes(parts_of(made).values(), int8, elsewhere=tied(made))
    tables += 8 * sum(map(len, prepare.doubles.values()))
    tables += sum(t.nbytes for t in prepare.tables.values())
    n_last = 0 if prepare.last is None else len(prepare.last)
    return Report(
        tuple(files),
        products=made.step.n_products + made.answer.n_products,
        state=4 * (sum(made.widths) + n_last),
        tables=tables,
    )


def _write_all(files: Mapping[Path, str]) -> None:
    """Write files that belong together, the first one last; if one cannot be written, the others
    are restored."""
    before = {place: place.read_bytes() if place.is_file() else None for place in files}
    written: list[Path] = []
    try:
        for place in reversed(list(files)):
            write_text(place, files[place])
            written.append(place)
    except BaseException:
        for place in written:
            old = before[place]
            if old is None:
                place.unlink()
            else:
                write_bytes(place, old)
        raise


def _source(given: Given, name: str, int8: bool) -> Source:
    step, answer = given.graph.composed()
    answer_part = part(answer, given.tensors)
    return Source(
        name=name,
        title=given.title,
        prepare=_prepare(given, int8, answer_part),
        step=part(step, given.tensors),
        answer=answer_part,
        widths=tuple([n.width for n in step.states]),
        n_outputs=given.graph.n_outputs,
        outputs=given.outputs,
        int8=int8,
    )


def _test(given: Given, s: Source) -> str:
    """The self-test. With int8 weights its answers are computed with these weights in float64."""
    tensors = _with_int8_table(given) if s.int8 else given.tensors
    raw, x = sample(given.graph, tensors, given.preparation)
    if not s.int8:
        return test_source(s.name, raw, _runtime_answers(given, x), bound(s.step, s.answer, x))
    weights = _int8(s.step), _int8(s.answer)
    expected = answers(PartPlayer(s.step, weights[0]), PartPlayer(s.answer, weights[1]), x[None])[0]
    return test_source(s.name, raw, expected, bound(s.step, s.answer, x, weights))


def _place(path: Path, name: str | None) -> tuple[Path, str]:
    """The .c file, and the prefix of the names."""
    if path.suffix == ".c":
        file, name = path, name or path.stem
    else:
        name = name or "model"
        file = path / f"{name}.c"
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,40}", name) or name in _HEADERS:
        raise ValueError(
            f"name={name!r} cannot begin the names of C functions; wanted a letter, then at most "
            "40 letters, digits and underscores, and no name of a header of C"
        )
    if file.stem != name:
        raise ValueError(f"the file {file.name} and name={name!r} differ; the header is {name}.h")
    return file, name


def _prepare(given: Given, int8: bool, answer: Part) -> Prepare:
    graph = given.graph
    if graph.embed is not None:
        table = None if graph.embed.table is None else given.tensors[graph.embed.table]
        tied = table is not None and any(np.array_equal(w, table.T) for w in answer.weights)
        return tokens(graph.embed, table, int8, tied, given.words)
    return unprepared(graph.n_inputs) if given.preparation is None else prepared(given.preparation)


def _with_int8_table(given: Given) -> Mapping[str, Array]:
    """The tensors, with the rows of tokens as int8 represents them."""
    embed = given.graph.embed
    if embed is None or embed.table is None:
        return given.tensors
    rounded = quantized(given.tensors[embed.table].T).weight.T
    return {**given.tensors, embed.table: rounded}


def _runtime_answers(given: Given, x: Array) -> Array:
    """The runtime's answers after each step, `[T, K]`, of x `[T, columns]`."""
    step, answer = (StepProgram(g, given.tensors) for g in given.graph.composed())
    found, carry = [], None
    for row in x:
        _, carry = step.play([row[None, None]], init=carry)
        outputs, _ = answer.play([c[None] for c in carry])
        found.append(outputs[0][0, 0])
    return np.stack(found)


# ---- saved models


def _given(model: Model) -> Given:
    layers = ", ".join(layer.name for layer in model.graph.layers)
    title = f"A {model.kind.replace('_', ' ')} ({layers})"
    preparation = model.preparation
    if model.needs_whole is not None:
        raise ValueError(model.needs_whole)
    if model.scaling is not None and preparation is None:
        scales = zip(*model.scaling, strict=True)
        features = [
            Feature(f"feature {i}", mean=float(mean), scale=float(deviation))
            for i, (mean, deviation) in enumerate(scales)
        ]
        preparation = Preparation(tuple(features))
    outputs = tuple(model.answer_names())
    vocabulary = getattr(model, "vocabulary", None)
    words = vocabulary.words if isinstance(vocabulary, WordVocabulary) else ()
    return Given(model.graph, model.tensors, preparation, title, outputs, words=words)


def _int8(p: Part) -> list[Array]:
    return [quantized(w).weight for w in p.weights]
