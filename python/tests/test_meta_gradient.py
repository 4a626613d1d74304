import numpy as np
import pytest
from conftest import small

import kshot


def sinusoids(count, rows=4):
    rng = np.random.default_rng(0)
    tasks = []
    for i in range(count):
        x = rng.uniform(-2, 2, (rows + i % 3 + 5, 1))
        y = rng.uniform(0.5, 2) * np.sin(x)
        tasks.append((x[:-5], y[:-5], x[-5:], y[-5:]))
    return tasks


def smooth(algorithm, **tables):
    return small(algorithm, network={"layers": [1, 6, 1], "activation": "tanh"}, **tables)


@pytest.mark.parametrize("algorithm", ["maml", "meta_sgd", "abml"])
def test_it_is_the_derivative_of_the_loss(algorithm):
    tasks = sinusoids(3)
    engine = kshot.MetaGradient(smooth(algorithm), device="reference")
    parameters = engine.initial(tasks)
    loss, gradients = engine(parameters, tasks, 3)
    assert set(gradients) == set(parameters) and engine.diverged == 0
    rng = np.random.default_rng(1)
    direction = {name: rng.normal(size=p.shape) for name, p in parameters.items()}
    h = 1e-5
    losses = [
        engine({n: p + s * h * direction[n] for n, p in parameters.items()}, tasks, 3)[0]
        for s in (1, -1)
    ]
    slope = sum(np.sum(gradients[n] * direction[n]) for n in parameters)
    np.testing.assert_allclose(slope, (losses[0] - losses[1]) / (2 * h), rtol=1e-5, atol=1e-7)
    again = kshot.meta_gradient(smooth(algorithm), parameters, tasks, step=3, device="cpu")
    np.testing.assert_allclose(again[0], loss, rtol=1e-4)


def test_a_training_loop():
    tasks = sinusoids(8)
    engine = kshot.MetaGradient(smooth("maml"), device="cpu", threads=2)
    parameters = engine.initial(tasks)
    losses = []
    for step in range(30):
        loss, gradients = engine(parameters, tasks, step)
        losses.append(loss)
        parameters = {n: p - 0.05 * gradients[n] for n, p in parameters.items()}
    assert losses[-1] < 0.8 * losses[0]


def test_parameters_keep_their_shape():
    tasks = sinusoids(2)
    engine = kshot.MetaGradient(smooth("maml"), device="cpu")
    theta = engine.initial(tasks)["theta"]
    gradient = engine({"theta": theta.reshape(1, -1)}, tasks)[1]["theta"]
    assert gradient.shape == (1, len(theta))


def test_classes_differ_for_closed_form_heads():
    rng = np.random.default_rng(0)
    tasks = []
    for ways in (2, 3, 2):
        x, y = rng.normal(size=(4 * ways, 6)), np.arange(4 * ways) % ways
        tasks.append((x[:ways], y[:ways], x[ways:], y[ways:]))
    config = small("protonet", network={"type": "linear", "layers": [6, 4]}, data={})
    config["loss"] = {"type": "cross_entropy"}
    engine = kshot.MetaGradient(config, device="cpu")
    parameters = engine.initial(tasks)
    together = engine(parameters, tasks)[0]
    alone = [engine(parameters, [task])[0] for task in tasks]
    np.testing.assert_allclose(together, np.mean(alone), rtol=1e-5)


@pytest.mark.parametrize(
    "change, error, message",
    [
        (lambda p, t: ({}, t), ValueError, "parameters: expected .*theta"),
        (lambda p, t: ({"theta": p["theta"][:3]}, t), kshot.Error, "has 3 numbers, expected"),
        (lambda p, t: ({"theta": ["a"]}, t), TypeError, "expected numbers"),
        (lambda p, t: (p, []), ValueError, "tasks: expected at least one"),
        (lambda p, t: (p, [t[0][:3]]), TypeError, r"tasks\[0\]: expected a tuple"),
        (lambda p, t: (p, [t[0], (t[0][0], 3, *t[0][2:])]), ValueError, r"tasks\[1\]: support_y"),
    ],
)
def test_what_does_not_fit(change, error, message):
    tasks = sinusoids(2)
    engine = kshot.MetaGradient(smooth("maml"), device="cpu")
    parameters = engine.initial(tasks)
    with pytest.raises(error, match=message):
        engine(*change(parameters, tasks))
