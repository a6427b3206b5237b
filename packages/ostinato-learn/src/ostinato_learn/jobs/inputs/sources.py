"""The files of the command line: opened, recognised by kind, and read."""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ostinato_learn import tasks
from ostinato_learn.data.formats.content import (
    TABLES,
    ending,
    is_packed,
    kind_of,
    read_content,
    unpacked,
)
from ostinato_learn.jobs.failures import BadInput
from ostinato_learn.jobs.inputs.built_in import BUILT_IN, known_of
from ostinato_learn.jobs.inputs.config import Config, DataConfig, Given, resolve
from ostinato_learn.jobs.inputs.defaults import ARRAYS, holds_arrays

if TYPE_CHECKING:
    import numpy as np

    from ostinato_learn.data import Ragged
    from ostinato_learn.data.formats.dialect import Dialect
    from ostinato_learn.data.sequences.examples import Examples
    from ostinato_learn.data.sequences.preparation import Preparation
    from ostinato_learn.data.tables.roles import Roles
    from ostinato_learn.data.tables.table import Table
    from ostinato_learn.tasks.classify.model import Classifier

    Sequences = np.ndarray | Ragged

TEXTS = (".txt", ".abc")
SPREADSHEETS = (".xls", ".xlsb", ".ods", ".numbers")  # that are not read
SUFFIXES = (*ARRAYS, ".npy", *(s + z for s in (*TABLES, *TEXTS) for z in ("", ".gz")))
WANTED = f"{', '.join(BUILT_IN)}, or a file: " + ", ".join(
    f"FILE{suffix}" for suffix in (".npz", ".ts", *TABLES, *TEXTS)
)
STDIN = "-"
LARGE = 1 << 28  # bytes of a table from which on its sequences stay on disk
AT_ONCE = 1 << 17  # steps that a model answers before the answers are written
TAB = "\\t"  # as a user writes it in a shell
FILE_HELP = (
    "A file like the training file; - reads standard input, and finds the format by its "
    "first bytes."
)


def known(source: str | None) -> str:
    """`source` as a run remembers it: a built-in name, or the absolute path of a readable file."""
    if not source:
        raise BadInput(f"what should be learnt? wanted {WANTED}")
    if source in BUILT_IN:
        return source
    if source == STDIN:
        raise BadInput("- is for evaluate and predict; wanted a file: a resumed run reads it again")
    if Path(source).is_dir():
        raise BadInput(
            f"{source}: a directory; wanted a file with all its sequences: a table, a .npz, a text"
        )
    if source.lower().endswith(SPREADSHEETS):
        raise BadInput(f"{source}: save the spreadsheet as .xlsx, or export its sheet as CSV")
    if not source.lower().endswith(SUFFIXES) and not holds_arrays(source):
        raise BadInput(
            f"{source!r} is not a data set; wanted {WANTED}. A file needs one of these endings"
        )
    path = Path(source)
    if not path.is_file():
        raise BadInput(f"{source}: no such file")
    return str(path.resolve())


def _is_delimited(source: str) -> bool:
    return source.lower().removesuffix(".gz").endswith((".csv", ".tsv"))


def is_text(source: str) -> bool:
    """Whether a file is a plain text or a collection of them, by its ending; it may be packed."""
    return source.lower().endswith(tuple(s + z for s in TEXTS for z in ("", ".gz")))


def is_table(source: str) -> bool:
    """Whether a file is a table, by its ending; it may be packed."""
    return source.lower().endswith(tuple(s + z for s in TABLES for z in ("", ".gz")))


def check(config: DataConfig) -> None:
    """Refuse options that do not apply to this source."""
    if config.source in BUILT_IN and config.test is not None:
        raise BadInput(f"--test is for files; {config.source} has its own test part")
    if config.as_sequence != "rows" and not known_of(config.source).images:
        raise BadInput(f"--as-sequence is for images, not for {config.source}")
    if config.test is not None and config.split is not None:
        raise BadInput("--test and --split both say what to test on; wanted one of them")
    from ostinato_learn.data.formats.dialect import OF_TEXT

    for name in asdict(dialect(config)):
        given = getattr(config, name) != getattr(DataConfig, name)
        in_sheet = str(config.source).lower().endswith(".xlsx") and name not in OF_TEXT
        if given and config.source and not in_sheet and not _is_delimited(config.source):
            flag = name.replace("_", "-")
            raise BadInput(f"--{flag} is for .csv and .tsv files, not for {config.source}")
    if config.source is None or is_table(config.source):
        return
    of_tables = (
        "shape",
        "id",
        "time",
        "time_format",
        "every",
        "features",
        "categories",
        "group",
        "split",
    )
    for name in of_tables:
        if getattr(config, name) is not None:
            flag = name.replace("_", "-")
            raise BadInput(f"--{flag} is for tables, not for {config.source}; leave it out")


