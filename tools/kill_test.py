#!/usr/bin/env python3
"""Ends training runs at random moments, and checks that resumed runs give the same result.

For MAML, HVI (with its task store) and LEO, a short run is trained once without a stop. Then runs of the same
configuration are killed (SIGKILL) at random moments and resumed, until one reaches its end. Its checkpoints and
metrics must be identical to those of the run without a stop, except for times. No temporary file may be left.

A second test fills the disk. A run trains on a small tmpfs, and at a random moment the rest of the tmpfs is
filled. The run must end with one line and status 2, unless it is done already. It is resumed when there is
space again. Where a tmpfs cannot be mounted, the size of files is limited instead. The output says which.

    tools/kill_test.py                            a short form: 18 kills, 6 full disks
    tools/kill_test.py --kills 200 --full 60      the long form
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMON = """seed = 7
[optimizer]
clip_norm = 5.0
[train]
steps = 120
meta_batch = 16
validate_every = 15
validation_episodes = 8
log_every = 4
checkpoint_every = 3
"""

CONFIGS = {
    "maml": """algorithm = "maml"
network.layers = [1, 12, 1]
inner = { steps = 2, learning_rate = 0.005 }
data = { shots = 4, queries = 5 }
""",
    "hvi": """algorithm = "hvi"
network.layers = [1, 12, 1]
loss = { type = "gaussian_nll", noise_std = 0.3 }
inner = { steps = 2, learning_rate = 0.01 }
hvi = { bound = "vb", samples = 2 }
data = { shots = 4, queries = 5, tasks = 40 }
""",
    "leo": """algorithm = "leo"
network.layers = [1, 12, 1]
loss.type = "mse"
leo = { latent = 4, latent_steps = 1, finetune_steps = 1, encoder_layers = [8], decoder_layers = [8], \
latent_lr_init = 0.01, finetune_lr_init = 0.0002 }
data = { source = "sine_line", shots = 4, queries = 5, noise_std = 0.3 }
""",
}

TMPFS_BYTES = 8 << 20


class Failure(Exception):
    pass


def safetensors(path):
    """Returns tensors as (type, shape, bytes) by name, the metadata, and the state without times."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__")
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = (entry["dtype"], entry["shape"], data[8 + size + begin : 8 + size + end])
    state = json.loads(metadata.pop("state"))
    state.pop("seconds")
    state.pop("run_id", None)
    state.get("best", {}).pop("seconds", None)
    return tensors, metadata, state


def metrics(path):
    """Returns the records of metrics.jsonl without times."""
    records = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise Failure(f"{path}, line {number}: {error}") from error
        for key in ("seconds", "tasks_per_second"):
            record.pop(key, None)
        records.append(record)
    return records


