#!/usr/bin/env python3
"""Compares kshot's Python package with learn2learn, easyfsl and scikit-learn on the same episodes.

  pip install '.[sklearn]'; pip install torch; pip install --no-deps easyfsl
  bench/python_peers.py                                 the peers that are installed
  bench/python_peers.py --learn2learn CLONE             learn2learn's code from a clone of its repository
  bench/python_peers.py --json result.json --markdown

There are two works:
- "prototypes": 5-way episodes of embeddings (synthetic classes, or --embeddings FILE.npz with x [rows, d] and y
  [rows]). Every program classifies the same queries by the nearest prototype, without training.
- "maml": one second-order meta-gradient of the same sinusoid tasks from the same initial weights. The losses are
  compared, to ensure that the programs do the same work.

A time is the median of repeated runs after a first run that does not count. A peer that is not installed is
reported and left out.
"""

import argparse
import importlib
import json
import os
import pathlib
import platform
import statistics
import sys
import tempfile
import time
import types

import numpy as np

import kshot


def timed(work, repeats):
    """Returns (result, median seconds) of repeated runs, after one run to warm up."""
    result = work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, statistics.median(seconds)


def from_clone(folder, package, *inner):
    """Makes a package in a clone importable without its __init__.py, which needs further packages."""
    for name in (package, *(f"{package}.{part}" for part in inner)):
        module = types.ModuleType(name)
        module.__path__ = [str(pathlib.Path(folder, *name.split(".")))]
        sys.modules[name] = module


# ---- prototypes ----


def synthetic(classes, rows, width, seed):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 1, width))
    x = centres + 2.5 * rng.normal(size=(classes, rows, width))
    return x.reshape(-1, width).astype(np.float32), np.repeat(np.arange(classes), rows)


def episodes(x, y, count, ways, shots, queries, seed):
    """Draws episodes. Returns support rows, support labels, query rows and query labels.

    Each is a stack [episodes, rows, ...]. The labels of an episode are numbered from 0.
    """
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(y == c) for c in np.unique(y)]
    support, query = [], []
    for _ in range(count):
        chosen = rng.choice(len(rows_of), ways, replace=False)
        drawn = [rng.permutation(rows_of[c])[: shots + queries] for c in chosen]
        support.append(np.concatenate([d[:shots] for d in drawn]))
        query.append(np.concatenate([d[shots:] for d in drawn]))
    labels = [np.tile(np.repeat(np.arange(ways), n), (count, 1)) for n in (shots, queries)]
    return x[np.stack(support)], labels[0], x[np.stack(query)], labels[1]


def kshot_prototypes(drawn, threads, folder):
    """A protonet whose network is the identity, so that the prototypes are means of embeddings."""
    xs, ys, xq, _ = drawn
    width = xs.shape[-1]
    config = {
        "algorithm": "protonet",
        "network": {"type": "linear", "layers": [width, width]},
        "loss": {"type": "cross_entropy"},
        "data": {},
        "train": {"steps": 1, "meta_batch": 1, "validate_every": 0},
    }

    class Two(kshot.EpisodeSource):
        outputs = 2

        def episode(self, rng, split):
            rows = rng.normal(size=(4, width))
            return rows[:2], [0, 1], rows[2:], [0, 1]

    run = kshot.train(config, {"optimizer.learning_rate": 1e-12}, folder, source=Two(), progress=False)
    identity(run.folder / "last.safetensors", width)
    learner = kshot.load(run.folder / "last.safetensors", threads=threads)
    return lambda: np.argmax(learner.adapt_many(xs, ys).predict(xq).probabilities, axis=-1)


def identity(file, width):
    """Replaces the weights in a checkpoint, which are raw little-endian numbers, by the identity."""
    data = bytearray(file.read_bytes())
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    for name, values in (("weight", np.eye(width)), ("bias", np.zeros(width))):
        tensor = header[f"theta.layers.0.{name}"]
        begin, end = (8 + size + o for o in tensor["data_offsets"])
        dtype = {"F64": np.float64, "F32": np.float32}[tensor["dtype"]]
        data[begin:end] = values.astype(dtype).tobytes()
    file.write_bytes(data)


def sklearn_prototypes(drawn):
    from sklearn.neighbors import NearestCentroid

    xs, ys, xq, _ = drawn

    def work():
        return np.stack(
            [NearestCentroid().fit(a, b).predict(c) for a, b, c in zip(xs, ys, xq, strict=True)]
        )

    return work


def easyfsl_prototypes(drawn):
    import torch
    from easyfsl.methods.prototypical_networks import PrototypicalNetworks

    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in drawn[:3]]

    def work():
        found = []
        with torch.no_grad():
            for a, b, c in zip(*tensors, strict=True):
                model = PrototypicalNetworks()
                model.process_support_set(a, b)
                found.append(model(c).argmax(1).numpy())
        return np.stack(found)

    return work


def learn2learn_prototypes(drawn):
    import torch

    module = importlib.import_module("learn2learn.nn.protonet")
    tensors = [torch.from_numpy(np.ascontiguousarray(a)) for a in drawn[:3]]

    def work():
        found = []
        with torch.no_grad():
            for a, b, c in zip(*tensors, strict=True):
                found.append(module.PrototypicalClassifier(a, b)(c).argmax(1).numpy())
        return np.stack(found)

    return work


