"""Meta-gradients for a training loop that the user writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import as_array, as_float32, as_labels, as_rows, as_values
from ._config import Config, ConfigLike

Array = npt.NDArray[np.float64]
Task = tuple[Any, Any, Any, Any]


class MetaGradient:
    """Computes meta-gradients of a configuration's algorithm on tasks that the caller gives.

    There is no optimizer and no gradient clipping. The tables [data], [optimizer] and [train] of
    the configuration are ignored.

        engine = kshot.MetaGradient(config)
        parameters = engine.initial(tasks)
        for step in range(100):
            loss, gradients = engine(parameters, tasks, step)
            parameters = {name: p - 0.01 * gradients[name] for name, p in parameters.items()}
    """

    def __init__(self, config: ConfigLike, device: str = "auto", threads: int = 0) -> None:
        self.config = Config(config)
        self._machine = (device, threads)
        self._engine: tuple[Any, _core.MetaGradient] | None = None
        #: Number of tasks that diverged in the last call. Their loss and gradient count as zero.
        self.diverged = 0

    def initial(self, tasks: Sequence[Task]) -> dict[str, Array]:
        """Returns the parameters that a training would begin with.

        tasks: as for a call of the object; only their shapes are used.

        The result has one flat float64 vector per group of parameters, by the group's name. Raises
        TypeError and ValueError for tasks that do not fit.
        """
        return dict(self._for(tasks)[0].initial())

    def __call__(
        self, parameters: Mapping[str, Any], tasks: Sequence[Task], step: int = 0
    ) -> tuple[float, dict[str, Array]]:
        """Returns the meta-objective and its derivative with respect to each group of parameters.

        parameters: one vector of numbers per group, as `initial` gives them.
        tasks: for each task (support_x, support_y, query_x, query_y), as in EpisodeSource.
        step: the number of the step, which determines the random numbers. Calls with the same step
            use the same posterior samples.

        Raises TypeError and ValueError for arguments that do not fit.
        """
        engine, rows = self._for(tasks)
        names = list(engine.initial())
        if set(parameters) != set(names):
            raise ValueError(f"parameters: expected {names}, got {list(parameters)}")
        values = []
        for name in names:
            array = as_array(parameters[name], f"parameters[{name!r}]")
            if array.dtype.kind not in "fiu":
                raise TypeError(f"parameters[{name!r}]: expected numbers, got {array.dtype}")
            values.append(np.ascontiguousarray(array, dtype=np.float64).reshape(-1))
        loss, _, self.diverged, gradients = engine.compute(values, rows, step)
        shapes = {name: np.shape(parameters[name]) for name in names}
        return float(loss), {name: g.reshape(shapes[name]) for name, g in gradients.items()}

    def _for(self, tasks: Sequence[Task]) -> tuple[_core.MetaGradient, list[tuple[Any, ...]]]:
        """Returns the engine for tasks of this shape, and the tasks as arrays of its types."""
        if not len(tasks):
            raise ValueError("tasks: expected at least one")
        classification = bool(self.config._native.classification)
        for t, task in enumerate(tasks):
            if not isinstance(task, (tuple, list)) or len(task) != 4:
                raise TypeError(
                    f"tasks[{t}]: expected a tuple (support_x, support_y, query_x, query_y)"
                )
        example = as_float32(tasks[0][2], "tasks[0]: query_x")
        input_shape = [1] if example.ndim == 1 else [int(n) for n in example.shape[1:]]
        values = as_array(tasks[0][3], "tasks[0]: query_y")
        outputs = 1 if values.ndim == 1 else int(values.shape[1])
        rows: list[tuple[Any, ...]] = []
        for t, task in enumerate(tasks):
            parts: list[Any] = []
            for name, x, y in (("support", *task[:2]), ("query", *task[2:])):
                xs = as_rows(x, f"tasks[{t}]: {name}_x", input_shape)
                target = f"tasks[{t}]: {name}_y"
                ys: Any
                if classification:
                    ys = as_labels(y, target, len(xs))
                else:
                    ys = as_values(y, target, len(xs), outputs)
                parts += [xs, ys]
            ways = outputs
            if classification:
                ways = 1 + max(int(y.max()) for y in (parts[1], parts[3]) if y.size)
            rows.append((*parts, ways))
        most = outputs
        vary = False
        if classification:
            closed_form = self.config["algorithm"] in ("protonet", "r2d2", "bayes_protonet")
            most = max(row[4] for row in rows)
            vary = closed_form and any(row[4] != most for row in rows)
            if not closed_form:
                most = self.config._native.outputs
        shape = (
            input_shape,
            most,
            classification,
            vary,
            max(len(row[0]) for row in rows),
            max(len(row[2]) for row in rows),
        )
        if self._engine is None or self._engine[0] != shape:
            self._engine = (shape, _core.MetaGradient(self.config._native, *shape, *self._machine))
        return self._engine[1], rows


def meta_gradient(
    config: ConfigLike,
    parameters: Mapping[str, Any],
    tasks: Sequence[Task],
    *,
    step: int = 0,
    device: str = "auto",
    threads: int = 0,
) -> tuple[float, dict[str, Array]]:
    """Returns the meta-objective on `tasks` and its derivative by each group of `parameters`.

    config: the path of a TOML file, a dict or a Config.
    step: the number of the step, which determines the random numbers.
    device: "auto" (the CPU), "cpu", "cuda", "cuda:N" or "reference".
    threads: number of CPU threads; 0: all cores.
    The other arguments and the results are those of a call of a `MetaGradient`.

    In a loop, one `MetaGradient` is faster, because it keeps the engine between calls.
    """
    return MetaGradient(config, device, threads)(parameters, tasks, step)
