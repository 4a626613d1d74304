"""PyTorch: the engine's networks as modules, and meta-gradients for torch's optimizers.

features = kshot.torch.backbone(run)                 # an nn.Module
model = kshot.torch.adapted(learner.adapt(x, y))     # the adapted network

engine = kshot.MetaGradient(config)
parameters = kshot.torch.parameters(engine, tasks)
optimizer = torch.optim.Adam(parameters.values())
loss = kshot.torch.meta_loss(engine, parameters, tasks, step)
loss.backward()
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ._export import adapted_weights, has_norm
from ._learner import FittedTask, Learner
from ._meta_gradient import MetaGradient as _Engine
from ._meta_gradient import Task

__all__ = ["MetaGradient", "Network", "adapted", "backbone", "meta_loss", "parameters"]

_NORM_EPSILON = 1e-5
_LEAKY_SLOPE = 0.01


class _BatchNorm(nn.Module):
    """Normalises by the mean and biased variance of the current batch, or of another batch."""

    def __init__(self, weight: Any, bias: Any, spatial: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(_tensor(weight))
        self.bias = nn.Parameter(_tensor(bias))
        self.spatial = spatial

    def forward(self, x: torch.Tensor, source: torch.Tensor | None = None) -> torch.Tensor:
        source = x if source is None else source
        axes = (0, 2, 3) if self.spatial else (0,)
        shape = (1, -1, 1, 1) if self.spatial else (1, -1)
        mean = source.mean(axes, keepdim=True)
        variance = source.var(axes, unbiased=False, keepdim=True)
        normal = (x - mean) / torch.sqrt(variance + _NORM_EPSILON)
        return normal * self.weight.view(shape) + self.bias.view(shape)


class _Mean(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean((2, 3))


def _tensor(values: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.float32))


def _module(layer: Mapping[str, Any], weights: Mapping[str, Any]) -> nn.Module:
    kind = layer["type"]
    if kind in ("linear", "conv"):
        weight = weights[layer["weight"]]
        bias = layer["bias"] is not None
        module: nn.Linear | nn.Conv2d
        if kind == "linear":
            module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
        else:
            module = nn.Conv2d(
                weight.shape[1],
                weight.shape[0],
                layer["kernel"],
                layer["stride"],
                layer["padding"],
                bias=bias,
            )
        with torch.no_grad():
            module.weight.copy_(_tensor(weight))
            if module.bias is not None:
                module.bias.copy_(_tensor(weights[layer["bias"]]))
        return module
    if kind == "norm":
        return _BatchNorm(weights[layer["weight"]], weights[layer["bias"]], len(layer["in"]) == 3)
    if kind == "max_pool":
        return nn.MaxPool2d(layer["size"])
    if kind == "mean":
        return _Mean()
    if kind == "flatten":
        return nn.Flatten()
    if kind == "leaky_relu":
        return nn.LeakyReLU(_LEAKY_SLOPE)
    return {"relu": nn.ReLU, "tanh": nn.Tanh}[kind]()


class Network(nn.Module):
    """A network of the engine as a module, layer by layer, in float32.

    Its outputs are those of the engine's network, up to rounding. Norm layers use the statistics of
    the rows of the call, or those of the `support` rows where these are given.
    """

    def __init__(
        self,
        layers: Sequence[Mapping[str, Any]],
        weights: Mapping[str, Any],
        *,
        support: Any = None,
        unit_length: bool = False,
    ) -> None:
        super().__init__()
        self.input_shape = tuple(layers[0]["in"])
        self.unit_length = unit_length
        self.layers = nn.ModuleList(_module(layer, weights) for layer in layers)
        self.register_buffer("support", None if support is None else _tensor(support))

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        x = x.to(torch.float32).reshape(-1, *self.input_shape)
        if self.unit_length:
            length = x.flatten(1).norm(dim=1).view(-1, *[1] * len(self.input_shape))
            x = x / torch.where(length == 0, torch.ones_like(length), length)
        return x

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Returns the outputs [rows, outputs] of rows x [rows, *input_shape] or [rows, numbers]."""
        x = self._rows(x)
        source = None if self.support is None else self._rows(self.support)
        for layer in self.layers:
            if isinstance(layer, _BatchNorm):
                x = layer(x, source)
            else:
                x = layer(x)
            if source is not None:
                source = layer(source)
        return x


