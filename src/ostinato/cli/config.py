"""The configuration of a training run: its one source of names, types, ranges, defaults and help.

The dataclasses below are read by everything that needs a parameter: the flags of the command line
(`flags.py`), `--set section.key=value`, TOML files, and the `config.toml` of a run directory.
Neither torch nor numpy is imported here: `ostinato --help` and `--print-config` stay quick.
"""

from __future__ import annotations

import difflib
import json
import math
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]

Value = Any  # None | bool | int | float | str: what a flat TOML table can hold, and nothing
Given = dict[str, Value]  # "section.key" → checked value, for what somebody actually asked for


class ConfigError(ValueError):
    """A key or a value that cannot be taken; the message says what came and what was wanted."""


def option(
    default: Value,
    help: str,
    *,
    low: float | None = None,
    high: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Any:
    """A dataclass field with its help and range: low ≤ value ≤ high, above < value < below."""
    limits = {"at least": low, "at most": high, "above": above, "below": below}
    limits = {words: limit for words, limit in limits.items() if limit is not None}
    return field(default=default, metadata={"help": help, "limits": limits})


@dataclass(frozen=True)
class DataConfig:
    """[data]"""

    source: str | None = option(None, "What to learn: mnist, vowels, FILE.npz or FILE.ts.")
    as_sequence: Literal["rows", "columns", "pixels", "permuted"] = option(
        "rows", "How an MNIST image becomes a sequence."
    )
    test: str | None = option(None, "A file with the test part (for data of your own).")
    test_fraction: float = option(
        0.2, "Share held out as the test part where no --test file is given.", above=0, below=1
    )


@dataclass(frozen=True)
class ModelConfig:
    """[model]"""

    cell: Literal["rnn", "gru", "lstm"] = option("rnn", "The recurrent cell.")
    hidden_size: int = option(128, "Size of the hidden state.", low=1)
    layers: int = option(1, "Recurrent layers, one upon the other.", low=1)
    bidirectional: bool = option(False, "Read each sequence in both directions.")
    dropout: float = option(0.0, "Dropout between layers and before the readout.", low=0, below=1)
    init: Literal["default", "notebook"] = option(
        "default", "Start: Glorot U and orthogonal W, or the notebook's zeros."
    )


@dataclass(frozen=True)
class TrainingConfig:
    """[training]"""

    iterations: int | None = option(None, "Updates to make; 5000 if no --epochs.", low=1)
    epochs: float | None = option(None, "Passes over the data, instead of --iterations.", above=0)
    batch_size: int = option(128, "Examples an update sees.", low=1)
    optimizer: Literal["rmsprop", "sgd", "adam", "adamw"] = option(
        "rmsprop", "Update rule; rmsprop is the notebook's."
    )
    learning_rate: float = option(1e-3, "Step size.", above=0)
    momentum: float = option(0.0, "Momentum of sgd and rmsprop.", low=0, below=1)
    weight_decay: float = option(0.0, "Pull of the weights towards zero.", low=0)
    clip_norm: float | None = option(None, "Largest norm of the gradient.", above=0)
    schedule: Literal["constant", "cosine", "step"] = option(
        "constant", "How the learning rate moves."
    )
    warmup: int = option(0, "Iterations over which the learning rate rises from zero.", low=0)
    step_size: int = option(1000, "Iterations between steps of --schedule step.", low=1)
    step_gamma: float = option(0.1, "Factor of each such step.", above=0)
    patience: int | None = option(
        None, "Stop after so many reports without a better validation loss.", low=1
    )
    restore_best: bool = option(True, "End with the weights of the best validation report.")
    validation_fraction: float = option(
        0.0, "Share of the training part kept for validation.", low=0, below=1
    )
    class_weight: str | None = option(
        None, "balanced, or weights by label: cat=1,dog=2.5 (others count 1)."
    )
    seed: int = option(0, "Seed of the start, the order and the splits.", low=0, high=2**32 - 1)
    eval_every: int = option(1000, "Iterations between reports.", low=1)


@dataclass(frozen=True)
class RunConfig:
    """[run]"""

    checkpoint_every: int = option(1000, "Iterations between checkpoints.", low=1)
    threads: int | None = option(None, "Threads; PyTorch chooses if not given.", low=1)


@dataclass(frozen=True)
class Config:
    """Every parameter of a run. The defaults are the notebook's experiment."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def get(self, key: str) -> Value:
        section, name = key.split(".")
        return getattr(getattr(self, section), name)

    def items(self) -> Iterator[tuple[str, Value]]:
        """("section.key", value) of every parameter, in the order of the declarations."""
        return ((key, self.get(key)) for key in OPTIONS)

    def updated(self, values: Mapping[str, Value]) -> Config:
        """This configuration with `values` ("section.key" → checked value) put in."""
        sections: dict[str, dict[str, Value]] = {}
        for key, value in values.items():
            section, name = key.split(".")
            sections.setdefault(section, {})[name] = value
        changed = {s: replace(getattr(self, s), **new) for s, new in sections.items()}
        return replace(self, **changed)

    def toml(self) -> str:
        """The configuration as TOML, parameters that are not set left out."""
        lines: list[str] = []
        for section in fields(self):
            values = vars(getattr(self, section.name)).items()
            lines += [f"[{section.name}]"]
            lines += [f"{key} = {_toml(value)}" for key, value in values if value is not None]
            lines += [""]
        return "\n".join(lines[:-1]) + "\n"


@dataclass(frozen=True)
class Option:
    """One parameter, as derived from its field."""

    section: str
    name: str
    type: type  # bool, int, float or str
    optional: bool
    choices: tuple[str, ...]
    default: Value
    help: str
    limits: Mapping[str, float]

    @property
    def key(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return " | ".join(self.choices)
        noun = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
        limits = [f"{words} {limit}" for words, limit in self.limits.items()]
        words = noun[self.type] + (", " if limits else "") + " and ".join(limits)
        return words + (", or none" if self.optional and self.type is not str else "")

    def check(self, raw: Value, where: str) -> Value:
        """The value meant by `raw` (text, or what TOML gave); ConfigError names `where`."""
        if self.optional and raw == "none":
            return None
        value = self._converted(raw)
        if value is None or not self._in_range(value):
            came = repr(raw) if isinstance(raw, str) else _toml(raw)
            raise ConfigError(f"{where} is {came}; wanted {self.wanted}")
        return value

    def _converted(self, raw: Value) -> Value:
        if self.type is bool:
            return {"true": True, "false": False}.get(str(raw).lower())
        if self.type is str:
            ok = isinstance(raw, str) and raw and (not self.choices or raw in self.choices)
            return raw if ok else None
        if isinstance(raw, bool) or not isinstance(raw, int | float | str):
            return None
        try:
            number = float(raw) if self.type is float else int(raw)
        except (ValueError, OverflowError):
            return None
        return number if isinstance(raw, str) or number == raw else None

    def _in_range(self, value: Value) -> bool:
        if isinstance(value, float) and not math.isfinite(value):
            return False
        holds = {
            "at least": lambda limit: value >= limit,
            "at most": lambda limit: value <= limit,
            "above": lambda limit: value > limit,
            "below": lambda limit: value < limit,
        }
        return all(holds[words](limit) for words, limit in self.limits.items())


def _options() -> Iterator[Option]:
    for section, cls in typing.get_type_hints(Config).items():
        hints = typing.get_type_hints(cls)
        for f in fields(cls):
            hint, optional = hints[f.name], False
            if typing.get_origin(hint) in (typing.Union, types.UnionType):
                (hint,) = (arg for arg in typing.get_args(hint) if arg is not type(None))
                optional = True
            choices = typing.get_args(hint) if typing.get_origin(hint) is Literal else ()
            kind = str if choices else hint
            yield Option(section, f.name, kind, optional, choices, f.default, **f.metadata)


OPTIONS: dict[str, Option] = {option.key: option for option in _options()}
SECTIONS: tuple[str, ...] = tuple(f.name for f in fields(Config))


def find(key: str, where: str) -> Option:
    """The option called "section.key" (or "key" alone, which is unique)."""
    by_name = {option.name: option for option in OPTIONS.values()}
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
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
            given[key] = find(key, str(path)).check(raw, f"{path}: {key}")
    return given


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
    """Later layers win. Iterations and epochs are one choice: the later layer's stands alone."""
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
    """The configuration of the layers over the defaults, with nothing left to decide later."""
    config = Config().updated(merge(*layers))
    if config.training.iterations is None and config.training.epochs is None:
        config = config.updated({"training.iterations": 5000})
    return config


def _toml(value: Value) -> str:
    if isinstance(value, str):  # a JSON string is a TOML one, but for DEL
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
