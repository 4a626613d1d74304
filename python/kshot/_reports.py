"""Reports and comparisons of runs, sweeps, and contextual bandits."""

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
    """A page that was written, and its numbers."""

    file: Path
    name: str  #: how the page calls the run: "ABML"
    numbers: dict[str, str]  #: headline numbers as text: {"test MSE": "0.41 ± 0.03"}
    evaluation: Evaluation | None = field(repr=False)
    #: Evaluations with other numbers of support rows (per class).
    by_shots: dict[int, Evaluation] = field(repr=False)

    def to_pandas(self) -> Any:
        """A DataFrame with one row per score (needs pandas).

        The column `shots` tells the evaluations with other numbers of support rows; it is missing
        (NA) for the run's own.
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
    """Writes a run's report, a self-contained HTML page.

    out: the page; None: report.html in the run folder.
    quick: show only what the run folder holds. Otherwise the run is evaluated where its evaluation
        is missing, and error against the number of support rows is computed.
    device: "auto", "cpu", "cuda", "cuda:N" or "reference"; threads: 0 uses all cores.
    allow_changed_data: go on although the data file is not the one that the run was trained on.
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
    """The mean over episodes of a method's value less that of the first run on the same episodes.

    `low` and `high` are the ends of the paired 95 % bootstrap interval over episodes, NaN for fewer
    than two episodes.
    """

    method: str
    metric: str
    episodes: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    file: Path
    names: list[str]
    numbers: dict[str, dict[str, str]]  #: headline numbers of each run, as text
    #: The configuration's keys that differ, with each run's value as TOML.
    settings: dict[str, dict[str, str]] = field(repr=False)
    #: Differences of the other runs, and of the first run's baselines, to the first run.
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

    runs: run folders; the first one is the reference. Each is shown as it is: evaluate it first.
    out: the page; None: comparison.html in the current folder.
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
    """One run of a sweep."""

    folder: Path
    #: The varied keys with their values as TOML: {"inner.steps": "2"}.
    values: dict[str, str]
    #: "done", "stopped" (not among the best of a round), "failed", "interrupted" or "waiting".
    status: str
    step: int
    best_step: int
    metric: str  #: of the validation; empty where there was none
    value: float  #: NaN where there was no validation
    half_width: float
    seconds: float
    message: str  #: why it failed

    def __fspath__(self) -> str:
        return str(self.folder)


@dataclass(frozen=True)
class SweepResult:
    """The runs of a sweep, the best by validation first."""

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
        """A DataFrame with one row per run (needs pandas); the varied keys are columns."""
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
    """Trains many runs with other values of some keys, judged by their validation tasks.

    config, overrides: as for `train`.
    vary: values for keys, `{"inner.steps": [1, 2, 5]}`, or for a random search ranges,
        `{"inner.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}`.
    out: the folder of the run folders and of sweep.csv. The same call goes on with a sweep that was
        interrupted.
    random: runs that a random search draws by `seed`; 0: every combination of the lists.
    halving, first_steps: successive halving (docs/sweeps.md); 0: every run makes all its steps.
    jobs: runs side by side; 0: as many as there are cores. threads, device: of each run.
    collect: train nothing, gather what the run folders hold.
    on_run: called when a run is done, or done with a round.

    Ctrl-C ends it after the steps at hand. Raises ConfigError before any training for a
    configuration that some run would refuse.
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
    """An agent in an environment.

    Regrets are percentages of the uniform agent's mean; NaN where that is 0.
    """

    environment: str
    agent: str
    cumulative: float  #: mean over trials
    cumulative_std: float  #: standard deviation over trials
    simple: float
    simple_std: float
    seconds: float
    remark: str = field(repr=False)
    #: Cumulative regret, mean over trials, after the numbers of rounds in `curve_steps`.
    curve: list[float] = field(repr=False)
    curve_steps: list[int] = field(repr=False)


@dataclass(frozen=True)
class BanditResults:
    """All agents of a configuration in all its environments."""

    scores: list[BanditScore]
    #: Everything that `kshot bandit` writes, as it stands in its file.
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

    config: a TOML file of `kshot bandit` (docs/bandits.md), or the same as a dict.
    overrides: changes to it, by key.
    out: the file for the numbers (JSON), with a page of the regrets beside it (.html); None:
        nothing is written.
    device: "auto", "cpu", "cuda", "cuda:N" or "reference"; threads: 0 uses all cores.
    on_result: called with (environment, agent, seconds) after each.
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
