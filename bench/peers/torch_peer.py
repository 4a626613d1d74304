#!/usr/bin/env python3
"""The works of kshot's benchmarks in PyTorch: torch.func, or a loop over tasks with autograd.

  python torch_peer.py --mode func --work sinusoid_maml_k5 --tasks 64,256,1024 --threads 2 --json

--mode func: torch.func.vmap over tasks, torch.func.grad for the inner steps, grad_and_value for the
    meta-gradient.
--mode loop: one task at a time, torch.autograd.grad with create_graph for the inner steps, and a
    backward pass per task, as in learn2learn and higher.
"""

import math
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch.func import grad, grad_and_value, vmap

import heads
import works


class TorchOps:
    """The functions that heads.py needs, by the names that it uses."""

    exp, log, sqrt, tanh, relu = torch.exp, torch.log, torch.sqrt, torch.tanh, torch.relu
    cholesky, ones_like, tril = torch.linalg.cholesky, torch.ones_like, torch.tril

    @staticmethod
    def solve(a, b):
        """Solves a x = b for a symmetric positive definite a."""
        return torch.cholesky_solve(b, torch.linalg.cholesky(a))

    @staticmethod
    def log_softmax(x):
        return F.log_softmax(x, -1)

    @staticmethod
    def diagonal(x):
        """Returns the diagonal of a matrix, or the diagonal matrix of a vector."""
        return torch.diag(x) if x.ndim == 1 else x.diagonal(dim1=-2, dim2=-1)

    @staticmethod
    def concat(parts):
        return torch.cat(parts, -1)

    @staticmethod
    def stack_rows(parts):
        return torch.cat(parts, -2)

    @staticmethod
    def eye(n, like):
        return torch.eye(n, dtype=like.dtype, device=like.device)

    @staticmethod
    def one_hot(labels, ways, like):
        return F.one_hot(labels, ways).to(like.dtype)

    @staticmethod
    def solve_lower(root, b):
        return torch.linalg.solve_triangular(root, b, upper=False)

    @staticmethod
    def conv(x, weight, bias):
        return F.conv2d(x, weight, bias, stride=2, padding=1)

    @staticmethod
    def norm(x, weight, bias):
        """Normalises x [T, n, C, H, W] by the statistics of each task's set."""
        variance, mean = torch.var_mean(x, (1, 3, 4), correction=0, keepdim=True)
        return (x - mean) * torch.rsqrt(variance + 1e-5) * weight + bias


def fused_norm(x, weight, bias):
    """Batch norm by the statistics of the current batch."""
    return F.batch_norm(x, None, None, weight, bias, training=True, eps=1e-5)


def written_norm(x, weight, bias):
    """The same function as fused_norm, written with elementary operations.

    Under nested torch.func.grad the second derivative of F.batch_norm is wrong. check_cases.py
    showed this with PyTorch 2.15. Under autograd it is right.
    """
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
    scale = torch.rsqrt(variance + 1e-5) * weight[:, None, None]
    return (x - mean) * scale + bias[:, None, None]


def forward(objective, weights, x, norm):
    """Returns the outputs [n, out] of one task's network for rows x [n, ...]."""
    if objective.network == "mlp":
        last = len(objective.layers) - 2
        for i in range(last + 1):
            x = F.linear(x, weights[f"layers.{i}.weight"], weights[f"layers.{i}.bias"])
            if i < last:
                x = F.relu(x) if objective.activation == "relu" else torch.tanh(x)
        return x
    for i in range(4):
        x = F.conv2d(x, weights[f"blocks.{i}.conv.weight"], weights[f"blocks.{i}.conv.bias"],
                     stride=2, padding=1)
        x = F.relu(norm(x, weights[f"blocks.{i}.norm.weight"], weights[f"blocks.{i}.norm.bias"]))
    return F.linear(x.mean((2, 3)), weights["head.weight"], weights["head.bias"])


def nll(objective, weights, x, y, norm):
    """Returns the loss of each example, [n]."""
    out = forward(objective, weights, x, norm)
    if objective.loss == "mse":
        return (out - y).square().mean(-1)
    if objective.loss == "gaussian_nll":
        s = objective.noise_std
        return ((out - y).square() / (2 * s * s) + math.log(s) + 0.5 * math.log(2 * math.pi)).sum(-1)
    return F.cross_entropy(out, y, reduction="none")


def autograd_gradient(function):
    """Does the same as torch.func.grad for the loop. Keeps the graph for the second derivative."""
    def gradient(tree, *rest):
        values = list(tree.values())
        return dict(zip(tree, torch.autograd.grad(function(tree, *rest), values,
                                                  create_graph=True)))
    return gradient


class Style(NamedTuple):
    """How a mode computes inner gradients and batch norm."""

    gradient: Callable  # maps a function of a dict to its gradient with respect to the dict
    norm: Callable


STYLES = {"func": Style(grad, written_norm), "loop": Style(autograd_gradient, fused_norm)}


def adapt(objective, state, inner_gradient, steps_data):
    """Runs K gradient steps on the dict `state`.

    inner_gradient(state, data) returns the gradient. steps_data has the data of every step, or is
    None.
    """
    for k in range(objective.steps):
        g = inner_gradient(state, None if steps_data is None else steps_data[k])
        if objective.first_order:
            g = {name: value.detach() for name, value in g.items()}
        state = {name: value - objective.learning_rate * g[name] for name, value in state.items()}
    return state


def maml_task(objective, theta, episode, style):
    sx, sy, qx, qy = episode
    inner = style.gradient(lambda weights, _: nll(objective, weights, sx, sy, style.norm).mean())
    return nll(objective, adapt(objective, theta, inner, None), qx, qy, style.norm).mean()


