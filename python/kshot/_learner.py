"""Adaptation of a trained run to new tasks, and predictions for them.

The classes for predictions, fitted tasks and the learner are in one file, because they share the
checks of rows and the views of the engine's results.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from . import _core
from . import data as _data
from ._arrays import FloatArray, as_array, as_labels, as_rows, as_values
from ._config import Config, Overrides, override_list

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Prediction:
    """The predictions of a fitted task for its query rows.

    A field that does not apply is None.

    Classification:
        probabilities: [rows, classes], the mean over posterior samples.
        labels: [rows], the most probable class.
        std: [rows, classes], standard deviation of the probabilities over posterior samples.
        entropy: [rows], entropy of the probabilities, in nats.
        mutual_information: [rows], the part of the entropy that comes from the uncertainty about
            the weights, in nats. It is 0 for one sample.
        samples: [samples, rows, classes], the logits of every posterior sample.

    Regression:
        mean: [rows, outputs], the mean of the predictive distribution.
        std: [rows, outputs], the standard deviation of the predictive distribution. It contains
            the standard deviation over posterior samples and, where the loss or the method has
            one, the observation noise.
        model_std: [rows, outputs], the standard deviation over posterior samples without the noise.
        samples: [samples, rows, outputs], the outputs of every posterior sample.

    Decisions, where `predict` was asked for them:
        answered: [rows], bool: whether the confidence is high enough for an answer (max_risk,
            min_confidence). The confidence is the probability of the predicted class.
        in_set: [rows, classes], bool: whether a class is in the prediction set of a row (level).
        low, high: [rows, outputs], the ends of the prediction intervals (level).

    Always:
        inner_steps: number of inner steps of the adaptation.
        diverged: whether the adaptation diverged; then the numbers are NaN.
        adapted: the tensors of the adapted network by name. It is None where tasks were predicted
            together (`adapt_many`, `predict_many`), and empty before the last inner step
            (`predict_steps`).

    Numbers are in the units of the support rows (see Learner.adapt). The tensors in `adapted` are
    in the units of the network.
    """

    inner_steps: int
    samples: Array
    std: Array
    mean: Array | None = None
    model_std: Array | None = None
    probabilities: Array | None = None
    entropy: Array | None = None
    mutual_information: Array | None = None
    answered: npt.NDArray[np.bool_] | None = None
    in_set: npt.NDArray[np.bool_] | None = None
    low: Array | None = None
    high: Array | None = None
    diverged: bool = False
    #: Tensors by names such as "theta.layers.0.weight". None in predictions of many tasks.
    adapted: dict[str, Array] | None = None

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """[rows]: the most probable class of each row."""
        if self.probabilities is None:
            raise AttributeError("labels: a regression has none")
        return np.asarray(np.argmax(self.probabilities, axis=1))

    def to_pandas(self) -> Any:
        """A DataFrame with one row per query row (needs pandas)."""
        import pandas as pd

        columns: dict[str, Any] = {}
        if self.probabilities is not None:
            columns["label"] = self.labels
            for i in range(self.probabilities.shape[1]):
                columns[f"p({i})"] = self.probabilities[:, i]
            columns["entropy"] = self.entropy
            columns["mutual_information"] = self.mutual_information
            if self.answered is not None:
                columns["answered"] = self.answered
            if self.in_set is not None:
                for i in range(self.in_set.shape[1]):
                    columns[f"in({i})"] = self.in_set[:, i]
        elif self.mean is not None:
            for i in range(self.mean.shape[1]):
                suffix = "" if self.mean.shape[1] == 1 else f"_{i}"
                columns["mean" + suffix] = self.mean[:, i]
                columns["std" + suffix] = self.std[:, i]
                if self.low is not None and self.high is not None:
                    columns["low" + suffix] = self.low[:, i]
                    columns["high" + suffix] = self.high[:, i]
        return pd.DataFrame(columns)


@dataclass(frozen=True)
class _Units:
    """Converts the caller's numbers to the network's: (number - mean) / std, per column."""

    x_mean: Array | float = 0.0
    x_std: Array | float = 1.0
    y_mean: Array | float = 0.0
    y_std: Array | float = 1.0
    identity: bool = True
    #: How the import read the columns of the training table (JSON). DataFrames are encoded by it.
    preprocessing: str = ""

    def rows(self, data: Any, name: str, shape: Sequence[int]) -> FloatArray:
        if _data.is_frame(data):
            encoded = self._encode(data, name, False)
            if len(encoded["source"]) < len(data):
                kept = set(encoded["source"].tolist())
                row = next(i for i in range(len(data)) if i not in kept)
                raise ValueError(f"{name}: row {row} has a missing value; expected rows without")
            return np.asarray(encoded["x"])
        if self.identity:
            return as_rows(data, name, shape)
        # Double precision, because the import computes in it too.
        numbers = as_array(data, name)
        if numbers.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected real numbers, got dtype {numbers.dtype}")
        size = int(np.prod(shape))
        if numbers.ndim == 1 and size == 1:
            numbers = numbers.reshape(-1, 1)
        if numbers.ndim >= 2 and numbers.shape[1:] in (tuple(shape), (size,)):
            numbers = (numbers.reshape(len(numbers), size) - self.x_mean) / self.x_std
        return as_rows(numbers, name, shape)

    def frame(self, data: Any, name: str) -> tuple[FloatArray, Any]:
        """Returns the rows and targets of a DataFrame with the training table's columns."""
        encoded = self._encode(data, name, True)
        left_out = len(data) - len(encoded["source"])
        if left_out:
            print(f"kshot: {name}: {left_out} rows with missing values left out", file=sys.stderr)
        return encoded["x"], encoded["y"]

    def _encode(self, data: Any, name: str, with_targets: bool) -> dict[str, Any]:
        described = json.loads(self.preprocessing) if self.preprocessing else {}
        if described.get("kind") != "table":
            raise TypeError(
                f"{name}: a DataFrame, but the run was not trained on a table; expected an array"
            )
        targets = [t["name"] for t in described.get("targets", [])]
        if described.get("label_column"):
            targets.append(described["label_column"])
        wanted = [c["name"] for c in described["columns"]] + (targets if with_targets else [])
        columns = [(n, cells) for n, cells, _ in _data.frame_columns(data, wanted)]
        encoded: dict[str, Any] = _core.encode_frame(
            self.preprocessing, columns, name, with_targets
        )
        if encoded["unseen"]:
            print(
                f"kshot: {name}: {encoded['unseen']} values belong to categories that no "
                "training task has; they are encoded as zeros",
                file=sys.stderr,
            )
        return encoded

    def values(self, data: Any, name: str, rows: int, outputs: int) -> FloatArray:
        if self.identity:
            return as_values(data, name, rows, outputs)
        numbers = as_array(data, name)
        if numbers.dtype.kind not in "fiub":
            raise TypeError(f"{name}: expected real numbers, got dtype {numbers.dtype}")
        if numbers.ndim == 1 and outputs == 1:
            numbers = numbers.reshape(-1, 1)
        if numbers.shape == (rows, outputs):
            numbers = (numbers - self.y_mean) / self.y_std
        return as_values(numbers, name, rows, outputs)


