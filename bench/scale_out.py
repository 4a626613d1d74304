#!/usr/bin/env python3
"""Compares the efficiency of processes and threads on one machine.

    bench/scale_out.py build/kshot            # sinusoids with 1,024 and 8,192 tasks per step; conv4 with --images

The script trains the same steps with one thread, with two threads, and as two ranks of one thread
each (mpirun). The three take turns. The time is the training time in the checkpoint, which does not
include the start of the program. "Halves" are two processes at once, each with half of the tasks, that
exchange nothing: ranks beside halves is what the exchange costs. The script prints the median over the repeats of each time, of the
efficiencies of threads and of ranks, and of the ratio of the two, which it takes within each repeat:
the speed of a machine may change from minute to minute. Nothing else should run on the machine.
"""

import argparse
import json
import os
import pathlib
import re
import statistics
import struct
import subprocess
import tempfile

SINUSOIDS = """algorithm = "maml"
seed = 1
network.layers = [1, 40, 40, 1]
inner = { steps = 5, learning_rate = 0.005 }
data = { shots = 10, queries = 10 }
[train]
steps = {steps}
meta_batch = {tasks}
validate_every = 0
log_every = 1000
"""
CASES = {
    "sinusoids": SINUSOIDS.replace("{steps}", "400").replace("{tasks}", "1024"),
    "sinusoids-8192": SINUSOIDS.replace("{steps}", "50").replace("{tasks}", "8192"),
    "conv4": """algorithm = "maml"
seed = 1
inner = { steps = 2, learning_rate = 0.05 }
[network]
type = "conv4"
filters = 32
in_channels = 1
image = [28, 28]
classes = 5
downsample = "stride"
norm = "batch"
head = "mean"
[loss]
type = "cross_entropy"
[data]
source = "file"
path = "images.kshot"
ways = 5
shots = 1
queries = 5
[train]
steps = 60
meta_batch = 32
validate_every = 0
log_every = 1000
""",
}


def seconds(run: pathlib.Path) -> float:
    data = (run / "last.safetensors").read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    metadata = json.loads(data[8 : 8 + size])["__metadata__"]
    return float(json.loads(metadata["state"])["seconds"])


def train_command(kshot: str, out: pathlib.Path, threads: int) -> list[str]:
    return [kshot, "train", "c.toml", "--out", str(out), "--quiet", "--threads", str(threads)]


def train(
    kshot: str, folder: pathlib.Path, name: str, threads: int, ranks: int, launcher: str
) -> float:
    out = folder / name
    command = train_command(kshot, out, threads)
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    if ranks > 1:
        command = [*launcher.split(), "-n", str(ranks), *command]
    subprocess.run(command, cwd=folder, check=True, env=environment)
    return seconds(out)


def train_halves(kshot: str, folder: pathlib.Path, name: str, tasks: int) -> float:
    """Two processes at once that know nothing of each other, each with half of the tasks: the time of
    the slower one."""
    runs = [folder / f"{name}-{half}" for half in (0, 1)]
    half_the_tasks = ["--set", f"train.meta_batch={tasks // 2}"]
    processes = [
        subprocess.Popen([*train_command(kshot, run, 1), *half_the_tasks], cwd=folder) for run in runs
    ]
    if any(process.wait() != 0 for process in processes):
        raise SystemExit("kshot failed")
    return max(seconds(run) for run in runs)


def show(values: list[float]) -> str:
    """The median, and in brackets the smallest and the largest value."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kshot")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--images", help="data file of images of 28 x 28, for conv4")
    parser.add_argument(
        "--launcher", default="mpirun --oversubscribe", help="for MPICH: mpiexec.mpich"
    )
    arguments = parser.parse_args()
    kshot = str(pathlib.Path(arguments.kshot).resolve())
    cases = arguments.case or [c for c in CASES if c != "conv4" or arguments.images]
    for case in cases:
        times: dict[str, list[float]] = {"one": [], "threads": [], "ranks": [], "halves": []}
        tasks = int(re.search(r"meta_batch = (\d+)", CASES[case])[1])
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            (folder / "c.toml").write_text(CASES[case])
            if case == "conv4":
                (folder / "images.kshot").symlink_to(pathlib.Path(arguments.images).resolve())
            for repeat in range(arguments.repeats):
                ways = [("one", 1, 1), ("threads", 2, 1), ("ranks", 1, 2)]
                for way, threads, ranks in ways if repeat % 2 == 0 else reversed(ways):
                    name = f"{way}-{repeat}"
                    took = train(kshot, folder, name, threads, ranks, arguments.launcher)
                    times[way].append(took)
                times["halves"].append(train_halves(kshot, folder, f"halves-{repeat}", tasks))
        print(f"{case}, {arguments.repeats} repeats")
        names = {"one": "1 thread", "threads": "2 threads", "ranks": "2 ranks", "halves": "2 halves"}
        for way, name in names.items():
            print(f"  {name:<10} {show(times[way])} s")
        for way in ["threads", "ranks"]:
            ideal = zip(times["one"], times[way], strict=True)
            print(f"  efficiency of two {way}: {show([one / (2 * two) for one, two in ideal])}")
        for way in ["threads", "halves"]:
            pairs = zip(times[way], times["ranks"], strict=True)
            print(f"  ranks beside {way}: {show([other / ranks for other, ranks in pairs])}")


if __name__ == "__main__":
    main()