def dialect(config: DataConfig) -> Dialect:
    """How CSV files are written.

    Raises:
        BadInput: the separator is invalid, or the encoding is unknown.
    """
    from ostinato_learn.data.formats.dialect import Dialect

    separator = "\t" if config.separator == TAB else config.separator
    try:
        return Dialect(
            separator,
            config.decimal,
            config.encoding,
            names(config.na),
            config.thousands,
            config.skip_lines,
        )
    except ValueError as problem:
        raise BadInput(f"--{problem}") from None


def recognised(asked: Given) -> Given:
    """How the training file is written, where it was not given and only one reading makes sense.

    The settings of a run keep it, so that later files are read in the same way.
    """
    source = asked.get("data.source")
    if not isinstance(source, str) or source in BUILT_IN or not _is_delimited(source):
        return {}
    from ostinato_learn.data.formats import recognize

    path = Path(source)
    given = dialect(resolve(asked).data)
    fixed = [key.removeprefix("data.") for key in asked]
    if is_packed(path):
        content = read_content(path)
    else:
        with path.open("rb") as file:
            content = file.read(recognize.LOOKED_AT)
    found = recognize.recognised(content, ending(path), source, given, fixed)
    changed = {
        f"data.{name}": value
        for name, value in asdict(found).items()
        if value != getattr(given, name)
    }
    if changed.get("data.separator") == "\t":
        changed["data.separator"] = TAB
    return changed


def every(config: DataConfig) -> str | None:
    """The distance of the steps, checked.

    Raises:
        BadInput: it is not a table.
    """
    from ostinato_learn.data.tables.resample import distance

    if config.every is not None:
        try:
            distance(config.every)
        except ValueError as problem:
            raise BadInput(f"--{problem}") from None
    return config.every


def roles(settings: Config) -> Roles:
    """The roles of the columns of a table."""
    from ostinato_learn.data.tables.roles import Roles

    data = settings.data
    of_tables = [task for task in tasks.every() if task.reads_tables]
    task = next((task for task in of_tables if settings.get(task.target) is not None), None)
    target = None if task is None else settings.get(task.target)
    labels: tuple[str, ...] = ()
    if task is not None and task.several_targets:
        labels = names(target)
        target, labels = (labels[0], ()) if len(labels) == 1 else (None, labels)
    return Roles(
        shape=data.shape,
        id=data.id,
        time=data.time,
        features=names(data.features),
        target=target,
        task=None if task is None else task.name,  # type: ignore[arg-type]  # one of these
        labels=labels,
        group=data.group,
        split=data.split,
        static=names(data.static),
        known=names(data.known),
        categories=names(data.categories),
        sort=data.sort,
        repeated=data.repeated,
        time_format=data.time_format,
        every=every(data),
        **asdict(dialect(data)),
    )


def trained_roles(preparation: Preparation | None, settings: Config, answers: bool) -> Roles | None:
    """The columns of a table as a model knows them, by name; None for a model of arrays.

    Args:
        settings: how this file is read: its dialect, whether to sort.
        answers: see `Roles.for_model`.
    """
    roles = preparation.roles if preparation else None
    if roles is None:
        return None
    data = settings.data
    return replace(
        roles.for_model(answers),
        sort=roles.sort if data.sort is None else data.sort,
        repeated=roles.repeated if data.repeated == "error" else data.repeated,
        time_format=data.time_format or roles.time_format,
        **asdict(dialect(data)),
    )


def names(listed: str | None) -> tuple[str, ...]:
    """The names of columns in a text made by `listed`, "a,b,c"."""
    if listed is None:
        return ()
    (row,) = csv.reader([listed], skipinitialspace=True) if listed.strip() else ([],)
    return tuple(name.strip() for name in row if name.strip())


