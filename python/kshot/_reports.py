"""Reports and comparisons of runs, sweeps of runs, and contextual bandits."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import _core
from ._config import (
    Config,
    ConfigLike,
    Overrides,
    override_list,
    set_table,
    toml_text,
    without_lines,
)
from ._runs import Evaluation, PathLike, evaluation_of


@dataclass(frozen=True)
class Report:
    """The result of `report`: the page that was written, and its numbers."""

    file: Path
    name: str  #: the name of the run on the page, such as "ABML"
    numbers: dict[str, str]  #: the main numbers as text: {"test MSE": "0.41 ± 0.03"}
    evaluation: Evaluation | None = field(repr=False)
    #: Evaluations with other numbers of support rows (of rows per class for a classification).
    by_shots: dict[int, Evaluation] = field(repr=False)

    def to_pandas(self) -> Any:
        """A DataFrame with one row per score (needs pandas).

        The column `shots` is the number of support rows of an evaluation in `by_shots`. It is
        missing (NA) in the rows of the run's own evaluation.
        """
        import pandas as pd

        parts: list[tuple[int | None, Evaluation]] = list(self.by_shots.items())
        if self.evaluation is not None:
            parts.insert(0, (None, self.evaluation))
        frames = []
        for shots, evaluation in parts:
            frame = evaluation.to_pandas()
            frame.insert(0, "shots", pd.array([shots] * len(frame), dtype="Int64"))
            frames.append(frame)
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def report(
    run: PathLike,
    out: PathLike | None = None,
    *,
    quick: bool = False,
    device: str = "auto",
    threads: int = 0,
    allow_changed_data: bool = False,
) -> Report:
    """Writes a run's report, an HTML page that needs no other files.

    run: the run folder.
    out: the file of the page; None: report.html in the run folder.
    quick: show only what the run folder holds. Otherwise the run is evaluated if it was not
        before, and the error is computed against the number of support rows.
    device, threads: as for `train`.
    allow_changed_data: continue although the data file is not the one of the training.

    Raises Error where the report cannot be made.
    """
    d = _core.report(
        os.fspath(run),
        "" if out is None else os.fspath(out),
        device,
        threads,
        quick,
        allow_changed_data,
    )
    own = d["evaluation"]
    return Report(
        file=d["file"],
        name=d["name"],
        numbers=dict(d["numbers"]),
        evaluation=None if own is None else evaluation_of(*own),
        by_shots={shots: evaluation_of(*numbers) for shots, numbers in d["by_shots"]},
    )


@dataclass(frozen=True)
class Difference:
    """The difference between a method and the first run in one metric.

    `value` is the mean over episodes of the method's metric minus the first run's metric on the
    same episode. `low` and `high` are the ends of its paired 95 % bootstrap interval over episodes.
    They are NaN for fewer than two episodes.
    """

    method: str
    metric: str
    episodes: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """The result of `compare`: the page that was written, and its numbers."""

    file: Path
    names: list[str]
    numbers: dict[str, dict[str, str]]  #: the main numbers of each run by its name, as text
    #: The keys of the configuration that differ, each with the value of every run as TOML.
    settings: dict[str, dict[str, str]] = field(repr=False)
    #: Differences between the other runs, or the first run's baselines, and the first run.
    differences: list[Difference] = field(repr=False)
    warnings: list[str] = field(repr=False)  #: why runs cannot be compared
    #: What `kshot compare` prints.
    text: str = field(repr=False)

    def to_pandas(self) -> Any:
        """The differences as a DataFrame with one row per method and metric (needs pandas)."""
        import pandas as pd

        columns = [f.name for f in Difference.__dataclass_fields__.values()]
        return pd.DataFrame([vars(d) for d in self.differences], columns=columns)


def compare(runs: Sequence[PathLike], out: PathLike | None = None) -> Comparison:
    """Compares runs that were evaluated, and writes a page.

    runs: run folders. The first run is the reference. Runs are not evaluated here, so that
        `evaluate` has to be called first.
    out: the file of the page; None: comparison.html in the current folder.

    Raises Error where the runs cannot be read.
    """
    if isinstance(runs, (str, os.PathLike)):
        raise TypeError("runs: expected a list of run folders")
    d = _core.compare([os.fspath(run) for run in runs], "" if out is None else os.fspath(out))
    names = d["names"]
    return Comparison(
        file=d["file"],
        names=names,
        numbers={name: dict(numbers) for name, numbers in zip(names, d["numbers"], strict=True)},
        settings={key: dict(zip(names, values, strict=True)) for key, values in d["settings"]},
        differences=[Difference(*row) for row in d["differences"]],
        warnings=d["warnings"],
        text=d["text"],
    )


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep. It may be given wherever a run folder is expected."""

    folder: Path
    #: The varied keys with their values as TOML: {"inner.steps": "2"}.
    values: dict[str, str]
    #: "done", "stopped" (not among the best of a round), "failed", "interrupted" or "waiting" (for
    #: its turn, or for the other runs of a round).
    status: str
    step: int  #: number of meta-steps that were made
    best_step: int  #: number of meta-steps at the best validation
    metric: str  #: metric of the validation; empty where there was no validation
    value: float  #: the metric at the best validation; NaN where there was no validation
    half_width: float  #: half width of its 95 % confidence interval
    seconds: float  #: training time in seconds
    message: str  #: the error of a run that failed; else empty

    def __fspath__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class SweepResult:
    """The runs of a sweep, sorted by their validation, the best first."""

    runs: list[SweepRun]
    folder: Path
    #: The table that `kshot sweep` prints.
    table: str = field(repr=False)

    @property
    def best(self) -> SweepRun:
        """The run with the best validation. Raises Error where no run has one."""
        if not self.runs or not self.runs[0].metric:
            raise _core.Error("no run of the sweep has a validation")
        return self.runs[0]

    def to_pandas(self) -> Any:
        """A DataFrame with one row per run (needs pandas).

        The varied keys are columns.
        """
        import pandas as pd

        rows = []
        for run in self.runs:
            row = {k: v for k, v in vars(run).items() if k not in ("values", "message")}
            rows.append({**row, "folder": str(run.folder), **run.values, "message": run.message})
        return pd.DataFrame(rows)