def _table_units(text: str) -> _Units:
    """Returns the units of DataFrames that have the columns of the training table.

    text: how the import read that table (JSON).
    """
    targets = json.loads(text).get("targets", []) if text else []
    y = np.array([[t["mean"], t["std"]] for t in targets], np.float64).reshape(-1, 2)
    y_mean, y_std = (y[:, 0], y[:, 1]) if len(y) else (0.0, 1.0)
    return _Units(y_mean=y_mean, y_std=y_std, identity=False, preprocessing=text)


def _units(preprocessing: dict[str, Any], units: str | None) -> _Units:
    """Returns the units that the caller names by `units`.

    Raises ValueError for an unknown name, and where a name is needed and missing.
    """
    if units not in (None, "network", "raw"):
        raise ValueError(f'units: expected "network" or "raw", got {units!r}')
    kind = preprocessing.get("kind", "none")
    columns = preprocessing.get("columns", [])
    targets = preprocessing.get("targets", [])
    scaled = [c for c in columns + targets if c.get("mean", 0) != 0 or c.get("std", 1) != 1]
    categories = [c["name"] for c in columns if "categories" in c]
    same = kind == "none" or (kind == "table" and not scaled and not categories)
    if units == "network" or same:
        return _Units()
    if units is None:
        raise ValueError(
            "units: this run was trained on data that the import prepared (Learner.preprocessing); "
            'expected "raw" for rows as they were before, or "network" for prepared rows'
        )
    if kind == "array" and preprocessing.get("bytes"):
        return _Units(x_std=255.0, identity=False)
    if kind != "table" or categories:
        what = f"column {categories[0]} has categories" if categories else f"data of kind {kind}"
        raise ValueError(f'units: "raw" is for tables of numbers and image bytes, but {what}')
    y = np.array([[t["mean"], t["std"]] for t in targets], np.float64).reshape(-1, 2)
    x = np.array([[c["mean"], c["std"]] for c in columns], np.float64).reshape(-1, 2)
    y_mean, y_std = (y[:, 0], y[:, 1]) if len(y) else (0.0, 1.0)
    return _Units(x[:, 0], x[:, 1], y_mean, y_std, identity=False)