def compare(reference, run):
    for name in ("last.safetensors", "best.safetensors"):
        wanted, found = safetensors(reference / name), safetensors(run / name)
        for part, a, b in zip(("tensors", "metadata", "state"), wanted, found):
            if a != b:
                names = sorted(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
                raise Failure(f"{run / name}: {part} differ from the run without a stop: {names}")
    if metrics(reference / "metrics.jsonl") != metrics(run / "metrics.jsonl"):
        raise Failure(f"{run}/metrics.jsonl differs from that of the run without a stop")
    left = [p.name for p in run.iterdir() if ".tmp-" in p.name]
    if left:
        raise Failure(f"{run}: temporary files are left: {', '.join(left)}")


class Tester:
    def __init__(self, program, folder, threads):
        self.program = program
        self.folder = folder
        self.threads = str(threads)
        self.random = None
        self.reference = {}
        self.seconds = {}

    def command(self, name, run, resume):
        what = ["--resume", run] if resume else [self.folder / f"{name}.toml", "--out", run]
        return [self.program, "train", "--quiet", "--threads", self.threads, *map(str, what)]

    def start(self, name, run, resume, **options):
        return subprocess.Popen(
            self.command(name, run, resume),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def train_whole(self, name):
        run = self.folder / f"{name}-whole"
        (self.folder / f"{name}.toml").write_text(CONFIGS[name] + COMMON)
        begin = time.monotonic()
        process = self.start(name, run, False)
        _, error = process.communicate()
        if process.returncode != 0:
            raise Failure(f"{name}: a run without a stop ends with {process.returncode}: {error}")
        self.reference[name] = run
        self.seconds[name] = time.monotonic() - begin

    def next_start(self, run):
        """Returns whether to resume. A run that was stopped before its first checkpoint starts again."""
        return (run / "last.safetensors").exists()

    def finish(self, name, run):
        process = self.start(name, run, self.next_start(run))
        _, error = process.communicate()
        if process.returncode != 0:
            raise Failure(f"{run}: cannot go on: status {process.returncode}: {error}")
        compare(self.reference[name], run)

    def kill_runs(self, name, kills):
        """Trains runs and kills each of them up to four times, until there were `kills` kills."""
        done = early = runs = 0
        while done < kills:
            run = self.folder / f"{name}-killed-{runs}"
            runs += 1
            for _ in range(min(4, kills - done)):
                process = self.start(name, run, self.next_start(run))
                time.sleep(self.random.uniform(0.0, 0.8 * self.seconds[name]))
                killed = process.poll() is None
                process.send_signal(signal.SIGKILL)
                _, error = process.communicate()
                if not killed and process.returncode != 0:
                    raise Failure(f"{run}: cannot go on: status {process.returncode}: {error}")
                if not killed:
                    break  # the run had ended before the signal
                done += 1
                early += not self.next_start(run)
            self.finish(name, run)
            shutil.rmtree(run)
        print(
            f"{name}: {done} kills in {runs} runs ({early} before the first checkpoint), "
            "checkpoints and metrics identical",
            flush=True,
        )

    def fill_disks(self, name, times, disk):
        """Trains `times` runs, each of which finds its disk full once.

        disk: the folder of a tmpfs. None: the size of files is limited instead.
        """
        stopped = 0
        for i in range(times):
            run = (disk or self.folder) / f"{name}-full-{i}"
            if disk:
                error = self.fill_tmpfs(name, run, disk)
            else:
                error = self.limit_files(name, run)
            if error is not None:
                stopped += 1
                if error.count("\n") != 1 or not error.startswith("kshot: "):
                    raise Failure(f"{run}: expected one line about the full disk, got: {error!r}")
            self.finish(name, run)
            shutil.rmtree(run)
        print(f"{name}: {times} full disks ({stopped} stopped the run), all identical", flush=True)

    def ended(self, run, process):
        """Returns the message of a run that found the disk full. None: the run had ended before."""
        _, error = process.communicate(timeout=120)
        if process.returncode == 0:
            return None
        if process.returncode != 2:
            raise Failure(f"{run}: status {process.returncode} on a full disk: {error}")
        return error

    def fill_tmpfs(self, name, run, disk):
        process = self.start(name, run, False)
        time.sleep(self.random.uniform(0.0, 0.8 * self.seconds[name]))
        filler = disk / "filler"
        try:
            with open(filler, "wb", buffering=0) as file:
                # The pieces are small, so that the space left is less than any file of the run
                # needs.
                for piece in (1 << 16, 1 << 12):
                    while True:
                        file.write(b"\1" * piece)
        except OSError:
            pass
        while process.poll() is None:
            # The run may free space by removing a temporary file. That space is filled too.
            try:
                with open(filler, "ab", buffering=0) as file:
                    while True:
                        file.write(b"\1" * (1 << 12))
            except OSError:
                time.sleep(0.002)
        error = self.ended(run, process)
        filler.unlink()
        return error

    def limit_files(self, name, run):
        limit = self.random.randrange(0, 20000)

        def limited():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return self.ended(run, self.start(name, run, False, preexec_fn=limited))


def mount(folder):
    """Mounts a tmpfs at `folder`. Returns False where that is not permitted."""
    folder.mkdir()
    result = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={TMPFS_BYTES}", "kshot-kill-test", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    return result.returncode == 0


def main():
    root = Path(__file__).resolve().parent.parent
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--program", type=Path, default=root / "build" / "kshot")
    parser.add_argument("--kills", type=int, default=18, help="of all algorithms together")
    parser.add_argument("--full", type=int, default=6, help="full disks, of all algorithms together")
    parser.add_argument("--only", choices=CONFIGS, action="append", help="an algorithm")
    parser.add_argument("--seed", type=int, default=1, help="of the moments")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not os.access(arguments.program, os.X_OK):
        parser.error(f"{arguments.program}: no such program; expected that of a build (--program)")
    names = arguments.only or list(CONFIGS)
    folder = Path(tempfile.mkdtemp(prefix="kshot-kill-"))
    disk = folder / "disk"
    mounted = False
    try:
        tester = Tester(arguments.program.resolve(), folder, arguments.threads)
        mounted = arguments.full > 0 and mount(disk)
        if arguments.full > 0:
            print("full disks: " + ("a tmpfs" if mounted else "a limit on the size of files"))
        for i, name in enumerate(names):
            tester.random = random.Random(f"{arguments.seed} {name}")
            tester.train_whole(name)
            share = lambda n, i=i: n // len(names) + (i < n % len(names))
            tester.kill_runs(name, share(arguments.kills))
            if share(arguments.full) > 0:
                tester.fill_disks(name, share(arguments.full), disk if mounted else None)
    except Failure as failure:
        print(f"kill_test: {failure}", file=sys.stderr)
        return 1
    finally:
        if mounted:
            subprocess.run(["umount", str(disk)], check=False)
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