def sweep(
    config: ConfigLike,
    vary: Mapping[str, Any],
    overrides: Overrides = None,
    out: PathLike = "sweep",
    *,
    random: int = 0,
    seed: int = 1,
    halving: int = 0,
    first_steps: int = 0,
    jobs: int = 0,
    threads: int = 1,
    device: str = "auto",
    collect: bool = False,
    on_run: Callable[[SweepRun], object] | None = None,
) -> SweepResult:
    """Trains many runs that differ in some keys, and sorts them by their validation.

    config, overrides: as for `train`.
    vary: lists of values by key, `{"inner.steps": [1, 2, 5]}`. For a random search also ranges,
        `{"inner.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}`.
    out: the folder for the run folders and for sweep.csv. The same call continues a sweep that was
        interrupted.
    random: number of runs of a random search, which are drawn by `seed`. 0: one run for every
        combination of the values.
    halving, first_steps: successive halving (docs/sweeps.md). 0: every run makes all its steps.
    jobs: number of runs that train side by side; 0: as many as there are cores.
    threads, device: the number of CPU threads and the device of each run.
    collect: train nothing, and only collect the results in the run folders.
    on_run: called with a run when the run, or its part of a round, is done.

    Ctrl-C ends the sweep after the current steps. Raises ConfigError, before any training, if a run
    would refuse its configuration.
    """
    native = Config(config, overrides)._native
    origin = os.fspath(config) if isinstance(config, (str, os.PathLike)) else "configuration"
    folder = Path(out)
    with without_lines():
        settings = _core.SweepSettings.parse(set_table(vary))
    settings.random, settings.seed = random, seed
    settings.halving, settings.first_steps = halving, first_steps
    keys = settings.keys

    def run_of(d: dict[str, Any]) -> SweepRun:
        number, values = d.pop("run"), d.pop("values")
        for name in ("value", "half_width"):
            d[name] = d[name] if d["metric"] else float("nan")
        path = folder / f"run-{number:03}"
        return SweepRun(folder=path, values=dict(zip(keys, values, strict=True)), **d)

    def report(d: dict[str, Any]) -> None:
        if on_run is not None:
            on_run(run_of(d))

    rows, table = _core.sweep(
        native, origin, settings, os.fspath(out), jobs, threads, device, collect, report
    )
    return SweepResult(runs=[run_of(d) for d in rows], folder=folder, table=table)