def _prediction(d: dict[str, Any], units: _Units) -> Prediction:
    common = {
        "inner_steps": d["inner_steps"],
        "samples": d["raw"],
        "diverged": d.get("diverged", False),
        "adapted": d.get("adapted"),
    }
    for name in ("answered", "in_set"):
        if name in d:
            common[name] = d[name].view(np.bool_)
    if d["classification"]:
        return Prediction(
            probabilities=d["mean"],
            std=d["std"],
            entropy=d["entropy"],
            mutual_information=d["mutual_information"],
            **common,
        )
    mean, model_std = d["mean"], d["std"]
    std = np.hypot(model_std, d.get("predictive_std", d["noise_std"]))
    if not units.identity:
        mean = mean * units.y_std + units.y_mean
        std, model_std = std * units.y_std, model_std * units.y_std
        common["samples"] = common["samples"] * units.y_std + units.y_mean
    for name in ("low", "high"):
        if name in d:
            common[name] = d[name] if units.identity else d[name] * units.y_std + units.y_mean
    return Prediction(mean=mean, std=std, model_std=model_std, **common)


class FittedTask:
    """A run that has adapted to one task.

    The adaptation is done once. `predict` may be called any number of times, and every call starts
    from the adapted state. Networks with batch statistics see the query rows of one call together.
    """

    def __init__(self, learner: Learner, x: Any, y: Any, ways: int, units: _Units) -> None:
        self._learner = learner
        self._x = x  # in the network's units; None where there are no support rows
        self._y = y
        self._units = units
        self._native_task: _core.AdaptedTask | None = None
        if x is None:
            self._support = _core.Support(np.empty((0, 1), np.float32), None, None, ways)
        else:
            self._support = learner._arrays(x, y, ways)

    def _adaptation(self) -> _core.AdaptedTask:
        """Returns the adapted task. The first call does the adaptation."""
        if self._native_task is None:
            self._native_task = self._learner._native.adapt(self._support)
        return self._native_task

    def predict(
        self,
        x: Any,
        *,
        max_risk: float | None = None,
        min_confidence: float | None = None,
        level: float | None = None,
    ) -> Prediction:
        """Predicts the query rows x [rows, *input_shape].

        The other arguments ask for decisions (docs/uncertainty.md). They are the options of
        `kshot adapt` with the same names.
        max_risk: a bound on the share of wrong answers among the answered rows, in (0, 1). A row
            is answered if its confidence reaches the threshold that `kshot.calibrate` found for
            this bound. For classification only.
        min_confidence: a threshold of confidence in [0, 1], instead of `max_risk`. For
            classification only.
        level: the probability, in (0, 1), with which a prediction set of labels, or an interval of
            values, contains the target.
        max_risk and level need a learner that was loaded with `calibrated=True`.

        Raises TypeError and ValueError for rows that do not fit. Raises Error where the adaptation
        diverges, and for decisions that the calibration cannot guarantee.
        """
        native = self._learner._native
        decisions = self._learner._decisions(max_risk, min_confidence, level)
        query = self._units.rows(x, "x", self._learner.input_shape)
        return _prediction(native.predict(self._adaptation(), query, decisions), self._units)

    def predict_steps(self, x: Any) -> list[Prediction]:
        """Predicts query rows after 0, 1, ..., evaluate.steps inner steps.

        x: query rows [rows, *input_shape].

        Returns one prediction per number of steps. The first one is the prediction before any
        inner step.
        """
        native = self._learner._native
        query = self._units.rows(x, "x", self._learner.input_shape)
        steps: Any = native.predict_steps(self._support, query)
        return [_prediction(d, self._units) for d in steps]

    def to_onnx(self, path: str | os.PathLike[str] | None = None, *, samples: int = 0) -> bytes:
        """Returns the adapted network as an ONNX model (needs the package onnx).

        path: a file that the model is also written to; None: no file.
        samples: for abml and hvi the number of posterior samples. They are the samples that
            `predict` draws. With 0 the model is the network at the posterior's mean. For leo the
            number has to be evaluate.samples of the loaded run, because `predict` adapts one
            network per sample; 0 is accepted where evaluate.samples is 1.

        The model has the input query_x [rows, *input_shape], float32, in the units of the support
        rows. Its outputs are float32 and equal those of `predict`: mean and std [rows, outputs],
        or probabilities [rows, classes]. The output samples [samples, rows, outputs] has the raw
        outputs of the networks.

        Raises ValueError for methods without an adapted network (for closed-form heads see
        Learner.to_onnx) and for a number of samples that does not fit.
        """
        from . import _onnx

        return _onnx.written(_onnx.adapted_model(self, samples), path)


