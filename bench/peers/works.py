"""The works of the peers and their timing, which jax_peer.py and torch_peer.py share.

A work is an objective (the tables of a kshot case or configuration) with the sizes of its tasks. A
step is a training step without the optimiser: it computes the loss and its gradient with respect to
the meta-parameters, averaged over the meta-batch. The step also draws the random numbers that the
algorithm needs. The peers draw their episodes before the step, and kshot draws them in the step,
which favours the peers.
"""

import argparse
import dataclasses
import json
import os
import resource
import statistics
import sys
import time

import heads


@dataclasses.dataclass(frozen=True)
class Objective:
    """The objective of a case (docs/mathematics.md), with the options that the peers implement."""

    algorithm: str = "maml"  # maml | abml
    network: str = "mlp"  # mlp | conv4 (with stride, batch norm by batch statistics, mean head)
    layers: tuple = (1, 40, 40, 1)
    activation: str = "relu"
    filters: int = 64
    image: tuple = (28, 28)
    in_channels: int = 1
    classes: int = 5
    loss: str = "mse"  # mse | cross_entropy | gaussian_nll
    noise_std: float = 1.0
    steps: int = 1
    learning_rate: float = 0.01
    first_order: bool = False
    kl_weight_inner: float = 1.0
    kl_weight_outer: float = 1.0
    differentiate_prior: bool = True
    support_in_outer: bool = True
    hyper_prior_weight: float = 0.0
    gamma_shape: float = 2.0
    gamma_rate: float = 0.2

    @staticmethod
    def from_tables(tables):
        """Reads a parsed case.toml. Raises NotImplementedError for what the peers lack."""
        if tables["algorithm"] == "leo":
            from leo import LeoObjective  # only the peer in JAX computes LEO; leo.py imports JAX
            return LeoObjective.from_tables(tables)
        if tables["algorithm"] in heads.ALGORITHMS:
            return heads.HeadObjective.from_tables(tables)
        if tables["algorithm"] not in ("maml", "abml"):
            raise NotImplementedError(f"algorithm {tables['algorithm']}")
        network, inner = tables["network"], tables["inner"]
        abml = dict(tables.get("abml", {}))
        kind = network["type"]
        fields = {}
        if kind == "mlp":
            fields.update(layers=tuple(network["layers"]), activation=network["activation"])
        elif kind == "conv4":
            form = (network["downsample"], network["norm"], network["head"])
            if form != ("stride", "batch", "mean"):
                raise NotImplementedError(f"conv4 {form}")
            fields.update(filters=network["filters"], image=tuple(network["image"]),
                          in_channels=network["in_channels"], classes=network["classes"])
        else:
            raise NotImplementedError(f"network {kind}")
        if "adapt" in inner:
            raise NotImplementedError("inner.adapt")
        if abml.pop("estimator", "weight") != "weight" or \
                abml.pop("inner_data", "support") != "support":
            raise NotImplementedError("estimator, inner_data")
        if abml.pop("rates", "fixed") != "fixed":
            raise NotImplementedError("learned rates")
        if tables["loss"].get("noise", "fixed") != "fixed":
            raise NotImplementedError("learned noise")
        for unused in ("samples_inner", "samples_outer", "log_sigma_init"):
            abml.pop(unused, None)
        return Objective(algorithm=tables["algorithm"], network=kind, loss=tables["loss"]["type"],
                         noise_std=tables["loss"].get("noise_std", 1.0), steps=inner["steps"],
                         learning_rate=inner["learning_rate"],
                         first_order=inner.get("order", "second") == "first", **fields, **abml)

    def parameter_shapes(self):
        """Returns {name: shape} of the parameters, in the order of the network."""
        shapes = heads.network_shapes(self)
        if self.network == "conv4":
            shapes["head.weight"] = (self.classes, self.filters)
            shapes["head.bias"] = (self.classes,)
        return shapes

    def input_shape(self):
        if self.network == "mlp":
            return (self.layers[0],)
        return (self.in_channels, *self.image)


@dataclasses.dataclass(frozen=True)
class Work:
    objective: Objective
    support: int
    query: int
    samples: int  # S = S' of ABML


def _sinusoid(steps):
    return Work(Objective(steps=steps), 10, 10, 0)


def _conv4(steps, query):
    return Work(Objective(network="conv4", loss="cross_entropy", steps=steps, learning_rate=0.4),
                5, query, 0)


