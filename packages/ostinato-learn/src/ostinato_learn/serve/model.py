"""`Served`: a saved model as a function from tensors to tensors.

This file alone knows the runtime's models. A *head* translates tensors to the inputs of one kind of
model, and its answers to tensors: a whole batch by `answer`, and steps of one sequence by `steps`
and `stepped`. Both have the same outputs: the answer to the last step is the answer to the whole
sequence.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ostinato_learn.data.sequences.examples import Examples
from ostinato_learn.data.sequences.ragged import Ragged
from ostinato_learn.data.tables.names import UNKNOWN, Names, known_names
from ostinato_learn.runtime.answers import Answers
from ostinato_learn.runtime.model import Model
from ostinato_learn.serve.refused import Refusal
from ostinato_learn.serve.settings import Settings
from ostinato_learn.serve.tensors import BYTES, Array, bad, check_text, numbers, shown, texts_of
from ostinato_learn.tasks.classify.model import Classifier
from ostinato_learn.tasks.forecast.model import Forecaster
from ostinato_learn.tasks.language.model import LanguageModel
from ostinato_learn.tasks.regress.model import Regressor
from ostinato_learn.tasks.tag.model import Tagger

MOST_LABELS = 1000  # in the metadata; of a larger vocabulary it lists the first ones
Tensors = dict[str, Array]
Described = dict[str, Any]  # {"name", "datatype", "shape"}


def described(name: str, datatype: str, *shape: int) -> Described:
    """The description of a tensor for the metadata; the size −1 means any size."""
    return {"name": name, "datatype": datatype, "shape": list(shape)}


class Head:
    """The translation of tensors for one kind of model; there is a subclass for each kind.

    Attributes:
        inputs, outputs: the descriptions of the tensors for the metadata.
        optional: inputs that a request may leave out.
        each: whether every step has an answer of its own.
        noun: the noun for the numbers of an answer, such as "probabilities".
    """

    inputs: list[Described]
    outputs: list[Described]
    optional: list[Described]
    each = False
    noun = "probabilities"

    def __init__(self, model: Any):
        self.model = model

    def answer(self, given: Tensors) -> Tensors:
        """Outputs for a batch of whole sequences, with the bits of the model's `predict`.

        Raises:
            Refusal, ValueError, TypeError: the tensors cannot be read.
        """
        raise NotImplementedError

    def steps(self, given: Tensors) -> Any:
        """The argument of `Pool.rows` for steps of one sequence; raises as `answer` does."""
        raise NotImplementedError

    def stepped(self, answers: Answers) -> Tensors:
        """Outputs for steps of one sequence."""
        raise NotImplementedError

    def read(self, x: Any) -> Any:
        """The argument of `Pool.rows` for steps in plain JSON; raises as `answer` does."""
        raise NotImplementedError

    def count(self, given: Tensors, settings: Settings) -> None:
        """Raise Refusal (413) if there are too many sequences, or a sequence has too many steps."""
        for name, array in given.items():
            if array.ndim and len(array) > settings.batch:
                raise Refusal(
                    413,
                    f"input {shown(name)} has {len(array):,} sequences; wanted {settings.batch:,} "
                    "at most (--batch)",
                )
            n = max(map(len, array.flat), default=0) if name == "text" else 0
            n = array.shape[1] if array.ndim > 1 and name != "static" else n
            if n > settings.steps:
                raise Refusal(
                    413,
                    f"input {shown(name)} has {n:,} steps; wanted {settings.steps:,} at most "
                    "(--steps)",
                )

    def _take(self, given: Tensors) -> list[Array | None]:
        """The tensors in the order of `inputs` and `optional`; None for one that was left out."""
        known = [each["name"] for each in self.inputs + self.optional]
        foreign = [name for name in given if name not in known]
        if foreign:
            raise bad(f"there is no input {shown(foreign[0])}; there are {', '.join(known)}")
        for each in self.inputs:
            name, came = each["name"], given.get(each["name"])
            if came is None:
                raise bad(f"no input {name!r}; wanted {each['datatype']} {each['shape']}")
            if each["datatype"] == BYTES and came.dtype != object:
                raise bad(f"input {name!r} has numbers; wanted {BYTES}, texts")
        return [given.get(name) for name in known]


def _cut(sequences: Any, lengths: Array | None) -> Any:
    """Sequences `[N, T, …]`, each cut to its length; without lengths the array itself."""
    if lengths is None:
        return sequences
    N, T = sequences.shape[:2]
    if lengths.shape != (N,) or lengths.dtype.kind not in "iu":
        raise bad(f"'lengths' has shape {list(lengths.shape)}; wanted [{N}] whole numbers")
    wrong = (lengths < 1) | (lengths > T)
    if wrong.any():
        raise bad(f"'lengths' has {lengths[wrong.argmax()]}; wanted 1 to {T}")
    return [x[:n] for x, n in zip(sequences, lengths.tolist(), strict=True)]


def _padded(found: list[Array], fill: Any) -> Array:
    """N arrays `[T_i, …]` as one `[N, T, …]`."""
    T = max(map(len, found))
    padded = np.full((len(found), T, *found[0].shape[1:]), fill, found[0].dtype)
    for row, each in zip(padded, found, strict=True):
        row[: len(each)] = each
    return padded


class _Rows(Head):
    """Models of rows of features, or of words."""

    def __init__(self, model: Any):
        super().__init__(model)
        self.words = getattr(model, "vocabulary", None) is not None
        F = model.n_features
        self.optional = [described("lengths", "INT64", -1)]
        names = () if model.preparation is None or self.words else known_names(model.preparation)
        self.names = list(names) if any(names) else None
        if self.words:
            self.inputs = [described("words", BYTES, -1, -1)]
        else:
            self.inputs = [described("x", BYTES if self.names else "FP32", -1, -1, F)]
        labels = model.labels
        self.whole = labels.dtype.kind in "iu"
        self.label_type = "INT64" if self.whole else BYTES

    def _sequences(self, given: Tensors) -> Any:
        x, lengths = self._take(given)
        assert x is not None
        if self.words:
            if x.ndim != 2 or not x.size:
                raise bad(f"'words' has shape {list(x.shape)}; wanted [N, T], at least one each")
            cut = _cut(x, lengths)
            return [list(row) for row in cut]
        F = self.model.n_features
        if x.ndim == 2 and F == 1:
            x = x[:, :, None]
        if x.ndim != 3 or x.shape[2] != F or not x.size:
            raise bad(f"'x' has shape {list(x.shape)}; wanted [N, T, {F}], at least one each")
        cut = _cut(self._numbers(x), lengths)
        return cut if self.names is None else self._examples(cut, self.names)

    def _examples(self, sequences: Any, names: list[Names | None]) -> Examples:
        """Sequences whose names are numbers, as examples that were read from a file.

        An unknown name becomes a name that no training has.
        """
        words = {n.feature: (*n, "\0") for n in names if n is not None}
        last = np.array([np.nan if n is None else len(n) for n in names])
        rows = [np.where((x == UNKNOWN) & ~np.isnan(last), last, x) for x in sequences]
        ragged = Ragged.from_list([row.astype(np.float32) for row in rows])
        return Examples(ragged, features=tuple(self.model.columns), categories=words)

    def _numbers(self, x: Array) -> Array:
        """Features as numbers: a name becomes its place, a number in text its value."""
        if x.dtype != object:
            return x
        if self.names is None:
            raise bad("input 'x' has texts; wanted FP32")
        found = np.empty(x.shape, np.float64)
        for at, text in np.ndenumerate(x):
            names = self.names[at[-1]]
            try:
                found[at] = names.place(text) if names else float(text.strip() or "nan")
            except ValueError:
                raise bad(f"'x' has {shown(text)} at {list(at)}; wanted a number") from None
        return found

    def steps(self, given: Tensors) -> Any:
        x, lengths = self._take(given)
        assert x is not None
        if lengths is not None:
            raise bad("'lengths' is for whole sequences; leave it out of a step")
        if self.words:
            return x.ravel().tolist()
        F = self.model.n_features
        one = x.ndim in (1, 2) or (x.ndim == 3 and len(x) == 1)
        if not one or x.shape[-1] != F:
            raise bad(
                f"'x' has shape {list(x.shape)}; wanted [1, T, {F}], steps of one sequence, or "
                f"[1, {F}], one step"
            )
        return self._numbers(x).reshape(-1, F).astype(np.float32)

    def read(self, x: Any) -> Any:
        if self.words:
            words = [x] if isinstance(x, str) else x
            if not isinstance(words, list) or not all(isinstance(w, str) for w in words) or not x:
                raise bad(f"'x' is {shown(x)}; wanted a word, or a list of words")
            return x
        x = [x] if isinstance(x, dict) else x
        if not isinstance(x, list) or not x:
            raise bad(f"'x' is {shown(x)}; wanted a row of {self.model.n_features} values, or rows")
        rows = x if isinstance(x[0], (list, dict)) else [x]
        if any(isinstance(row, dict) for row in rows):
            rows = [self._ordered(row) for row in rows]
        if self.names is None:
            return numbers(rows, "FP32", "'x'")
        if any(not isinstance(row, list) or len(row) != len(self.names) for row in rows):
            raise bad(f"'x' has {shown(rows[0])}; wanted rows of {len(self.names)} values")
        return rows

    def _ordered(self, row: Any) -> list[Any]:
        columns = self.model.columns
        if columns is None:
            raise bad("'x' has rows with names, and the model knows none; wanted lists")
        if not isinstance(row, dict) or sorted(row) != sorted(columns):
            raise bad(f"'x' has the row {shown(row)}; wanted the names {', '.join(columns)}")
        return [row[name] for name in columns]

    def _label(self, labels: Any, shape: tuple[int, ...]) -> Array:
        return np.array(labels, np.int64).reshape(shape) if self.whole else texts_of(labels, shape)


class _Classes(_Rows):
    """One answer for a sequence."""

    model: Classifier

    def __init__(self, model: Classifier):
        super().__init__(model)
        C = len(model.labels)
        label = described("label", self.label_type, -1)
        if model.several:
            label = described("label", "INT64", -1, C)
        self.outputs = [label, described("probabilities", "FP32", -1, C)]

    def answer(self, given: Tensors) -> Tensors:
        return self._named(self.model.predict_proba(self._sequences(given)))

    def stepped(self, answers: Answers) -> Tensors:
        return self._named(answers.proba[-1:])

    def _named(self, proba: Array) -> Tensors:
        if self.model.several:
            return {"label": (proba > 0.5).astype(np.int64), "probabilities": proba}
        labels = self.model.labels[proba.argmax(1)]
        return {"label": self._label(labels.tolist(), (len(proba),)), "probabilities": proba}


class _Numbers(_Rows):
    """Numbers for a sequence, and their quantiles if there are any."""

    model: Regressor
    noun = "values"

    def __init__(self, model: Regressor):
        super().__init__(model)
        K, Q = len(model.targets), len(model.levels)
        self.outputs = [described("value", "FP64", -1, K)]
        self.outputs += [described("quantiles", "FP64", -1, K, Q)] if Q else []

    def answer(self, given: Tensors) -> Tensors:
        return self._named(self.model.predict_quantiles(self._sequences(given)))

    def stepped(self, answers: Answers) -> Tensors:
        last = answers.proba[-1:].astype(np.float64)
        return self._named(last.reshape(1, len(self.model.targets), -1))

    def _named(self, quantiles: Array) -> Tensors:
        values = self.model.points(quantiles).reshape(len(quantiles), -1)
        return {"value": values} | ({"quantiles": quantiles} if self.model.levels else {})


class _Tags(_Rows):
    """An answer for every step."""

    model: Tagger
    each = True

    def __init__(self, model: Tagger):
        super().__init__(model)
        C = len(model.labels)
        self.outputs = [
            described("label", self.label_type, -1, -1),
            described("probabilities", "FP32", -1, -1, C),
        ]

    def answer(self, given: Tensors) -> Tensors:
        found = self.model.predict_with_proba(self._sequences(given))
        labels = [self._label(each.tolist(), each.shape) for each, _ in found]
        proba = [np.asarray(each, np.float32) for _, each in found]
        label = _padded(labels, 0 if self.whole else "")
        return {"label": label, "probabilities": _padded(proba, 0)}

    def stepped(self, answers: Answers) -> Tensors:
        label = self._label(answers.labels, (1, len(answers)))
        return {"label": label, "probabilities": answers.proba[None]}


class _Texts(Head):
    """Language models: the next token after a text."""

    model: LanguageModel
    optional: list[Described] = []  # noqa: RUF012

    def __init__(self, model: LanguageModel):
        super().__init__(model)
        self.inputs = [described("text", BYTES, -1)]
        self.outputs = [
            described("token", BYTES, -1),
            described("probabilities", "FP32", -1, len(model.labels)),
        ]

    def answer(self, given: Tensors) -> Tensors:
        texts = self._texts(given)
        proba = np.empty((len(texts), len(self.model.labels)), np.float32)
        for i, text in enumerate(texts):
            # A stream gives the same bits as predict_proba, which would hold [T, V] in memory.
            proba[i] = (
                self.model.stream().push(text, each=False).proba
                if text
                else self.model.predict_proba([text])[0][-1]
            )
        tokens = self.model.predict(texts)
        return {"token": texts_of(tokens, (len(texts),)), "probabilities": proba}

    def steps(self, given: Tensors) -> Any:
        texts = self._texts(given)
        if len(texts) != 1:
            raise bad(f"'text' has {len(texts)} texts; wanted one, of one sequence")
        return texts[0]

    def read(self, x: Any) -> Any:
        if not isinstance(x, str) or not x:
            raise bad(f"'x' is {shown(x)}; wanted a text")
        check_text(x, "'x'")
        return x

    def stepped(self, answers: Answers) -> Tensors:
        last = answers[-1]
        return {"token": texts_of([last.label], (1,)), "probabilities": last.proba[None]}

    def _texts(self, given: Tensors) -> list[str]:
        (texts,) = self._take(given)
        assert texts is not None
        if not texts.size:
            raise bad("'text' has no text; wanted at least one")
        return texts.ravel().tolist()


class _Series(Head):
    """Forecasters."""

    model: Forecaster

    def __init__(self, model: Forecaster):
        super().__init__(model)
        windows, Q = model.windows, len(model.labels)
        h = windows.horizon
        self.inputs = [described("series", "FP64", -1, -1, model.n_features)]
        self.optional = [described("lengths", "INT64", -1)]
        for name, has, axes in (("future", windows.future, 3), ("static", windows.static, 2)):
            if len(has):
                wanted = described(name, "FP64", *(-1,) * (axes - 1), len(has))
                self.inputs.append(wanted)
        self.outputs = [
            described("median", "FP64", -1, h),
            described("quantiles", "FP64", -1, h, Q),
        ]

    def answer(self, given: Tensors) -> Tensors:
        self._take(given)
        series, F = given["series"], self.model.n_features
        if series.ndim == 2 and F == 1:
            series = series[:, :, None]
        if series.ndim != 3 or series.shape[2] != F or not series.size:
            raise bad(f"'series' has shape {list(series.shape)}; wanted [N, T, {F}]")
        known: dict[str, Any] = {k: given[k] for k in ("future", "static") if k in given}
        cut = list(_cut(series[:, :, 0] if F == 1 else series, given.get("lengths")))
        if "future" in known:
            known["future"] = list(known["future"])
        quantiles = self.model.predict_quantiles(cut, **known)
        median = quantiles[:, :, self.model.labels.tolist().index(0.5)]
        return {"median": median, "quantiles": quantiles}


_HEADS: tuple[tuple[type[Model], type[Head]], ...] = (
    (Classifier, _Classes),
    (Regressor, _Numbers),
    (Tagger, _Tags),
    (LanguageModel, _Texts),
    (Forecaster, _Series),
)


class Served:
    """A saved model by the name under which it is served.

    Args:
        name: the name of the model in the addresses.
        version: a number within this server; it rises when the model is loaded anew.
        model: the result of `ostinato_learn.runtime.load`.

    Attributes:
        head: the translation of its tensors.
        why_not: the reason why it cannot answer step by step; None: it can.
    """

    def __init__(self, name: str, version: int, model: Model):
        self.name, self.version, self.model = name, str(version), model
        self.head = next(head(model) for kind, head in _HEADS if isinstance(model, kind))
        self.fingerprint = model.fingerprint
        self._lock = threading.Lock()
        self.why_not: str | None = None
        try:
            model.stream()
        except ValueError as why:
            self.why_not = str(why)

    def metadata(self) -> dict[str, Any]:
        """The protocol's description of a model."""
        return {
            "name": self.name,
            "versions": [self.version],
            "platform": "ostinato",
            "inputs": self.head.inputs,
            "outputs": self.head.outputs,
            "parameters": {
                "kind": self.model.kind,
                "fingerprint": self.fingerprint,
                "optional_inputs": self.head.optional,
                "labels": self.model.labels[:MOST_LABELS].tolist(),
                "columns": self.model.columns,
                "sequences": self.why_not is None,
                **({} if self.why_not is None else {"why_no_sequences": self.why_not}),
            },
        }

    @property
    def language(self) -> LanguageModel:
        """The model as a language model.

        Raises:
            Refusal: it is a model of another kind.
        """
        if not isinstance(self.model, LanguageModel):
            raise bad(f"{self.name!r} is a {self.model.kind}; wanted a language model")
        return self.model

    def suggest(self, text: str, n: int) -> dict[str, Any]:
        """The likeliest next tokens of a text, and the bits of each of its tokens."""
        with self._lock:
            found = self.language.suggest(text, n)
            return {
                "suggestions": [each._asdict() for each in found],
                "bits": self.language.bits(text),
            }

    def infer(self, given: Tensors, settings: Settings) -> Tensors:
        """Outputs for a batch of whole sequences.

        Raises:
            Refusal: the tensors cannot be read.
        """
        self.head.count(given, settings)
        try:
            with self._lock:  # one batch at a time, which uses all cores
                return self.head.answer(given)
        except (ValueError, TypeError) as problem:
            raise bad(str(problem)) from None