class Predictions(Sequence[Prediction]):
    """The predictions of many tasks: a sequence with one Prediction per task.

    A few arrays hold the numbers of all tasks, one task after another. The items are views of them.
    """

    def __init__(self, arrays: dict[str, Any], units: _Units) -> None:
        self._arrays = arrays
        self._units = units
        cells = arrays["rows"] * arrays["outputs"]
        self._row_starts = np.concatenate([[0], np.cumsum(arrays["rows"])])
        self._cell_starts = np.concatenate([[0], np.cumsum(cells)])

    def __len__(self) -> int:
        return len(self._arrays["rows"])

    @property
    def diverged(self) -> npt.NDArray[np.bool_]:
        """[tasks], bool: whether the adaptation of a task diverged; then its numbers are NaN."""
        return np.asarray(self._arrays["diverged"] != 0)

    @overload
    def __getitem__(self, index: int) -> Prediction: ...
    @overload
    def __getitem__(self, index: slice) -> list[Prediction]: ...
    def __getitem__(self, index: int | slice) -> Prediction | list[Prediction]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        a = self._arrays
        rows, outputs, samples = int(a["rows"][i]), int(a["outputs"][i]), a["samples"]
        cells = slice(self._cell_starts[i], self._cell_starts[i + 1])
        own = slice(self._row_starts[i], self._row_starts[i + 1])
        start = self._cell_starts[i] * samples
        d: dict[str, Any] = {
            "classification": a["classification"],
            "inner_steps": a["inner_steps"],
            "noise_std": a["noise_std"],
            "diverged": bool(a["diverged"][i]),
            "raw": a["raw"][start : start + samples * rows * outputs].reshape(
                samples, rows, outputs
            ),
        }
        for name in ("mean", "std", "predictive_std", "in_set", "low", "high"):
            if name in a:
                d[name] = a[name][cells].reshape(rows, outputs)
        for name in ("entropy", "mutual_information", "answered"):
            if name in a:
                d[name] = a[name][own]
        return _prediction(d, self._units)

    def __iter__(self) -> Iterator[Prediction]:
        return (self[i] for i in range(len(self)))

    def _stacked(self, name: str) -> Array:
        a = self._arrays
        rows, outputs = set(a["rows"].tolist()), set(a["outputs"].tolist())
        if len(rows) > 1 or len(outputs) > 1:
            raise ValueError("the tasks differ in size: take them one by one")
        shape = (len(self), rows.pop() if rows else 0, outputs.pop() if outputs else 0)
        return np.asarray(a[name]).reshape(shape)

    @property
    def mean(self) -> Array:
        """[tasks, rows, outputs]: the means of a regression, for tasks of one size.

        Raises AttributeError for a classification, and ValueError where tasks differ in size.
        """
        if self._arrays["classification"]:
            raise AttributeError("mean: a classification has probabilities")
        return np.asarray(self._stacked("mean") * self._units.y_std + self._units.y_mean)

    @property
    def std(self) -> Array:
        """[tasks, rows, outputs]: Prediction.std of every task, for tasks of one size.

        Raises ValueError where tasks differ in size.
        """
        std = self._stacked("std")
        if self._arrays["classification"]:
            return std
        noise = self._arrays["noise_std"]
        if "predictive_std" in self._arrays:
            noise = self._stacked("predictive_std")
        return np.asarray(np.hypot(std, noise) * self._units.y_std)

    @property
    def probabilities(self) -> Array:
        """[tasks, rows, classes]: the probabilities of a classification, for tasks of one size.

        Raises AttributeError for a regression, and ValueError where tasks differ in size.
        """
        if not self._arrays["classification"]:
            raise AttributeError("probabilities: a regression has a mean")
        return self._stacked("mean")


