"""The configuration of a training run: [data], [task], [model], [training], [run].

[model] and [training] are the hyperparameters (`ostinato_learn.hyperparameters`), the others are
declared here in the same way. From the declarations follow the flags of the command line
(`flags.py`), `--set section.key=value`, TOML files, and the `config.toml` of a run directory.
Neither torch nor numpy is imported here: `ostinato --help` and `--print-config` stay quick.
"""

from __future__ import annotations

import difflib
import json
import sys
import typing
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Literal

from ostinato_learn.data.questions import listed
from ostinato_learn.hyperparameters import (
    DEFAULT_ITERATIONS,
    FEW_SEQUENCES,
    WORDS_KNOWN,
    Architecture,
    Classifying,
    Declaration,
    Declared,
    Fitting,
    Value,
    declarations,
    declare,
)
from ostinato_learn.jobs.inputs.built_in import BUILT_IN

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

ONLY = "*"  # means the only column of a kind
# Keys whose value is a list: "a,b", or in TOML ["a", "b"].
LISTS = (
    *("data.features", "data.categories", "data.static", "data.known", "data.na"),
    *("task.classify", "task.regress", "training.class_weight"),
)
PATHS = ("data.source", "data.test", "run.from")  # keys that name files, unless built in
Given = dict[str, Value]  # "section.key" → checked value, of the parameters that were given


class ConfigError(ValueError):
    """A key or a value is not allowed; the message says what came and what was wanted."""


@dataclass(frozen=True)
class DataConfig(Declared):
    """Section [data]: the data, and how they are read."""

    source: str | None = declare(None, "The data: mnist, vowels, austen, or a file.")
    as_sequence: Literal["rows", "columns", "pixels", "permuted"] = declare(
        "rows", "How an MNIST image becomes a sequence."
    )
    test: str | None = declare(None, "A file with the test part.")
    test_fraction: float = declare(
        0.2, "Share held out as the test part if there is no --test file.", above=0, below=1
    )
    test_time: bool | None = declare(
        None,
        "Test a tagger on the end of each sequence, in time, instead of on whole sequences. "
        f"Default: where there are fewer than {FEW_SEQUENCES} sequences, and no groups.",
    )
    shape: Literal["long", "nested", "wide"] | None = declare(
        None,
        "How a table holds sequences: long (a row a step, with --id), nested (a row a sequence, "
        "lists in its columns) or wide (a row a sequence, a column a step). Default: the one that "
        "is possible.",
    )
    id: str | None = declare(None, "Column that names the sequence of a row.")
    time: str | None = declare(None, "Column that orders the steps of a sequence.")
    time_format: (
        Literal["day-first", "month-first", "seconds", "milliseconds", "microseconds"] | None
    ) = declare(
        None,
        "How times are written: dates such as 01/02/2024 with the day or the month first, or "
        "numbers since 1970. Default: found from the dates; numbers are unchanged.",
    )
    features: str | None = declare(
        None, "Columns to read at each step: a,b,c. Default: all without another role."
    )
    categories: str | None = declare(
        None, "Columns of codes, which are names although they look like numbers: a,b."
    )
    static: str | None = declare(None, "Columns with one value a sequence, for forecasts: a,b.")
    known: str | None = declare(
        None, "Columns among the features that are known ahead of time, for forecasts: a,b."
    )
    group: str | None = declare(
        None, "Column whose groups (a patient, a hospital, a book) stay on one side of each split."
    )
    split: str | None = declare(
        None, "Column with the part of each sequence: train, validation or test."
    )
    sort: bool | None = declare(
        None, "Sort rows by id and time. Default: where their dates are out of order."
    )
    repeated: Literal["error", "last", "mean"] = declare(
        "error", "Rows of a sequence with the same time: an error, the last of them, or their mean."
    )
    every: str | None = declare(
        None,
        "Distance of the steps, 5min or 1h: rows go to the nearest step, and steps without a row "
        "have missing values. Default: a row is a step.",
    )
    separator: str | None = declare(None, "Separator of CSV fields. Default: a comma.")
    decimal: Literal[".", ","] = declare(".", "Decimal mark of the numbers in a CSV file.")
    encoding: str = declare("utf-8", "Encoding of a CSV file, by its name in Python: cp1252.")
    na: str | None = declare(None, "Further CSV fields that mean a missing value: Low,n/a.")
    thousands: str | None = declare(
        None, "Sign between the thousands of the numbers in a CSV file: , or . or a blank."
    )
    skip_lines: int = declare(0, "Lines above the header of a CSV file.", low=0)
    missing: Literal["error", "mask", "fill", "forward", "zero"] = declare(
        "error",
        "Missing values: an error, zeros with a feature that marks them, the training mean, or the "
        "last value before. Of a forecast's inputs, where this is the default, also zero, and by "
        "column: forward,dose=zero.",
        by_column=True,
    )
    standardize: bool = declare(
        True, "Scale each feature of a file by the mean and deviation of the training part."
    )