@dataclass(frozen=True)
class BanditScore:
    """The score of an agent in an environment.

    The fields `cumulative` to `simple_std` are regrets in percent of the uniform agent's mean
    regret. They are NaN where that mean is 0. The regrets in `curve` are not divided by it.
    """

    environment: str
    agent: str
    cumulative: float  #: cumulative regret in percent, mean over trials
    cumulative_std: float  #: its standard deviation over trials
    simple: float  #: simple regret in percent, mean over trials
    simple_std: float  #: its standard deviation over trials
    seconds: float
    remark: str = field(repr=False)
    #: Cumulative regret, mean over trials, after each number of rounds in `curve_steps`.
    curve: list[float] = field(repr=False)
    curve_steps: list[int] = field(repr=False)


@dataclass(frozen=True)
class BanditResults:
    """The scores of all agents of a configuration in all its environments."""

    scores: list[BanditScore]
    #: The content of the JSON file that `kshot bandit` writes.
    data: dict[str, Any] = field(repr=False)
    #: The table that `kshot bandit` prints.
    table: str = field(repr=False)

    def to_pandas(self) -> Any:
        """A DataFrame with one row per environment and agent (needs pandas)."""
        import pandas as pd

        lists = ("curve", "curve_steps")
        rows = [{k: v for k, v in vars(s).items() if k not in lists} for s in self.scores]
        return pd.DataFrame(rows)


def bandit(
    config: PathLike | Mapping[str, Any],
    overrides: Overrides = None,
    out: PathLike | None = None,
    *,
    device: str = "auto",
    threads: int = 0,
    on_result: Callable[[str, str, float], object] | None = None,
) -> BanditResults:
    """Plays contextual bandits: every agent of the configuration in every environment.

    config: a TOML file of `kshot bandit` (docs/bandits.md), or a dict with the same keys.
    overrides: changes to the configuration, as for `train`.
    out: the JSON file for the numbers. A page with the regrets is written beside it (.html). None:
        nothing is written.
    device, threads: as for `train`.
    on_result: called with (environment, agent, seconds) after every agent in every environment.

    Raises ConfigError for a configuration that is refused, and Error.
    """
    is_text = isinstance(config, Mapping)
    if not isinstance(config, (str, os.PathLike, Mapping)):
        raise TypeError(f"config: expected a path or a dict, got {type(config).__name__}")
    source = toml_text(config) if isinstance(config, Mapping) else os.fspath(config)
    with without_lines():
        text, table = _core.bandit(
            source,
            is_text,
            override_list(overrides),
            "" if out is None else os.fspath(out),
            device,
            threads,
            on_result if on_result is not None else lambda *ignored: None,
        )
    data = json.loads(text)
    scores = []
    for r in data["results"]:
        none = {"mean": float("nan"), "std": float("nan")}
        cumulative, simple = r["cumulative_percent"] or none, r["simple_percent"] or none
        scores.append(
            BanditScore(
                environment=r["environment"],
                agent=r["agent"],
                cumulative=cumulative["mean"],
                cumulative_std=cumulative["std"],
                simple=simple["mean"],
                simple_std=simple["std"],
                seconds=r["seconds"],
                remark=r["remark"],
                curve=r["curve"],
                curve_steps=r["curve_steps"],
            )
        )
    return BanditResults(scores=scores, data=data, table=table)
