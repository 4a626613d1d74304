#!/usr/bin/env python3
"""kshot's Python package beside a C++ program that calls the library with the same rows.

  pip install .
  cmake --build build --target adapt_many
  bench/python_overhead.py build/bench/adapt_many       --tasks 10000 --pairs 5

Sinusoid tasks, MAML with 5 inner steps on a 1-40-40-1 perceptron. Three forms of the same kind of rows: "ragged" are
lists of arrays with 1 to 20 support rows and 1 to 20 query rows, "lists" are lists of arrays with 10 rows each, and
"stacks" are arrays [tasks, 10, 1]. Python and C++ run in turn, several pairs of processes. A time is the least
processor time of some runs after a first one that does not count. The sums of all predictions are compared, so that
the times are of the same work.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

CONFIG = {
    "algorithm": "maml",
    "network": {"layers": [1, 40, 40, 1]},
    "inner": {"steps": 5, "learning_rate": 0.005},
    "data": {"source": "sinusoid", "shots": 10, "queries": 10},
    "train": {"steps": 50, "meta_batch": 32, "validate_every": 0},
}


def draw(form, tasks):
    """Support inputs, targets and query inputs: stacks [tasks, rows, 1], or lists of arrays [rows, 1]."""
    rng = np.random.default_rng(1)

    def rows():
        return rng.integers(1, 21, tasks) if form == "ragged" else np.full(tasks, 10)

    xs = [rng.uniform(-5, 5, (n, 1)).astype(np.float32) for n in rows()]
    ys = [(rng.uniform(0.1, 5) * np.sin(x + rng.uniform(0, 3))).astype(np.float32) for x in xs]
    queries = [rng.uniform(-5, 5, (n, 1)).astype(np.float32) for n in rows()]
    return tuple(np.stack(a) for a in (xs, ys, queries)) if form == "stacks" else (xs, ys, queries)


def write(path, drawn):
    with open(path, "wb") as file:
        file.write(np.int32(len(drawn[0])).tobytes())
        for x, y, query in zip(*drawn, strict=True):
            file.write(np.array([len(x), len(query)], np.int32).tobytes())
            for rows in (x, y, query):
                file.write(rows.astype("<f4").tobytes())


def measure_python(run, form, tasks, threads, repeats):
    """What the C++ program prints, of the Python package. Runs in a process of its own."""
    import kshot

    learner = kshot.load(run, threads=threads)
    xs, ys, queries = draw(form, tasks)
    works = {
        "predict_many": lambda: learner.predict_many(xs, ys, queries),
        "adapt_many": lambda: learner.adapt_many(xs, ys).predict(queries),
    }
    found = {}
    for name, work in works.items():
        work()
        seconds = []
        for _ in range(repeats):
            start = time.process_time()
            predictions = work()
            seconds.append(time.process_time() - start)
        found[name] = {"seconds": seconds, "sum": sum(float(p.mean.sum()) for p in predictions)}
    print(json.dumps(found))


def output(command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="build/bench/adapt_many")
    parser.add_argument("--tasks", type=int, default=10000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=9, help="runs of a process")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--measure", nargs=2, metavar=("RUN", "FORM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    numbers = [str(options.threads), str(options.repeats)]
    if options.measure:
        measure_python(*options.measure, options.tasks, options.threads, options.repeats)
        return
    import kshot

    print("| rows | call | Python, ms | C++, ms | ratio of the rates, median (least to greatest) |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        run = str(kshot.train(CONFIG, out=folder / "run", progress=False).folder)
        for form in ("ragged", "lists", "stacks"):
            write(folder / "tasks", draw(form, options.tasks))
            own = [sys.executable, __file__, options.program, "--tasks", str(options.tasks), "--threads", numbers[0],
                   "--repeats", numbers[1], "--measure", run, form]
            pairs = [(output(own), output([options.program, run, str(folder / "tasks"), *numbers]))
                     for _ in range(options.pairs)]
            for call in ("predict_many", "adapt_many"):
                python, cpp = ([min(pair[side][call]["seconds"]) for pair in pairs] for side in (0, 1))
                sums = [result[call]["sum"] for pair in pairs for result in pair]
                if max(sums) - min(sums) > 1e-6 * abs(sums[0]):
                    raise SystemExit(f"{form}, {call}: the programs do different work: sums {sums}")
                ratios = sorted(c / p for p, c in zip(python, cpp, strict=True))
                print(f"| {form} | `{call}` | {1e3 * statistics.median(python):.0f} | {1e3 * statistics.median(cpp):.0f} | "
                      f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |")


if __name__ == "__main__":
    main()