def _tasks(items: Any, name: str) -> Any:
    """Returns a stack of tasks as an array, and a sequence of tasks unchanged.

    Raises TypeError for other objects.
    """
    if hasattr(items, "__dlpack__"):
        return as_array(items, name)
    if isinstance(items, (str, bytes)) or not hasattr(items, "__len__"):
        raise TypeError(f"{name}: expected rows for each task, got {type(items).__name__}")
    return items


def _counts(items: Any, name: str) -> npt.NDArray[np.int64]:
    """Returns the number of rows of each task, [tasks]. Raises a TypeError that names the task."""
    if isinstance(items, np.ndarray) and items.dtype != object and items.ndim > 1:
        return np.full(len(items), items.shape[1], np.int64)
    try:
        return np.array(list(map(len, items)), np.int64)
    except TypeError:  # an item has only __dlpack__, or it is not rows at all
        counts = []
    for i, item in enumerate(items):
        try:
            counts.append(len(item if hasattr(item, "__len__") else as_array(item, name)))
        except TypeError:
            raise TypeError(f"{name}[{i}]: expected rows, got {type(item).__name__}") from None
    return np.array(counts, np.int64)


def _joined(
    items: Any, name: str, convert: Callable[[Any, str], Any]
) -> tuple[Any, npt.NDArray[np.int64]]:
    """Joins the rows of all tasks, and returns them with the number of rows of each task.

    convert: converts an array of rows, given its name for messages. It is called once for the
        joined rows.

    A stack [tasks, rows, ...] is only reshaped. The error for something that does not fit names the
    task.
    """
    first = items[0] if isinstance(items, list) and items else None
    if isinstance(first, np.ndarray) and first.dtype.kind in "fiub" and first.ndim > 0:
        # The result is None where arrays differ in more than their number of rows.
        joined: Any = _core.joined_rows(items)
        if joined is not None:
            rows, counts = joined
            try:
                return convert(rows.view(first.dtype).reshape(-1, *first.shape[1:]), name), counts
            except (TypeError, ValueError):
                pass  # the code below raises the error again, with the task's number
    return _joined_each(items, name, convert), _counts(items, name)


def _joined_each(items: Any, name: str, convert: Callable[[Any, str], Any]) -> Any:
    try:
        if isinstance(items, np.ndarray) and items.dtype != object:
            if items.ndim < 2:
                raise ValueError(f"{name}: expected rows per task, got shape {items.shape}")
            return convert(items.reshape(-1, *items.shape[2:]), name)
        if set(map(type, items)) != {np.ndarray}:
            items = [as_array(item, name) for item in items]
        return convert(np.concatenate(items), name)
    except (TypeError, ValueError):
        for i, item in enumerate(items):
            convert(item, f"{name}[{i}]")
        raise


