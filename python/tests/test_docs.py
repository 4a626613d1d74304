"""The examples of docs/python.md run, one after another."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"
README = Path(__file__).parents[2] / "README.md"


def test_ten_lines_from_embeddings_to_a_calibrated_classifier(tmp_path, monkeypatch, capsys):
    """Runs README's example. Half of the features are noise, so that a learned linear map helps."""
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    example = next(block for block in blocks if "from_arrays" in block)
    assert len(example.replace("import kshot\n", "").strip().splitlines()) <= 10
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    scale = np.repeat([0.3, 3.0], 32)  # noise, which hides the last 32 features

    def rows(centres, count):
        where = np.repeat(np.arange(len(centres)), count)
        return centres[where] + scale * rng.normal(size=(len(where), 64)), where

    embeddings, labels = rows(rng.normal(size=(100, 64)), 20)
    new = rng.normal(size=(5, 64))
    x_support, y_support = rows(new, 3)
    x_query, y_query = rows(new, 20)
    namespace = dict(
        embeddings=embeddings,
        labels=labels,
        x_support=x_support,
        y_support=y_support,
        x_query=x_query,
    )
    exec(compile(example, str(README), "exec"), namespace)
    found = np.mean(np.argmax(namespace["task"].predict(x_query).probabilities, 1) == y_query)
    distances = np.linalg.norm(x_query[:, None] - x_support.reshape(5, 3, 64).mean(1), axis=2)
    assert found > 0.9 > np.mean(np.argmin(distances, 1) == y_query) + 0.1
    assert "calibrated" in capsys.readouterr().out


def test_the_examples_run(tmp_path, monkeypatch, capsys):
    for needed in ("sklearn", "pandas", "onnxruntime", "onnx"):
        pytest.importorskip(needed)
    torch = importlib.util.find_spec("torch") is not None
    monkeypatch.chdir(tmp_path)
    text = DOCUMENT.read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    assert len(blocks) > 5
    namespace = {"__name__": "example"}
    for block in blocks:
        if "kshot.torch" in block[1] and not torch:
            continue
        # Empty lines in front make a traceback show the document's line.
        lines = "\n" * text.count("\n", 0, block.start(1)) + block[1]
        exec(compile(lines, str(DOCUMENT), "exec"), namespace)
    assert "runs/abml 30 " in capsys.readouterr().out
