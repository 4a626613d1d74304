"""Export to ONNX: adapted networks, and closed-form heads with their adaptation.

Needs the package onnx.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._export import CLOSED_FORM, adapted_weights, check_units, has_norm

if TYPE_CHECKING:
    from ._learner import FittedTask, Learner

Array = npt.NDArray[Any]

_OPSET = 17
_NORM_EPSILON = 1e-5
_LEAKY_SLOPE = 0.01
_COSINE_EPSILON = 1e-8
#: Up to this number of features a linear head solves a system of the size of the features. Beyond
#: it, the system has the size of the support rows.
_MOST_PRIMAL = 256


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise ImportError("to_onnx needs the package onnx: pip install 'kshot[onnx]'") from error
    return onnx


class Graph:
    """Builds a graph: collects its nodes and constants. Strings name the values of the graph."""

    def __init__(self, prefix: str = "") -> None:
        self.onnx = _onnx()
        self._prefix = prefix  # names of a subgraph must differ from those of the outer graph
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._count = 0

    def name(self, kind: str) -> str:
        self._count += 1
        return f"{self._prefix}{kind}_{self._count}"

    def constant(self, value: Any, dtype: Any = None) -> str:
        array = np.asarray(value, dtype)
        name = self.name("constant")
        self.initializers.append(self.onnx.numpy_helper.from_array(array, name))
        return name

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        result = output or self.name(kind.lower())
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [result], **attributes))
        return result

    def double(self, value: str) -> str:
        return self.op("Cast", value, to=self.onnx.TensorProto.DOUBLE)

    def single(self, value: str, output: str | None = None) -> str:
        return self.op("Cast", value, to=self.onnx.TensorProto.FLOAT, output=output)

    def transposed(self, value: str) -> str:
        return self.op("Transpose", value, perm=[1, 0])

    # Products with a transposed operand use Einsum. Some versions of onnxruntime (for example 1.23)
    # fuse a Transpose and a MatMul into an operation that they lack in double precision.

    def times_transposed(self, a: str, b: str) -> str:
        """Returns a b^T [n, m] of a [n, d] and b [m, d]."""
        return self.op("Einsum", a, b, equation="nd,md->nm")

    def transposed_times(self, a: str, b: str) -> str:
        """Returns a^T b [d, m] of a [n, d] and b [n, m]."""
        return self.op("Einsum", a, b, equation="nd,nm->dm")

    def sum(self, value: str, axes: Sequence[int], keepdims: int = 1) -> str:
        return self.op("ReduceSum", value, self.constant(axes, np.int64), keepdims=keepdims)

    def row_count(self, value: str) -> str:
        """Returns the length of the first axis, [1]."""
        return self.op("Gather", self.op("Shape", value), self.constant([0], np.int64))


# ---- networks ----


def _normalised(
    g: Graph, value: str, source: str, layer: Mapping[str, Any], w: Array, b: Array
) -> str:
    """Normalises `value` by the batch statistics of `source`, which may be `value` itself."""
    axes = [0, 2, 3] if len(layer["in"]) == 3 else [0]
    shape = (1, -1, 1, 1) if len(layer["in"]) == 3 else (1, -1)
    mean = g.op("ReduceMean", source, axes=axes)
    centred = g.op("Sub", source, mean)
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), axes=axes)
    root = g.op("Sqrt", g.op("Add", variance, g.constant(_NORM_EPSILON, np.float32)))
    scaled = g.op("Div", g.op("Sub", value, mean), root)
    scaled = g.op("Mul", scaled, g.constant(w.reshape(shape), np.float32))
    return g.op("Add", scaled, g.constant(b.reshape(shape), np.float32))


def network(
    g: Graph,
    layers: Sequence[Mapping[str, Any]],
    weights: Mapping[str, Array],
    values: Sequence[str],
    statistics: str = "batch",
) -> list[str]:
    """Applies the network to each of `values` [rows, ...], and returns its outputs.

    statistics: "batch": a norm layer normalises each value by the statistics of its own rows.
    "support": a norm layer normalises every value by the statistics of the first one.
    """
    values = list(values)
    for layer in layers:
        kind = layer["type"]
        w = weights[layer["weight"]] if layer["weight"] is not None else np.empty(0)
        b = weights[layer["bias"]] if layer["bias"] is not None else None
        if kind == "linear":
            matrix = g.constant(w, np.float32)
            vector = [] if b is None else [g.constant(b, np.float32)]
            values = [g.op("Gemm", v, matrix, *vector, transB=1) for v in values]
        elif kind == "conv":
            kernel = g.constant(w, np.float32)
            vector = [] if b is None else [g.constant(b, np.float32)]
            pads, strides = [layer["padding"]] * 4, [layer["stride"]] * 2
            values = [g.op("Conv", v, kernel, *vector, pads=pads, strides=strides) for v in values]
        elif kind == "norm":
            assert b is not None
            first = values[0]
            values = [
                _normalised(g, v, first if statistics == "support" else v, layer, w, b)
                for v in values
            ]
        elif kind == "max_pool":
            window = [layer["size"]] * 2
            values = [g.op("MaxPool", v, kernel_shape=window, strides=window) for v in values]
        elif kind == "mean":
            flat = g.constant([0, -1], np.int64)
            values = [g.op("Reshape", g.op("GlobalAveragePool", v), flat) for v in values]
        elif kind == "flatten":
            values = [g.op("Flatten", v, axis=1) for v in values]
        else:
            name = {"relu": "Relu", "tanh": "Tanh", "leaky_relu": "LeakyRelu"}[kind]
            slope: dict[str, Any] = {"alpha": _LEAKY_SLOPE} if kind == "leaky_relu" else {}
            values = [g.op(name, v, **slope) for v in values]
    return values


def _unit_length(g: Graph, value: str, spatial: bool) -> str:
    axes = [1, 2, 3] if spatial else [1]
    length = g.op("ReduceL2", value, axes=axes)
    one = g.constant(1, np.float32)
    safe = g.op("Where", g.op("Equal", length, g.constant(0, np.float32)), one, length)
    return g.op("Div", value, safe)


# ---- heads, in double precision ----


def _solved(g: Graph, a: str, b: str) -> str:
    """Returns a^-1 b of a symmetric positive definite a [n, n] and b [n, m].

    ONNX has no Cholesky factorization, so that a Loop of n rounds does Gauss-Jordan elimination. It
    needs no pivots, because elimination is stable for such matrices.
    """
    h, onnx = g.onnx.helper, g.onnx
    n = g.op("Squeeze", g.row_count(a), g.constant([0], np.int64))
    start = g.op("Concat", a, b, axis=1)
    own_name = g.name("solve") + "_"
    body = Graph(own_name)
    row = body.op("Gather", own_name + "m_in", own_name + "k1", axis=0)
    pivot = body.op("Gather", row, own_name + "k1", axis=1)
    scaled = body.op("Div", row, pivot)
    column = body.op("Gather", own_name + "m_in", own_name + "k1", axis=1)
    zero, one = body.constant(0, np.int64), body.constant(1, np.int64)
    count = body.op("Squeeze", body.row_count(own_name + "m_in"), body.constant([0], np.int64))
    own = body.op("Equal", body.op("Range", zero, count, one), own_name + "k")
    own = body.op("Cast", own, to=onnx.TensorProto.DOUBLE)
    own = body.op("Unsqueeze", own, body.constant([1], np.int64))
    change = body.op("Mul", body.op("Sub", column, own), scaled)
    body.op("Sub", own_name + "m_in", change, output=own_name + "m_out")
    body.op("Identity", own_name + "going", output=own_name + "still_going")
    shape = h.make_node(
        "Reshape", [own_name + "k", body.constant([1], np.int64)], [own_name + "k1"]
    )
    info = h.make_tensor_value_info
    graph = h.make_graph(
        [shape, *body.nodes],
        "elimination",
        [
            info(own_name + "k", onnx.TensorProto.INT64, []),
            info(own_name + "going", onnx.TensorProto.BOOL, []),
            info(own_name + "m_in", onnx.TensorProto.DOUBLE, [None, None]),
        ],
        [
            info(own_name + "still_going", onnx.TensorProto.BOOL, []),
            info(own_name + "m_out", onnx.TensorProto.DOUBLE, [None, None]),
        ],
        body.initializers,
    )
    end = g.op("Loop", n, g.constant(True, np.bool_), start, body=graph)
    first = g.row_count(a)
    last = g.constant([np.iinfo(np.int64).max], np.int64)
    return g.op("Slice", end, first, last, g.constant([1], np.int64))


def _diagonal(g: Graph, a: str, value: str) -> str:
    """Returns a + value I."""
    identity = g.op("EyeLike", a, dtype=g.onnx.TensorProto.DOUBLE)
    return g.op("Add", a, g.op("Mul", identity, value))


def _row_sums(g: Graph, a: str, b: str) -> str:
    """Returns the inner products of the rows of a and b, [rows, 1]."""
    return g.sum(g.op("Mul", a, b), [1])


def _linear_posterior(
    g: Graph, x_s: str, x_q: str, noise: str, r: str, inputs: int, variance: bool
) -> tuple[str, str]:
    """Returns the posterior mean and variance of f(x) = x w with w ~ N(0, I) at the rows x_q.

    x_s: support rows [s, inputs]. x_q: query rows [q, inputs]. r: targets [s, outputs], which have
    noise of variance `noise`.

    The mean is [q, outputs], and the variance of f is [q, 1]. Without `variance` it may be "".
    """
    if inputs <= _MOST_PRIMAL:
        a = _diagonal(g, g.transposed_times(x_s, x_s), noise)
        right = g.transposed_times(x_s, r)
        if not variance:
            return g.op("MatMul", x_q, _solved(g, a, right)), ""
        both = _solved(g, a, g.op("Concat", right, g.transposed(x_q), axis=1))
        cut = g.op("Gather", g.op("Shape", r), g.constant([1], np.int64))
        zero, last = g.constant([0], np.int64), g.constant([np.iinfo(np.int64).max], np.int64)
        axis = g.constant([1], np.int64)
        w = g.op("Slice", both, zero, cut, axis)
        solved = g.op("Slice", both, cut, last, axis)
        v = g.op("Mul", _row_sums(g, x_q, g.transposed(solved)), noise)
        return g.op("MatMul", x_q, w), v
    k_qs = g.times_transposed(x_q, x_s)
    k_ss = g.times_transposed(x_s, x_s)
    mean, explained = _kernel_posterior(g, k_ss, k_qs, noise, r)
    return mean, g.op("Sub", _row_sums(g, x_q, x_q), explained)


def _kernel_posterior(g: Graph, k_ss: str, k_qs: str, noise: str, r: str) -> tuple[str, str]:
    """Returns the posterior mean of a Gaussian process, and the variance that the support explains.

    k_ss: kernel matrix of the support rows [s, s]. k_qs: kernel matrix of query and support rows
    [q, s]. r: targets minus prior mean [s, outputs], with noise of variance `noise`.

    The mean is [q, outputs]. The second result [q, 1] is the prior variance minus the posterior
    variance.
    """
    both = _solved(g, _diagonal(g, k_ss, noise), g.op("Concat", r, g.transposed(k_qs), axis=1))
    cut = g.op("Gather", g.op("Shape", r), g.constant([1], np.int64))
    zero, last = g.constant([0], np.int64), g.constant([np.iinfo(np.int64).max], np.int64)
    axis = g.constant([1], np.int64)
    alpha = g.op("Slice", both, zero, cut, axis)
    solved = g.op("Slice", both, cut, last, axis)
    return g.op("MatMul", k_qs, alpha), _row_sums(g, k_qs, g.transposed(solved))


def _distances(g: Graph, a: str, b: str, weight: str | None = None) -> str:
    """Returns squared distances [rows of a, rows of b], with weights [rows of b, d] if given."""
    middle, front = g.constant([1], np.int64), g.constant([0], np.int64)
    difference = g.op("Sub", g.op("Unsqueeze", a, middle), g.op("Unsqueeze", b, front))
    square = g.op("Mul", difference, difference)
    if weight is not None:
        square = g.op("Mul", square, g.op("Unsqueeze", weight, front))
    return g.sum(square, [2], 0)


def _cosines(g: Graph, a: str, b: str) -> str:
    lengths = [g.op("ReduceL2", v, axes=[1]) for v in (a, b)]
    product = g.op("Mul", lengths[0], g.transposed(lengths[1]))
    product = g.op("Add", product, g.constant(_COSINE_EPSILON, np.float64))
    return g.op("Div", g.times_transposed(a, b), product)


class _Head:
    """Closed-form heads: predictions from features and targets, in double precision."""

    def __init__(
        self, g: Graph, config: Mapping[str, Any], parameters: Mapping[str, Array], features: int
    ) -> None:
        self.g = g
        self.config = config
        self.parameters = parameters
        self.features = features

    def value(self, name: str) -> Array:
        return np.asarray(self.parameters["head." + name], np.float64)

    def constant(self, value: Any) -> str:
        return self.g.constant(value, np.float64)

    def ones_appended(self, z: str) -> str:
        pads = self.g.constant([0, 0, 0, 1], np.int64)
        return self.g.op("Pad", z, pads, self.constant(1.0))

    def _sums(self, z_s: str, y: str) -> tuple[str, str]:
        """Returns the row counts [classes, 1] and the feature sums [classes, d] of the classes."""
        counts = self.g.transposed(self.g.sum(y, [0]))
        return counts, self.g.transposed_times(y, z_s)

    def protonet(self, z_s: str, z_q: str, y: str) -> tuple[str, str]:
        counts, sums = self._sums(z_s, y)
        centres = self.g.op("Div", sums, counts)
        scale = np.exp(self.value("log_scale")).item()
        if self.config["protonet"]["metric"] == "euclidean":
            return self.g.op("Mul", _distances(self.g, z_q, centres), self.constant(-scale)), ""
        return self.g.op("Mul", _cosines(self.g, z_q, centres), self.constant(scale)), ""

    def bayes_protonet(self, z_s: str, z_q: str, y: str) -> tuple[str, str]:
        g = self.g
        counts, sums = self._sums(z_s, y)
        row = {n: self.value(n).reshape(1, -1) for n in ("prior_mean", "prior_log_std", "log_std")}
        tau, rho = np.exp(-2 * row["prior_log_std"]), np.exp(-2 * row["log_std"])
        precision = g.op("Add", g.op("Mul", counts, self.constant(rho)), self.constant(tau))
        numerator = g.op("Mul", sums, self.constant(rho))
        numerator = g.op("Add", numerator, self.constant(tau * row["prior_mean"]))
        mean = g.op("Div", numerator, precision)
        own = g.op("Div", self.constant(1.0), precision)
        variance = g.op("Add", own, self.constant(1 / rho))
        volume = g.transposed(g.sum(g.op("Log", variance), [1]))
        far = _distances(g, z_q, mean, g.op("Div", self.constant(1.0), variance))
        return g.op("Mul", g.op("Add", far, volume), self.constant(-0.5)), ""

    def r2d2(self, z_s: str, z_q: str, y: str) -> tuple[str, str]:
        x_s, x_q = self.ones_appended(z_s), self.ones_appended(z_q)
        noise = self.constant(np.exp(self.value("log_lambda")).item())
        mean, _ = _linear_posterior(self.g, x_s, x_q, noise, y, self.features + 1, False)
        if self.config["loss"]["type"] != "cross_entropy":
            return mean, ""
        return self.g.op("Mul", mean, self.constant(np.exp(self.value("log_scale")).item())), ""

    def alpaca(self, z_s: str, z_q: str, y: str) -> tuple[str, str]:
        g = self.g
        factor = np.tril(self.value("prior_factor"), -1)
        factor += np.diag(np.exp(np.diag(self.value("prior_factor"))))
        whitening = self.constant(np.linalg.inv(factor).T)  # u = L^-1 x
        prior = self.constant(self.value("prior_mean"))
        x_s, x_q = self.ones_appended(z_s), self.ones_appended(z_q)
        r = g.op("Sub", y, g.op("MatMul", x_s, prior))
        u_s, u_q = g.op("MatMul", x_s, whitening), g.op("MatMul", x_q, whitening)
        one = self.constant(1.0)
        mean, variance = _linear_posterior(g, u_s, u_q, one, r, self.features + 1, True)
        mean = g.op("Add", mean, g.op("MatMul", x_q, prior))
        noise = self.constant(np.exp(2 * self.value("log_noise")).reshape(1, -1))
        return mean, g.op("Mul", g.op("Add", variance, one), noise)

    def dkt(self, z_s: str, z_q: str, y: str) -> tuple[str, str]:
        g = self.g
        amplitude = self.constant(np.exp(2 * self.value("log_amplitude")).item())
        noise = self.constant(np.exp(2 * self.value("log_noise")).item())
        centre = self.constant(self.value("mean").reshape(1, -1))
        kernel = self.config["dkt"]["kernel"]

        def matrix(a: str, b: str) -> str:
            if kernel == "linear":
                return g.op("Mul", g.times_transposed(a, b), amplitude)
            if kernel == "cosine":
                return g.op("Mul", _cosines(g, a, b), amplitude)
            scale = -0.5 * np.exp(-2 * self.value("log_length")).item()
            far = g.op("Mul", _distances(g, a, b), self.constant(scale))
            return g.op("Mul", g.op("Exp", far), amplitude)

        squares = _row_sums(g, z_q, z_q)
        if kernel == "rbf":
            prior = g.op("Add", g.op("Mul", squares, self.constant(0.0)), amplitude)
        elif kernel == "linear":
            prior = g.op("Mul", squares, amplitude)
        else:
            share = g.op("Div", squares, g.op("Add", squares, self.constant(_COSINE_EPSILON)))
            prior = g.op("Mul", share, amplitude)
        r = g.op("Sub", y, centre)
        mean, explained = _kernel_posterior(g, matrix(z_s, z_s), matrix(z_q, z_s), noise, r)
        variance = g.op("Add", g.op("Sub", prior, explained), noise)
        like = g.op("Mul", mean, self.constant(0.0))
        return g.op("Add", mean, centre), g.op("Add", variance, like)


# ---- models ----


def _calibrated(g: Graph, probabilities: str, value: float | None) -> str:
    """Applies the temperature `value`: normalises the probabilities to the power 1 / value."""
    if value is None:
        return probabilities
    tiny = g.constant(1e-300, np.float64)
    logs = g.op("Log", g.op("Max", probabilities, tiny))
    return g.op("Softmax", g.op("Div", logs, g.constant(value, np.float64)), axis=1)


def _input(g: Graph, name: str, shape: Sequence[int], rows: str) -> Any:
    return g.onnx.helper.make_tensor_value_info(name, g.onnx.TensorProto.FLOAT, [rows, *shape])


def _finished(
    g: Graph, inputs: list[Any], outputs: Mapping[str, Sequence[Any]], about: str
) -> bytes:
    h, onnx = g.onnx.helper, g.onnx
    described = [
        h.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in outputs.items()
    ]
    graph = h.make_graph(g.nodes, "kshot", inputs, described, g.initializers, about)
    model = h.make_model(
        graph,
        opset_imports=[h.make_opsetid("", _OPSET)],
        producer_name="kshot",
        producer_version=_core.version(),
        doc_string=about,
    )
    model.ir_version = 9
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def written(model: bytes, path: str | os.PathLike[str] | None) -> bytes:
    """Returns the model, and writes it to `path` if that is not None.

    The file appears under its name only when it is complete.
    """
    if path is None:
        return model
    target = Path(os.fspath(path))
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}-", delete=False
    ) as file:
        try:
            file.write(model)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, target)
        except BaseException:
            os.unlink(file.name)
            raise
    return model


def _scaled(g: Graph, name: str, learner: Learner, units: Any) -> str:
    """Converts an input to the network's units, and to unit length if data.unit_length is set."""
    value = name
    if not units.identity:
        mean = np.broadcast_to(np.asarray(units.x_mean), (int(np.prod(learner.input_shape)),))
        std = np.broadcast_to(np.asarray(units.x_std), mean.shape)
        shape = (1, *learner.input_shape)
        value = g.op("Sub", g.double(value), g.constant(mean.reshape(shape), np.float64))
        value = g.single(g.op("Div", value, g.constant(std.reshape(shape), np.float64)))
    data = learner.config["data"]
    if data.get("source") == "file" and data.get("unit_length"):
        value = _unit_length(g, value, len(learner.input_shape) == 3)
    return value


