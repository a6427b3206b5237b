"""`store_together`: several processes of one machine store a table, each a share of it.

    share       the sequences that begin in the row groups of one process; see `stream_share`
    exchange    gives every process the bytes that each of them has, in the order of their shares

Each process writes the steps of its share into a temporary file without a name. All else, a few
numbers for each sequence, is exchanged, so that every process has the examples of the whole table,
and reads the steps from the files of all. A file without a name is opened by the number that it has
in its process, in Linux's /proc; it is gone when the last of the processes ends, however that is.

A process that fails, as over a damaged row group, must end the exchange of the others.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ostinato.data.sequences.examples import Examples, Places
from ostinato.data.stored.sequences import Files, HeldFile
from ostinato.data.stored.store import MIXED_TIMES, Kept, in_order, joined, keep, renumber
from ostinato.data.tables.roles import Roles
from ostinato.data.tables.stream import stream_share

Exchange = Callable[[bytes], list[bytes]]


def is_possible() -> bool:
    """Whether this system lets a process open the files of another one."""
    return Path("/proc/self/fd").is_dir()


def store_together(
    path: str | os.PathLike[str],
    roles: Roles,
    number: int,
    of: int,
    exchange: Exchange,
    directory: str | os.PathLike[str] | None = None,
) -> Examples:
    """The examples that `store_examples` gives of a table, in each of several processes.

    Args:
        path, roles: of the table, the same in all processes.
        number: of this process, from 0.
        of: how many there are.
        exchange: as above; it is called twice.
        directory: as for `store_examples`.

    Raises:
        ValueError: as `store_examples`.
    """
    own = keep(stream_share(path, roles, number, of), directory)
    shares = [_read(content) for content in exchange(_written(own))]
    words = in_order([share.words for share in shares])
    renumber(own, words)
    # All files are open before the last exchange, after which a process may end.
    files = [own.file if i == number else share.file() for i, share in enumerate(shares)]
    exchange(b"")  # from here on no file changes
    parts = _numbered(shares)
    lengths = np.concatenate([share.lengths for share in shares])
    times = {share.times for share in shares if share.part is not None}
    if len(times) > 1:
        raise ValueError(MIXED_TIMES.format(path))
    examples = joined(parts, Files(files), lengths, words, *times)
    _check_ids(examples)
    return examples


@dataclass(frozen=True)
class _Share:
    """What one process tells of its share.

    Attributes:
        process: its number in the system.
        descriptor: of its file, in the process.
        part: without its steps; None if no sequence begins in it.
        lengths: of its sequences.
        words: of each column that is words or labels.
        times: see `Kept`.
    """

    process: int
    descriptor: int
    part: Examples | None
    lengths: np.ndarray
    words: dict[str, list[Any]]
    times: str | None

    def file(self) -> IO[bytes]:
        """The values of its sequences, opened."""
        return HeldFile(f"/proc/{self.process}/fd/{self.descriptor}")


def _written(own: Kept) -> bytes:
    """What a process tells; without Python objects, which could run code where they are read."""
    about: dict[str, Any] = {
        "process": os.getpid(),
        "descriptor": own.file.fileno(),
        "words": own.words,
        "times": own.times,
        "objects": {},
    }
    arrays = {"lengths": own.lengths}
    if own.parts:
        part = joined(own.parts, Files([own.file]), own.lengths, in_order([own.words]), own.times)
        places = part.places
        assert part.roles is not None  # of a table
        about |= {
            "features": part.features,
            "roles": asdict(part.roles),
            "source": part.source,
            "places": places and [places.unit, places.columns, places.shape],
            "statics": list(part.statics),
        }
        given = {name: getattr(part, name) for name in ("y", "ids", "groups", "parts")}
        given |= {f"static {i}": values for i, values in enumerate(part.statics.values())}
        given["places"] = places and places.numbers
        for name, values in given.items():
            if not isinstance(values, np.ndarray):
                continue  # there are none, or the file has them: the labels of all steps
            if values.dtype == object:  # texts, None where they are missing
                about["objects"][name] = values.tolist()
            else:
                arrays[name] = values
    content = io.BytesIO()
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez(content, about=text, **arrays)  # type: ignore[arg-type]  # no array is named like a parameter of savez
    return content.getvalue()


def _read(content: bytes) -> _Share:
    """What `_written` told."""
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        arrays = dict(archive)
    about = json.loads(arrays.pop("about").tobytes())
    for name, values in about["objects"].items():
        arrays[name] = np.empty(len(values), object)
        arrays[name][:] = values
    lengths = arrays["lengths"]
    part = None
    if len(lengths):
        places = None
        if about["places"] is not None:  # a series in the columns of a table has none
            unit, columns, shape = about["places"]
            places = Places(unit, arrays["places"], tuple(columns), shape)
        features = tuple(about["features"])
        roles: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in about["roles"].items()}
        given: Any = {name: arrays.get(name) for name in ("y", "ids", "groups", "parts")}
        part = Examples(
            np.zeros((len(lengths), 0, len(features)), np.float32),
            features=features,
            roles=Roles(**roles),
            source=about["source"],
            places=places,
            statics={name: arrays[f"static {i}"] for i, name in enumerate(about["statics"])},
            **given,
        )
    return _Share(
        about["process"], about["descriptor"], part, lengths, about["words"], about["times"]
    )


def _numbered(shares: list[_Share]) -> list[Examples]:
    """The parts of all shares; sequences without a name are numbered on from share to share."""
    parts, n = [], 0
    for part in (share.part for share in shares if share.part is not None):
        assert part.roles is not None
        parts.append(part if part.roles.id else replace(part, ids=part.ids + n))
        n += len(part)
    return parts


def _check_ids(examples: Examples) -> None:
    """No id has come back in another share; within a share, `stream_share` has looked.

    Raises:
        ValueError: one has.
    """
    if not (examples.roles and examples.roles.id):
        return
    _, first = np.unique(examples.ids.astype(str), return_index=True)
    if len(first) < len(examples):
        again = np.ones(len(examples), bool)
        again[first] = False
        i = int(np.argmax(again))
        places = examples.places
        place = f", {places.unit} {places.numbers[i]}" if places else ""
        raise ValueError(
            f"{examples.source}{place}: the id {examples.ids[i].item()!r} comes back after other "
            "ids; wanted the rows of a sequence together, and each sequence once"
        )
