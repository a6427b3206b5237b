"""The tensors of the Open Inference Protocol v2 as arrays, and back.

A body is JSON; with the binary extension the JSON is followed by the tensors' bytes, little-endian
and dense, each as long as its `binary_data_size` says:

    {"id": "7", "parameters": {…}, "inputs": [{"name", "shape", "datatype", "data" | "parameters"}],
     "outputs": [{"name", "parameters": {"binary_data": true}}]}

BYTES are texts. In binary each text follows its length, which has 4 bytes.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ostinato_learn.serve.refused import Refusal

HEADER = "inference-header-content-length"
DTYPES = {
    "BOOL": "?",
    "INT8": "<i1",
    "INT16": "<i2",
    "INT32": "<i4",
    "INT64": "<i8",
    "UINT8": "<u1",
    "UINT16": "<u2",
    "UINT32": "<u4",
    "UINT64": "<u8",
    "FP16": "<f2",
    "FP32": "<f4",
    "FP64": "<f8",
}
BYTES = "BYTES"
MAX_AXES = 8
MOST = (1 << 63) - 1  # of a whole number in a request
Array = np.ndarray


@dataclass(frozen=True)
class InferRequest:
    """The contents of a request.

    Attributes:
        id: the client's name for the request, returned with the answer.
        parameters: the parameters of the request.
        inputs: the tensors by name.
        wanted: the names of outputs → whether each is wanted in binary; None: all outputs.
        binary: whether outputs that `wanted` does not name are wanted in binary.
    """

    id: str | None
    parameters: dict[str, Any]
    inputs: dict[str, Array]
    wanted: dict[str, bool] | None = None
    binary: bool = False


def bad(message: str) -> Refusal:
    """The refusal (400) of a request that cannot be read."""
    return Refusal(400, message)


def json_of(body: bytes | str) -> Any:
    """A JSON value of a body.

    Raises:
        Refusal: the body is not valid JSON; NaN and infinity are not JSON.
    """
    try:
        return _JSON.decode(body if isinstance(body, str) else body.decode())
    except RecursionError:
        raise bad("the JSON has lists or objects within each other without end") from None
    except ValueError as problem:
        raise bad(f"the body is not JSON: {problem}") from None


def object_of(body: bytes | str) -> dict[str, Any]:
    """A JSON object of a body; raises as `json_of`, and if the value is no object."""
    found = json_of(body)
    if not isinstance(found, dict):
        raise bad(f"the body is {shown(found)}; wanted a JSON object")
    return found


def shown(value: Any) -> str:
    """A value for a message, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


def whole(value: Any, noun: str, least: int, most: int) -> int:
    """A whole number of a request; raises Refusal if it is none, or out of its range."""
    if type(value) is not int or not least <= value <= most:
        raise bad(f"{noun} is {shown(value)}; wanted a whole number from {least:,} to {most:,}")
    return value


def flag(value: Any, noun: str) -> bool:
    """True or false of a request; raises Refusal if it is neither."""
    if type(value) is not bool:
        raise bad(f"{noun} is {shown(value)}; wanted true or false")
    return value


def only(given: dict[str, Any], wanted: set[str]) -> None:
    """Raise Refusal if a request has other names than the wanted ones."""
    foreign = sorted(given.keys() - wanted)
    if foreign:
        raise bad(f"{shown(foreign[0])} came; wanted {', '.join(sorted(wanted))}")


