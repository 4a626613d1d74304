"""Closed-form heads on learned features (docs/mathematics.md), written once for JAX and PyTorch.

All tasks share the network, so that a meta-batch of T tasks is one large batch: features are
[T, n, d], and the first axis of all matrices is T. `ops` has the functions that differ between the
two libraries (JaxOps in jax_peer.py, TorchOps in torch_peer.py).
"""

import dataclasses
import math

ALGORITHMS = ("protonet", "r2d2", "alpaca", "dkt")


def network_shapes(objective):
    """Returns {name: shape} in the order of the network; for conv4 only its four blocks."""
    shapes = {}
    if objective.network == "mlp":
        for i, (fan_in, out) in enumerate(zip(objective.layers, objective.layers[1:])):
            shapes[f"layers.{i}.weight"] = (out, fan_in)
            shapes[f"layers.{i}.bias"] = (out,)
        return shapes
    channels = objective.in_channels
    for i in range(4):
        shapes[f"blocks.{i}.conv.weight"] = (objective.filters, channels, 3, 3)
        for name in ("conv.bias", "norm.weight", "norm.bias"):
            shapes[f"blocks.{i}.{name}"] = (objective.filters,)
        channels = objective.filters
    return shapes


@dataclasses.dataclass(frozen=True)
class HeadObjective:
    algorithm: str
    network: str = "mlp"  # mlp | conv4 (with stride, batch norm by the set's statistics, flatten)
    layers: tuple = ()  # mlp: the widths; the last one is the number of features
    activation: str = "relu"
    filters: int = 64
    image: tuple = (28, 28)
    in_channels: int = 1
    ways: int = 0  # classification
    outputs: int = 0  # regression
    metric: str = "euclidean"  # protonet
    kernel: str = "rbf"  # dkt
    marginal: bool = False  # dkt: the marginal likelihood of all rows instead of the predictive one
    steps: int = 0

    @staticmethod
    def from_tables(tables):
        """Reads a parsed case.toml. Raises NotImplementedError for what is not implemented here."""
        algorithm, network = tables["algorithm"], tables["network"]
        own = tables.get(algorithm, {})
        if algorithm == "r2d2" and tables["loss"]["type"] != "cross_entropy":
            raise NotImplementedError("r2d2 regression")
        fields = {}
        if network["type"] == "mlp":
            fields.update(layers=tuple(network["layers"]), activation=network["activation"])
        elif network["type"] == "conv4":
            form = (network["downsample"], network["norm"], network["head"], network["classes"])
            if form != ("stride", "batch", "flatten", 0):
                raise NotImplementedError(f"conv4 {form}")
            fields.update(network="conv4", filters=network["filters"],
                          image=tuple(network["image"]), in_channels=network["in_channels"])
        else:
            raise NotImplementedError(f"network {network['type']}")
        return HeadObjective(algorithm=algorithm, ways=own.get("ways", 0),
                             outputs=own.get("outputs", 1),
                             metric=own.get("metric", "euclidean"),
                             kernel=own.get("kernel", "rbf"),
                             marginal=own.get("objective", "predictive") == "marginal", **fields)

    @property
    def features(self):
        if self.network == "mlp":
            return self.layers[-1]
        height, width = self.image
        for _ in range(4):
            height, width = (height + 1) // 2, (width + 1) // 2
        return self.filters * height * width

    def parameter_shapes(self):
        """Returns {name: shape}, first of the network, then of the head."""
        shapes = network_shapes(self)
        d, out = self.features, self.outputs
        if self.algorithm == "protonet":
            shapes["head.log_scale"] = (1,)
        elif self.algorithm == "r2d2":
            shapes.update({"head.log_lambda": (1,), "head.log_scale": (1,)})
        elif self.algorithm == "alpaca":
            shapes.update({"head.prior_mean": (d + 1, out), "head.prior_factor": (d + 1, d + 1),
                           "head.log_noise": (out,)})
        else:
            shapes.update({"head.log_amplitude": (1,), "head.log_noise": (1,),
                           "head.mean": (out,)})
            if self.kernel == "rbf":
                shapes["head.log_length"] = (1,)
        return shapes

    def input_shape(self):
        return (self.layers[0],) if self.network == "mlp" else (self.in_channels, *self.image)

    def start(self, name):
        """Returns the initial value of a head's parameter, which is that of the engine."""
        if name == "head.log_scale" and self.metric == "cosine":
            return math.log(10.0)
        if name == "head.log_length":
            return 0.5 * math.log(self.features)
        return -1.0 if name == "head.log_noise" else 0.0

    def classify(self):
        return self.algorithm in ("protonet", "r2d2")


