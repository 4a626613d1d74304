#!/usr/bin/env python3
"""The works of kshot's benchmarks in JAX: jit(value_and_grad) of the mean loss, vmap over tasks.

  python jax_peer.py --work sinusoid_maml_k5 --tasks 64,256,1024 --threads 2 --seconds 5 --json

With --mode map, the compiled program runs the tasks one after another (lax.map) instead of vmap.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

import heads
import leo
import works

UNROLL = 5  # inner loops of up to this many steps are unrolled; longer ones use lax.scan


class JaxOps:
    """The functions that heads.py needs, by the names that it uses."""

    exp, log, sqrt, tanh = jnp.exp, jnp.log, jnp.sqrt, jnp.tanh
    relu, log_softmax, cholesky = jax.nn.relu, jax.nn.log_softmax, jnp.linalg.cholesky
    ones_like, tril = jnp.ones_like, jnp.tril

    @staticmethod
    def solve(a, b):
        """Solves a x = b for a symmetric positive definite a."""
        return jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(a), True), b)

    @staticmethod
    def diagonal(x):
        """Returns the diagonal of a matrix, or the diagonal matrix of a vector."""
        return jnp.diag(x) if x.ndim == 1 else jnp.diagonal(x, axis1=-2, axis2=-1)

    @staticmethod
    def concat(parts):
        return jnp.concatenate(parts, -1)

    @staticmethod
    def stack_rows(parts):
        return jnp.concatenate(parts, -2)

    @staticmethod
    def eye(n, like):
        return jnp.eye(n, dtype=like.dtype)

    @staticmethod
    def one_hot(labels, ways, like):
        return jax.nn.one_hot(labels, ways, dtype=like.dtype)

    @staticmethod
    def solve_lower(root, b):
        root = jnp.broadcast_to(root, b.shape[:-2] + root.shape[-2:])
        return lax.linalg.triangular_solve(root, b, left_side=True, lower=True)

    @staticmethod
    def conv(x, weight, bias):
        x = lax.conv_general_dilated(x, weight, (2, 2), ((1, 1), (1, 1)),
                                     dimension_numbers=("NCHW", "OIHW", "NCHW"))
        return x + bias[:, None, None]

    @staticmethod
    def norm(x, weight, bias):
        """Normalises x [T, n, C, H, W] by the statistics of each task's set."""
        mean = x.mean((1, 3, 4), keepdims=True)
        variance = jnp.square(x - mean).mean((1, 3, 4), keepdims=True)
        return (x - mean) * lax.rsqrt(variance + 1e-5) * weight + bias


def forward(objective, weights, x):
    """Returns the outputs [n, out] of one task's network for rows x [n, ...]."""
    if objective.network == "mlp":
        last = len(objective.layers) - 2
        for i in range(last + 1):
            x = x @ weights[f"layers.{i}.weight"].T + weights[f"layers.{i}.bias"]
            if i < last:
                x = jnp.maximum(x, 0) if objective.activation == "relu" else jnp.tanh(x)
        return x
    for i in range(4):
        x = lax.conv_general_dilated(x, weights[f"blocks.{i}.conv.weight"], (2, 2),
                                     ((1, 1), (1, 1)),
                                     dimension_numbers=("NCHW", "OIHW", "NCHW"))
        x = x + weights[f"blocks.{i}.conv.bias"][:, None, None]
        mean = x.mean((0, 2, 3), keepdims=True)
        variance = jnp.square(x - mean).mean((0, 2, 3), keepdims=True)
        x = (x - mean) * lax.rsqrt(variance + 1e-5)
        x = x * weights[f"blocks.{i}.norm.weight"][:, None, None] \
            + weights[f"blocks.{i}.norm.bias"][:, None, None]
        x = jnp.maximum(x, 0)
    return x.mean((2, 3)) @ weights["head.weight"].T + weights["head.bias"]


