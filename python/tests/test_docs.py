"""The examples of docs/python.md run, one after another."""

import importlib.util
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "python.md"


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
        # Empty lines in front, so that a traceback shows the document's line.
        lines = "\n" * text.count("\n", 0, block.start(1)) + block[1]
        exec(compile(lines, str(DOCUMENT), "exec"), namespace)
    assert "runs/abml 30 " in capsys.readouterr().out