def prototypes(options, folder):
    if options.embeddings:
        data = np.load(options.embeddings)
        x, y = data["x"].astype(np.float32), data["y"]
    else:
        x, y = synthetic(100, 30, 64, 0)
    drawn = episodes(x, y, options.episodes, 5, options.shots, 15, 1)
    makers = {
        "kshot": lambda: kshot_prototypes(drawn, options.threads, folder / "prototypes"),
        "scikit-learn": lambda: sklearn_prototypes(drawn),
        "easyfsl": lambda: easyfsl_prototypes(drawn),
        "learn2learn": lambda: learn2learn_prototypes(drawn),
    }
    return measured("prototypes", makers, options, lambda found: float(np.mean(found == drawn[3])))


# ---- maml ----

STEPS, RATE, WIDTHS = 5, 0.01, [1, 40, 40, 1]


def sinusoids(count):
    rng = np.random.default_rng(0)
    x = rng.uniform(-5, 5, (count, 20, 1))
    a, p = rng.uniform(0.1, 5, (count, 1, 1)), rng.uniform(0, np.pi, (count, 1, 1))
    y = a * np.sin(x - p)
    return [(u[:10], v[:10], u[10:], v[10:]) for u, v in zip(x.astype(np.float32), y.astype(np.float32), strict=True)]


def kshot_maml(tasks, threads):
    config = {
        "algorithm": "maml",
        "network": {"layers": WIDTHS},
        "inner": {"steps": STEPS, "learning_rate": RATE},
    }
    engine = kshot.MetaGradient(config, threads=threads)
    # The initial weights are halved, so that no task diverges (bench/README.md).
    parameters = {"theta": 0.5 * engine.initial(tasks)["theta"]}
    return parameters["theta"], lambda: engine(parameters, tasks)[0]


def learn2learn_maml(tasks, theta):
    import torch

    MAML = importlib.import_module("learn2learn.algorithms.maml").MAML
    layers, at = [], 0
    for inputs, outputs in zip(WIDTHS[:-1], WIDTHS[1:], strict=True):
        layer = torch.nn.Linear(inputs, outputs)
        with torch.no_grad():
            for values in (layer.weight, layer.bias):
                own = theta[at : at + values.numel()]
                values.copy_(torch.from_numpy(own.astype(np.float32)).reshape(values.shape))
                at += values.numel()
        layers += [layer, torch.nn.ReLU()]
    maml = MAML(torch.nn.Sequential(*layers[:-1]), lr=RATE)
    tensors = [[torch.from_numpy(a) for a in task] for task in tasks]
    loss_of = torch.nn.functional.mse_loss

    def work():
        maml.zero_grad()
        total = 0.0
        for support_x, support_y, query_x, query_y in tensors:
            learner = maml.clone()
            for _ in range(STEPS):
                learner.adapt(loss_of(learner(support_x), support_y))
            loss = loss_of(learner(query_x), query_y) / len(tensors)
            loss.backward()
            total += loss.item()
        return total

    return work


def maml(options):
    tasks = sinusoids(options.tasks)
    theta, work = kshot_maml(tasks, options.threads)
    makers = {"kshot": lambda: work, "learn2learn": lambda: learn2learn_maml(tasks, theta)}
    rows = measured("maml", makers, options, float)
    values = [row["value"] for row in rows]
    if values and max(values) - min(values) > 1e-3 * (1 + abs(values[0])):
        raise SystemExit(f"maml: the programs do different work: losses {values}")
    return rows


def measured(work, makers, options, value_of):
    rows = []
    for name, make in makers.items():
        try:
            run = make()
        except ImportError as error:
            print(f"{work}: {name} is left out: {error}", file=sys.stderr)
            continue
        result, seconds = timed(run, options.repeats)
        rows.append({"work": work, "program": name, "value": value_of(result), "seconds": seconds})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=2000)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=64, help="tasks of a meta-gradient")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--embeddings", help="FILE.npz with x and y")
    parser.add_argument("--learn2learn", metavar="CLONE")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--markdown", action="store_true")
    options = parser.parse_args()
    if options.learn2learn:
        from_clone(options.learn2learn, "learn2learn", "algorithms", "nn")
    try:
        import torch

        torch.set_num_threads(options.threads)
    except ImportError as error:
        print(f"peers on torch are left out: {error}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        rows = prototypes(options, pathlib.Path(folder)) + maml(options)
    count = {"prototypes": options.episodes, "maml": options.tasks}
    best = {row["work"]: row["seconds"] for row in reversed(rows) if row["program"] == "kshot"}
    if options.markdown:
        print("| work | program | accuracy, loss | tasks per second | time beside kshot |\n|---|---|---:|---:|---:|")
    for row in rows:
        row["tasks_per_second"] = count[row["work"]] / row["seconds"]
        cells = (row["work"], row["program"], f"{row['value']:.4f}", f"{row['tasks_per_second']:,.0f}",
                 f"{row['seconds'] / best[row['work']]:.1f}")
        print("| " + " | ".join(cells) + " |" if options.markdown else "{:<12}{:<14}{:>10}{:>14} tasks/s{:>9} x".format(*cells))
    if options.json:
        machine = {"processor": platform.processor(), "threads": options.threads, "python": platform.python_version()}
        pathlib.Path(options.json).write_text(json.dumps({"machine": machine, "results": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