class FittedTasks(Sequence[FittedTask]):
    """A run that has adapted to many tasks.

    The adaptation is done once. `predict` may be called any number of times, and every call starts
    from the adapted states. An item is the fitted task that `Learner.adapt` gives for the support
    rows of that task alone. It adapts when it is first used.
    """

    def __init__(
        self,
        learner: Learner,
        x: FloatArray,
        y: Any,
        counts: npt.NDArray[np.int64],
        ways: npt.NDArray[np.int32],
        units: _Units,
    ) -> None:
        self._learner = learner
        self._x = x
        self._y = y
        self._counts = counts
        self._ways = ways
        self._units = units
        self._starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
        self._alone: dict[int, FittedTask] = {}
        self._native = learner._native.adapt_many(learner._supports(x, y, counts, ways))

    @property
    def nbytes(self) -> int:
        """Memory that the adapted states of all tasks take, in bytes.

        Each number takes 4 bytes (8 on the device "reference"). The state of a task consists of the
        weights of its network, or of the fit of a closed-form head. For abml and hvi there are two
        numbers per weight, and for leo there is one set of weights per sample. The fit of dkt
        contains a matrix [n, n], where n is the largest number of support rows of a task.
        """
        return len(self) * int(self._native.bytes_per_task)

    def __len__(self) -> int:
        return len(self._counts)

    @overload
    def __getitem__(self, index: int) -> FittedTask: ...
    @overload
    def __getitem__(self, index: slice) -> list[FittedTask]: ...
    def __getitem__(self, index: int | slice) -> FittedTask | list[FittedTask]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        if i not in self._alone:
            own = slice(self._starts[i], self._starts[i + 1])
            ways = int(self._ways[i])
            x, y = self._x[own], self._y[own]
            self._alone[i] = FittedTask(self._learner, x, y, ways, self._units)
        return self._alone[i]

    def predict(
        self,
        xs: Any,
        *,
        max_risk: float | None = None,
        min_confidence: float | None = None,
        level: float | None = None,
    ) -> Predictions:
        """Predicts the query rows of every task, in one call of the engine.

        xs: an array [tasks, rows, *input_shape], or one array of rows per task.
        max_risk, min_confidence, level: decisions, as for FittedTask.predict.

        The posterior samples of a task depend on its number. A task that diverges is marked
        (Predictions.diverged), and its numbers are NaN. Raises TypeError and ValueError for rows
        that do not fit.
        """
        decisions = self._learner._decisions(max_risk, min_confidence, level)
        query, counts = self._learner._queries(xs, "xs", len(self), self._units)
        native = self._learner._native
        arrays = native.predict_many(self._native, query, counts, decisions)
        return Predictions(arrays, self._units)


