"""The adapted weights of a task, for the exports to ONNX and torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import _core

if TYPE_CHECKING:
    from ._learner import FittedTask

Array = npt.NDArray[Any]
CLOSED_FORM = ("protonet", "bayes_protonet", "r2d2", "alpaca", "dkt")


def has_norm(layers: Sequence[Mapping[str, Any]]) -> bool:
    return any(layer["type"] == "norm" for layer in layers)


def check_units(units: Any) -> None:
    """Raises ValueError for a task that was adapted to a DataFrame, which cannot be exported."""
    if units.preprocessing:
        raise ValueError(
            "export: the task was adapted to a DataFrame, whose columns are encoded outside of the "
            "network; adapt to arrays (units=...)"
        )


@dataclass(frozen=True)
class AdaptedWeights:
    """The weights of an adapted network.

    `samples` has one dict per posterior sample, from the name of a tensor to its values.
    `noise_std` is the standard deviation of the observation noise, in the network's units.
    """

    samples: list[dict[str, Array]]
    noise_std: float


def adapted_weights(task: FittedTask, samples: int) -> AdaptedWeights:
    """Returns the adapted weights of a fitted task.

    samples: number of posterior samples; 0: the weights at the posterior's mean.

    Raises ValueError where the method has no adapted network or not this number of samples, and
    Error where the adaptation diverges.
    """
    learner = task._learner
    check_units(task._units)
    config = learner.config.to_dict()
    algorithm = config["algorithm"]
    if algorithm in CLOSED_FORM:
        raise ValueError(
            f"export: {algorithm} has no adapted network; Learner.to_onnx gives the head with its "
            "adaptation, kshot.torch.backbone the features"
        )
    if samples < 0:
        raise ValueError(f"samples: expected at least 0, got {samples}")
    if samples and algorithm not in ("abml", "hvi", "leo"):
        raise ValueError(f"samples: {algorithm} has no posterior over weights; expected 0")
    estimator = config.get("abml", {}).get("estimator", "weight")
    if samples and estimator != "weight":
        raise ValueError(
            f'samples: abml.estimator = "{estimator}" draws noise for every row, which is no '
            "network; expected 0, the mean"
        )
    adapted = task._adaptation()
    # A prediction of one row gives the standard deviation of the noise. It also raises Error
    # where the adaptation diverged.
    rows = np.zeros((1, int(np.prod(learner.input_shape))), np.float32)
    probe: Any = learner._native.predict(adapted, rows, None)
    noise_std = float(probe["noise_std"])
    if algorithm == "leo":
        drawn = adapted.samples
        if len(drawn) != max(samples, 1):
            wanted = (
                f"samples = {len(drawn)}"
                if samples
                else f"samples = {len(drawn)}, or a run that is loaded with evaluate.samples = 1"
            )
            raise ValueError(
                f"samples: LEO adapted {len(drawn)} networks (evaluate.samples), got {samples}; "
                f"expected {wanted}"
            )
        return AdaptedWeights([_groups(weights)["theta"] for weights in drawn], noise_std)
    seed: int = config["evaluate"]["seed"]
    return AdaptedWeights(_weight_samples(adapted.adapted, algorithm, samples, seed), noise_std)


def _groups(tensors: Mapping[str, Array]) -> dict[str, dict[str, Array]]:
    """Sorts tensors by group: the name "theta.layers.0.weight" has the group "theta"."""
    groups: dict[str, dict[str, Array]] = {}
    for name, values in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = values
    return groups


def _weight_samples(
    adapted: Mapping[str, Array], algorithm: str, samples: int, seed: int
) -> list[dict[str, Array]]:
    """Returns the adapted weights by name, one dict per sample.

    With `samples` = 0 a posterior gives its mean. Otherwise it gives the samples that `predict`
    draws: mu + exp(log_sigma) * noise.
    """
    kind = "mu" if algorithm in ("abml", "hvi") else "theta"
    groups = _groups(adapted)
    if not samples:
        return [groups[kind]]
    size = sum(values.size for values in groups[kind].values())
    drawn = []
    for sample in range(samples):
        noise: Array = np.asarray(_core.posterior_noise(seed, sample, size))
        weights, at = {}, 0
        for name, mu in groups[kind].items():
            own = noise[at : at + mu.size].reshape(mu.shape)
            weights[name] = mu + np.exp(groups["log_sigma"][name]) * own
            at += mu.size
        drawn.append(weights)
    return drawn
