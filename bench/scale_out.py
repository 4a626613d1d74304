"""Compares the efficiency of processes and threads on one machine.

    bench/scale_out.py build/kshot            # sinusoids and conv4, three repeats each

The script trains the same steps with one thread, with two threads, and as two ranks of one thread
each (mpirun). The three take turns, and the fastest repeat of each counts. The time is the training
time in the checkpoint, which does not include the start of the program. The script prints the
efficiencies of threads and of ranks, and their ratio. Nothing else should run on the machine.
"""

import argparse
import json
import os
import pathlib
import struct
import subprocess
import tempfile

CASES = {
    "sinusoids": """algorithm = "maml"
seed = 1
network.layers = [1, 40, 40, 1]
inner = { steps = 5, learning_rate = 0.005 }
data = { shots = 10, queries = 10 }
[train]
steps = 400
meta_batch = 1024
validate_every = 0
log_every = 1000
""",
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


def train(
    kshot: str, folder: pathlib.Path, name: str, threads: int, ranks: int, launcher: str
) -> float:
    out = folder / name
    command = [kshot, "train", "c.toml", "--out", str(out), "--quiet", "--threads", str(threads)]
    environment = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    if ranks > 1:
        command = [*launcher.split(), "-n", str(ranks), *command]
    subprocess.run(command, cwd=folder, check=True, env=environment)
    return seconds(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("kshot")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--case", action="append", choices=["sinusoids", "conv4"])
    parser.add_argument("--images", help="data file of images of 28 x 28, for conv4")
    parser.add_argument(
        "--launcher", default="mpirun --oversubscribe", help="for MPICH: mpiexec.mpich"
    )
    arguments = parser.parse_args()
    kshot = str(pathlib.Path(arguments.kshot).resolve())
    cases = arguments.case or (["sinusoids", "conv4"] if arguments.images else ["sinusoids"])
    for case in cases:
        best: dict[str, float] = {}
        with tempfile.TemporaryDirectory() as temporary:
            folder = pathlib.Path(temporary)
            (folder / "c.toml").write_text(CASES[case])
            if case == "conv4":
                (folder / "images.kshot").symlink_to(pathlib.Path(arguments.images).resolve())
            for repeat in range(arguments.repeats):
                for way, threads, ranks in [("one", 1, 1), ("threads", 2, 1), ("ranks", 1, 2)]:
                    took = train(
                        kshot, folder, f"{way}-{repeat}", threads, ranks, arguments.launcher
                    )
                    best[way] = min(took, best.get(way, took))
        by_threads = best["one"] / (2 * best["threads"])
        by_ranks = best["one"] / (2 * best["ranks"])
        print(
            f"{case}: 1 thread {best['one']:.3f} s, 2 threads {best['threads']:.3f} s "
            f"(efficiency {by_threads:.3f}), 2 ranks {best['ranks']:.3f} s "
            f"(efficiency {by_ranks:.3f}), ratio {by_ranks / by_threads:.3f}"
        )


if __name__ == "__main__":
    main()
