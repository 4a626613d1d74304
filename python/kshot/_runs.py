"""Training, evaluation and embedding of runs, as functions with the program's options."""

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
    """Training since the last report, every train.log_every steps; losses are means."""

    step: int
    loss: float
    task_loss: float
    learning_rate: float
    gradient_norm: float
    tasks: int
    diverged: int
    guarded: int
    seconds: float
    tasks_per_second: float
    metrics: dict[str, float]


@dataclass(frozen=True)
class ValidationReport:
    """The score of the validation episodes, with the half width of its 95 % interval."""

    step: int
    metric: str
    value: float
    half_width: float
    nll: float
    best: bool
    diverged: int
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """A run that was trained. It may be given wherever a run folder is expected."""

    folder: Path
    step: int
    reason: str  #: "steps", "patience", "time_limit" or "asked"
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

    config: the path of a TOML file, a dict or a Config; None to resume with the run's own.
    overrides: changes to it, `{"train.steps": 300}`.
    out: the run folder. None: runs/NAME, or the first free one of runs/NAME-2, ..., where NAME is
        the name of the configuration's file, or of the algorithm.
    source: tasks of one's own (EpisodeSource); [data] is then not looked at.
    resume: goes on from this run's last checkpoint, bit for bit as if it had never stopped.
    device: "auto", "cpu", "cuda", "cuda:N" or "reference"; threads: 0 uses all cores.
    progress: a progress line on standard error; None: where that is a terminal.
    allow_changed_data: go on although the data file is not the one that the run was trained on.
    on_report, on_validation: called while the training runs.

    Under mpirun (in a build with MPI) all processes train together; each calls this with the same
    arguments and gets the same result. Rank 0 writes the folder and the progress line.

    Ctrl-C, or an exception in a callback, ends the training after the step at hand, writes a
    checkpoint, and is raised then. Raises ConfigError and Error.
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
    """One way to predict, scored on all episodes. What does not apply is None."""

    name: str
    inner_steps: int | None  #: None for a baseline
    calibrated: bool  #: after what `kshot calibrate` fitted
    accuracy: Statistic | None
    auroc: Statistic | None
    brier: Statistic | None
    ece: float | None
    mse: Statistic | None
    r2: Statistic | None
    nll: Statistic | None
    entropy: Statistic | None
    mutual_information: Statistic | None
    crps: Statistic | None
    sharpness: Statistic | None
    epistemic_variance: Statistic | None
    aleatoric_variance: Statistic | None
    coverage: dict[float, Statistic]
    #: Scores of the single episodes by name: "accuracy", "mse", ...; "coverage" is
    #: [levels, episodes].
    per_episode: dict[str, npt.NDArray[np.float64]] = field(repr=False)


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def _numbers(values: Any) -> Any:
    """Numbers in nested lists, NaN where JSON has null."""
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
    """Scores of a run's adapted network after each inner step, and of the baselines."""

    algorithm: str
    split: str
    steps: list[Score]
    baselines: list[Score]
    #: Everything that `kshot evaluate` writes, as it stands in evaluation.json.
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
    """The evaluation whose JSON is `text`."""
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
    """The overrides, then the keys that have arguments of their own; None: not given."""
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
    """Evaluates a run on episodes of a split, beside baselines that see the same rows.

    episodes, steps, samples, seed, norm_statistics: the keys of [evaluate]; None: as configured.
    shots: data.shots. source: tasks of one's own instead of the run's [data].
    out: the file for the numbers (JSON). None: evaluation.json in the run folder, where reports
        look for it; with `source` nothing is written.
    calibrated: score the predictions after what `kshot.calibrate` fitted, too.
    split: "train", "validation" or "test". baselines: False leaves them out.
    overrides, device, threads, progress, allow_changed_data: as for `train`.
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
    """How well one score of `evaluate_ood` tells rows out of distribution from the others."""

    name: str
    auroc: IntervalScore
    aupr: IntervalScore
    #: Share of the rows out of distribution that pass where 95 % of the others do.
    fpr95: IntervalScore


@dataclass(frozen=True)
class OodKind:
    """One kind of rows out of distribution."""

    kind: str
    description: str  #: of the rows, in words
    in_rows: int
    out_rows: int
    scores: list[OodScore]


@dataclass(frozen=True)
class OodEvaluation:
    """What `evaluate_ood` found and wrote."""

    kinds: list[OodKind]
    file: Path  #: the numbers
    page: Path  #: histograms of the scores
    #: Everything that `kshot evaluate --ood` writes, as it stands in the file.
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
    """Says how well a run's predictions tell rows out of distribution from a task's own.

    kinds: what takes the place of the query rows: "open_set", "rotate", "rotate=DEGREES", "noise",
        "noise=S", "permute", "shift", "shift=S", or the path of another data file
        (docs/uncertainty.md).
    out: the file for the numbers (JSON), with histograms beside it (.html). None:
        evaluation-ood.json in the run folder, where reports look for it.
    The other arguments are those of `evaluate`.
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
    """What `calibrate` fitted and wrote."""

    value: float
    """The temperature (classification), or the factor of the variance (regression)."""
    description: str
    """ "temperature 1.43" or "variance factor 2.1"."""
    nll_before: float
    """Mean negative log-likelihood of the validation episodes, nats."""
    nll_after: float
    file: Path
    data: dict[str, Any]
    """All that the file has."""


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

    Nothing uses it unless `calibrated=True` is given to `load` or `evaluate`. It holds for the
    checkpoint, the inner steps and the number of posterior samples it was fitted with.
    episodes, steps, samples, seed: the keys of [evaluate]; None: as configured.
    overrides, device, threads, progress, allow_changed_data: as for `train`.
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
    """What `embed` wrote."""

    rows: int
    features: int
    files: list[Path]


class Embedder:
    """A trained network up to its last linear layer; its outputs are features."""

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
        """Number of features of a row."""
        return int(self._native.features)

    def __call__(self, x: Any) -> npt.NDArray[np.float32]:
        """Rows [rows, *input_shape] to features [rows, features], float32."""
        rows = as_rows(x, "x", self.input_shape)
        return np.asarray(self._native.embed(rows))

    def embed_file(
        self,
        out: PathLike,
        data: PathLike | None = None,
    ) -> EmbeddedFile:
        """Writes the features of a data file of classes to `out`.

        out: a data file, or (.npz) arrays. data: the data file; None: that of the run.
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
    out: a data file, or (.npz) arrays. data: the data file; None: that of the run.
    overrides, device, threads, allow_changed_data: as for `train`.

    For rows in memory: `kshot.Embedder(run)(x)`.
    """
    embedder = Embedder(
        run,
        device=device,
        threads=threads,
        overrides=overrides,
        allow_changed_data=allow_changed_data,
    )
    return embedder.embed_file(out, data)
