"""Converts the caller's arrays to the types and layouts that the engine reads.

An array that has the right type and layout already is not copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int32]


def as_array(data: Any, name: str) -> npt.NDArray[Any]:
    """Returns `data` as a NumPy array.

    An object with `__dlpack__` in host memory is not copied: the result is a view of it. `name` is
    the argument's name in error messages. Raises TypeError for an object whose `__dlpack__` cannot
    be read, and ValueError for rows of different lengths.
    """
    if isinstance(data, np.ndarray):
        return data
    if hasattr(data, "__dlpack__") and not hasattr(data, "__array_interface__"):
        try:
            return np.from_dlpack(data)
        except (TypeError, ValueError, RuntimeError, BufferError) as error:
            raise TypeError(f"{name}: cannot read {type(data).__name__}: {error}") from error
    try:
        return np.asarray(data)
    except ValueError as error:
        raise ValueError(f"{name}: expected an array, got rows of different lengths") from error


def as_real(data: Any, name: str) -> npt.NDArray[Any]:
    """Returns `data` as a NumPy array of real numbers of any type. Raises TypeError for others."""
    array = as_array(data, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array


def as_float32(data: Any, name: str) -> FloatArray:
    """Returns real numbers as a C-contiguous array of type float32.

    An array that has this type and layout already is not copied. Raises TypeError for other
    types, and ValueError where a finite number is outside the range of float32.
    """
    array = as_real(data, name)
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
    if array.dtype != np.float32 and array.dtype.kind == "f":
        # The engine refuses infinite numbers. Without this check it would refuse a number that is
        # finite in the caller's array, and the message would be hard to understand.
        overflow = np.isinf(converted) & np.isfinite(array)
        if overflow.any():
            raise ValueError(f"{name}: expected numbers within the range of float32")
    return converted


def as_float64(data: Any, name: str) -> npt.NDArray[np.float64]:
    """Returns real numbers as a C-contiguous array of type float64.

    An array that has this type and layout already is not copied. Raises TypeError for other types.
    """
    array = as_real(data, name)
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def as_rows(data: Any, name: str, input_shape: Sequence[int]) -> FloatArray:
    """Returns input rows as float32 [n, size], where `size` is the product of `input_shape`.

    Accepts [n, *input_shape] and [n, size], and also [n] where a row has a single number. Raises
    ValueError for other shapes, and the errors of `as_float32`.
    """
    array = as_float32(data, name)
    size = int(np.prod(input_shape))
    shape = tuple(array.shape[1:])
    if array.ndim == 1 and size == 1:
        return array.reshape(-1, 1)
    if array.ndim >= 2 and shape in (tuple(input_shape), (size,)):
        return array.reshape(len(array), size)
    expected = "(rows, " + ", ".join(str(n) for n in input_shape) + ")"
    raise ValueError(f"{name}: expected shape {expected}, got {tuple(array.shape)}")


def as_values(data: Any, name: str, rows: int, outputs: int) -> FloatArray:
    """Returns regression targets as float32 [rows, outputs].

    Accepts [rows] too where `outputs` is 1. Raises ValueError for other shapes, and the errors of
    `as_float32`.
    """
    array = as_float32(data, name)
    if array.ndim == 1 and outputs == 1:
        array = array.reshape(-1, 1)
    if array.shape != (rows, outputs):
        raise ValueError(f"{name}: expected shape ({rows}, {outputs}), got {tuple(array.shape)}")
    return array


def as_labels(data: Any, name: str, rows: int) -> LabelArray:
    """Returns labels as int32 [rows].

    Accepts integers, booleans, and floating-point numbers that are whole. Raises TypeError for
    other types, and ValueError for another shape or for a label below 0 or outside of int32.
    """
    array = as_array(data, name)
    if array.size == 0:
        array = array.astype(np.int32)
    if array.dtype.kind == "f" and array.size and (array == np.round(array)).all():
        array = array.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise TypeError(f"{name}: expected whole numbers (labels), got dtype {array.dtype}")
    if array.shape != (rows,):
        raise ValueError(f"{name}: expected shape ({rows},), got {tuple(array.shape)}")
    limit = np.iinfo(np.int32).max
    if array.size and (array.min() < 0 or array.max() > limit):
        raise ValueError(f"{name}: expected labels from 0 on, got {array.min()} to {array.max()}")
    return np.ascontiguousarray(array, dtype=np.int32)