def check_text(text: str, noun: str) -> None:
    """Raise Refusal if a text has half a surrogate pair, which JSON can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        raise bad(f"{noun} has half a surrogate pair, {text[problem.start]!r}") from None


def read_request(body: bytes, header_length: str | None) -> InferRequest:
    """The request of a body.

    Args:
        body: JSON, or JSON and binary tensors.
        header_length: the header `Inference-Header-Content-Length`: the length of the JSON in bytes
            if binary tensors follow.

    Raises:
        Refusal: the body is not valid; the message names the place.
    """
    text, rest = body, memoryview(b"")
    if header_length is not None:
        if not header_length.isascii() or not header_length.isdigit():
            raise bad(f"{HEADER} is {shown(header_length)}; wanted a number of bytes")
        n = int(header_length[:12])
        if n > len(body):
            raise bad(f"{HEADER} is {n}, and the body has {len(body)} bytes")
        text, rest = body[:n], memoryview(body)[n:]
    request = object_of(text)
    parameters = _object(request, "parameters")
    given = request.get("inputs")
    if not isinstance(given, list) or not given:
        raise bad("the request has no 'inputs'; wanted a list of tensors")
    inputs: dict[str, Array] = {}
    at = 0
    for tensor in given:
        name, array, size = _input(tensor, rest, at)
        if name in inputs:
            raise bad(f"input {name!r} is there twice; wanted one tensor")
        inputs[name], at = array, at + size
    if at != len(rest):
        raise bad(f"{len(rest) - at} bytes follow the tensors; wanted none")
    given_id = request.get("id")
    if given_id is not None and not isinstance(given_id, str):
        raise bad(f"'id' is {shown(given_id)}; wanted a text")
    binary = bool(parameters.get("binary_data_output", False))
    return InferRequest(given_id, parameters, inputs, _wanted(request, binary), binary)


def _wanted(request: dict[str, Any], binary: bool) -> dict[str, bool] | None:
    outputs = request.get("outputs")
    if outputs is None or outputs == []:
        return None
    if not isinstance(outputs, list):
        raise bad(f"'outputs' is {shown(outputs)}; wanted a list")
    found: dict[str, bool] = {}
    for output in outputs:
        if not isinstance(output, dict) or not isinstance(output.get("name"), str):
            raise bad(f"an output is {shown(output)}; wanted an object with a 'name'")
        parameters = _object(output, "parameters")
        _no_shared_memory(output["name"], parameters)
        if parameters.get("classification"):
            raise bad("the classification extension is not there; 'label' has the likeliest label")
        found[output["name"]] = bool(parameters.get("binary_data", binary))
    return found


def _input(tensor: Any, rest: memoryview, at: int) -> tuple[str, Array, int]:
    """Name and array of an input, and the number of bytes behind the JSON that belong to it."""
    if not isinstance(tensor, dict):
        raise bad(f"an input is {shown(tensor)}; wanted an object with name, shape and datatype")
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str):
        raise bad(f"the name of an input is {shown(name)}; wanted a text")
    if datatype != BYTES and (not isinstance(datatype, str) or datatype not in DTYPES):
        raise bad(
            f"input {shown(name)} has datatype {shown(datatype)}; wanted {', '.join(DTYPES)} or "
            f"{BYTES}"
        )
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
        raise bad(f"input {shown(name)} has shape {shown(shape)}; wanted a list of sizes")
    if len(shape) > MAX_AXES:
        raise bad(f"input {shown(name)} has {len(shape)} axes; wanted {MAX_AXES} at most")
    parameters = _object(tensor, "parameters")
    _no_shared_memory(name, parameters)
    size = parameters.get("binary_data_size")
    if size is None:
        if "data" not in tensor:
            raise bad(f"input {shown(name)} has neither 'data' nor 'binary_data_size'")
        return name, _of_json(name, tensor["data"], datatype, shape), 0
    if "data" in tensor:
        raise bad(f"input {shown(name)} has 'data' and 'binary_data_size'; wanted one of them")
    if type(size) is not int or not 0 <= size <= len(rest) - at:
        raise bad(
            f"input {shown(name)} has binary_data_size {shown(size)}; {len(rest) - at} bytes are "
            "left of the body"
        )
    return name, _of_bytes(name, rest[at : at + size], datatype, shape), size


def _of_json(name: str, data: Any, datatype: str, shape: list[int]) -> Array:
    if not isinstance(data, list):
        raise bad(f"the data of input {shown(name)} are {shown(data)}; wanted a list")
    if datatype == BYTES:
        flat: list[Any] = []
        _flatten(data, flat, name)
        wrong = [value for value in flat if not isinstance(value, str)]
        if wrong:
            raise bad(f"input {shown(name)} has {shown(wrong[0])}; wanted texts")
        check_text("".join(flat), f"input {shown(name)}")
        array = np.empty(len(flat), object)
        array[:] = flat
        return _shaped(name, array, shape)
    return _shaped(name, numbers(data, datatype, f"input {shown(name)}"), shape)


def numbers(data: Any, datatype: str, noun: str) -> Array:
    """Nested lists of numbers as an array; null is NaN.

    Raises:
        Refusal: a value is no number, lists have different lengths, or the datatype cannot hold a
            number.
    """
    try:
        array = np.array(data)
    except (ValueError, OverflowError):
        raise bad(f"{noun}: its lists have different lengths; wanted an array") from None
    if array.dtype == object:
        for value in array.flat:
            if value is not None and not isinstance(value, (int, float)):
                raise bad(f"{noun} has {shown(value)}; wanted {datatype}")
        try:
            array = array.astype(np.float64)
        except OverflowError:
            raise bad(f"{noun} has a number that is too large for {datatype}") from None
    if array.dtype.kind not in "biuf":
        raise bad(f"{noun} has {shown(array.flat[0])}; wanted {datatype}")
    with np.errstate(all="ignore"):
        cast = array.astype(DTYPES[datatype])
        if cast.dtype.kind in "biu" and not np.array_equal(cast, array):
            raise bad(f"{noun} has a number that is not one of {datatype}")
        lost = cast.dtype.kind == "f" and not np.isfinite(cast).all()
        if lost and not np.array_equal(np.isfinite(cast), np.isfinite(array)):
            raise bad(f"{noun} has a number that is too large for {datatype}")
    return cast


def _of_bytes(name: str, data: memoryview, datatype: str, shape: list[int]) -> Array:
    if datatype != BYTES:
        dtype = np.dtype(DTYPES[datatype])
        if len(data) != math.prod(shape) * dtype.itemsize:
            raise bad(
                f"input {shown(name)} of shape {shape} and {datatype} has {len(data)} bytes; "
                f"wanted {math.prod(shape) * dtype.itemsize}"
            )
        return np.frombuffer(data, dtype).reshape(shape)
    texts, at = [], 0
    while at < len(data):
        end = at + 4
        if end <= len(data):
            end += struct.unpack_from("<I", data, at)[0]
        if end > len(data):
            raise bad(f"input {shown(name)}: its last text ends beyond its bytes")
        try:
            texts.append(str(data[at + 4 : end], "utf-8"))
        except UnicodeDecodeError:
            raise bad(f"input {shown(name)}: text {len(texts)} is not UTF-8") from None
        at = end
    array = np.empty(len(texts), object)
    array[:] = texts
    return _shaped(name, array, shape)


def _shaped(name: str, array: Array, shape: list[int]) -> Array:
    if array.size != math.prod(shape):
        raise bad(
            f"input {shown(name)} has {array.size} values; its shape {shape} wants "
            f"{math.prod(shape)}"
        )
    return array.reshape(shape)


def _flatten(data: Any, flat: list[Any], name: str, depth: int = 0) -> None:
    if depth > MAX_AXES:
        raise bad(f"input {shown(name)} has lists within each other, deeper than {MAX_AXES}")
    for value in data:
        if isinstance(value, list):
            _flatten(value, flat, name, depth + 1)
        else:
            flat.append(value)


def _object(of: dict[str, Any], name: str) -> dict[str, Any]:
    found = of.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise bad(f"{name!r} is {shown(found)}; wanted an object")
    return found


def _no_shared_memory(name: str, parameters: dict[str, Any]) -> None:
    if "shared_memory_region" in parameters:
        raise bad(f"{shown(name)} is in shared memory, which this server does not read; send it")


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON; a missing value is null")


_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
_JSON = json.JSONDecoder(parse_constant=_no_constant)

# ---- answers


@dataclass(frozen=True)
class InferResponse:
    """A body and its headers."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


