import numpy as np
import pytest
from conftest import LAYERS, small, trained

import kshot

torch = pytest.importorskip("torch", reason="torch is not installed: kshot.torch is not tested")

import kshot.torch as kt  # noqa: E402

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def reference(folder, **overrides):
    return kshot.load(folder, "reference", overrides=overrides)


def outputs(module, x):
    with torch.no_grad():
        return module(torch.from_numpy(np.asarray(x))).numpy()


def test_an_adapted_network(maml, task):
    x, y, query = task
    fitted = reference(maml).adapt(x, y)
    module = kt.adapted(fitted)
    assert isinstance(module, torch.nn.Module)
    np.testing.assert_allclose(outputs(module, query), fitted.predict(query).mean, **CLOSE)
    assert sum(p.numel() for p in module.parameters()) == 37


def test_a_posterior(abml, task):
    x, y, query = task
    fitted = reference(abml, **{"evaluate.samples": 4}).adapt(x, y)
    p = fitted.predict(query)
    np.testing.assert_allclose(outputs(kt.adapted(fitted, samples=4), query), p.samples, **CLOSE)
    assert outputs(kt.adapted(fitted), query).shape == (5, 1)
    with pytest.raises(ValueError, match="samples: expected at least 0"):
        kt.adapted(fitted, samples=-1)


@pytest.mark.parametrize("statistics", ["batch", "support"])
@pytest.mark.parametrize(
    "network",
    [
        {"type": "conv4", "filters": 4, "classes": 3, "image": [16, 16]},
        {"type": "sequential", "input": [1, 16, 16], "layers": LAYERS},
    ],
)
def test_images(runs, network, statistics):
    images = runs / "torch-images.kshot"
    if not images.exists():
        x = np.random.default_rng(1).integers(0, 255, size=(20, 12, 16, 16), dtype=np.uint8)
        y = np.repeat(np.arange(20), 12)
        kshot.data.from_arrays(x.reshape(-1, 16, 16), y, images, layout="hw", quiet=True)
    data = {"source": "file", "path": images, "ways": 3, "shots": 2, "queries": 3}
    config = small("maml", network=network, loss={"type": "cross_entropy"}, data=data)
    config["train"] = {"steps": 2, "meta_batch": 4, "validate_every": 0}
    folder = runs / f"torch-{abs(hash(str(network)))}-{statistics}"
    learner = reference(trained(folder, config), **{"evaluate.norm_statistics": statistics})
    rows = np.random.default_rng(2).uniform(size=(9, 1, 16, 16)).astype(np.float32)
    fitted = learner.adapt(rows[:4], [0, 1, 2, 1], units="network")
    expected = fitted.predict(rows[4:]).samples[0]
    np.testing.assert_allclose(
        outputs(kt.adapted(fitted), rows[4:]), expected, rtol=1e-4, atol=2e-5
    )


def test_a_backbone(protonet, maml, runs):
    embedder = kshot.Embedder(protonet, device="reference")
    x = np.random.default_rng(0).normal(size=(7, 6)).astype(np.float32)
    np.testing.assert_allclose(outputs(kt.backbone(protonet), x), embedder(x), **CLOSE)
    # The initial network predicts the same as an adaptation without steps.
    learner = reference(maml, **{"evaluate.steps": 0})
    query = np.linspace(-2, 2, 5, dtype=np.float32).reshape(-1, 1)
    expected = learner.adapt(query, query).predict(query).mean
    np.testing.assert_allclose(outputs(kt.backbone(learner), query), expected, **CLOSE)
    leo = {"latent": 4, "latent_steps": 2, "encoder_layers": [8], "decoder_layers": [8]}
    config = small("leo", leo=leo, loss={"type": "mse"}, network={"layers": [1, 6, 1]})
    del config["inner"]
    with pytest.raises(ValueError, match="leo has no network that all tasks share"):
        kt.backbone(trained(runs / "torch-leo", config))


def sinusoids(count):
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(count):
        x = rng.uniform(-2, 2, (9, 1))
        y = rng.uniform(0.5, 2) * np.sin(x)
        tasks.append((x[:4], y[:4], x[4:], y[4:]))
    return tasks


CONFIG = small("maml", network={"layers": [1, 6, 1], "activation": "tanh"})


def test_the_meta_gradient_is_the_derivative():
    tasks = sinusoids(3)
    engine = kshot.MetaGradient(CONFIG, device="reference")
    values = kt.parameters(engine, tasks)
    loss = kt.meta_loss(engine, values, tasks)
    (2 * loss).backward()
    expected, gradients = engine(engine.initial(tasks), tasks)
    assert loss.item() == expected
    for name, value in values.items():
        np.testing.assert_allclose(value.grad.numpy(), 2 * gradients[name], rtol=1e-12)
    inputs = [v.detach().clone().requires_grad_() for v in values.values()]
    assert torch.autograd.gradcheck(lambda *v: kt.MetaGradient.apply(engine, tasks, 0, *v), inputs)
    with pytest.raises(ValueError, match="parameters: expected"):
        kt.meta_loss(engine, {}, tasks)


def test_torchs_optimizers_train_the_engines_algorithm():
    tasks = sinusoids(8)
    engine = kshot.MetaGradient(CONFIG, device="cpu", threads=2)
    values = kt.parameters(engine, tasks)
    optimizer = torch.optim.Adam(values.values(), lr=0.02)
    losses = []
    for step in range(40):
        optimizer.zero_grad()
        loss = kt.meta_loss(engine, values, tasks, step)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_tensors_are_read_in_place(maml, task):
    x, y, query = (torch.from_numpy(np.ascontiguousarray(v)) for v in task)
    learner = reference(maml)
    rows = kshot._arrays.as_rows(x, "x", (1,))
    assert rows.ctypes.data == x.data_ptr()
    p = learner.adapt(x, y).predict(query)
    expected = learner.adapt(*task[:2]).predict(task[2])
    np.testing.assert_array_equal(p.mean, expected.mean)
    with pytest.raises(TypeError, match="x: cannot read Tensor"):
        learner.adapt(x.clone().requires_grad_(), y)
