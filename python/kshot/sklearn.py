"""Estimators for scikit-learn.

`FewShotClassifier` and `FewShotRegressor` are fitted to the rows of one task. They use a trained
run (`prior=run`), or only the rows themselves (`prior=None`). `MetaClassifier` and `MetaRegressor`
learn a prior from many tasks, which are scikit-learn's groups:

    meta = MetaRegressor(method="alpaca").fit(X, y, groups=patient)
    model = meta.task_estimator().fit(X_new, y_new)
    mean, std = model.predict(X, return_std=True)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from . import _core
from ._config import Config
from ._episodes import EpisodeSource
from ._learner import FittedTask, Learner
from ._runs import train

Array = npt.NDArray[Any]
_HEADS = ("centroid", "logistic", "mahalanobis")
_CLASSIFIERS = ("protonet", "r2d2", "bayes_protonet")
_REGRESSORS = ("alpaca", "dkt", "r2d2", "maml", "meta_sgd", "abml")


def _plain(label: Any) -> Any:
    """Returns a label as a Python number or string, for messages."""
    return label.item() if hasattr(label, "item") else label


@dataclass(frozen=True)
class Prior:
    """A checkpoint in memory, with the scale of the data that it was trained on.

    The estimators that MetaClassifier and MetaRegressor make have it as `prior`. It can be pickled
    and cloned.
    """

    checkpoint: bytes = field(repr=False)  #: content of the checkpoint's file
    x_mean: Array = field(repr=False)  #: mean of each feature over the training rows, [features]
    x_std: Array = field(repr=False)  #: standard deviation of each feature, [features]
    y_mean: Array | float = 0.0  #: mean of each target, [outputs]; 0 for a classifier
    y_std: Array | float = 1.0  #: standard deviation of each target, [outputs]; 1 for a classifier

    def load(self, device: str, threads: int) -> Learner:
        """Returns the learner of the checkpoint.

        device, threads: as for `kshot.load`.
        """
        with tempfile.TemporaryDirectory(prefix="kshot-") as folder:
            file = Path(folder) / "prior.safetensors"
            file.write_bytes(self.checkpoint)
            return Learner(file, device, threads)


PriorLike = str | os.PathLike[str] | Prior | None


class _FewShot(BaseEstimator):  # type: ignore[misc]
    """The base class of the estimators of one task. It loads the prior at its first use."""

    n_features_in_: int
    support_x_: Array
    support_y_: Array
    prior: PriorLike
    device: str
    threads: int

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()
        # The learner and the adapted task have threads, which cannot be pickled. A copy loads the
        # prior and adapts again at its first use.
        return {k: v for k, v in state.items() if k not in ("_loaded", "_adapted")}

    def _task(self) -> FittedTask:
        """Returns the prior, adapted to the support rows. The first call does the adaptation."""
        learner = self._learner()
        adapted: tuple[Learner, FittedTask] | None = getattr(self, "_adapted", None)
        if adapted is None or adapted[0] is not learner:
            adapted = self._adapted = (learner, self._adapt(learner))
        return adapted[1]

    def _adapt(self, learner: Learner) -> FittedTask:
        raise NotImplementedError

    def _learner(self) -> Learner:
        loaded: tuple[Any, Learner] | None = getattr(self, "_loaded", None)
        key = (self.prior, self.device, self.threads, os.getpid())
        if loaded is None or loaded[0] != key:
            if isinstance(self.prior, Prior):
                learner = self.prior.load(self.device, self.threads)
            elif self.prior is None:
                raise ValueError("prior: expected a run")
            else:
                learner = Learner(self.prior, self.device, self.threads)
            loaded = self._loaded = (key, learner)
        return loaded[1]

    def _check_prior(self, classification: bool) -> None:
        learner = self._learner()
        if learner.classification != classification:
            kind = "classes" if classification else "numbers"
            raise ValueError(f"prior: expected a run that predicts {kind}")
        size = int(np.prod(learner.input_shape))
        if self.n_features_in_ != size:
            raise ValueError(
                f"X has {self.n_features_in_} features, but the prior expects {size} features"
            )

    def _inputs(self, X: Array) -> Array:
        if isinstance(self.prior, Prior):
            return np.asarray((X - self.prior.x_mean) / self.prior.x_std, np.float32)
        return X

    def _units(self) -> str | None:
        """Returns the argument `units` of Learner.adapt.

        It is "raw" if an import prepared the training data, because X has not been prepared.
        """
        kind = self._learner().preprocessing.get("kind", "none")
        return None if kind == "none" else "raw"


class FewShotClassifier(ClassifierMixin, _FewShot):  # type: ignore[misc]
    """A classifier for one few-shot task.

    Parameters:
        prior: a run folder or checkpoint of kshot.train, the Prior of a MetaClassifier, or None
            for a head that is fitted to the support rows alone.
        head: the head for prior=None: "logistic" (logistic regression with an L2 penalty),
            "centroid" (nearest class mean) or "mahalanobis" (Gaussian classes with one shrunk
            covariance).
        device, threads: the device and the number of CPU threads for the prior, as for
            `kshot.load`.

    A prior with a fixed number of outputs accepts tasks of up to that many classes. The sorted
    labels of a task are assigned to its outputs in order. Where the labels of the prior's training
    data have names, the labels of y must be these names.
    """

    def __init__(
        self,
        prior: PriorLike = None,
        *,
        head: str = "logistic",
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        self.prior = prior
        self.head = head
        self.device = device
        self.threads = threads

    def fit(self, X: Any, y: Any) -> FewShotClassifier:
        """Fits to the support rows X [rows, features] with their labels y [rows].

        Raises ValueError for data or a prior that do not fit, and for an unknown head.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, ensure_min_features=1)
        check_classification_targets(y)
        return self._set(X, y, np.unique(y))

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> FewShotClassifier:
        """Adds support rows X [rows, features] with their labels y [rows].

        classes: all classes, which scikit-learn passes to the first call. None: every call may add
            classes.

        Raises ValueError for data that do not fit, and for a label that is not among the classes.
        """
        first = not hasattr(self, "classes_")
        X, y = validate_data(self, X, y, dtype=np.float32, reset=first)
        check_classification_targets(y)
        if first:
            known = np.unique(y) if classes is None else np.unique(classes)
            self._extra = classes is None
        else:
            X = np.concatenate([self.support_x_, X])
            y = np.concatenate([self.classes_[self.support_y_], y])
            known = np.unique(y) if getattr(self, "_extra", False) else self.classes_
        unknown = np.setdiff1d(y, known)
        if len(unknown):
            raise ValueError(f"y: label {_plain(unknown[0])!r} is not among classes")
        return self._set(X, y, known)

    def _set(self, X: Array, y: Array, classes: Array) -> FewShotClassifier:
        if self.head not in _HEADS:
            raise ValueError(f"head: expected one of {_HEADS}, got {self.head!r}")
        if len(classes) < 2 and self.prior is None and self.head == "logistic":
            raise ValueError(
                f"y: expected at least 2 classes, got {len(classes)} class; "
                'head="centroid" takes one'
            )
        if self.prior is not None:
            self._check_prior(True)
        self.classes_ = classes
        self.support_x_ = X
        self.support_y_ = np.searchsorted(classes, y)
        self.__dict__.pop("_adapted", None)
        return self

    def _outputs(self) -> Array:
        """Returns the index of the network's output for each class, [classes]."""
        learner = self._learner()
        names = learner.preprocessing.get("labels", [])
        if names:
            unknown = [c for c in self.classes_ if str(c) not in names]
            if unknown:
                raise ValueError(f"y: label {_plain(unknown[0])!r} is none of the prior's: {names}")
            return np.array([names.index(str(c)) for c in self.classes_])
        if learner.outputs and len(self.classes_) > learner.outputs:
            raise ValueError(
                f"y: {len(self.classes_)} classes, expected at most the prior's {learner.outputs}"
            )
        return np.arange(len(self.classes_))

    def _adapt(self, learner: Learner) -> FittedTask:
        return learner.adapt(
            self._inputs(self.support_x_),
            self._outputs()[self.support_y_],
            ways=0 if learner.outputs else len(self.classes_),
            units=self._units(),
        )

    def predict_proba(self, X: Any) -> Array:
        """Returns the probabilities [rows, classes] of rows X [rows, features].

        The classes are in the order of classes_.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        if self.prior is None:
            labels = self.support_y_.astype(np.int32)
            return np.asarray(
                _core.classify(self.head, self.support_x_, labels, X, len(self.classes_))
            )
        probabilities = self._task().predict(self._inputs(X)).probabilities
        assert probabilities is not None
        chosen = probabilities[:, self._outputs()]
        return np.asarray(chosen / chosen.sum(axis=1, keepdims=True))

    def predict(self, X: Any) -> Array:
        """Returns the most probable class [rows] of each row of X [rows, features]."""
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[np.argmax(probabilities, axis=1)])


class FewShotRegressor(RegressorMixin, _FewShot):  # type: ignore[misc]
    """A regressor for one few-shot task.

    Parameters:
        prior: a run folder or checkpoint of kshot.train, the Prior of a MetaRegressor, or None for
            ridge regression on the support rows alone.
        alpha: the penalty of the ridge regression, as in scikit-learn's Ridge.
        device, threads: the device and the number of CPU threads for the prior, as for
            `kshot.load`.
    """

    def __init__(
        self,
        prior: PriorLike = None,
        *,
        alpha: float = 1.0,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        self.prior = prior
        self.alpha = alpha
        self.device = device
        self.threads = threads

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any) -> FewShotRegressor:
        """Fits to the support rows X [rows, features] with targets y [rows] or [rows, outputs].

        Raises ValueError for data or a prior that do not fit.
        """
        return self._add(X, y, True)

    def partial_fit(self, X: Any, y: Any) -> FewShotRegressor:
        """Adds support rows X [rows, features] with targets y [rows] or [rows, outputs]."""
        return self._add(X, y, not hasattr(self, "support_x_"))

    def _add(self, X: Any, y: Any, first: bool) -> FewShotRegressor:
        X, y = validate_data(
            self, X, y, dtype=np.float32, multi_output=True, y_numeric=True, reset=first
        )
        y = np.asarray(y, np.float64)
        if not first:
            if y.shape[1:] != self.support_y_.shape[1:]:
                raise ValueError("y: expected as many outputs as in the first call")
            X = np.concatenate([self.support_x_, X])
            y = np.concatenate([self.support_y_, y])
        if not self.alpha > 0:
            raise ValueError(f"alpha: expected a positive number, got {self.alpha!r}")
        if self.prior is not None:
            self._check_prior(False)
        self.support_x_ = X
        self.support_y_ = y
        self.__dict__.pop("_adapted", None)
        return self

    def _adapt(self, learner: Learner) -> FittedTask:
        y = self.support_y_
        if isinstance(self.prior, Prior):
            y = (y.reshape(len(y), -1) - self.prior.y_mean) / self.prior.y_std
        return learner.adapt(self._inputs(self.support_x_), y, units=self._units())

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """Returns the predictive means [rows] or [rows, outputs] of rows X [rows, features].

        return_std: whether to return a pair of the means and the standard deviations of the
            prediction, which have the same shape.

        Raises ValueError for `return_std` without a prior, because ridge regression has no standard
        deviations.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        shape = (len(X), *self.support_y_.shape[1:])
        if self.prior is None:
            if return_std:
                raise ValueError("return_std: a ridge has no standard deviations; expected a prior")
            # The targets are centred, because float32 keeps few digits of a small variation around
            # a large mean.
            y = self.support_y_.reshape(len(self.support_y_), -1)
            centre = y.mean(axis=0)
            values = np.ascontiguousarray(y - centre, np.float32)
            ridge = _core.ridge(self.support_x_, values, X, float(self.alpha))
            return (np.asarray(ridge) + centre).reshape(shape)
        p = self._task().predict(self._inputs(X))
        mean: Any = p.mean
        std: Any = p.std
        if isinstance(self.prior, Prior):
            mean = mean * self.prior.y_std + self.prior.y_mean
            std = std * self.prior.y_std
        return (mean.reshape(shape), std.reshape(shape)) if return_std else mean.reshape(shape)