def _leo(shots):
    return Work("leo", 5 * shots, 75, 0)  # an objective of leo.py, which needs JAX


def _head(algorithm, support, query, **fields):
    return Work(heads.HeadObjective(algorithm, **fields), support, query, 0)


WORKS = {
    "sinusoid_alpaca": _head("alpaca", 10, 10, layers=(1, 64, 64, 32), activation="tanh",
                             outputs=1),
    "embedding_r2d2_5w5s": _head("r2d2", 25, 75, layers=(640, 256), ways=5),
    "conv4_protonet_20w1s": _head("protonet", 20, 100, network="conv4", ways=20),
    "chembl_dkt_n16": _head("dkt", 16, 32, layers=(512, 256, 64), outputs=1),
    "leo_5w1s_t12": _leo(1),
    "leo_5w5s_t48": _leo(5),
    "sinusoid_maml_k1": _sinusoid(1),
    "sinusoid_maml_k5": _sinusoid(5),
    "sinusoid_abml_k5_s10": Work(
        Objective(algorithm="abml", loss="gaussian_nll", noise_std=1.0, steps=5,
                  kl_weight_inner=0.1), 10, 10, 10),
    "conv4_maml_k1_q5": _conv4(1, 5),
    "conv4_maml_k1_q75": _conv4(1, 75),
    "conv4_maml_k5_q75": _conv4(5, 75),
}

LOG_SIGMA = -3.0  # initial log standard deviation of the ABML work


def initial_weights(objective, rng):
    """Returns initial weights by name, float32.

    Weights are He-uniform, in an mlp with half of the bound, so that no task diverges. Biases are
    0, and scales of norm layers are 1. Parameters of a head start as in the engine.
    """
    weights = {}
    for name, shape in objective.parameter_shapes().items():
        if name.startswith("head.") and isinstance(objective, heads.HeadObjective):
            start = objective.start(name)
            weights[name] = rng.uniform(start, start, shape)
        elif name.endswith("norm.weight"):
            weights[name] = rng.uniform(1.0, 1.0, shape)
        elif name.endswith("bias"):
            weights[name] = rng.uniform(0.0, 0.0, shape)
        else:
            fan_in = 1
            for extent in shape[1:]:
                fan_in *= extent
            bound = (6.0 / fan_in) ** 0.5 * (0.5 if objective.network == "mlp" else 1.0)
            weights[name] = rng.uniform(-bound, bound, shape)
    return {name: value.astype("float32") for name, value in weights.items()}


def episodes(work, tasks, rng):
    """Draws (support_x, support_y, query_x, query_y), each [tasks, n, ...].

    Numbers are float32, and labels are int64.
    """
    objective = work.objective
    parts = []
    if objective.algorithm == "leo":
        for n in (work.support, work.query):
            x = rng.uniform(-1.0, 1.0, (tasks, n, objective.dim))
            x /= (x ** 2).sum(-1, keepdims=True) ** 0.5
            # the rows are ordered by class
            labels = rng.labels(tasks, n, n) // (n // objective.ways)
            parts += [x.astype("float32"), labels]
        return parts
    if isinstance(objective, heads.HeadObjective) and objective.network == "mlp" \
            and objective.algorithm != "alpaca":
        for n in (work.support, work.query):
            x = rng.uniform(-1.0, 1.0, (tasks, n, *objective.input_shape()))
            if objective.classify():
                x /= (x ** 2).sum(-1, keepdims=True) ** 0.5
                y = rng.labels(tasks, n, objective.ways)
            else:  # about 30 of the 512 bits of a molecule are set
                x = x > 0.88
                y = rng.uniform(-1.7, 1.7, (tasks, n, 1)).astype("float32")
            parts += [x.astype("float32"), y]
        return parts
    if objective.network == "mlp":
        amplitude = rng.uniform(0.1, 5.0, (tasks, 1, 1))
        phase = rng.uniform(0.0, 3.141592653589793, (tasks, 1, 1))
        for n in (work.support, work.query):
            x = rng.uniform(-5.0, 5.0, (tasks, n, 1))
            y = amplitude * rng.sin(x + phase)
            parts += [x.astype("float32"), y.astype("float32")]
    else:
        for n in (work.support, work.query):
            x = rng.uniform(0.0, 1.0, (tasks, n, *objective.input_shape())) > 0.9
            ways = getattr(objective, "ways", 0) or objective.classes
            parts += [x.astype("float32"), rng.labels(tasks, n, ways)]
    return parts


