"""Arrays of the caller as the engine reads them: in place where type and layout allow it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
LabelArray = npt.NDArray[np.int32]


def as_array(data: Any, name: str) -> npt.NDArray[Any]:
    """`data` as a NumPy array: a view of it where it has `__dlpack__` and lies in host memory."""
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
    """`data` as a NumPy array of real numbers of any type."""
    array = as_array(data, name)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: expected real numbers, got dtype {array.dtype}")
    return array


def as_float32(data: Any, name: str) -> FloatArray:
    """Real numbers as C-contiguous float32. No copy is made of an array that is that already."""
    array = as_real(data, name)
    with np.errstate(over="ignore"):
        converted = np.ascontiguousarray(array, dtype=np.float32).reshape(array.shape)
    if array.dtype != np.float32 and array.dtype.kind == "f":
        # The engine refuses infinity; here it would be a surprise of the conversion.
        overflow = np.isinf(converted) & np.isfinite(array)
        if overflow.any():
            raise ValueError(f"{name}: expected numbers within the range of float32")
    return converted


def as_float64(data: Any, name: str) -> npt.NDArray[np.float64]:
    """Real numbers as C-contiguous float64. No copy is made of an array that is that already."""
    array = as_real(data, name)
    return np.ascontiguousarray(array, dtype=np.float64).reshape(array.shape)


def as_rows(data: Any, name: str, input_shape: Sequence[int]) -> FloatArray:
    """Rows [n, *input_shape], or [n, size]; for a single input feature also [n]."""
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
    """Regression targets [rows, outputs]; for a single output also [rows]."""
    array = as_float32(data, name)
    if array.ndim == 1 and outputs == 1:
        array = array.reshape(-1, 1)
    if array.shape != (rows, outputs):
        raise ValueError(f"{name}: expected shape ({rows}, {outputs}), got {tuple(array.shape)}")
    return array


def as_labels(data: Any, name: str, rows: int) -> LabelArray:
    """Labels [rows]: whole numbers."""
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