class _Groups(EpisodeSource):
    """A source of tasks: draws a group, and divides its rows into support and query rows.

    groups: rows [n, features] and targets of each group. shots, queries: numbers of support and
    query rows (per class for a classification). ways: the largest number of classes; 0: regression.
    """

    splits = ("train",)

    def __init__(self, groups: list[tuple[Array, Array]], shots: int, queries: int, ways: int):
        self.groups = groups
        self.shots = shots
        self.queries = queries
        self.ways_vary = ways > 0
        self.outputs = ways or None
        self.support = shots * max(ways, 1)
        self.query = queries * max(ways, 1)
        self.description = f"{len(groups)} groups of rows"

    def episode(self, rng: np.random.Generator, split: str) -> tuple[Array, Array, Array, Array]:
        x, y = self.groups[rng.integers(len(self.groups))]
        # The rows of each class, or all rows of a regression, are shuffled. The first ones are
        # support rows, and the next ones are query rows.
        parts = [np.flatnonzero(y == c) for c in np.unique(y)] if self.ways_vary else [len(x)]
        support, query = [], []
        for part in parts:
            rows = rng.permutation(part)
            n = min(self.shots, len(rows) - 1)
            support.append(rows[:n])
            query.append(rows[n : n + self.queries])
        s, q = np.concatenate(support), np.concatenate(query)
        return x[s], y[s], x[q], y[q]