def features(objective, p, x, ops):
    """Returns the features [T, n, d] of rows x [T, n, ...]."""
    if objective.network == "mlp":
        last = len(objective.layers) - 2
        for i in range(last + 1):
            x = x @ p[f"layers.{i}.weight"].T + p[f"layers.{i}.bias"]
            if i < last:
                x = ops.relu(x) if objective.activation == "relu" else ops.tanh(x)
        return x
    tasks, n = x.shape[:2]
    x = x.reshape(tasks * n, *x.shape[2:])
    for i in range(4):
        x = ops.conv(x, p[f"blocks.{i}.conv.weight"], p[f"blocks.{i}.conv.bias"])
        x = ops.relu(ops.norm(x.reshape(tasks, n, *x.shape[1:]),
                              p[f"blocks.{i}.norm.weight"][:, None, None],
                              p[f"blocks.{i}.norm.bias"][:, None, None])
                     .reshape(x.shape))
    return x.reshape(tasks, n, -1)


def with_one(z, ops):
    return ops.concat([z, ops.ones_like(z[..., :1])])


def squared_distance(a, b):
    """Returns squared distances [T, n, m] of rows a [T, n, d] and b [T, m, d]."""
    return ((a * a).sum(-1)[..., :, None] - 2.0 * (a @ b.mT) + (b * b).sum(-1)[..., None, :])


def cross_entropy(logits, labels, ways, ops):
    return -(ops.log_softmax(logits) * ops.one_hot(labels, ways, logits)).sum(-1).mean()


def density(mean, variance, y, ops):
    """Returns the Gaussian negative log density, summed over outputs, mean over rows and tasks."""
    nll = 0.5 * ((y - mean) ** 2 / variance + ops.log(variance) + math.log(2.0 * math.pi))
    return nll.sum(-1).mean()


def protonet(objective, p, z_s, y_s, z_q, y_q, ops):
    one_hot = ops.one_hot(y_s, objective.ways, z_s)
    prototypes = (one_hot.mT @ z_s) / one_hot.sum(-2)[..., None]
    scale = ops.exp(p["head.log_scale"])
    if objective.metric == "cosine":
        norms = ops.sqrt((z_q * z_q).sum(-1))[..., :, None] \
            * ops.sqrt((prototypes * prototypes).sum(-1))[..., None, :]
        logits = scale * (z_q @ prototypes.mT) / (norms + 1e-8)
    else:
        logits = -scale * squared_distance(z_q, prototypes)
    return cross_entropy(logits, y_q, objective.ways, ops)


def r2d2(objective, p, z_s, y_s, z_q, y_q, ops):
    x = with_one(z_s, ops)
    n = x.shape[-2]
    ridge = ops.exp(p["head.log_lambda"])
    one_hot = ops.one_hot(y_s, objective.ways, z_s)
    if n <= x.shape[-1]:
        w = x.mT @ ops.solve(x @ x.mT + ridge * ops.eye(n, x), one_hot)
    else:
        w = ops.solve(x.mT @ x + ridge * ops.eye(x.shape[-1], x), x.mT @ one_hot)
    logits = ops.exp(p["head.log_scale"]) * (with_one(z_q, ops) @ w)
    return cross_entropy(logits, y_q, objective.ways, ops)