@dataclass(frozen=True)
class TaskConfig(Declared):
    """Section [task]: the task and its settings."""

    classify: str | None = declare(None, "Classify sequences: the column of the label.")
    tag: str | None = declare(None, "A label for each step: the column of the labels.")
    regress: str | None = declare(
        None, "A number for each sequence, or several: the columns of the targets, a,b."
    )
    forecast: str | None = declare(None, "The next values of a series: its column.")
    language: str | None = declare(
        None,
        "The next word or character of a text. In a table: its column; without a name, the only "
        "column of texts.",
    )
    horizon: int | None = declare(None, "Steps to forecast.", low=1)
    context: int | None = declare(
        None,
        "Steps that a forecast reads. Default: three horizons or four seasons, 16 at least.",
        low=1,
    )
    season: int = declare(
        1, "Steps of a season; forecasts, MASE and a baseline use the value a season ago.", low=1
    )
    bounds: Literal["past", "any"] = declare(
        "past",
        "Forecasts are never negative, and whole numbers, if the series are so (past); or as the "
        "network gives them (any).",
    )
    loss: Literal["squared", "absolute", "quantiles"] = declare(
        "squared",
        "How an error in a number counts: by its square, by its size, or for nine quantiles at "
        "once, which give intervals.",
    )
    crf: bool = declare(False, "Learn which tags may follow each other (a linear-chain CRF).")
    level: Literal["character", "word", "piece"] = declare(
        "character", "Tokens of a language model."
    )
    vocabulary: int = declare(
        WORDS_KNOWN, "Number of words, or word pieces, to know at most.", low=2
    )


@dataclass(frozen=True)
class RunConfig(Declared):
    """Section [run]: the start of a training, its checkpoints and its threads."""

    checkpoint_every: int = declare(1000, "Iterations between checkpoints.", low=1)
    from_: str | None = declare(
        None,
        "Begin with the weights of this run or saved model: its network, scales, words and labels.",
        cli_name="from",
    )
    recipe: Literal["task", "notebook"] | None = declare(
        None,
        "The parameters that are not given: those of the task, by the size of the data, or the "
        "tutorial notebook's. Default: task; for arrays with the notebook's network; for mnist the "
        "notebook's.",
    )
    minutes: float | None = declare(
        None,
        "Train for this time at most: the number of updates is chosen by some that are measured.",
        above=0,
    )
    for_: Literal["stream", "c"] | None = declare(
        None,
        "Where the model is to go: a network is chosen that `ostinato stream` or `export --to c` "
        "takes, and what they refuse is refused before the training.",
        cli_name="for",
    )
    threads: int | None = declare(
        None, "Threads. Default: PyTorch's number, no more than a CPU quota allows.", low=1
    )


@dataclass(frozen=True)
class Config:
    """Every parameter of a run. The defaults are those of docs/tutorial/rnn_mnist.ipynb."""

    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    model: Classifying = field(default_factory=Classifying)
    training: Fitting = field(default_factory=Fitting)
    run: RunConfig = field(default_factory=RunConfig)

    @property
    def network(self) -> Architecture:
        """The hyperparameters of the recurrent layers, which all tasks have."""
        return Architecture(**{f.name: getattr(self.model, f.name) for f in fields(Architecture)})

    def get(self, key: str) -> Value:
        option = OPTIONS[key]
        return getattr(getattr(self, option.section), option.name)

    def items(self) -> Iterator[tuple[str, Value]]:
        """("section.key", value) of every parameter, in the order of the declarations."""
        return ((key, self.get(key)) for key in OPTIONS)

    def updated(self, values: Mapping[str, Value]) -> Config:
        """This configuration with `values` ("section.key" → checked value) put in."""
        sections: dict[str, dict[str, Value]] = {}
        for key, value in values.items():
            option = OPTIONS[key]
            sections.setdefault(option.section, {})[option.name] = value
        changed = {s: replace(getattr(self, s), **new) for s, new in sections.items()}
        return replace(self, **changed)

    def tables(self) -> dict[str, dict[str, Value]]:
        """{section: {name on the command line: value}}, in the order of the declarations."""
        tables: dict[str, dict[str, Value]] = {section: {} for section in SECTIONS}
        for option in OPTIONS.values():
            tables[option.section][option.cli_name] = self.get(option.key)
        return tables

    def toml(self, without: Set[str] = frozenset()) -> str:
        """The configuration as TOML, without unset parameters and these keys."""
        lines: list[str] = []
        for section, table in self.tables().items():
            entries = [
                f"{name} = {_toml(value)}"
                for name, value in table.items()
                if value is not None and f"{section}.{name}" not in without
            ]
            lines += [f"[{section}]", *entries, ""] if entries else []
        return "\n".join(lines[:-1]) + "\n"