def nll(objective, weights, x, y):
    """Returns the loss of each example, [n]."""
    out = forward(objective, weights, x)
    if objective.loss == "mse":
        return jnp.square(out - y).mean(-1)
    if objective.loss == "gaussian_nll":
        s = objective.noise_std
        return (jnp.square(out - y) / (2 * s * s) + jnp.log(s)
                + 0.5 * jnp.log(2 * jnp.pi)).sum(-1)
    log_p = jax.nn.log_softmax(out)
    return -jnp.take_along_axis(log_p, y[:, None], 1)[:, 0]


def adapt(objective, state, inner_gradient, steps_data):
    """Runs K gradient steps on the tree `state`.

    inner_gradient(state, data) returns the gradient. steps_data has the data of every step, or is
    None.
    """
    def step(current, data):
        g = inner_gradient(current, data)
        if objective.first_order:
            g = lax.stop_gradient(g)
        rate = objective.learning_rate
        return jax.tree.map(lambda p, d: p - rate * d, current, g), None

    if objective.steps <= UNROLL:
        for k in range(objective.steps):
            state, _ = step(state, None if steps_data is None else steps_data[k])
        return state
    return lax.scan(step, state, steps_data, length=objective.steps)[0]


def maml_task(objective, theta, episode):
    sx, sy, qx, qy = episode
    gradient = jax.grad(lambda w: nll(objective, w, sx, sy).mean())
    adapted = adapt(objective, theta, lambda w, _: gradient(w), None)
    return nll(objective, adapted, qx, qy).mean()


def kl_divergence(q, p):
    mu, s = q
    prior_mu, prior_s = p
    def one(m, l, pm, pl):
        return (pl - l + (jnp.exp(2 * l) + jnp.square(m - pm)) / (2 * jnp.exp(2 * pl)) - 0.5).sum()
    return sum(jax.tree.leaves(jax.tree.map(one, mu, s, prior_mu, prior_s)))


def unflatten(objective, flat):
    """Converts samples [S, D] to a tree of arrays [S, *shape]."""
    tree, offset = {}, 0
    for name, shape in objective.parameter_shapes().items():
        size = functools.reduce(lambda a, b: a * b, shape, 1)
        tree[name] = flat[:, offset:offset + size].reshape(flat.shape[0], *shape)
        offset += size
    return tree


def abml_task(objective, theta, episode, noise_inner, noise_outer):
    """Returns the loss of one task. noise_inner is [K, S, D], and noise_outer is [S', D]."""
    sx, sy, qx, qy = episode

    def expected_nll(state, noise, x, y):
        mu, s = state
        def one(eps):
            phi = jax.tree.map(lambda m, l, e: m + jnp.exp(l) * e, mu, s, eps)
            return nll(objective, phi, x, y).sum()
        return jax.vmap(one)(unflatten(objective, noise)).mean()

    prior = theta if objective.differentiate_prior else lax.stop_gradient(theta)

    def inner_loss(state, noise):
        kl = objective.kl_weight_inner * kl_divergence(state, prior)
        return (expected_nll(state, noise, sx, sy) + kl) / len(sx)

    state = adapt(objective, theta, jax.grad(inner_loss), noise_inner)
    kl = objective.kl_weight_outer * kl_divergence(state, theta)
    if not objective.support_in_outer:
        return (expected_nll(state, noise_outer, qx, qy) + kl) / len(qx)
    if objective.network == "mlp":  # one pass over both sets, because no example depends on another
        x, y = jnp.concatenate([sx, qx]), jnp.concatenate([sy, qy])
        total = expected_nll(state, noise_outer, x, y)
    else:  # each set has its own batch statistics
        total = expected_nll(state, noise_outer, sx, sy) + expected_nll(state, noise_outer, qx, qy)
    return (total + kl) / (len(sx) + len(qx))


def hyper_prior(objective, theta):
    mu, s = theta
    def tau_terms(l):
        tau = jnp.exp(-2 * l)
        return ((objective.gamma_shape - 1) * jnp.log(tau) - objective.gamma_rate * tau).sum()
    return sum(jnp.square(m).sum() / 2 for m in mu.values()) - sum(map(tau_terms, s.values()))