def alpaca(objective, p, z_s, y_s, z_q, y_q, ops):
    del objective
    x_s, x_q, prior = with_one(z_s, ops), with_one(z_q, ops), p["head.prior_mean"]
    factor = p["head.prior_factor"]
    factor = ops.tril(factor, -1) + ops.diagonal(ops.exp(ops.diagonal(factor)))
    n, d = x_s.shape[-2:]
    residual = y_s - x_s @ prior
    if n < d:  # whitens the features (prior precision 1), and solves the system of the rows
        u_s = ops.solve_lower(factor, x_s.mT).mT
        u_q = ops.solve_lower(factor, x_q.mT).mT
        root = ops.cholesky(u_s @ u_s.mT + ops.eye(n, x_s))
        half = ops.solve_lower(root, u_s @ u_q.mT)
        mean = x_q @ prior + half.mT @ ops.solve_lower(root, residual)
        spread = (u_q * u_q).sum(-1) - (half * half).sum(-2)
    else:
        root = ops.cholesky(x_s.mT @ x_s + factor @ factor.mT)
        half = ops.solve_lower(root, x_q.mT)
        mean = x_q @ prior + half.mT @ ops.solve_lower(root, x_s.mT @ residual)
        spread = (half * half).sum(-2)
    variance = (1.0 + spread)[..., None] * ops.exp(2.0 * p["head.log_noise"])
    return density(mean, variance, y_q, ops)


def dkt(objective, p, z_s, y_s, z_q, y_q, ops):
    amplitude, noise = ops.exp(2.0 * p["head.log_amplitude"]), ops.exp(2.0 * p["head.log_noise"])

    def kernel(a, b):
        if objective.kernel == "rbf":
            return amplitude * ops.exp(-squared_distance(a, b)
                                       / (2.0 * ops.exp(2.0 * p["head.log_length"])))
        if objective.kernel == "cosine":
            norms = ops.sqrt((a * a).sum(-1))[..., :, None] * ops.sqrt((b * b).sum(-1))[..., None, :]
            return amplitude * (a @ b.mT) / (norms + 1e-8)
        return amplitude * (a @ b.mT)

    if objective.marginal:
        z, y = ops.stack_rows([z_s, z_q]), ops.stack_rows([y_s, y_q]) - p["head.mean"]
        n = z.shape[-2]
        root = ops.cholesky(kernel(z, z) + noise * ops.eye(n, z))
        half = ops.solve_lower(root, y)
        per_output = 0.5 * (half * half).sum(-2) + 0.5 * n * math.log(2.0 * math.pi) \
            + ops.log(ops.diagonal(root)).sum(-1)[..., None]
        return per_output.sum(-1).mean() / n
    root = ops.cholesky(kernel(z_s, z_s) + noise * ops.eye(z_s.shape[-2], z_s))
    half = ops.solve_lower(root, kernel(z_s, z_q))
    mean = p["head.mean"] + half.mT @ ops.solve_lower(root, y_s - p["head.mean"])
    # kernel values of each query row with itself
    own = amplitude * ops.ones_like(z_q[..., 0])
    if objective.kernel == "linear":
        own = own * (z_q * z_q).sum(-1)
    elif objective.kernel == "cosine":
        square = (z_q * z_q).sum(-1)
        own = own * square / (square + 1e-8)
    variance = (own - (half * half).sum(-2) + noise)[..., None]
    return density(mean, variance, y_q, ops)


def meta_loss(objective, p, batch, ops):
    """Returns the mean loss over the tasks.

    batch: (support_x, support_y, query_x, query_y), each [T, n, ...].
    """
    x_s, y_s, x_q, y_q = batch
    head = {"protonet": protonet, "r2d2": r2d2, "alpaca": alpaca, "dkt": dkt}[objective.algorithm]
    return head(objective, p, features(objective, p, x_s, ops), y_s,
                features(objective, p, x_q, ops), y_q, ops)