def _target_units(g: Graph, mean: str, std: str, units: Any) -> tuple[str, str]:
    if units.identity:
        return mean, std
    scale = g.constant(np.atleast_1d(units.y_std), np.float64)
    mean = g.op(
        "Add", g.op("Mul", mean, scale), g.constant(np.atleast_1d(units.y_mean), np.float64)
    )
    return mean, g.op("Mul", std, scale) if std else ""


def adapted_model(task: FittedTask, samples: int) -> bytes:
    """Returns the ONNX model of a task's adapted network, from query rows to predictions."""
    learner, units = task._learner, task._units
    config = learner.config.to_dict()
    adapted = adapted_weights(task, samples)
    shape = learner.input_shape
    g = Graph()
    layers = learner._native.layers
    query = _scaled(g, "query_x", learner, units)
    values = [query]
    statistics = config["evaluate"].get("norm_statistics", "batch")
    if statistics == "support" and has_norm(layers):
        support = np.asarray(task._x, np.float32).reshape(-1, *shape)
        first = g.constant(support)
        if config["data"].get("source") == "file" and config["data"].get("unit_length"):
            first = _unit_length(g, first, len(shape) == 3)
        values = [first, query]
    raws = []
    for weights in adapted.samples:
        raws.append(network(g, layers, weights, values, statistics)[-1])
    outputs = int(np.prod(layers[-1]["out"]))
    front = g.constant([0], np.int64)
    stacked = [g.op("Unsqueeze", g.double(raw), front) for raw in raws]
    raw = stacked[0] if len(stacked) == 1 else g.op("Concat", *stacked, axis=0)
    calibration = learner._native.calibration
    about = f"{config['algorithm']} adapted to a task"
    inputs = [_input(g, "query_x", shape, "rows")]
    table = ["rows", outputs]
    if learner.classification:
        present = np.zeros(outputs, bool)
        present[np.unique(task._y)] = True
        mask = g.constant(np.where(present, 0.0, -np.inf), np.float64)
        each = g.op("Softmax", g.op("Add", raw, mask), axis=2)
        mean = g.op("ReduceMean", each, axes=[0], keepdims=0)
        g.single(_calibrated(g, mean, calibration), "probabilities")
        g.single(raw, "samples")
        return _finished(g, inputs, {"probabilities": table, "samples": [len(raws), *table]}, about)
    mean = g.op("ReduceMean", raw, axes=[0], keepdims=0)
    if calibration is not None and len(raws) > 1:
        away = g.op("Mul", g.op("Sub", raw, mean), g.constant(np.sqrt(calibration), np.float64))
        raw = g.op("Add", mean, away)
    variance = g.op("Mul", mean, g.constant(0.0, np.float64))
    if len(raws) > 1:
        away = g.op("Sub", raw, mean)
        total = g.sum(g.op("Mul", away, away), [0], 0)
        variance = g.op("Div", total, g.constant(len(raws) - 1, np.float64))
    noise = g.constant(adapted.noise_std**2, np.float64)
    std = g.op("Sqrt", g.op("Add", variance, noise))
    raw, _ = _target_units(g, raw, "", units)
    mean, std = _target_units(g, mean, std, units)
    g.single(mean, "mean")
    g.single(std, "std")
    g.single(raw, "samples")
    return _finished(
        g, inputs, {"mean": table, "std": table, "samples": [len(raws), *table]}, about
    )