def write_response(
    head: dict[str, Any], outputs: dict[str, Array], request: InferRequest
) -> InferResponse:
    """The answer to a request.

    Args:
        head: entries of the JSON beside `outputs`.
        outputs: all outputs of the model, by name.
        request: the request, which names the wanted outputs and their form.

    Raises:
        Refusal: an output is wanted that the model does not have.
    """
    wanted = request.wanted
    if wanted is None:
        wanted = dict.fromkeys(outputs, request.binary)
    described, pieces = [], []
    for name, binary in wanted.items():
        if name not in outputs:
            raise bad(f"there is no output {shown(name)}; there are {', '.join(outputs)}")
        array = outputs[name]
        entry: dict[str, Any] = {
            "name": name,
            "datatype": datatype_of(array),
            "shape": list(array.shape),
        }
        if binary:
            piece = _bytes_of(array)
            entry["parameters"] = {"binary_data_size": len(piece)}
            pieces.append(piece)
        else:
            entry["data"] = array.ravel().tolist()
        described.append(entry)
    if request.id is not None:
        head = {**head, "id": request.id}
    text = json.dumps({**head, "outputs": described}).encode()
    if not pieces:
        return InferResponse(text, {"content-type": "application/json"})
    headers = {"content-type": "application/octet-stream", HEADER: str(len(text))}
    return InferResponse(b"".join([text, *pieces]), headers)


def datatype_of(array: Array) -> str:
    """The protocol's name of an array's dtype."""
    if array.dtype == object:
        return BYTES
    return _NAMES[array.dtype]


def _bytes_of(array: Array) -> bytes:
    if array.dtype != object:
        return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()
    texts = [text.encode() for text in array.flat]
    return b"".join(piece for text in texts for piece in (struct.pack("<I", len(text)), text))


def texts_of(values: Any, shape: tuple[int, ...]) -> Array:
    """An array of texts, each a value as a user writes it."""
    array = np.empty(math.prod(shape), object)
    array[:] = [value if isinstance(value, str) else str(value) for value in values]
    return array.reshape(shape)