@dataclass(frozen=True)
class Option(Declaration):
    """A declaration and its section: a parameter of flags, `--set` and TOML files."""

    section: str

    @property
    def key(self) -> str:
        return f"{self.section}.{self.cli_name}"

    @property
    def flag(self) -> str:
        return "--" + self.cli_name.replace("_", "-")

    def check(self, raw: Value, where: str) -> Value:
        """The value of `raw` (text, or a value from TOML); ConfigError names `where`."""
        if self.optional and raw == "none":
            return None
        value = self.plain(self._meant(raw))
        if value is None:
            came = repr(raw) if isinstance(raw, str) else _toml(raw)
            raise ConfigError(f"{where} is {came}; wanted {self._wanted_text}")
        return value

    @property
    def _wanted_text(self) -> str:
        if self.choices:
            return " | ".join(self.choices)
        return self.wanted.replace("True or False", "true or false").replace("None", "none")

    def _meant(self, raw: Value) -> Value:
        """The value of this type that a text means; other values unchanged."""
        if self.type is bool:
            return {"true": True, "false": False}.get(str(raw).lower())
        if self.key in LISTS and isinstance(raw, list) and all(isinstance(v, str) for v in raw):
            return listed(raw)
        if self.type is str:
            return raw
        if isinstance(raw, float) and raw.is_integer():
            return self.type(raw)  # TOML's 3.0 for 3
        if not isinstance(raw, str):
            return raw
        try:
            return self.type(raw)
        except ValueError:
            return None


OPTIONS: dict[str, Option] = {
    option.key: option
    for section, kind in typing.get_type_hints(Config).items()
    for option in (Option(**vars(declared), section=section) for declared in declarations(kind))
}
SECTIONS: tuple[str, ...] = tuple(f.name for f in fields(Config))


def find(key: str, where: str) -> Option:
    """The option called "section.key" (or "key" alone, which is unique)."""
    by_name = {option.cli_name: option for option in OPTIONS.values()}
    if key in OPTIONS or key in by_name:
        return OPTIONS.get(key) or by_name[key]
    near = difflib.get_close_matches(key, [*OPTIONS, *by_name], n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"the sections are {', '.join(SECTIONS)}"
    raise ConfigError(f"{where}: there is no parameter {key!r}; {hint}")


def read_file(path: Path) -> Given:
    """The parameters of a TOML file."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # RecursionError: lists in lists in lists …
        raise ConfigError(f"{path} is not TOML: {str(error)[:200]}") from None
    given: Given = {}
    for section, table in tables.items():
        if not isinstance(table, dict):
            home = find(section, str(path))
            raise ConfigError(f"{path}: {section} is outside a section; it is in [{home.section}]")
        if section not in SECTIONS:
            near = difflib.get_close_matches(section, SECTIONS, n=1, cutoff=0.5)
            hint = f"did you mean [{near[0]}]?" if near else f"there are {', '.join(SECTIONS)}"
            raise ConfigError(f"{path}: there is no section [{section}]; {hint}")
        for name, raw in table.items():
            key = f"{section}.{name}"
            option = find(key, str(path))
            given[option.key] = option.check(raw, f"{path}: {key}")
    return given


def relative_to(folder: Path, given: Given) -> Given:
    """The parameters of a file in `folder`; paths are relative to it."""
    paths = {key: given.get(key) for key in PATHS}
    beside = {k: str(folder / v) for k, v in paths.items() if isinstance(v, str)}
    return given | {k: v for k, v in beside.items() if given[k] not in BUILT_IN}


def read_sets(assignments: list[str]) -> Given:
    """The parameters of `--set section.key=value`, one assignment each."""
    given: Given = {}
    for assignment in assignments:
        key, equals, raw = assignment.partition("=")
        if not equals:
            raise ConfigError(f"--set {assignment}: wanted section.key=value")
        option = find(key.strip(), "--set")
        given[option.key] = option.check(raw.strip(), f"--set {option.key}")
    return given


def merge(*layers: Given) -> Given:
    """Later layers win. Iterations and epochs exclude each other: a later layer's replaces both."""
    merged: Given = {}
    for layer in layers:
        length = {"training.iterations", "training.epochs"}
        set_here = {key for key in length if layer.get(key) is not None}
        if len(set_here) == 2:
            raise ConfigError("both iterations and epochs are given; wanted one of them")
        if set_here:
            merged = {key: value for key, value in merged.items() if key not in length}
        merged |= layer
    return merged


def resolve(*layers: Given) -> Config:
    """The configuration of the layers over the defaults, with a number of iterations."""
    config = Config().updated(merge(*layers))
    if config.training.iterations is None and config.training.epochs is None:
        config = config.updated({"training.iterations": DEFAULT_ITERATIONS})
    return config


def _toml(value: Value) -> str:
    if isinstance(value, str):  # a JSON string is a TOML string, except for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
