"""Meta-learning on thousands of few-shot tasks at once.

    import kshot

    run = kshot.train("configs/sinusoid-abml.toml", overrides={"train.steps": 300})
    task = kshot.load(run).adapt(x_support, y_support)
    prediction = task.predict(x_query)

Functions: train, evaluate, evaluate_ood, calibrate, sweep, report, compare, load, embed,
import_arrays, import_images, import_omniglot, import_table, meta_gradient, bandit. Classes: Config,
Learner, EpisodeSource, Embedder, MetaGradient.
The module kshot.data makes data files of data in memory. The module kshot.metrics scores the
predictions of any program. The module kshot.sklearn has estimators for scikit-learn, and
kshot.torch connects the engine with PyTorch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from ._core import ConfigError, DeviceError, Error, version

if TYPE_CHECKING:
    from ._api import *  # noqa: F403
    from ._api import __all__ as __all__

__version__ = version()
del version

Error.__doc__ = "Raised where the engine refuses something; the message says what was expected."
ConfigError.__doc__ = "Raised for a refused configuration; the message names the file and the key."
DeviceError.__doc__ = "Raised for a device that cannot be used; the message says why."
for _error in (Error, ConfigError, DeviceError):
    _error.__module__ = "kshot"
del _error


def __getattr__(name: str) -> Any:
    """Loads a public name at its first use, so that `import kshot` alone does not import NumPy."""
    if name.startswith("_") and name != "__all__":
        raise AttributeError(f"module 'kshot' has no attribute {name!r}")
    if name in ("data", "metrics"):  # these modules are imported directly, not through `_api`
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
