import pickle
import subprocess
import sys

import numpy as np
import pytest

import kshot


def test_a_dict_a_file_and_text_give_the_same(tmp_path):
    table = {"algorithm": "maml", "network": {"layers": [1, 8, 1]}, "train.steps": 7}
    config = kshot.Config(table)
    assert config["train.steps"] == 7
    assert config["network.layers"] == [1, 8, 1]
    file = tmp_path / "c.toml"
    file.write_text(config.to_toml())
    assert kshot.Config(file) == config
    assert kshot.Config(str(file)) == config
    assert kshot.Config.parse(config.to_toml()) == config
    assert kshot.Config(config) == config
    assert kshot.Config(config.to_dict()) == config
    assert pickle.loads(pickle.dumps(config)) == config
    assert kshot.Config(config, {"train.steps": 8}) != config


@pytest.mark.parametrize(
    "overrides",
    [{"train.steps": 9}, {"train": {"steps": 9}}, ["train.steps=9"], {"train.steps": np.int64(9)}],
)
def test_overrides(overrides):
    assert kshot.Config({"algorithm": "maml"}, overrides)["train.steps"] == 9


def test_strings_are_quoted():
    path = 'a "quoted" \\ name\n\x7f'
    config = kshot.Config({"algorithm": "maml", "data": {"source": "file", "path": path}})
    assert config["data.path"] == path


def test_errors_have_the_programs_messages(tmp_path):
    with pytest.raises(
        kshot.ConfigError, match="^overrides: train.stepz: unknown key; did you mean train.steps"
    ) as caught:
        kshot.Config({"algorithm": "maml"}, {"train.stepz": 3})
    assert isinstance(caught.value, kshot.Error)
    assert isinstance(caught.value, ValueError)
    with pytest.raises(kshot.ConfigError, match="^configuration: train.steps: expected an integer"):
        kshot.Config({"algorithm": "maml", "train.steps": -1})
    with pytest.raises(kshot.ConfigError, match="^configuration:2: train.steps: expected"):
        kshot.Config.parse('algorithm = "maml"\ntrain.steps = -1\n')
    with pytest.raises(kshot.ConfigError, match="absent.toml"):
        kshot.Config(tmp_path / "absent.toml")


@pytest.mark.parametrize(
    "source, message",
    [
        (3, "config: expected a path, a dict or a kshot.Config, got int"),
        ({"algorithm": object()}, "algorithm: expected a number, .* got object"),
        ({3: 4}, "expected strings for keys"),
    ],
)
def test_types_are_checked(source, message):
    with pytest.raises(TypeError, match=message):
        kshot.Config(source)


def test_the_import_loads_numpy_when_it_is_needed():
    script = """
import sys, kshot
assert kshot.ConfigError.__module__ == "kshot" and kshot.__version__
assert "numpy" not in sys.modules and not hasattr(kshot, "nothing")
assert "train" in dir(kshot) and kshot.Config({"algorithm": "maml"})["algorithm"] == "maml"
from kshot import *
assert train is kshot.train and data.from_frame is kshot.data.from_frame
assert set(kshot.__all__) <= set(globals())
"""
    subprocess.run([sys.executable, "-c", script], check=True)


def test_overrides_are_no_string():
    with pytest.raises(TypeError, match="overrides"):
        kshot.Config({"algorithm": "maml"}, "train.steps=9")


def test_unknown_key():
    with pytest.raises(KeyError, match="train.nothing"):
        kshot.Config({"algorithm": "maml"})["train.nothing"]
