"""The public names of the package kshot.

The package loads this module when one of the names is first used.
"""

from . import data, metrics
from ._config import Config
from ._core import ConfigError, DeviceError, Error
from ._episodes import EpisodeSource
from ._imports import (
    ImportSummary,
    import_arrays,
    import_images,
    import_omniglot,
    import_table,
)
from ._learner import FittedTask, FittedTasks, Learner, Prediction, Predictions, load
from ._meta_gradient import MetaGradient, meta_gradient
from ._reports import (
    BanditResults,
    BanditScore,
    Comparison,
    Difference,
    Report,
    SweepResult,
    SweepRun,
    bandit,
    compare,
    report,
    sweep,
)
from ._runs import (
    Calibration,
    EmbeddedFile,
    Embedder,
    Evaluation,
    IntervalScore,
    OodEvaluation,
    OodKind,
    OodScore,
    Score,
    Statistic,
    TrainReport,
    TrainResult,
    ValidationReport,
    calibrate,
    embed,
    evaluate,
    evaluate_ood,
    train,
)

__all__ = [
    "BanditResults",
    "BanditScore",
    "Calibration",
    "Comparison",
    "Config",
    "ConfigError",
    "DeviceError",
    "Difference",
    "EmbeddedFile",
    "Embedder",
    "EpisodeSource",
    "Error",
    "Evaluation",
    "FittedTask",
    "FittedTasks",
    "ImportSummary",
    "IntervalScore",
    "Learner",
    "MetaGradient",
    "OodEvaluation",
    "OodKind",
    "OodScore",
    "Prediction",
    "Predictions",
    "Report",
    "Score",
    "Statistic",
    "SweepResult",
    "SweepRun",
    "TrainReport",
    "TrainResult",
    "ValidationReport",
    "bandit",
    "calibrate",
    "compare",
    "data",
    "embed",
    "evaluate",
    "evaluate_ood",
    "import_arrays",
    "import_images",
    "import_omniglot",
    "import_table",
    "load",
    "meta_gradient",
    "metrics",
    "report",
    "sweep",
    "train",
]
