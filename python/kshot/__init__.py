"""Meta-learning on thousands of few-shot tasks at once.

    import kshot

    run = kshot.train("configs/sinusoid-abml.toml", overrides={"train.steps": 300})
    task = kshot.load(run).adapt(x_support, y_support)
    prediction = task.predict(x_query)

Functions: train, evaluate, evaluate_ood, calibrate, sweep, report, compare, load, embed,
import_arrays, import_images, import_omniglot, import_table, meta_gradient, bandit. Classes: Config,
Learner, EpisodeSource, Embedder, MetaGradient.
Data in memory is imported by kshot.data, and predictions of any program are scored by
kshot.metrics; scikit-learn's estimators are in kshot.sklearn.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._core import ConfigError, DeviceError, Error, version

if TYPE_CHECKING:
    from ._api import *  # noqa: F403
    from ._api import __all__ as __all__

__version__ = version()
del version

Error.__doc__ = "What the engine refuses, in one line that says what was expected."
ConfigError.__doc__ = "A configuration that is refused, in one line with its file and key."
DeviceError.__doc__ = "A device that cannot be used, with the reason."
for _error in (Error, ConfigError, DeviceError):
    _error.__module__ = "kshot"
del _error


def __getattr__(name: str) -> Any:
    """The other names, whose modules import NumPy, are loaded when one is first used."""
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'kshot' has no attribute {name!r}")
    if name in ("data", "metrics"):  # modules, some of which modules of `_api` import
        return importlib.import_module(f".{name}", __name__)
    from . import _api

    if name != "__all__" and name not in _api.__all__:
        raise AttributeError(f"module 'kshot' has no attribute {name!r}")
    value = getattr(_api, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from . import _api

    return sorted({*globals(), *_api.__all__})
