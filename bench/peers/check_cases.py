#!/usr/bin/env python3
"""Compares the peers' meta-gradients with recorded cases, in double precision.

  python check_cases.py [CASES_DIR] [--tolerance 1e-9]

CASES_DIR has one folder per case with case.toml, inputs.npz and expected.npz (see `kshot verify`).
Cases of algorithms or networks that the peers do not compute are reported and skipped. The exit
status is 1 if a gradient or a loss is wrong, or if no case could be checked.
"""

import argparse
import math
import pathlib
import sys
import tomllib

import jax
import numpy as np
import torch

import heads
import jax_peer
import torch_peer
import works

DATA = ("support_x", "support_y", "query_x", "query_y")


def group(inputs, prefix):
    return {name[len(prefix):]: inputs[name] for name in inputs.files if name.startswith(prefix)}


def head_parameters(inputs):
    return {**group(inputs, "theta."),
            **{name: inputs[name] for name in inputs.files if name.startswith("head.")}}


def head_result(loss, gradient):
    """Returns loss and gradients by the cases' names: grad.theta.* and grad.head.*."""
    return {"loss": np.asarray(loss),
            **{f"grad.{name}" if name.startswith("head.") else f"grad.theta.{name}": np.asarray(g)
               for name, g in gradient.items()}}


def gradients_jax(objective, inputs, mode):
    batch = [inputs[name] for name in DATA]
    if objective.algorithm in heads.ALGORITHMS:
        return head_result(*jax.jit(jax.value_and_grad(
            lambda p: jax_peer.meta_loss(objective, p, batch)))(head_parameters(inputs)))
    if objective.algorithm == "maml":
        theta, noise = group(inputs, "theta."), None
    elif objective.algorithm == "leo":
        theta = group(inputs, "theta.")
        noise = (inputs["noise_encoder"], inputs["noise_decoder"])
    else:
        theta = (group(inputs, "mu."), group(inputs, "log_sigma."))
        noise = (inputs["noise_inner"].swapaxes(0, 1), inputs["noise_outer"])
    loss, gradient = jax.jit(jax.value_and_grad(
        lambda p: jax_peer.meta_loss(objective, p, batch, noise, mode)))(theta)
    if objective.algorithm in ("maml", "leo"):
        result = {f"grad.theta.{name}": np.asarray(g) for name, g in gradient.items()}
    else:
        result = {f"grad.{kind}.{name}": np.asarray(g)
                  for kind, tree in zip(("mu", "log_sigma"), gradient)
                  for name, g in tree.items()}
    return {"loss": np.asarray(loss), **result}


def gradients_torch(objective, inputs, mode):
    data = [torch.from_numpy(inputs[name]) for name in DATA]
    if objective.algorithm in heads.ALGORITHMS:
        data = [part.long() if part.dtype == torch.int32 else part for part in data]
        theta = {k: torch.from_numpy(v) for k, v in head_parameters(inputs).items()}
        return head_result(*torch_peer.meta_gradient(objective, theta, data, mode))
    if objective.algorithm == "maml":
        theta = {k: torch.from_numpy(v) for k, v in group(inputs, "theta.").items()}
    else:
        shapes = objective.parameter_shapes()
        theta = {short: torch.cat([torch.from_numpy(inputs[f"{prefix}.{name}"]).reshape(-1)
                                   for name in shapes])
                 for short, prefix in (("mu", "mu"), ("s", "log_sigma"))}
        data += [torch.from_numpy(inputs["noise_inner"]).transpose(0, 1),
                 torch.from_numpy(inputs["noise_outer"])]
    loss, gradient = torch_peer.meta_gradient(objective, theta, data, mode)
    if objective.algorithm == "maml":
        result = {f"grad.theta.{name}": g.numpy() for name, g in gradient.items()}
    else:
        result = {}
        for short, prefix in (("mu", "mu"), ("s", "log_sigma")):
            parts = gradient[short].split([math.prod(s) for s in shapes.values()])
            result.update({f"grad.{prefix}.{name}": part.reshape(shape).numpy()
                           for (name, shape), part in zip(shapes.items(), parts)})
    return {"loss": np.asarray(loss.item()), **result}


PEERS = {
    "jax vmap": (gradients_jax, "vmap"),
    "jax map": (gradients_jax, "map"),
    "torch func": (gradients_torch, "func"),
    "torch loop": (gradients_torch, "loop"),
}


def worst(got, expected):
    """Returns the largest relative error over the keys, measured as by `kshot verify`.

    The error of a key is divided by 1e-8 + its scale. The scale is the largest expected number of
    the key. For a gradient, a tenth of the largest number of all gradients is added.
    """
    wanted = [k for k in expected.files if k == "loss" or k.startswith("grad.")]
    if sorted(got) != sorted(wanted):
        raise SystemExit(f"keys differ: {sorted(got)} against {sorted(wanted)}")
    largest = max(np.abs(expected[k]).max() for k in wanted if k.startswith("grad."))
    error = 0.0
    for key in wanted:
        scale = np.abs(expected[key]).max() + (0.1 * largest if key != "loss" else 0.0)
        error = max(error, float(np.abs(got[key] - expected[key]).max() / (1e-8 + scale)))
    return error


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = pathlib.Path(__file__).resolve().parents[3] / "shared" / "cases"
    parser.add_argument("cases", nargs="?", type=pathlib.Path, default=default)
    parser.add_argument("--tolerance", type=float, default=1e-9)
    args = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    torch.set_num_threads(1)

    checked, failed = 0, 0
    for folder in sorted(args.cases.glob("*/case.toml")):
        name = folder.parent.name
        inputs = np.load(folder.parent / "inputs.npz")
        try:
            objective = works.Objective.from_tables(tomllib.loads(folder.read_text()))
            if "support_n" in inputs.files:
                raise NotImplementedError("tasks of different size")
        except NotImplementedError as error:
            print(f"{name}: passed over ({error})")
            continue
        expected = np.load(folder.parent / "expected.npz")
        for peer, (gradients, mode) in PEERS.items():
            if objective.algorithm == "leo" and not peer.startswith("jax"):
                continue
            if objective.algorithm in heads.ALGORITHMS and peer in ("jax map", "torch loop"):
                continue  # heads compute one batch, so that both modes are the same
            error = worst(gradients(objective, inputs, mode), expected)
            good = error <= args.tolerance
            checked, failed = checked + 1, failed + (not good)
            print(f"{name}: {peer}: {error:.1e} {'ok' if good else 'WRONG'}")
    print(f"{checked - failed} of {checked} within {args.tolerance:g}")
    return 0 if checked and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