# ABML's state is a dict of the mean "mu" and the log standard deviation "s", each [D].


def kl_divergence(q, p):
    return (p["s"] - q["s"] + (torch.exp(2 * q["s"]) + (q["mu"] - p["mu"]).square())
            / (2 * torch.exp(2 * p["s"])) - 0.5).sum()


def unflatten(objective, flat):
    """Converts samples [S, D] to a dict of tensors [S, *shape]."""
    shapes = objective.parameter_shapes()
    parts = flat.split([math.prod(shape) for shape in shapes.values()], dim=1)
    return {name: part.unflatten(1, shape) for (name, shape), part in zip(shapes.items(), parts)}


def abml_task(objective, theta, episode, noise_inner, noise_outer, style):
    """Returns the loss of one task. noise_inner is [K, S, D], and noise_outer is [S', D]."""
    sx, sy, qx, qy = episode

    def expected_nll(state, noise, x, y):
        phi = unflatten(objective, state["mu"] + torch.exp(state["s"]) * noise)
        return vmap(lambda weights: nll(objective, weights, x, y, style.norm).sum())(phi).mean()

    prior = theta
    if not objective.differentiate_prior:
        prior = {name: value.detach() for name, value in theta.items()}

    def inner_loss(state, noise):
        kl = objective.kl_weight_inner * kl_divergence(state, prior)
        return (expected_nll(state, noise, sx, sy) + kl) / len(sx)

    # The posterior starts at a copy, so that its gradient does not include the prior.
    start = {name: value.clone() for name, value in theta.items()}
    state = adapt(objective, start, style.gradient(inner_loss), noise_inner)
    kl = objective.kl_weight_outer * kl_divergence(state, theta)
    if not objective.support_in_outer:
        return (expected_nll(state, noise_outer, qx, qy) + kl) / len(qx)
    if objective.network == "mlp":  # one pass over both sets, because no example depends on another
        x, y = torch.cat([sx, qx]), torch.cat([sy, qy])
        total = expected_nll(state, noise_outer, x, y)
    else:  # each set has its own batch statistics
        total = expected_nll(state, noise_outer, sx, sy) + expected_nll(state, noise_outer, qx, qy)
    return (total + kl) / (len(sx) + len(qx))


def hyper_prior(objective, theta):
    tau = torch.exp(-2 * theta["s"])
    return theta["mu"].square().sum() / 2 - (
        (objective.gamma_shape - 1) * torch.log(tau) - objective.gamma_rate * tau).sum()


def task_loss(objective, theta, data, style):
    if objective.algorithm == "maml":
        return maml_task(objective, theta, data[:4], style)
    return abml_task(objective, theta, data[:4], *data[4:], style)


def meta_gradient(objective, theta, data, mode):
    """Returns (loss, gradient dict) of the meta-objective.

    theta: a dict by parameter name, or for ABML a dict of "mu" and "s".
    data: (support_x, support_y, query_x, query_y), each [T, ...], and for ABML also noise
        [T, K, S, D] and [T, S', D].
    """
    if objective.algorithm in heads.ALGORITHMS:  # one batch, so that both modes are the same
        leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
        loss = heads.meta_loss(objective, leaves, data, TorchOps)
        return loss.detach(), dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values()))))
    hyper = objective.hyper_prior_weight if objective.algorithm == "abml" else 0.0
    if mode == "func":
        def loss(parameters):
            losses = vmap(lambda *task: task_loss(objective, parameters, task, STYLES[mode]))(*data)
            total = losses.mean()
            return total + hyper * hyper_prior(objective, parameters) if hyper else total
        gradient, value = grad_and_value(loss)(theta)
        return value, gradient
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    tasks = len(data[0])
    total = 0.0
    for t in range(tasks):
        loss = task_loss(objective, leaves, [part[t] for part in data], STYLES[mode]) / tasks
        loss.backward()
        total = total + loss.detach()
    if hyper:
        loss = hyper * hyper_prior(objective, leaves)
        loss.backward()
        total = total + loss.detach()
    return total, {name: value.grad for name, value in leaves.items()}


def flatten(tree):
    return torch.cat([value.reshape(-1) for value in tree.values()])


def load(mode, args):
    torch.set_num_threads(args.threads)
    device = "cuda" if args.device == "gpu" else "cpu"
    torch.set_default_device(device)  # for random numbers
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.tf32
    torch.manual_seed(1)

    def make_step(work, tasks):
        objective = work.objective
        rng = works.Rng(1)
        theta = {k: torch.from_numpy(v).to(device)
                 for k, v in works.initial_weights(objective, rng).items()}
        batch = [torch.from_numpy(part).to(device) for part in works.episodes(work, tasks, rng)]
        if objective.algorithm == "abml":
            mu = flatten(theta)
            theta = {"mu": mu, "s": torch.full_like(mu, works.LOG_SIGMA)}

        def step():
            data = batch
            if objective.algorithm == "abml":
                size = len(theta["mu"])
                data = batch + [torch.randn(tasks, objective.steps, work.samples, size),
                                torch.randn(tasks, work.samples, size)]
            value, _ = meta_gradient(objective, theta, data, mode)
            return float(value)  # float() waits for the device

        return step

    def device_bytes():
        return torch.cuda.max_memory_reserved() if device == "cuda" else None

    if device == "cuda":
        torch.cuda.init()  # without a GPU this raises an error now, not in the first step
    return {"torch": torch.__version__}, make_step, device_bytes


if __name__ == "__main__":
    works.run_peer(__doc__.splitlines()[0], ("func", "loop"), load)
