"""`as_array`: what people have as an array of NumPy's; and whether its steps are in order."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np


def as_array(value: Any) -> np.ndarray:
    """`np.asarray`, also of a tensor with a gradient or in bfloat16; masked values and NA are NaN.

    Raises:
        ValueError: it is a list of lists of different lengths.
    """
    is_masked = isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value)
    if is_masked and value.dtype.kind in "biuf":
        floats = np.ma.asarray(value, np.result_type(value.dtype, np.float32))
        return np.asarray(floats.filled(np.nan))
    if hasattr(value, "detach"):  # a tensor of torch, which is not imported here
        value = value.detach()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    array = np.asarray(value)
    if array.dtype == object and "pandas" in sys.modules:
        missing = sys.modules["pandas"].isna(array)
        if np.any(missing):
            array = np.where(missing, np.nan, array)
    return array


def array_of(value: Any, name: str, wanted: str) -> np.ndarray:
    """`as_array` of an argument of this name.

    Raises:
        TypeError: it is a sparse matrix.
        ValueError: it is a list of lists of different lengths; `wanted` says what it should be.
    """
    if hasattr(value, "toarray"):  # the sparse arrays of SciPy have it
        raise TypeError(
            f"{name} is a sparse matrix, and sparse data is not supported; pass {name}.toarray()"
        )
    try:
        return as_array(value)
    except ValueError:
        raise ValueError(
            f"{name} is a nested list whose parts differ in length; wanted {wanted}"
        ) from None


def numbers(value: Any, name: str, wanted: str) -> np.ndarray:
    """`array_of` real numbers, whose steps are in the order of time.

    Raises:
        TypeError, ValueError: they are something else; see `array_of` and `check_in_time`.
    """
    check_in_time(value, name)
    array = array_of(value, name, wanted)
    if array.dtype == object and array.ndim > 0:
        try:
            return array.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"{name} has an object that is not a number ({error}); wanted real numbers"
            ) from None
    if array.dtype.kind == "c":
        raise ValueError(
            f"Complex data not supported: {name} has dtype {array.dtype}; wanted real numbers, "
            "as two features for the real and the imaginary part"
        )
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {array.dtype}; wanted real numbers")
    return array


def check_in_time(frame: Any, name: str) -> None:
    """Refuse steps whose index are dates in another order than that of time.

    Raises:
        ValueError: they are dates that do not increase.
    """
    if run_back(getattr(frame, "index", None)):
        raise ValueError(
            f"the index of {name} are dates, and they do not increase from step to step; wanted "
            f"the oldest step first: {name}.sort_index(), of dates that are text after "
            "pandas.to_datetime"
        )


def run_back(index: Any) -> bool:
    """Whether an index holds dates, of which one is earlier than the one before.

    Texts that are all dates count as dates; run back they must in each order of day and month.
    """
    kind = getattr(getattr(index, "dtype", None), "kind", "")
    readings = [np.asarray(index, "M8[ns]")] if kind == "M" else []
    if kind in ("O", "U", "T"):
        readings = _dates_of_texts(list(index))
    return bool(readings) and all((dates[1:] < dates[:-1]).any() for dates in readings)


def _dates_of_texts(texts: list[Any]) -> list[np.ndarray]:
    """The dates `[T]` that texts mean, by each order of day and month; [] if one is no date."""
    if not all(isinstance(text, str) and text[:1].isdigit() for text in texts):
        return []
    try:
        import pyarrow as pa
    except ImportError:  # an extra, without which texts are names
        return []
    from ostinato_learn.data.formats.dates import as_iso

    readings = []
    for order in ("day-first", "month-first"):
        with suppress(pa.ArrowInvalid):
            dates = as_iso(pa.array(texts, pa.string()), order).cast(pa.timestamp("ns"))
            readings.append(dates.to_numpy(zero_copy_only=False))
    return readings