class Rng:
    """The functions of NumPy that are needed above. NumPy is imported after threads are limited."""

    def __init__(self, seed):
        import numpy
        self._numpy = numpy
        self._generator = numpy.random.default_rng(seed)

    def uniform(self, low, high, shape):
        return self._generator.uniform(low, high, shape)

    def sin(self, x):
        return self._numpy.sin(x)

    def labels(self, tasks, n, classes):
        return self._numpy.broadcast_to(self._numpy.arange(n) % classes, (tasks, n)).copy()


def status_bytes(key):
    """Returns VmRSS (current) or VmHWM (peak memory) of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        for line in status:
            if line.startswith(key + ":"):
                return int(line.split()[1]) * 1024
    return 0


def limit_memory():
    """Limits the memory of this process to 90 % of what is available.

    A meta-batch that is too large then ends this process with an error, and does not disturb the
    machine.
    """
    with open("/proc/meminfo", encoding="ascii") as info:
        available = next(int(line.split()[1]) * 1024 for line in info
                         if line.startswith("MemAvailable"))
    limit = int(0.9 * available)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def median_seconds(step, seconds):
    """Measures step() after one call to warm up. Returns (median seconds, repeats).

    The step is repeated until `seconds` have passed and there were 3 repeats, or until
    4 * `seconds` have passed.
    """
    step()
    times = []
    begin = time.perf_counter()
    while True:
        start = time.perf_counter()
        step()
        now = time.perf_counter()
        times.append(now - start)
        elapsed = now - begin
        if (elapsed >= seconds and len(times) >= 3) or elapsed >= 4 * seconds:
            return statistics.median(times), len(times)


def load_leo():
    from leo import LeoObjective
    return LeoObjective()


def run_peer(description, modes, load):
    """Runs the command line of a peer.

    modes: names of the peer's modes, the default first.
    load: load(mode, arguments) returns (versions, make_step, device_bytes). It is called after the
        process is confined to `threads` cores. make_step(work, tasks) returns a function that runs
        one step to its end and returns the loss. device_bytes() returns the peak of the GPU's
        memory in bytes, and None on a CPU.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--work", required=True, choices=sorted(WORKS))
    parser.add_argument("--tasks", default="64", help="meta-batch sizes, comma-separated")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--seconds", type=float, default=5.0, help="time limit for a size")
    parser.add_argument("--inner-steps", type=int, help="instead of the work's own K")
    parser.add_argument("--mode", choices=modes, default=modes[0])
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--tf32", action="store_true",
                        help="on a GPU, products may be rounded to TF32; else they are FP32")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    cores = sorted(os.sched_getaffinity(0))[:args.threads]
    os.sched_setaffinity(0, cores)
    if args.device == "cpu":  # a GPU's driver maps far more memory than the machine has
        limit_memory()
    work = WORKS[args.work]
    if work.objective == "leo":
        work = dataclasses.replace(work, objective=load_leo())
    if args.inner_steps is not None:
        work = dataclasses.replace(
            work, objective=dataclasses.replace(work.objective, steps=args.inner_steps))
    versions, make_step, device_bytes = load(args.mode, args)
    report = {"work": args.work, "mode": args.mode, "threads": args.threads, "device": args.device,
              "inner_steps": work.objective.steps, "versions": versions,
              "baseline_rss_bytes": status_bytes("VmRSS"), "results": []}
    for tasks in [int(size) for size in args.tasks.split(",")]:
        result = {"tasks": tasks}
        try:
            step = make_step(work, tasks)
            seconds, repeats = median_seconds(step, args.seconds)
            loss = step()
            if loss != loss or abs(loss) == float("inf"):
                raise ArithmeticError(f"the loss is {loss}: timing what diverges measures nothing")
            result.update(tasks_per_second=tasks / seconds, seconds_per_step=seconds,
                          repeats=repeats, loss=loss)
        except (MemoryError, RuntimeError) as error:  # out of memory in XLA or PyTorch
            result["error"] = str(error).splitlines()[0][:200]
        result["peak_rss_bytes"] = status_bytes("VmHWM")
        result["device_bytes"] = device_bytes()
        report["results"].append(result)
        report["peak_rss_bytes"] = status_bytes("VmHWM")
        if args.json:  # one line per size with all results so far, in case the process is ended
            print(json.dumps(report), flush=True)
        else:
            print(result, file=sys.stderr)
