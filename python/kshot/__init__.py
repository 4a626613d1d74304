"""Meta-learning on thousands of few-shot tasks at once.

    import kshot

    run = kshot.train("configs/sinusoid-abml.toml", overrides={"train.steps": 300})
    task = kshot.load(run).adapt(x_support, y_support)
    prediction = task.predict(x_query)

Functions: train, evaluate, calibrate, report, compare, load, embed, import_arrays, import_images,
import_omniglot, import_table, meta_gradient, bandit. Classes: Config, Learner, EpisodeSource,
Embedder, MetaGradient.
Data in memory is imported by kshot.data; scikit-learn's estimators are in kshot.sklearn.
"""

from . import data
from ._config import Config
from ._core import ConfigError, DeviceError, Error, version
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
    bandit,
    compare,
    report,
)
from ._runs import (
    Calibration,
    EmbeddedFile,
    Embedder,
    Evaluation,
    Score,
    Statistic,
    TrainReport,
    TrainResult,
    ValidationReport,
    calibrate,
    embed,
    evaluate,
    train,
)

__version__ = version()
del version

for _error in (Error, ConfigError, DeviceError):
    _error.__module__ = "kshot"
del _error

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
    "Learner",
    "MetaGradient",
    "Prediction",
    "Predictions",
    "Report",
    "Score",
    "Statistic",
    "TrainReport",
    "TrainResult",
    "ValidationReport",
    "__version__",
    "bandit",
    "calibrate",
    "compare",
    "data",
    "embed",
    "evaluate",
    "import_arrays",
    "import_images",
    "import_omniglot",
    "import_table",
    "load",
    "meta_gradient",
    "report",
    "train",
]
