"""Trainings over the processes of `mpirun python script.py`, with and without mpi4py."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import small

import kshot
from kshot import _core

OPEN_MPI = _core.mpi_library().startswith("Open MPI")
# The launcher of the MPI that kshot is built with. The first name is Debian's name for it where
# both kinds of MPI are installed.
LAUNCHERS = ["mpirun.openmpi", "mpirun"] if OPEN_MPI else ["mpiexec.mpich", "mpiexec.hydra"]
LAUNCHER = next(filter(None, map(shutil.which, LAUNCHERS)), None)
pytestmark = [
    pytest.mark.skipif(_core.mpi_library() == "", reason="this kshot was built without MPI"),
    pytest.mark.skipif(LAUNCHER is None, reason=f"no {LAUNCHERS[-1]} here"),
]

SCRIPT = """
import json, os, sys
if sys.argv[1] == "mpi4py":
    from mpi4py import MPI
import kshot

config = json.loads(sys.argv[2])
try:
    kshot.train(config, {"inner.steps": -1}, out="never")
except kshot.Error:
    pass  # the same on every rank
run = kshot.train(config, out="run", progress=False)
try:
    # An error of rank 1 is one of all ranks, which go on together.
    rank = os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]
    kshot.evaluate(run if rank == "0" else "nothing")
    raise SystemExit("an evaluation of nothing")
except kshot.Error as error:
    assert "nothing" in str(error), error
evaluation = kshot.evaluate(run, out="evaluation.json", progress=False)
if sys.argv[1] == "mpi4py":
    # kshot has taken part in the program's own world and left it as it was.
    means = MPI.COMM_WORLD.allgather(evaluation.last.mse.mean)
    assert means == [evaluation.last.mse.mean] * MPI.COMM_WORLD.size, means
    print("rank", MPI.COMM_WORLD.rank, "of", MPI.COMM_WORLD.size, flush=True)
"""


def tensors(run):
    """Returns the header and the bytes of the tensors in the last checkpoint."""
    data = (run / "last.safetensors").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__")
    return header, data[8 + size :]


@pytest.mark.parametrize("start", ["mpi4py", "plain"])
def test_ranks_train_and_evaluate_like_one_process(start, tmp_path):
    if start == "mpi4py" and importlib.util.find_spec("mpi4py") is None:
        pytest.skip("mpi4py is not installed")
    config = small("maml")
    alone = kshot.train(config, out=tmp_path / "alone", progress=False)
    expected = kshot.evaluate(alone, progress=False)
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = dict(
        os.environ,
        OMPI_ALLOW_RUN_AS_ROOT="1",
        OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        KSHOT_RANK_TIMEOUT="60",
    )
    oversubscribe = ["--oversubscribe"] if OPEN_MPI else []
    command = [LAUNCHER, *oversubscribe, "-n", "2", sys.executable, "script.py", start]
    ended = subprocess.run(
        [*command, json.dumps(config)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    if start == "mpi4py":
        assert sorted(ended.stdout.splitlines()) == ["rank 0 of 2", "rank 1 of 2"]
    assert not (tmp_path / "never").exists()
    assert tensors(tmp_path / "run") == tensors(tmp_path / "alone")
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["steps"][-1]["mse"]["mean"] == expected.last.mse.mean