class Learner:
    """A trained run, ready for new tasks. See `kshot.load`."""

    def __init__(
        self,
        run: str | os.PathLike[str],
        device: str = "auto",
        threads: int = 0,
        overrides: Overrides = None,
        calibrated: bool = False,
    ) -> None:
        self._native = _core.Learner(
            os.fspath(run), device, threads, override_list(overrides), calibrated
        )

    @property
    def config(self) -> Config:
        """The configuration of the run, with the overrides of `load`."""
        return Config._of(self._native.config)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row: (features,), or (channels, height, width)."""
        return tuple(self._native.input_shape)

    @property
    def outputs(self) -> int:
        """Number of classes, or of target values per row; 0 where tasks may have any number."""
        return int(self._native.outputs)

    @property
    def classification(self) -> bool:
        """True if the targets are labels, False if they are values."""
        return bool(self._native.classification)

    @property
    def device(self) -> str:
        """The device that computes, such as "cpu (AVX2, 8 threads)"."""
        return str(self._native.device)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How the import converted raw inputs; empty where nothing is recorded."""
        text = self._native.preprocessing
        return dict(json.loads(text)) if text else {}

    def adapt(
        self, x: Any = None, y: Any = None, *, ways: int = 0, units: str | None = None
    ) -> FittedTask:
        """Adapts to the support rows of a task.

        x: support rows [rows, *input_shape].
        y: labels [rows] in [0, outputs) (classification), or values [rows, outputs].
        ways: number of classes of the task, for runs that accept any number; 0: the largest
            label + 1.
        units: the units of support and query rows, for runs on data that the import standardised.
            "raw": the rows are as they were before the import, and predictions have these units
            too. "network": the rows are standardised already. Required where the two differ.

        Where the run was trained on a table (import_table, data.from_frame), x may be a pandas
        DataFrame with the columns of that table. Its columns, also categories and dates, are read
        as the import read the table. The targets are columns of the DataFrame, so that y and units
        are left out. Query rows are then DataFrames, and predictions have the table's units.

        Without x and y the task is predicted from the prior alone. The algorithms "bayes_protonet",
        "alpaca" and "dkt" support this.

        Raises TypeError and ValueError for arrays that do not fit, and Error where the engine
        refuses the task.
        """
        if _data.is_frame(x):
            if y is not None or units is not None:
                raise TypeError("x: a DataFrame; expected without y and units, which it has itself")
            scale = _table_units(self._native.preprocessing)
            rows, targets = scale.frame(x, "x")
        else:
            scale = _units(self.preprocessing, units)
            rows, targets = self._support_rows(x, y, scale)
        task = FittedTask(self, rows, targets, ways, scale)
        task._adaptation()
        return task

    def adapt_many(
        self, xs: Any, ys: Any, *, ways: Any = 0, units: str | None = None
    ) -> FittedTasks:
        """Adapts to the support rows of many tasks, which may differ in size.

        xs: support rows [tasks, rows, *input_shape], or one array of rows per task.
        ys: labels [tasks, rows] or values [tasks, rows, outputs], or one array per task.
        ways: the number of classes, one for all tasks or one per task. units: as for `adapt`.

        Returns the adapted tasks. They stay in memory (FittedTasks.nbytes). Where each task is
        predicted once, predict_many is faster. Raises TypeError and ValueError for arrays that do
        not fit, and Error where the engine refuses a task. The messages name the task.
        """
        return FittedTasks(self, *self._support_tasks(xs, ys, ways, units))

    def predict_many(
        self,
        xs: Any,
        ys: Any,
        queries: Any,
        *,
        ways: Any = 0,
        units: str | None = None,
        max_risk: float | None = None,
        min_confidence: float | None = None,
        level: float | None = None,
    ) -> Predictions:
        """Adapts to many tasks and predicts the query rows of each, in one pass of the engine.

        xs, ys, ways, units: as for `adapt_many`.
        queries: query rows [tasks, rows, *input_shape], or one array of rows per task.
        max_risk, min_confidence, level: as for FittedTask.predict.

        The result equals that of `adapt_many(xs, ys).predict(queries)`, but the adapted states are
        not kept. Raises the errors of `adapt_many`.
        """
        x, y, counts, numbers, scale = self._support_tasks(xs, ys, ways, units)
        decisions = self._decisions(max_risk, min_confidence, level)
        query, query_counts = self._queries(queries, "queries", len(counts), scale)
        supports = self._supports(x, y, counts, numbers)
        arrays = self._native.predict_many_once(supports, query, query_counts, decisions)
        return Predictions(arrays, scale)

    def _support_tasks(
        self, xs: Any, ys: Any, ways: Any, units: str | None
    ) -> tuple[FloatArray, Any, npt.NDArray[np.int64], npt.NDArray[np.int32], _Units]:
        """Returns rows, targets, numbers of rows [tasks], numbers of classes [tasks], and units."""
        xs, ys = _tasks(xs, "xs"), _tasks(ys, "ys")
        if len(xs) != len(ys):
            raise ValueError(f"ys: expected {len(xs)} tasks, as in xs, got {len(ys)}")
        if isinstance(ways, int):
            numbers = np.full(len(xs), ways, np.int32)
        else:
            numbers = np.array([int(n) for n in ways], np.int32)
        if len(numbers) != len(xs):
            raise ValueError(f"ways: expected {len(xs)} numbers, got {len(numbers)}")
        scale = _units(self.preprocessing, units)
        if not len(xs):
            xs = np.empty((0, 1, *self.input_shape), np.float32)
            ys = np.empty((0, 1) if self.classification else (0, 1, self.outputs or 1), np.int32)
        x, counts = _joined(xs, "xs", lambda x, name: scale.rows(x, name, self.input_shape))
        y, y_counts = _joined(ys, "ys", lambda y, name: self._targets(y, name, len(y), scale))
        for i in np.flatnonzero(counts != y_counts):
            self._targets(ys[i], f"ys[{i}]", int(counts[i]), scale)  # raises
        return x, y, counts, numbers, scale

    def _supports(
        self, x: FloatArray, y: Any, counts: npt.NDArray[np.int64], ways: npt.NDArray[np.int32]
    ) -> _core.Supports:
        return _core.Supports(self._arrays(x, y, 0), counts, ways)

    def _queries(
        self, xs: Any, name: str, tasks: int, units: _Units
    ) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Returns the query rows of all tasks, and the number of query rows of each task."""
        xs = _tasks(xs, name)
        if len(xs) != tasks:
            raise ValueError(f"{name}: expected {tasks} tasks, got {len(xs)}")
        shape = self.input_shape
        if not len(xs):
            xs = np.empty((0, 1, *shape), np.float32)
        return _joined(xs, name, lambda x, own: units.rows(x, own, shape))

    def to_onnx(
        self, path: str | os.PathLike[str] | None = None, *, units: str | None = None
    ) -> bytes:
        """Returns a closed-form head with its adaptation as an ONNX model (needs the package onnx).

        path: a file that the model is also written to; None: no file. units: as for `adapt`.

        The inputs of the model are support_x [support rows, *input_shape] and query_x [rows,
        *input_shape], float32, and support_y: labels [support rows], int64, or values [support
        rows, outputs], float32. The outputs are float32: probabilities and logits [rows, classes],
        or mean and, where the head has one, std [rows, outputs].

        The model accepts any number of rows and classes. At least one support row is needed, and
        the number of classes is the largest label + 1. The features are computed in float32 and
        the head in float64. `predict` adds a jitter to the diagonal of a system that it cannot
        solve otherwise; the model adds none.

        Raises ValueError for methods that adapt by gradient descent. For them,
        `adapt(...).to_onnx()` gives the adapted network.
        """
        from . import _onnx

        scale = _units(self.preprocessing, units)
        return _onnx.written(_onnx.head_model(self, scale), path)

    def _support_rows(self, x: Any, y: Any, units: _Units) -> tuple[Any, Any]:
        if (x is None) != (y is None):
            raise TypeError("y: expected together with x")
        if x is None:
            return None, None
        rows = units.rows(x, "x", self.input_shape)
        return rows, self._targets(y, "y", len(rows), units)

    def _targets(self, y: Any, name: str, rows: int, units: _Units) -> Any:
        if self.classification:
            return as_labels(y, name, rows)
        return units.values(y, name, rows, self.outputs or 1)

    def _decisions(
        self, max_risk: float | None, min_confidence: float | None, level: float | None
    ) -> _core.Decisions | None:
        """Returns the decisions that are asked for, or None.

        Writes to standard error where the engine takes another value than the one asked for.
        """
        if max_risk is None and min_confidence is None and level is None:
            return None
        decisions = self._native.decisions(max_risk, min_confidence, level)
        for note in decisions.notes:
            print(f"kshot: {note}", file=sys.stderr)
        return decisions

    def _arrays(self, rows: FloatArray, targets: Any, ways: int) -> _core.Support:
        if self.classification:
            return _core.Support(rows, targets, None, ways)
        return _core.Support(rows, None, targets, ways)

    def __repr__(self) -> str:
        return f"<kshot.Learner algorithm={self.config['algorithm']!r} device={self.device!r}>"


def load(
    run: str | os.PathLike[str],
    device: str = "auto",
    threads: int = 0,
    overrides: Overrides = None,
    calibrated: bool = False,
) -> Learner:
    """Loads a trained run, so that it can adapt to new tasks.

    run: a run folder or a checkpoint. Of a run folder the best checkpoint is loaded, or the last
        one where no checkpoint is the best.
    device: "auto" (the CPU), "cpu", "cuda", "cuda:N" or "reference".
    threads: number of CPU threads; 0: all cores.
    overrides: changes to the checkpoint's configuration, such as `{"evaluate.samples": 100}`.
    calibrated: whether predictions are calibrated by what `kshot.calibrate` fitted.

    Raises Error where the run cannot be read. With `calibrated=True`, raises Error where the
    checkpoint was not calibrated, or was calibrated with another number of inner steps or samples.
    """
    return Learner(run, device, threads, overrides, calibrated)
