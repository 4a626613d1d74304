"""Training, evaluation, calibration and embedding of runs.

The functions have the options of the program's commands.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import as_rows
from ._config import Config, ConfigLike, Overrides, override_list
from ._episodes import EpisodeSource, native_source

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class TrainReport:
    """The progress of a training. There is a report every train.log_every steps."""

    step: int  #: number of meta-steps so far
    loss: float  #: meta-objective, mean over the steps since the last report
    #: The part of the meta-objective that is a mean over tasks, mean over the same steps.
    task_loss: float
    learning_rate: float  #: learning rate of the last step
    gradient_norm: float  #: norm of the meta-gradient in the last step, before clipping
    tasks: int  #: number of tasks since the last report
    diverged: int  #: number of these tasks that diverged
    guarded: int  #: number of steps so far in which optimizer.nan_guard acted
    seconds: float  #: training time so far, in seconds
    tasks_per_second: float  #: speed since the last report
    metrics: dict[str, float]  #: statistics of the last step (docs/estimators.md)


@dataclass(frozen=True)
class ValidationReport:
    """The result of a validation. Every validation has the same episodes."""

    step: int  #: number of meta-steps so far
    metric: str  #: "accuracy", "mse" or "nll"
    value: float  #: the metric, mean over episodes
    half_width: float  #: half width of its 95 % confidence interval
    nll: float  #: negative log-likelihood in nats per row; NaN where the loss is no likelihood
    best: bool  #: whether this validation is better than all before
    diverged: int  #: number of episodes that diverged
    seconds: float  #: training time so far, in seconds


@dataclass(frozen=True)
class TrainResult:
    """The result of a training. It may be given wherever a run folder is expected."""

    folder: Path
    step: int
    reason: str  #: why the training ended: "steps", "patience", "time_limit" or "asked"
    seconds: float
    loss: float
    best: ValidationReport | None
    tasks: int
    diverged: int
    has_validation: bool
    has_test: bool
    reports: list[TrainReport] = field(repr=False)
    validations: list[ValidationReport] = field(repr=False)

    def __fspath__(self) -> str:
        return str(self.folder)

    def to_pandas(self) -> Any:
        """The reports as a DataFrame, one row per report (needs pandas)."""
        import pandas as pd

        rows = []
        for report in self.reports:
            row = {k: v for k, v in vars(report).items() if k != "metrics"}
            rows.append({**row, **report.metrics})
        return pd.DataFrame(rows)


def _progress(progress: bool | None) -> bool:
    return sys.stderr.isatty() if progress is None else progress


def train(
    config: ConfigLike | None = None,
    overrides: Overrides = None,
    out: PathLike | None = None,
    *,
    source: EpisodeSource | None = None,
    resume: PathLike | None = None,
    device: str = "auto",
    threads: int = 0,
    progress: bool | None = None,
    allow_changed_data: bool = False,
    on_report: Callable[[TrainReport], object] | None = None,
    on_validation: Callable[[ValidationReport], object] | None = None,
) -> TrainResult:
    """Trains a run.

    config: the path of a TOML file, a dict or a Config. With `resume` it may be None, which stands
        for the run's own configuration.
    overrides: changes to the configuration, such as `{"train.steps": 300}`.
    out: the run folder. None: runs/NAME, or the first one of runs/NAME-2, ... that does not exist.
        NAME is the name of the configuration's file without its ending, or else the algorithm.
    source: an EpisodeSource of the user, in place of the configuration's [data].
    resume: a run to continue from its last checkpoint. The result has the bits of a training that
        never stopped.
    device: "auto" (the CPU), "cpu", "cuda", "cuda:N" or "reference".
    threads: number of CPU threads; 0: all cores.
    progress: whether to show a progress line on standard error; None: only if it is a terminal.
    allow_changed_data: continue although the data file is not the one of the training.
    on_report, on_validation: called with every report and every validation of the training.

    Under mpirun (in a build with MPI) all processes train together. Each process calls `train` with
    the same arguments and gets the same result. Rank 0 writes the folder and the progress line.

    Ctrl-C, or an exception in a callback, ends the training after the current step. The training
    writes a checkpoint, and then the exception is raised. Raises ConfigError for a configuration
    that is refused, and Error where the training fails.
    """
    folder = "" if out is None else os.fspath(out)
    if resume is not None:
        if out is not None:
            raise TypeError("out: expected without resume, which goes on in the run's own folder")
        folder = os.fspath(resume)
        own = None if config is None else Config(config, overrides)._native
        changes = override_list(overrides) if config is None else []
        native = _core.resumed_config(folder, own, changes)
    elif config is None:
        raise TypeError("config: expected a path, a dict or a kshot.Config, or resume=RUN")
    else:
        native = Config(config, overrides)._native
    name = Config._of(native)["algorithm"]
    if isinstance(config, (str, os.PathLike)):
        name = Path(config).stem
    reports: list[TrainReport] = []
    validations: list[ValidationReport] = []

    def report(d: dict[str, Any]) -> None:
        reports.append(TrainReport(**d))
        if on_report is not None:
            on_report(reports[-1])

    def validation(d: dict[str, Any]) -> None:
        validations.append(ValidationReport(**d))
        if on_validation is not None:
            on_validation(validations[-1])

    result = _core.train(
        native,
        native_source(source, Config._of(native)),
        folder,
        name,
        resume is not None,
        allow_changed_data,
        device,
        threads,
        _progress(progress),
        report,
        validation,
    )
    best = None if result["best"] is None else ValidationReport(**result["best"])
    return TrainResult(**{**result, "best": best}, reports=reports, validations=validations)


@dataclass(frozen=True)
class Statistic:
    """A mean over episodes and the half width of its 95 % confidence interval."""

    mean: float
    half_width: float
    episodes: int


@dataclass(frozen=True)
class Score:
    """The scores of one predictor over all episodes. A score that does not apply is None."""

    name: str  #: name of the algorithm or of the baseline
    inner_steps: int | None  #: number of inner steps; None for a baseline or a closed-form head
    calibrated: bool  #: whether the predictions are calibrated (`kshot calibrate`)
    accuracy: Statistic | None  #: share of right predictions
    auroc: Statistic | None  #: area under the ROC curve of class 1, for two classes
    brier: Statistic | None  #: Brier score, in [0, 2]
    ece: float | None  #: expected calibration error with bins of equal width
    mse: Statistic | None  #: mean squared error
    r2: Statistic | None  #: coefficient of determination
    nll: Statistic | None  #: negative log-likelihood in nats per row
    entropy: Statistic | None  #: entropy of the probabilities, in nats
    mutual_information: Statistic | None  #: its part from unknown weights, in nats
    crps: Statistic | None  #: continuous ranked probability score, in target units
    sharpness: Statistic | None  #: mean standard deviation of the prediction, in target units
    epistemic_variance: Statistic | None  #: predictive variance without the noise
    aleatoric_variance: Statistic | None  #: predictive variance from the noise
    coverage: dict[float, Statistic]  #: share of the targets in the central band, by its level
    #: Scores of the single episodes, [episodes], by names such as "accuracy" or "mse". The array
    #: "coverage" is [levels, episodes].
    per_episode: dict[str, npt.NDArray[np.float64]] = field(repr=False)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _numbers(values: Any) -> Any:
    """Returns nested lists of numbers, with NaN in place of JSON's null."""
    return [_numbers(v) if isinstance(v, list) else _number(v) for v in values]