class _Meta(BaseEstimator):  # type: ignore[misc]
    """The base class of the two meta-estimators."""

    n_features_in_: int
    method: str
    hidden: Sequence[int]
    shots: int
    queries: int
    steps: int
    meta_batch: int
    learning_rate: float
    random_state: int
    overrides: Any
    device: str
    threads: int

    def _take(self, arguments: dict[str, Any]) -> None:
        """Stores the parameters unchanged, as scikit-learn requires of __init__."""
        for name in self._get_param_names():
            setattr(self, name, arguments[name])

    def _train(self, source: _Groups, loss: dict[str, Any], outputs: int) -> bytes:
        layers = [self.n_features_in_, *self.hidden]
        if self.method in ("maml", "meta_sgd", "abml"):
            layers.append(outputs)
        config = {
            "algorithm": self.method,
            "seed": self.random_state,
            "network": {"layers": layers, "activation": "tanh"},
            **loss,
            "optimizer": {"learning_rate": self.learning_rate},
            "train": {
                "steps": self.steps,
                "meta_batch": self.meta_batch,
                "validate_every": 0,
            },
        }
        with tempfile.TemporaryDirectory(prefix="kshot-") as folder:
            run = train(
                config,
                self.overrides,
                Path(folder) / "run",
                source=source,
                device=self.device,
                threads=self.threads,
                progress=False,
            )
            self.config_ = Config(run.folder / "config.toml")
            self.reports_ = run.reports
            return (run.folder / "last.safetensors").read_bytes()

    def _grouped(self, X: Any, y: Any, groups: Any, methods: Sequence[str]) -> tuple[Any, ...]:
        if self.method not in methods:
            raise ValueError(
                f"method: expected one of {tuple(methods)}, got {self.method!r}; kshot.train has "
                "the others"
            )
        if groups is None:
            raise ValueError("groups: expected one per row, the task that the row belongs to")
        groups = np.asarray(groups)
        if groups.shape != (len(X),):
            raise ValueError(f"groups: expected shape ({len(X)},), got {groups.shape}")
        for name in ("shots", "queries", "steps", "meta_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)!r}")
        x_mean = X.mean(axis=0, dtype=np.float64)
        x_std = X.std(axis=0, dtype=np.float64)
        x_std[x_std == 0] = 1.0
        rows = [np.flatnonzero(groups == g) for g in np.unique(groups)]
        return (X - x_mean) / x_std, rows, x_mean, x_std


