"""Sources of tasks that the user writes in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import _core
from ._arrays import FloatArray, LabelArray, as_array, as_float32, as_labels, as_rows, as_values
from ._config import Config

_SPLITS = ("train", "validation", "test")


class EpisodeSource:
    """A source of tasks for `train` and `evaluate`.

    A subclass has the method `episode(rng, split)`, which returns the task's
    (support_x, support_y, query_x, query_y). `rng` is a numpy.random.Generator that depends on the
    task alone, and `split` is "train", "validation" or "test". Rows have the shape [rows, features]
    or [rows, channels, height, width]. Targets are labels [rows] or values [rows, outputs].

    `episode` is called from worker threads, one call at a time. An exception in it ends the
    training or the evaluation, and `train` or `evaluate` raises it.

    The shapes of all tasks are taken from one episode, which is drawn first. Where tasks differ in
    size, the subclass sets the largest numbers of rows as `support` and `query`, and the largest
    number of classes as `outputs`. With `ways_vary = True` the number of classes of a task is its
    largest label + 1. Only closed-form heads support this.
    """

    support: int | None = None
    query: int | None = None
    outputs: int | None = None
    ways_vary: bool = False
    #: The splits that have episodes.
    splits: Sequence[str] = _SPLITS
    description: str | None = None

    def episode(self, rng: np.random.Generator, split: str) -> tuple[Any, Any, Any, Any]:
        """Draws one task and returns (support_x, support_y, query_x, query_y).

        rng: the random numbers of this task. split: "train", "validation" or "test".

        The rows x have the shape [rows, *input_shape]. The targets y are labels [rows] or values
        [rows, outputs]. See the class.
        """
        raise NotImplementedError("episode: expected a method of the subclass")


def _generator(seed: int, split: str, step: int, task: int) -> np.random.Generator:
    # Philox counts in the lowest word of its counter. Two tasks differ in another word, so that
    # their streams never overlap.
    counter = np.array([0, task, step, _SPLITS.index(split)], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))


class _Drawer:
    """Draws episodes of a source, checks them, and converts them to the engine's types."""

    def __init__(self, source: EpisodeSource, config: Config) -> None:
        self.source = source
        self.classification = bool(config._native.classification)
        split = "train" if "train" in source.splits else source.splits[0]
        support_x, support_y, query_x, query_y = self._episode(0, split, 0, 0)
        example = as_float32(query_x, "query_x")
        if example.ndim == 1:
            example = example.reshape(-1, 1)
        if example.ndim not in (2, 4):
            raise ValueError(
                "query_x: expected shape (rows, features) or (rows, channels, height, width), got "
                f"{example.shape}"
            )
        self.input_shape = [int(n) for n in example.shape[1:]]
        self.support = len(support_x) if source.support is None else source.support
        self.query = len(query_x) if source.query is None else source.query
        targets = as_array(query_y, "query_y")
        if source.outputs is not None:
            self.outputs = source.outputs
        elif self.classification:
            largest = [int(np.max(y)) for y in (support_y, query_y) if np.size(y)]
            self.outputs = max(largest) + 1
        else:
            self.outputs = 1 if targets.ndim == 1 else int(targets.shape[1])

    def _episode(self, seed: int, split: str, step: int, task: int) -> tuple[Any, Any, Any, Any]:
        drawn = self.source.episode(_generator(seed, split, step, task), split)
        if not isinstance(drawn, (tuple, list)) or len(drawn) != 4:
            raise TypeError("episode: expected a tuple (support_x, support_y, query_x, query_y)")
        return drawn[0], drawn[1], drawn[2], drawn[3]

    def _part(self, x: Any, y: Any, name: str, most: int) -> tuple[FloatArray, Any]:
        rows = as_rows(x, f"{name}_x", self.input_shape)
        if len(rows) > most:
            raise ValueError(
                f"{name}_x: {len(rows)} rows, expected at most {most}; set the class attribute "
                f"{name} to the largest number"
            )
        targets: FloatArray | LabelArray
        if self.classification:
            targets = as_labels(y, f"{name}_y", len(rows))
        else:
            targets = as_values(y, f"{name}_y", len(rows), self.outputs)
        return rows, targets

    def __call__(self, seed: int, split: str, step: int, task: int) -> tuple[Any, ...]:
        support_x, support_y, query_x, query_y = self._episode(seed, split, step, task)
        support = self._part(support_x, support_y, "support", self.support)
        query = self._part(query_x, query_y, "query", self.query)
        ways = self.outputs
        if self.classification and self.source.ways_vary:
            ways = 1 + max(int(y.max()) for y in (support[1], query[1]) if y.size)
        return (*support, *query, ways)


def native_source(source: EpisodeSource | None, config: Config) -> _core.EpisodeSource | None:
    """Returns the source in the form that the engine takes, or None for None.

    Draws one episode to find the shapes of the tasks. Raises TypeError and ValueError for a source
    or an episode that does not fit.
    """
    if source is None:
        return None
    if not isinstance(source, EpisodeSource):
        raise TypeError(f"source: expected a kshot.EpisodeSource, got {type(source).__name__}")
    unknown = [split for split in source.splits if split not in _SPLITS]
    if unknown or not source.splits:
        raise ValueError(f"splits: expected some of {_SPLITS}, got {source.splits}")
    drawer = _Drawer(source, config)
    return _core.python_source(
        drawer,
        drawer.input_shape,
        drawer.outputs,
        drawer.classification,
        drawer.classification and source.ways_vary,
        drawer.support,
        drawer.query,
        source.description or type(source).__name__,
        list(source.splits),
    )