def named(X: Sequences, y: np.ndarray | None, source: str = "") -> Examples:
    """Arrays as examples; features are named by their numbers."""
    from ostinato_learn.data.sequences.examples import Examples

    return Examples(X, y, tuple(f"feature {i}" for i in range(n_features(X))), source=source)


def built_in(source: str, as_sequence: str) -> tuple[Examples, Examples]:
    """The training and the test part of a data set of the package; see `DataConfig`."""
    from ostinato_learn import datasets

    load = getattr(datasets, source)
    whole = load(as_sequence) if BUILT_IN[source].images else load()
    return named(*whole.train), named(*whole.test)


def read(
    source: str,
    settings: Config | None = None,
    as_sequence: str = "rows",
    trained: Roles | None = None,
) -> Examples:
    """The examples in a file, with labels if it has any; for a data set, its test part.

    Args:
        source: a file, a built-in name, or - for standard input.
        settings: those of the run, which have the roles of the columns of a table.
        as_sequence: see `DataConfig`.
        trained: the roles of a trained model, instead of `settings`.
    """
    if source in BUILT_IN:
        return built_in(source, as_sequence)[1]
    name, kind, content = _opened(source)
    if kind in TABLES:
        columns = trained or roles(settings or Config())
        if content is None and _stays_in_a_file(name, columns):
            from ostinato_learn.data.tables.blocks import stream_examples
            from ostinato_learn.data.tables.store import store_examples

            return store_examples(stream_examples(name, columns))
        return _asked_together(content, kind, name, columns, settings)
    from ostinato_learn.data.formats import arrays
    from ostinato_learn.data.sequences.as_sequences import as_sequences

    if kind not in arrays.ENDINGS:
        raise BadInput(f"{name} is text; wanted a table, or a file of arrays (.npz, .ts)")
    if content is None:
        X, y = arrays.read(name)
    else:
        X, y, _ = arrays.parse_sequences(io.BytesIO(content), kind, name)
    if settings is None or settings.data.missing == "error":
        try:
            X = as_sequences(X)
        except ValueError as problem:
            raise BadInput(f"{name}: {problem}") from None
    return named(X, None if y is None else _labels(name, y), name)


def _asked_together(
    content: bytes | None, kind: str, name: str, columns: Roles, settings: Config | None
) -> Examples:
    """The examples of a table; what it leaves open is asked at once."""
    from ostinato_learn.data.questions import asked_together
    from ostinato_learn.data.sequences.preparation import Preparation
    from ostinato_learn.data.tables.shapes import to_examples

    def learnt(examples: Examples) -> None:
        if settings is not None and settings.data.missing == "error":
            Preparation.fit(examples)

    return asked_together(
        lambda columns: to_examples(_parsed(content, kind, name, columns.dialect), columns),
        columns,
        name,
        learnt,
    )


def _stays_in_a_file(name: str, columns: Roles) -> bool:
    """Whether the sequences of a table are read from the disk batch by batch.

    Sequences of a large table would be in memory several times while they are read. Sorting needs
    the whole table in memory.
    """
    return Path(name).stat().st_size > LARGE and columns.task is not None and not columns.sort


def blocks(
    source: str,
    settings: Config,
    preparation: Preparation | None,
    as_sequence: str = "rows",
) -> Iterator[Examples]:
    """The examples of a file for a model to answer, without labels.

    Those of a table come some at a time, in their order, so that memory stays bounded, unless rows
    are to be sorted.
    """
    columns = trained_roles(preparation, settings, answers=False)
    if source != STDIN:
        known(source)
    if columns is None or columns.sort or not (source == STDIN or is_table(source)):
        yield read(source, settings, as_sequence, columns)
        return

    from ostinato_learn.data.tables.blocks import stream_examples

    for part in stream_examples(_stdin() if source == STDIN else source, columns):
        yield from _pieces(part)


def begun(parts: Iterator[Examples]) -> Iterator[Examples]:
    """The same examples, with the first already read: a bad file is refused before torch is
    imported."""
    return chain([next(parts)], parts)


def _pieces(part: Examples) -> Iterator[Examples]:
    """Whole sequences of about `AT_ONCE` steps."""
    import numpy as np

    number = np.cumsum(part.lengths) // AT_ONCE
    cuts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(part)]
    for start, end in pairwise(cuts):
        yield part.select(np.arange(start, end))