_STATISTICS = (
    "accuracy",
    "auroc",
    "brier",
    "mse",
    "r2",
    "nll",
    "entropy",
    "mutual_information",
    "crps",
    "sharpness",
    "epistemic_variance",
    "aleatoric_variance",
)


def _statistic(d: Any) -> Statistic | None:
    if d is None:
        return None
    return Statistic(_number(d["mean"]), _number(d["half_width"]), d["episodes"])


def _score(d: Mapping[str, Any]) -> Score:
    coverage = {c["level"]: _statistic(c) for c in d.get("coverage", [])}
    return Score(
        name=d["name"],
        inner_steps=d.get("inner_steps"),
        calibrated=d.get("calibrated", False),
        **{name: _statistic(d.get(name)) for name in _STATISTICS},
        ece=_number(d["ece"]) if "ece" in d else None,
        coverage={level: s for level, s in coverage.items() if s is not None},
        per_episode={
            name: np.array(_numbers(values)) for name, values in d.get("per_episode", {}).items()
        },
    )


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`: scores after every inner step, and of the baselines."""

    algorithm: str
    split: str
    steps: list[Score]
    baselines: list[Score]
    #: The content of evaluation.json, which `kshot evaluate` writes.
    data: dict[str, Any] = field(repr=False)
    #: The table that `kshot evaluate` prints.
    table: str = field(repr=False)

    @property
    def last(self) -> Score:
        """The score after the last inner step."""
        return self.steps[-1]

    def to_pandas(self) -> Any:
        """A DataFrame with one row per score (needs pandas)."""
        import pandas as pd

        rows = []
        for score in self.steps + self.baselines:
            row: dict[str, Any] = {"name": score.name, "inner_steps": score.inner_steps}
            for name in _STATISTICS:
                statistic = getattr(score, name)
                if statistic is not None:
                    row[name] = statistic.mean
                    row[name + "_half_width"] = statistic.half_width
            if score.ece is not None:
                row["ece"] = score.ece
            rows.append(row)
        return pd.DataFrame(rows)


def evaluation_of(text: str, table: str) -> Evaluation:
    """Returns the evaluation from its JSON `text` and its printed `table`."""
    data = json.loads(text)
    return Evaluation(
        algorithm=data["algorithm"],
        split=data["split"],
        steps=[_score(s) for s in data["steps"]],
        baselines=[_score(s) for s in data.get("baselines", [])],
        data=data,
        table=table,
    )


def _evaluate_changes(
    overrides: Overrides,
    episodes: int | None,
    steps: int | None,
    samples: int | None,
    seed: int | None,
    norm_statistics: str | None = None,
    shots: int | None = None,
) -> list[str]:
    """Returns the overrides, followed by those arguments that are not None, as overrides."""
    keys = {
        "evaluate.episodes": episodes,
        "evaluate.steps": steps,
        "evaluate.samples": samples,
        "evaluate.seed": seed,
        "evaluate.norm_statistics": norm_statistics,
        "data.shots": shots,
    }
    return override_list(overrides) + override_list(keys)


def evaluate(
    run: PathLike,
    *,
    episodes: int | None = None,
    steps: int | None = None,
    samples: int | None = None,
    seed: int | None = None,
    shots: int | None = None,
    norm_statistics: str | None = None,
    split: str = "test",
    overrides: Overrides = None,
    source: EpisodeSource | None = None,
    baselines: bool = True,
    out: PathLike | None = None,
    device: str = "auto",
    threads: int = 0,
    progress: bool | None = None,
    allow_changed_data: bool = False,
    calibrated: bool = False,
) -> Evaluation:
    """Evaluates a run on episodes of a split, together with baselines that see the same rows.

    run: a run folder or a checkpoint.
    episodes, steps, samples, seed, norm_statistics: values for the keys of [evaluate]; None: the
        values of the run's configuration.
    shots: a value for data.shots; None: the value of the run's configuration.
    split: "train", "validation" or "test".
    source: an EpisodeSource of the user, in place of the run's [data].
    baselines: whether to evaluate the baselines too.
    out: the JSON file for the numbers. None: evaluation.json in the run folder, where reports look
        for it, or no file if there is a `source`.
    calibrated: whether to score also the predictions that `kshot.calibrate` calibrated.
    overrides, device, threads, progress, allow_changed_data: as for `train`.

    Raises Error where the run cannot be evaluated.
    """
    changes = _evaluate_changes(overrides, episodes, steps, samples, seed, norm_statistics, shots)
    native = None
    if source is not None:
        native = native_source(
            source, Config._of(_core.Learner(os.fspath(run), "cpu", 1, []).config)
        )
    text, table = _core.evaluate(
        os.fspath(run),
        native,
        device,
        threads,
        changes,
        split,
        baselines,
        _progress(progress),
        allow_changed_data,
        calibrated,
        "" if out is None else os.fspath(out),
    )
    return evaluation_of(text, table)


@dataclass(frozen=True)
class IntervalScore:
    """A score with the ends of its 95 % bootstrap interval over episodes."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class OodScore:
    """How well one score separates rows out of distribution from a task's own rows."""

    name: str
    auroc: IntervalScore
    aupr: IntervalScore
    #: Share of the rows out of distribution that pass at the threshold that 95 % of the task's own
    #: rows pass.
    fpr95: IntervalScore


@dataclass(frozen=True)
class OodKind:
    """The scores for one kind of rows out of distribution."""

    kind: str
    description: str  #: description of the rows, in words
    in_rows: int  #: number of rows of the tasks' own
    out_rows: int  #: number of rows out of distribution
    scores: list[OodScore]


@dataclass(frozen=True)
class OodEvaluation:
    """The result of `evaluate_ood`, and the files that it wrote."""

    kinds: list[OodKind]
    file: Path  #: JSON file with the numbers
    page: Path  #: HTML page with histograms of the scores
    #: The content of the JSON file.
    data: dict[str, Any] = field(repr=False)
    #: The tables that `kshot evaluate --ood` prints.
    table: str = field(repr=False)

    def to_pandas(self) -> Any:
        """A DataFrame with one row per kind and score (needs pandas)."""
        import pandas as pd

        rows = []
        for kind in self.kinds:
            for score in kind.scores:
                row: dict[str, Any] = {"kind": kind.kind, "score": score.name}
                for name in ("auroc", "aupr", "fpr95"):
                    interval: IntervalScore = getattr(score, name)
                    row[name] = interval.value
                    row[name + "_low"], row[name + "_high"] = interval.low, interval.high
                rows.append(row)
        return pd.DataFrame(rows)


def _interval(d: Mapping[str, Any]) -> IntervalScore:
    low, high = d["bootstrap"]
    return IntervalScore(_number(d["value"]), _number(low), _number(high))


def evaluate_ood(
    run: PathLike,
    kinds: str | Sequence[str],
    *,
    episodes: int | None = None,
    steps: int | None = None,
    samples: int | None = None,
    seed: int | None = None,
    shots: int | None = None,
    norm_statistics: str | None = None,
    split: str = "test",
    overrides: Overrides = None,
    out: PathLike | None = None,
    device: str = "auto",
    threads: int = 0,
    progress: bool | None = None,
    allow_changed_data: bool = False,
    calibrated: bool = False,
) -> OodEvaluation:
    """Scores how well a run's predictions tell rows out of distribution from a task's own rows.

    run: a run folder or a checkpoint.
    kinds: the rows out of distribution, which replace the query rows: "open_set", "rotate",
        "rotate=DEGREES", "noise", "noise=S", "permute", "shift", "shift=S", or the path of another
        data file (docs/uncertainty.md). One kind or a list.
    out: the JSON file for the numbers. A page with histograms is written beside it (.html). None:
        evaluation-ood.json in the run folder, where reports look for it.
    The other arguments are those of `evaluate`.

    Raises Error where the run cannot be evaluated or a kind does not fit its data.
    """
    changes = _evaluate_changes(overrides, episodes, steps, samples, seed, norm_statistics, shots)
    text, table, file, page = _core.evaluate_ood(
        os.fspath(run),
        [kinds] if isinstance(kinds, (str, os.PathLike)) else [os.fspath(k) for k in kinds],
        device,
        threads,
        changes,
        split,
        _progress(progress),
        allow_changed_data,
        calibrated,
        "" if out is None else os.fspath(out),
    )
    data = json.loads(text)
    return OodEvaluation(
        kinds=[
            OodKind(
                kind=d["kind"],
                description=d["description"],
                in_rows=d["in_rows"],
                out_rows=d["out_rows"],
                scores=[
                    OodScore(s["name"], *(_interval(s[n]) for n in ("auroc", "aupr", "fpr95")))
                    for s in d["scores"]
                ],
            )
            for d in data["out_of_distribution"]
        ],
        file=Path(file),
        page=Path(page),
        data=data,
        table=table,
    )


@dataclass(frozen=True)
class Calibration:
    """The result of `calibrate`, and the file that it wrote."""

    value: float
    """The temperature (classification), or the factor of the variance (regression)."""
    description: str
    """ "temperature 1.43" or "variance factor 2.1"."""
    nll_before: float
    """Mean negative log-likelihood of the validation episodes before the calibration, in nats."""
    nll_after: float
    """The same mean after the calibration."""
    file: Path
    """The file with the calibration, beside the checkpoint."""
    data: dict[str, Any]
    """The content of the file."""


def calibrate(
    run: PathLike,
    *,
    episodes: int | None = None,
    steps: int | None = None,
    samples: int | None = None,
    seed: int | None = None,
    overrides: Overrides = None,
    device: str = "auto",
    threads: int = 0,
    progress: bool | None = None,
    allow_changed_data: bool = False,
) -> Calibration:
    """Fits a temperature or a variance factor on validation episodes, and stores it in the run.

    run: a run folder or a checkpoint.
    episodes, steps, samples, seed: values for the keys of [evaluate]; None: the values of the run's
        configuration.
    overrides, device, threads, progress, allow_changed_data: as for `train`.

    The file also has the thresholds and quantiles that the decisions of `FittedTask.predict` need.
    The calibration is used only where `calibrated=True` is given to `load`, `evaluate` or
    `evaluate_ood`. It is valid for the checkpoint, the number of inner steps and the number of
    posterior samples that it was fitted with.

    Raises Error where the run has no validation tasks, or predicts no distribution.
    """
    changes = _evaluate_changes(overrides, episodes, steps, samples, seed)
    text, description, file = _core.calibrate(
        os.fspath(run), device, threads, changes, _progress(progress), allow_changed_data
    )
    data = json.loads(text)
    return Calibration(
        value=float(data["value"]),
        description=description,
        nll_before=float(data["nll_before"]),
        nll_after=float(data["nll_after"]),
        file=Path(file),
        data=data,
    )


@dataclass(frozen=True)
class EmbeddedFile:
    """The result of `embed`: the numbers of rows and features, and the files that it wrote."""

    rows: int
    features: int
    files: list[Path]


class Embedder:
    """A trained network without its last linear layer, whose inputs are the features.

    The run is one of maml, meta_sgd, abml or hvi; for the last two the weights are the means. Norm
    layers use the statistics of a reference set of training examples, so that the features of a row
    do not depend on the other rows (docs/embeddings.md).

    run: a run folder or a checkpoint.
    device, threads, overrides, allow_changed_data: as for `train`.

    Raises Error for a run without such a network.
    """

    def __init__(
        self,
        run: PathLike,
        *,
        device: str = "auto",
        threads: int = 0,
        overrides: Overrides = None,
        allow_changed_data: bool = False,
    ) -> None:
        self._native = _core.Embedder(
            os.fspath(run), device, threads, override_list(overrides), allow_changed_data
        )

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row: (features,), or (channels, height, width)."""
        return tuple(self._native.input_shape)

    @property
    def features(self) -> int:
        """Number of features per row."""
        return int(self._native.features)

    def __call__(self, x: Any) -> npt.NDArray[np.float32]:
        """Returns the features [rows, features], float32, of rows x [rows, *input_shape]."""
        rows = as_rows(x, "x", self.input_shape)
        return np.asarray(self._native.embed(rows))

    def embed_file(
        self,
        out: PathLike,
        data: PathLike | None = None,
    ) -> EmbeddedFile:
        """Writes the features of a data file of classes to `out`.

        out: the data file to write, or a file of arrays (.npz).
        data: the data file to read; None: the data file of the run.

        Raises ValueError where there is no data file to read.
        """
        path = Config._of(self._native.config)["data"].get("path", "") if data is None else data
        if not path:
            raise ValueError("data: the run has no data file; expected one to embed")
        return EmbeddedFile(**self._native.embed_file(os.fspath(path), os.fspath(out)))


def embed(
    run: PathLike,
    out: PathLike,
    data: PathLike | None = None,
    *,
    device: str = "auto",
    threads: int = 0,
    overrides: Overrides = None,
    allow_changed_data: bool = False,
) -> EmbeddedFile:
    """Writes the features of a data file of classes to `out`.

    run: a run folder or a checkpoint.
    out: the data file to write, or a file of arrays (.npz).
    data: the data file to read; None: the data file of the run.
    overrides, device, threads, allow_changed_data: as for `train`.

    `kshot.Embedder(run)(x)` gives the features of rows in memory. Raises Error for a run without
    such a network, and ValueError where there is no data file to read.
    """
    embedder = Embedder(
        run,
        device=device,
        threads=threads,
        overrides=overrides,
        allow_changed_data=allow_changed_data,
    )
    return embedder.embed_file(out, data)