class MetaClassifier(_Meta):
    """Learns a prior for classifiers from many tasks.

    Parameters:
        method: "protonet", "r2d2" or "bayes_protonet".
        hidden: widths of the network's layers; the last one is the number of features.
        shots, queries: numbers of support and query rows per class of a training task. Where a
            class has too few rows, at least one of them is a query row. Classes of one row are left
            out.
        steps, meta_batch, learning_rate: the number of meta-steps, the number of tasks per
            meta-step, and the learning rate of the meta-optimizer.
        random_state: the seed of the training.
        overrides: further changes to the configuration, as for kshot.train.
        device, threads: as for kshot.train.
    """

    def __init__(
        self,
        method: str = "protonet",
        *,
        hidden: Sequence[int] = (64, 64),
        shots: int = 5,
        queries: int = 10,
        steps: int = 1000,
        meta_batch: int = 16,
        learning_rate: float = 1e-3,
        random_state: int = 1,
        overrides: Any = None,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        self._take(locals())

    def fit(self, X: Any, y: Any, groups: Any = None) -> MetaClassifier:
        """Trains on rows X [rows, features] with labels y [rows].

        groups: [rows], the task that each row belongs to. Every task has classes of its own: equal
            labels in two groups are different classes.

        Raises ValueError for data that do not fit, and the errors of `kshot.train`.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        scaled, rows, x_mean, x_std = self._grouped(X, y, groups, _CLASSIFIERS)
        tasks = []
        for index in rows:
            _, own, counts = np.unique(y[index], return_inverse=True, return_counts=True)
            kept = np.flatnonzero(counts >= 2)
            if len(kept) < 2:
                continue
            chosen = np.isin(own, kept)
            tasks.append((scaled[index][chosen], np.searchsorted(kept, own[chosen])))
        if not tasks:
            raise ValueError("groups: expected a group with 2 classes of at least 2 rows each")
        self.n_left_out_ = len(rows) - len(tasks)
        ways = max(int(labels.max()) + 1 for _, labels in tasks)
        source = _Groups(tasks, self.shots, self.queries, ways)
        checkpoint = self._train(source, {"loss": {"type": "cross_entropy"}}, ways)
        self.prior_ = Prior(checkpoint, x_mean, x_std)
        return self

    def task_estimator(self) -> FewShotClassifier:
        """Returns an estimator for one new task that has the learned prior."""
        check_is_fitted(self)
        return FewShotClassifier(self.prior_, device=self.device, threads=self.threads)


class MetaRegressor(_Meta):
    """Learns a prior for regressors from many tasks.

    Parameters:
        method: "alpaca", "dkt", "r2d2", "maml", "meta_sgd" or "abml".
        hidden: widths of the network's layers; for alpaca, dkt and r2d2 the last one is the number
            of features.
        shots, queries: numbers of support and query rows of a training task. Where a group has too
            few rows, at least one of them is a query row. Groups of one row are left out.
        steps, meta_batch, learning_rate: the number of meta-steps, the number of tasks per
            meta-step, and the learning rate of the meta-optimizer.
        random_state: the seed of the training.
        overrides: further changes to the configuration, as for kshot.train.
        device, threads: as for kshot.train.
    """

    def __init__(
        self,
        method: str = "alpaca",
        *,
        hidden: Sequence[int] = (64, 64),
        shots: int = 10,
        queries: int = 10,
        steps: int = 1000,
        meta_batch: int = 16,
        learning_rate: float = 1e-3,
        random_state: int = 1,
        overrides: Any = None,
        device: str = "auto",
        threads: int = 0,
    ) -> None:
        self._take(locals())

    def fit(self, X: Any, y: Any, groups: Any = None) -> MetaRegressor:
        """Trains on rows X [rows, features] with targets y [rows] or [rows, outputs].

        groups: [rows], the task that each row belongs to.

        Raises ValueError for data that do not fit, and the errors of `kshot.train`.
        """
        X, y = validate_data(self, X, y, dtype=np.float32, multi_output=True, y_numeric=True)
        scaled, rows, x_mean, x_std = self._grouped(X, y, groups, _REGRESSORS)
        values = np.asarray(y, np.float64).reshape(len(y), -1)
        y_mean, y_std = values.mean(axis=0), values.std(axis=0)
        y_std[y_std == 0] = 1.0
        values = (values - y_mean) / y_std
        tasks = [(scaled[index], values[index]) for index in rows if len(index) >= 2]
        if not tasks:
            raise ValueError("groups: expected a group of at least 2 rows")
        self.n_left_out_ = len(rows) - len(tasks)
        source = _Groups(tasks, self.shots, self.queries, 0)
        loss = {"loss": {"type": "mse"}} if self.method == "r2d2" else {}
        checkpoint = self._train(source, loss, values.shape[1])
        self.prior_ = Prior(checkpoint, x_mean, x_std, y_mean, y_std)
        return self

    def task_estimator(self) -> FewShotRegressor:
        """Returns an estimator for one new task that has the learned prior."""
        check_is_fitted(self)
        return FewShotRegressor(self.prior_, device=self.device, threads=self.threads)
