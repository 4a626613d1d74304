"""Small runs that the tests share. Each is trained once per session, in a second or two."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import kshot

SMALL = {
    "seed": 3,
    "network": {"layers": [1, 12, 1]},
    "inner": {"steps": 2, "learning_rate": 0.005},
    "data": {"shots": 4, "queries": 5},
    "evaluate": {"episodes": 40},
    "train": {
        "steps": 12,
        "meta_batch": 20,
        "validate_every": 6,
        "validation_episodes": 19,
        "log_every": 3,
    },
}

# The layers of an image network, with every kind of layer.
LAYERS = [
    {"type": "conv", "out": 4, "kernel": 3, "padding": 1},
    {"type": "norm"},
    {"type": "leaky_relu"},
    {"type": "max_pool", "size": 2},
    {"type": "conv", "out": 6, "kernel": 3, "stride": 2},
    {"type": "tanh"},
    {"type": "flatten"},
    {"type": "linear", "out": 3},
]


def small(algorithm: str, **tables) -> dict:
    config = {"algorithm": algorithm, **SMALL, **tables}
    if algorithm in ("alpaca", "protonet"):  # these algorithms have no inner loop
        del config["inner"]
    return config


@pytest.fixture(scope="session", autouse=True)
def ctrl_c():
    """Makes SIGINT raise KeyboardInterrupt, also where a shell had Python ignore it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def trained(folder: Path, config: dict) -> kshot.TrainResult:
    return kshot.train(config, out=folder, device="cpu", threads=2, progress=False)


@pytest.fixture(scope="session")
def maml(runs) -> kshot.TrainResult:
    return trained(runs / "maml", small("maml"))


@pytest.fixture(scope="session")
def abml(runs) -> kshot.TrainResult:
    return trained(runs / "abml", small("abml", abml={"samples_inner": 2, "samples_outer": 3}))


@pytest.fixture(scope="session")
def alpaca(runs) -> kshot.TrainResult:
    return trained(
        runs / "alpaca", small("alpaca", network={"layers": [1, 12, 5], "activation": "tanh"})
    )


@pytest.fixture(scope="session")
def class_file(runs) -> Path:
    """A file of 20 classes with 12 examples each: vectors of 6 numbers around distinct centres."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(20, 1, 6)) * 3 + rng.normal(size=(20, 12, 6))
    np.save(runs / "classes.npy", x.astype(np.float32))
    out = runs / "classes.kshot"
    kshot.import_arrays(runs / "classes.npy", out, fractions=[0.6, 0.2, 0.2])
    return out


@pytest.fixture(scope="session")
def protonet(runs, class_file) -> kshot.TrainResult:
    return trained(
        runs / "protonet",
        small(
            "protonet",
            network={"type": "linear", "layers": [6, 4]},
            data={"source": "file", "path": class_file, "ways": 3, "shots": 2, "queries": 3},
        ),
    )


@pytest.fixture
def task():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (4, 1)).astype(np.float32)
    return x, np.sin(x), rng.uniform(-2, 2, (5, 1)).astype(np.float32)