def head_model(learner: Learner, units: Any) -> bytes:
    """Returns the ONNX model of a closed-form head, from support and query rows to predictions."""
    check_units(units)
    config = learner.config.to_dict()
    algorithm = config["algorithm"]
    if algorithm not in CLOSED_FORM:
        raise ValueError(
            f"to_onnx: the adaptation of {algorithm} is a descent, which is not exported; "
            "adapt(...).to_onnx() gives the adapted network"
        )
    g = Graph()
    info, types = g.onnx.helper.make_tensor_value_info, g.onnx.TensorProto
    shape = learner.input_shape
    layers = learner._native.layers
    parameters = learner._native.parameters
    weights = {
        name.removeprefix("theta."): values
        for name, values in parameters.items()
        if name.startswith("theta.")
    }
    statistics = config["evaluate"].get("norm_statistics", "batch")
    inputs = [_scaled(g, name, learner, units) for name in ("support_x", "query_x")]
    z_s, z_q = (g.double(z) for z in network(g, layers, weights, inputs, statistics))
    head = _Head(g, config, parameters, int(np.prod(layers[-1]["out"])))
    calibration = learner._native.calibration
    described = [
        _input(g, "support_x", shape, "support_rows"),
        _input(g, "query_x", shape, "rows"),
    ]
    about = f"{algorithm} with its adaptation: support and query rows to predictions"
    if learner.classification:
        described.insert(1, info("support_y", types.INT64, ["support_rows"]))
        one = g.constant(1, np.int64)
        ways = g.op("Add", g.op("ReduceMax", "support_y", keepdims=0), one)
        y = g.double(g.op("OneHot", "support_y", ways, g.constant([0.0, 1.0], np.float32), axis=1))
        logits, _ = getattr(head, algorithm)(z_s, z_q, y)
        g.single(logits, "logits")
        probabilities = g.op("Softmax", logits, axis=1)
        g.single(_calibrated(g, probabilities, calibration), "probabilities")
        table = ["rows", "classes"]
        return _finished(g, described, {"probabilities": table, "logits": table}, about)
    outputs = learner.outputs
    described.insert(1, info("support_y", types.FLOAT, ["support_rows", outputs]))
    y = g.double("support_y")
    if not units.identity:
        y = g.op("Sub", y, g.constant(np.atleast_1d(units.y_mean), np.float64))
        y = g.op("Div", y, g.constant(np.atleast_1d(units.y_std), np.float64))
    mean, variance = getattr(head, algorithm)(z_s, z_q, y)
    std = ""
    if variance:
        factor = g.constant(1.0 if calibration is None else calibration, np.float64)
        std = g.op("Sqrt", g.op("Mul", variance, factor))
    mean, std = _target_units(g, mean, std, units)
    g.single(mean, "mean")
    numbers = ["rows", outputs]
    if not std:
        return _finished(g, described, {"mean": numbers}, about)
    g.single(std, "std")
    return _finished(g, described, {"mean": numbers, "std": numbers}, about)
