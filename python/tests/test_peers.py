import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn")
BENCH = Path(__file__).parents[2] / "bench" / "python_peers.py"


def test_the_peers_classify_alike(tmp_path):
    out = tmp_path / "result.json"
    command = [sys.executable, BENCH, "--episodes", "20", "--tasks", "4", "--repeats", "1"]
    subprocess.run([*command, "--threads", "1", "--json", out], check=True, capture_output=True)
    rows = json.loads(out.read_text())["results"]
    accuracy = {r["program"]: r["value"] for r in rows if r["work"] == "prototypes"}
    assert 0.6 < accuracy["kshot"] < 1
    for program, value in accuracy.items():
        assert value == pytest.approx(accuracy["kshot"], abs=0.002), program
    assert "scikit-learn" in accuracy