class _Adapted(nn.Module):
    """Adapted networks, with the conversions from the task's units and back.

    The output is [samples, rows, outputs] if `sampled`, else the first network's [rows, outputs].
    """

    def __init__(self, networks: Sequence[Network], units: Any, sampled: bool) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.sampled = sampled
        for name in ("x_mean", "x_std", "y_mean", "y_std"):
            value = torch.from_numpy(np.array(getattr(units, name), np.float64))
            self.register_buffer(name, None if units.identity else value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.x_mean is not None:
            x = (x.flatten(1).to(torch.float64) - self.x_mean) / self.x_std
        outputs = torch.stack([network(x) for network in self.networks])
        if self.y_mean is not None:
            outputs = outputs * self.y_std + self.y_mean
        return outputs if self.sampled else outputs[0]


def _unit_length(learner: Learner) -> bool:
    data = learner.config["data"]
    return data.get("source") == "file" and bool(data.get("unit_length"))


def backbone(run: Learner | str | os.PathLike[str]) -> Network:
    """Returns the meta-learned network of a run, without any adaptation.

    run: a learner, a run folder or a checkpoint.

    For a closed-form head, the outputs of the network are the features. For maml and meta_sgd it is
    the initial network, and for abml and hvi the network at the prior's mean. Raises ValueError for
    leo, which generates a network for each task.
    """
    learner = run if isinstance(run, Learner) else Learner(run, "cpu")
    parameters = learner._native.parameters
    group = next((g for g in ("theta", "mu") if any(n.startswith(g + ".") for n in parameters)), "")
    names = {layer["weight"] for layer in learner._native.layers} - {None}
    weights = {
        name.removeprefix(group + "."): values
        for name, values in parameters.items()
        if group and name.startswith(group + ".")
    }
    if not names <= set(weights):
        algorithm = learner.config["algorithm"]
        raise ValueError(f"backbone: {algorithm} has no network that all tasks share")
    return Network(learner._native.layers, weights, unit_length=_unit_length(learner))


def adapted(task: FittedTask, *, samples: int = 0) -> nn.Module:
    """Returns the adapted network of a task as a module.

    task: a fitted task (`Learner.adapt`).
    samples: the number of posterior samples for abml, hvi and leo, as for FittedTask.to_onnx.

    The module takes rows in the units of the support rows. It returns the raw outputs of the
    network: logits, or predictions in the units of the targets. Their shape is [rows, outputs], or
    with samples > 0 [samples, rows, outputs].

    Raises ValueError for methods without an adapted network, and for a number of samples that does
    not fit.
    """
    learner = task._learner
    layers = learner._native.layers
    found = adapted_weights(task, samples)
    support = None
    if learner.config["evaluate"].get("norm_statistics") == "support" and has_norm(layers):
        support = task._x
    networks = [
        Network(layers, weights, support=support, unit_length=_unit_length(learner))
        for weights in found.samples
    ]
    return _Adapted(networks, task._units, samples > 0)


class MetaGradient(torch.autograd.Function):
    """The meta-objective of an engine as a function of its parameters, for torch's autograd.

    The call is `MetaGradient.apply(engine, tasks, step, *parameters)`, with the parameters in the
    order of `engine.initial(tasks)`. `meta_loss` takes the parameters by name. The forward pass
    computes the derivative too. The derivative cannot be differentiated again.
    """

    @staticmethod
    def forward(ctx: Any, engine: _Engine, tasks: Sequence[Task], step: int, *values: Any) -> Any:
        """Returns the meta-objective, a scalar.

        engine: a kshot.MetaGradient. tasks: as for a call of the engine.
        step: the number of the step, which determines the random numbers.
        values: one tensor per group of parameters, in the order of `engine.initial(tasks)`.
        """
        names = list(engine.initial(tasks))
        if len(names) != len(values):
            raise ValueError(f"parameters: expected {names}, got {len(values)} tensors")
        arrays = {
            name: value.detach().to("cpu", torch.float64).numpy()
            for name, value in zip(names, values, strict=True)
        }
        loss, gradients = engine(arrays, tasks, step)
        ctx.gradients = [
            torch.from_numpy(gradients[name]).to(value.device, value.dtype)
            for name, value in zip(names, values, strict=True)
        ]
        return values[0].new_tensor(loss)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Any) -> Any:
        """Returns the gradient by the parameters, times `outer`, the derivative by this scalar."""
        return (None, None, None, *(gradient * outer[0] for gradient in ctx.gradients))


def meta_loss(
    engine: _Engine, values: Mapping[str, torch.Tensor], tasks: Sequence[Task], step: int = 0
) -> torch.Tensor:
    """Returns the meta-objective of `tasks`, a scalar whose backward pass gives the meta-gradient.

    engine: a kshot.MetaGradient. tasks: as for a call of the engine.
    values: one tensor per group of parameters, as `parameters` gives them.
    step: the number of the step, which determines the random numbers.

    Raises ValueError for parameters that do not fit.
    """
    names = list(engine.initial(tasks))
    if set(values) != set(names):
        raise ValueError(f"parameters: expected {names}, got {list(values)}")
    loss: torch.Tensor = MetaGradient.apply(engine, tasks, step, *(values[n] for n in names))
    return loss


def parameters(engine: _Engine, tasks: Sequence[Task]) -> dict[str, nn.Parameter]:
    """Returns the parameters that a training begins with, one float64 vector per group.

    engine: a kshot.MetaGradient. tasks: as for a call of the engine; only their shapes are used.
    """
    return {
        name: nn.Parameter(torch.from_numpy(np.array(values)))
        for name, values in engine.initial(tasks).items()
    }