def meta_loss(objective, theta, batch, noise=None, mode="vmap"):
    """Returns the meta-objective, which is the mean loss over the tasks and the penalties.

    batch: (support_x, support_y, query_x, query_y), each [T, ...].
    theta: a dict (for ABML a pair of dicts, mu and log_sigma).
    noise: for ABML (inner [T, K, S, D], outer [T, S', D]); for LEO see leo.noise_shapes.
    """
    if objective.algorithm == "leo":
        return leo.meta_loss(objective, theta, batch, noise, mode)
    if objective.algorithm in heads.ALGORITHMS:
        return heads.meta_loss(objective, theta, batch, JaxOps)
    if objective.algorithm == "maml":
        task = lambda episode: maml_task(objective, theta, episode)
        data = (tuple(batch),)
    else:
        task = lambda episode, inner, outer: abml_task(objective, theta, episode, inner, outer)
        data = (tuple(batch), *noise)
    losses = jax.vmap(task)(*data) if mode == "vmap" else lax.map(lambda d: task(*d), data)
    loss = losses.mean()
    if objective.algorithm == "abml" and objective.hyper_prior_weight:
        loss = loss + objective.hyper_prior_weight * hyper_prior(objective, theta)
    return loss


def leo_weights(objective, rng):
    """Returns Glorot-uniform matrices and the authors' initial learning rates by name, float32."""
    weights = {}
    for name, shape in objective.parameter_shapes().items():
        if name.endswith("weight"):
            bound = (6.0 / sum(shape)) ** 0.5
            weights[name] = rng.uniform(-bound, bound, shape)
        else:
            rate = 1.0 if name == "latent_lr" else 0.001
            weights[name] = rng.uniform(rate, rate, shape)
    return {name: value.astype("float32") for name, value in weights.items()}


def load(mode, args):
    # XLA uses the cores that the process may run on. Without a GPU, "cuda" raises an error.
    jax.config.update("jax_platforms", "cuda" if args.device == "gpu" else "cpu")
    device = jax.devices()[0]
    # JAX's default on a GPU is TF32.
    jax.config.update("jax_default_matmul_precision", "tensorfloat32" if args.tf32 else "highest")
    # XLA's own generator is several times as fast on a CPU as JAX's default, threefry.
    jax.config.update("jax_default_prng_impl", "rbg")

    def make_step(work, tasks):
        objective = work.objective
        rng = works.Rng(1)
        if objective.algorithm != "leo":
            weights = {k: jnp.asarray(v)
                       for k, v in works.initial_weights(objective, rng).items()}
        batch = [jnp.asarray(part) for part in works.episodes(work, tasks, rng)]
        if objective.algorithm == "leo":
            theta = {k: jnp.asarray(v) for k, v in leo_weights(objective, rng).items()}
            shapes = objective.noise_shapes(tasks, work.support)

            def loss(parameters, data, key):
                noise = [jax.random.normal(k, s) for k, s in zip(jax.random.split(key), shapes)]
                return meta_loss(objective, parameters, data, noise, mode)
        elif objective.algorithm != "abml":
            theta = weights

            def loss(parameters, data, key):
                del key
                return meta_loss(objective, parameters, data, mode=mode)
        else:
            theta = (weights, jax.tree.map(lambda w: jnp.full_like(w, works.LOG_SIGMA), weights))
            size = sum(w.size for w in weights.values())

            def loss(parameters, data, key):
                inner, outer = jax.random.split(key)
                noise = (jax.random.normal(inner, (tasks, objective.steps, work.samples, size)),
                         jax.random.normal(outer, (tasks, work.samples, size)))
                return meta_loss(objective, parameters, data, noise, mode)

        compiled = jax.jit(jax.value_and_grad(loss))
        keys = iter(jax.random.split(jax.random.key(1), 100000))

        def step():
            key = next(keys) if objective.algorithm in ("abml", "leo") else None
            value, gradient = compiled(theta, batch, key)
            jax.block_until_ready(gradient)
            return float(value)

        return step

    def device_bytes():
        return (device.memory_stats() or {}).get("peak_bytes_in_use")

    return {"jax": jax.__version__, "jaxlib": jax.lib.__version__}, make_step, device_bytes


if __name__ == "__main__":
    works.run_peer(__doc__.splitlines()[0], ("vmap", "map"), load)
