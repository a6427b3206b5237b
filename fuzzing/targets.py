"""What is fuzzed: the readers of saved models, states, journals and requests.

A target reads arbitrary bytes. It may refuse them with the error that its reader documents; any
other error is a fault, and so is a value that is read differently after it was written again. If
the first byte is 128 or more, the others are no content but make one that a reader does not refuse
at its first look: they are given a checksum, or are edits of a valid JSON object.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ostinato_learn.runtime import stream
from ostinato_learn.runtime.model import model_of
from ostinato_learn.saved import read, tensors
from ostinato_learn.serve import journal
from ostinato_learn.serve.refused import Refusal
from ostinato_learn.serve.tensors import read_request

CORPUS = Path(__file__).parent / "corpus"
MODEL = CORPUS / "model"  # a small saved model, whose configuration the target `config` begins with
_FINGERPRINT, _N_CARRY = "00" * 32, 4
_MAGIC = stream._MAGIC


def read_tensors(data: bytes) -> None:
    """The tensors of a saved model."""
    try:
        found = tensors.unpack(data, "file")
    except ValueError:
        return
    again = tensors.unpack(tensors.pack(found), "file")
    assert found.keys() == again.keys()
    assert all(found[name].tobytes() == again[name].tobytes() for name in found)


def read_config(data: bytes) -> None:
    """The configuration of a saved model, and the programs that its graph becomes."""
    content = data[1:]
    if _is_made(data):
        content = json.dumps(_edited((MODEL / read.CONFIG).read_bytes(), content)).encode()
    try:
        config = read.checked_config(tensors.read_json(content, "file"), "file")
        model_of(read.made(config, _tensors(), hashlib.sha256(content), "file"), "file")
    except ValueError:
        return


def _is_made(data: bytes) -> bool:
    return data[:1] > b"\x7f"


VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"),
    float("inf"), "", "a", "\0", "\ud800", "op", [], [[]], [0], [1, 2], {}, {"a": 1}, {"": []},
)  # fmt: skip


MOST_EDITS, MOST_PLACES = 16, 2000


def _edited(valid: bytes, edits: bytes) -> Any:
    """A JSON value with edits of four bytes each: two for the place, one each for how and what."""
    value = json.loads(valid)
    for at in range(0, min(len(edits) - 3, 4 * MOST_EDITS), 4):
        where, how, what = edits[at] * 256 + edits[at + 1], edits[at + 2], edits[at + 3]
        places = list(_places(value))
        if not places or len(places) > MOST_PLACES:
            return value
        of, key = places[where % len(places)]
        if how < 64:
            del of[key]
        elif how < 128:
            of[key] = copy.deepcopy(VALUES[what % len(VALUES)])
        elif how < 192:  # another part of the same object
            other, place = places[(where + what + 1) % len(places)]
            of[key] = copy.deepcopy(other[place])
        elif type(of[key]) in (int, float):
            of[key] += what - 128
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each list or dict within a JSON value, with each of its keys."""
    found: list[Any] = [value]
    for of in found:
        if isinstance(of, (list, dict)):
            for key in list(of) if isinstance(of, dict) else range(len(of)):
                yield of, key
                found.append(of[key])


def _tensors() -> dict[str, Any]:
    return tensors.unpack((MODEL / read.TENSORS).read_bytes(), "file")


def read_journal(data: bytes) -> None:
    """The journal of a server's open sequences."""
    content = data[1:]
    if _is_made(data):
        records = [journal.Record([n], part) for n, part in enumerate(content.split(b"\xff"))]
        content = b"".join(map(journal.packed, records))
    try:
        records, end = journal.unpacked(content, "file")
    except ValueError:
        return
    assert b"".join(map(journal.packed, records)) == content[:end] or not _is_made(data)


def read_state(data: bytes) -> None:
    """The state of a stream."""
    content = data[1:]
    if _is_made(data):
        content = stream.sealed(_MAGIC, _FINGERPRINT, content)
    try:
        n, carry = stream.unpacked(content, _FINGERPRINT, _N_CARRY)
    except ValueError:
        return
    assert stream.packed(_FINGERPRINT, n, carry) == content


REQUEST = {
    "id": "a",
    "parameters": {"sequence_id": "s", "sequence_end": True},
    "inputs": [
        {"name": "x", "shape": [1, 2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]},
        {"name": "y", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
        {"name": "t", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]},
    ],
    "outputs": [{"name": "label", "parameters": {"binary_data": True}}],
}


def read_a_request(data: bytes) -> None:
    """A request of the server: JSON, or JSON and binary tensors."""
    text, separator, rest = data[1:].partition(b"\xff\xff")
    if _is_made(data):
        text = json.dumps(_edited(json.dumps(REQUEST).encode(), text)).encode()
        separator, rest = b"\xff\xff", rest.ljust(16, b"\0")[:16]
    header = str(len(text)) if separator else None
    try:
        found = read_request(text + rest, header)
    except Refusal:
        return
    assert all(isinstance(array, np.ndarray) for array in found.inputs.values())


TARGETS: dict[str, Callable[[bytes], None]] = {
    "tensors": read_tensors,
    "config": read_config,
    "journal": read_journal,
    "state": read_state,
    "request": read_a_request,
}


def seeds(target: str) -> Iterator[tuple[str, bytes]]:
    """The corpus of a target: names and contents."""
    for path in sorted((CORPUS / target).iterdir()):
        yield path.name, path.read_bytes()