def table(source: str, data: DataConfig) -> Table:
    """The table in a file or on standard input.

    Raises:
        BadInput, ValueError: it is not a table, or damaged.
    """
    name, kind, content = _opened(source)
    if kind not in TABLES:
        raise BadInput(f"{name} is not a table; wanted {', '.join(TABLES)}")
    return _parsed(content, kind, name, dialect(data))


def content(source: str) -> tuple[str, bytes]:
    """The name for messages and the bytes of a file, or of standard input; unpacked."""
    name, _, found = _opened(source)
    return name, read_content(Path(name)) if found is None else found


def _opened(source: str) -> tuple[str, str, bytes | None]:
    """The name for messages, the kind as an ending, and the content if it had to be read."""
    if source != STDIN:
        known(source)
        return source, ending(Path(source)), None
    name = "standard input"
    content = unpacked(_stdin().read(), name)
    return name, kind_of(content, name), content


def _parsed(content: bytes | None, kind: str, name: str, written: Dialect) -> Table:
    from ostinato_learn.data.formats.dialect import SEPARATOR_OF
    from ostinato_learn.data.tables.read_examples import parse_table

    if content is None:
        content = read_content(Path(name))
    return parse_table(content, kind, name, written if kind in SEPARATOR_OF else None)


def _stdin() -> BinaryIO:
    if sys.stdin is None:
        raise BadInput("standard input is closed; wanted a file's content there")
    return sys.stdin.buffer


def _labels(source: str, y: np.ndarray) -> np.ndarray:
    """The labels of a file, `[N]`; bytes (NumPy's type S) become strings."""
    import numpy as np

    if y.ndim != 1:
        hint = "y.ravel() makes" if y.size == len(y) else "of one-hot rows, y.argmax(axis=1) makes"
        raise BadInput(
            f"{source}: y has shape {list(y.shape)}; wanted [{len(y)}], a label for each example: "
            f"{hint} such labels"
        )
    if y.dtype.kind not in "biufUS":
        raise BadInput(f"{source}: y is {y.dtype}; wanted labels as integers or strings")
    return np.char.decode(y, "utf-8", "replace") if y.dtype.kind == "S" else y


def read_labelled(
    source: str,
    settings: Config | None = None,
    as_sequence: str = "rows",
    trained: Roles | None = None,
) -> Any:
    """`read` of a file that must have labels, or numbers."""
    import numpy as np

    examples = read(source, settings, as_sequence, trained)
    y = examples.y
    if y is None:
        raise BadInput(f"{source} has no labels (y), which are needed for a comparison")
    if settings is not None and settings.task.regress is not None:
        return examples if y.ndim == 2 else replace(examples, y=y.astype(np.float64)[:, None])
    if hasattr(y, "dtype") and y.dtype.kind == "f" and (y != y.round()).any():
        raise BadInput(f"{source}: y holds numbers such as {y[y != y.round()][0]}; wanted classes")
    return examples


def check_fits(source: str, examples: Examples, model: Classifier, labels: bool) -> None:
    """Raise BadInput if a model cannot be used on these examples, or measured on their labels.

    Raises:
        BadInput, ValueError: another number of features, or labels that the model does not know.
    """
    from ostinato_learn.data import LabelEncoder

    came, wanted = n_features(examples.sequences), model.n_features
    if came != wanted and examples.roles is None:  # columns of a table are found by their names
        raise BadInput(
            f"{source}: X has {came} features a step; wanted {wanted}, "
            "as the model was trained with"
        )
    if labels and model.multilabel:
        model.check_several(examples.y)
    elif labels:
        LabelEncoder(model.classes).encode(examples.y, name=f"{source}: y")


def n_features(X: Sequences) -> int:
    """The number of features of an array `[N, T, F]` or of ragged sequences."""
    return int(X.n_features if hasattr(X, "n_features") else X.shape[2])


def digest(config: DataConfig) -> dict[str, str]:
    """SHA-256 of each of the user's files: a run is resumed only with unchanged data."""
    files = [f for f in (config.source, config.test) if f is not None and f not in BUILT_IN]
    return {f: _sha256(Path(f)) for f in files}


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
