"""The file of `--state`: the streams of all keys, and the place in the input.

    ostinato stream 1\n      the kind of the file
    {…}\n                    `Snapshot` without the bytes of the states; their sizes and SHA-256
    …                        the states, one after the other

It is written whole or not at all, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostinato_learn import files
from ostinato_learn.jobs.failures import BadInput

MAGIC = b"ostinato stream 1\n"


@dataclass(frozen=True)
class KeyState:
    """The stream of one key.

    Attributes:
        key: None for a stream without keys.
        state: the result of `Stream.save`; None once the key is done.
        label, answered: see `KeyedStream`.
    """

    key: str | None
    state: bytes | None
    label: Any
    answered: bool


@dataclass(frozen=True)
class Snapshot:
    """The place from which a stream is resumed.

    Attributes:
        position: bytes of the input whose rows were answered; for a pipe, all bytes read.
        line: the number of the next line.
        skipped: the number of invalid lines so far.
        begins: SHA-256 of the first bytes of the input, and their number; None for a pipe.
        rows: how rows are read: form, columns, key, and the like.
        keys: one state a key.
    """

    position: int
    line: int
    skipped: int
    begins: tuple[str, int] | None
    rows: dict[str, Any]
    keys: list[KeyState]

    def write(self, path: Path) -> None:
        """Write the snapshot. Raises OSError if it cannot be written; the file is then
        unchanged."""
        states = [k.state for k in self.keys if k.state is not None]
        digest = hashlib.sha256()
        for state in states:
            digest.update(state)
        head = {
            "position": self.position,
            "line": self.line,
            "skipped": self.skipped,
            "begins": self.begins,
            "rows": self.rows,
            "keys": [
                [k.key, None if k.state is None else len(k.state), k.label, k.answered]
                for k in self.keys
            ],
            "sha256": digest.hexdigest(),
        }
        text = json.dumps(head, ensure_ascii=False).encode("utf-8", "surrogatepass")
        files.write_pieces(path, [MAGIC, text, b"\n", *states])

    @staticmethod
    def read(path: Path) -> Snapshot | None:
        """The snapshot in a file; None if there is no file, or an empty one.

        Raises:
            BadInput: it is not a state, or is damaged.
        """
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        if not content:
            return None
        damaged = BadInput(
            f"{path} is not a state of ostinato stream, or is damaged; take another, or delete it "
            "to begin anew"
        )
        if not content.startswith(MAGIC):
            raise damaged
        text, _, states = content[len(MAGIC) :].partition(b"\n")
        try:
            return _from(files.parse_json(text), states)
        except (ValueError, KeyError, TypeError):
            raise damaged from None


def _from(head: Any, states: bytes) -> Snapshot:
    if hashlib.sha256(states).hexdigest() != head["sha256"]:
        raise ValueError("the states are not those that were saved")
    keys, at = [], 0
    for key, size, label, answered in head["keys"]:
        state = None
        if size is not None:
            state = states[at : at + int(size)]
            at += int(size)
        keys.append(KeyState(key, state, label, bool(answered)))
    if at != len(states):
        raise ValueError("there are more states than keys")
    begins = head["begins"]
    return Snapshot(
        position=int(head["position"]),
        line=int(head["line"]),
        skipped=int(head["skipped"]),
        begins=None if begins is None else (str(begins[0]), int(begins[1])),
        rows=dict(head["rows"]),
        keys=keys,
    )
