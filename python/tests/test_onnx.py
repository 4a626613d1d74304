import numpy as np
import pytest
from conftest import LAYERS, small, trained

import kshot

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

# The model computes features in float32 and in another order of sums than the engine.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def run(model, **inputs):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def reference(folder, **overrides):
    """Loads a run in double precision, so that all differences come from the ONNX model."""
    return kshot.load(folder, "reference", overrides=overrides)


def check_regression(task, query, **options):
    expected = task.predict(query)
    outputs = run(task.to_onnx(**options), query_x=query)
    np.testing.assert_allclose(outputs["mean"], expected.mean, **CLOSE)
    np.testing.assert_allclose(outputs["std"], expected.std, **CLOSE)
    np.testing.assert_allclose(outputs["samples"], expected.samples, **CLOSE)


def test_an_adapted_network(maml, task, tmp_path):
    x, y, query = task
    fitted = reference(maml).adapt(x, y)
    check_regression(fitted, query)
    fitted.to_onnx(tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]
    many = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    check_regression(fitted, many)


def test_the_noise_of_the_loss(runs, task):
    config = small("maml", loss={"type": "gaussian_nll", "noise_std": 0.3})
    folder = trained(runs / "noisy", config).folder
    kshot.calibrate(folder, device="cpu", episodes=40)
    x, y, query = task
    check_regression(reference(folder).adapt(x, y), query)
    check_regression(kshot.load(folder, "reference", calibrated=True).adapt(x, y), query)


def test_a_posterior(abml, task):
    x, y, query = task
    fitted = reference(abml, **{"evaluate.samples": 5}).adapt(x, y)
    check_regression(fitted, query, samples=5)
    mean = run(fitted.to_onnx(), query_x=query)["mean"]
    weights = {n.removeprefix("mu.layers."): v for n, v in fitted.predict(query).adapted.items()}
    hidden = np.maximum(query @ weights["0.weight"].T + weights["0.bias"], 0)
    expected = hidden @ weights["1.weight"].T + weights["1.bias"]
    np.testing.assert_allclose(mean, expected, **CLOSE)


def test_a_posterior_of_hvi(runs, task):
    hvi = {"bound": "vb", "samples": 2, "joint_steps": 3}
    run_ = trained(runs / "hvi", small("hvi", hvi=hvi, data={"shots": 4, "queries": 5}))
    fitted = reference(run_, **{"evaluate.samples": 3}).adapt(*task[:2])
    check_regression(fitted, task[2], samples=3)


def test_leo(runs, task):
    leo = {"latent": 4, "latent_steps": 2, "encoder_layers": [8], "decoder_layers": [8]}
    config = small("leo", leo=leo, loss={"type": "mse"}, network={"layers": [1, 6, 1]})
    del config["inner"]
    run_ = trained(runs / "leo", config)
    x, y, query = task
    check_regression(reference(run_, **{"evaluate.samples": 1}).adapt(x, y), query)
    sampled = reference(run_, **{"evaluate.samples": 3}).adapt(x, y)
    check_regression(sampled, query, samples=3)
    many = np.random.default_rng(0).normal(size=(100, 1)).astype(np.float32)
    check_regression(sampled, many, samples=3)
    with pytest.raises(ValueError, match="evaluate.samples = 1"):
        sampled.to_onnx()
    with pytest.raises(ValueError, match="expected samples = 3"):
        sampled.to_onnx(samples=2)


@pytest.fixture(scope="module")
def images(runs):
    rng = np.random.default_rng(1)
    x = rng.integers(0, 255, size=(20, 12, 16, 16), dtype=np.uint8)
    np.save(runs / "images.npy", x)
    kshot.import_arrays(
        runs / "images.npy", runs / "images.kshot", layout="hw", fractions=[0.6, 0.2, 0.2]
    )
    return runs / "images.kshot"


def pictures(rows):
    return np.random.default_rng(2).uniform(size=(rows, 1, 16, 16)).astype(np.float32)


@pytest.mark.parametrize("statistics", ["batch", "support"])
@pytest.mark.parametrize(
    "network",
    [
        {"type": "conv4", "filters": 4, "classes": 3, "image": [16, 16]},
        {
            "type": "conv4",
            "filters": 4,
            "classes": 3,
            "image": [16, 16],
            "downsample": "pool",
            "head": "flatten",
        },
        {"type": "sequential", "input": [1, 16, 16], "layers": LAYERS},
    ],
)
def test_images(runs, images, network, statistics, request):
    data = {"source": "file", "path": images, "ways": 3, "shots": 2, "queries": 3}
    config = small("maml", network=network, loss={"type": "cross_entropy"}, data=data)
    config["train"] = {"steps": 2, "meta_batch": 4, "validate_every": 0}
    folder = runs / f"images-{abs(hash(str(network)))}-{statistics}"
    learner = kshot.load(
        trained(folder, config),
        "reference",
        overrides={"evaluate.norm_statistics": statistics},
    )
    fitted = learner.adapt(pictures(4), [0, 1, 0, 1], units="network")
    query = pictures(5)[::-1].copy()
    expected = fitted.predict(query)
    outputs = run(fitted.to_onnx(), query_x=query)
    np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, **CLOSE)
    assert (outputs["probabilities"][:, 2] == 0).all()  # no support row has this class
    np.testing.assert_allclose(outputs["samples"], expected.samples, rtol=1e-4, atol=2e-5)


def vectors(ways, rows, seed=3):
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % ways
    x = rng.normal(size=(ways, 6))[y] * 2 + rng.normal(size=(rows, 6))
    return x.astype(np.float32), y


@pytest.mark.parametrize("statistics", ["batch", "support"])
@pytest.mark.parametrize(
    "algorithm, table",
    [
        ("protonet", {"protonet": {"metric": "euclidean"}}),
        ("protonet", {"protonet": {"metric": "cosine"}}),
        ("bayes_protonet", {}),
        ("r2d2", {}),
    ],
)
def test_heads_for_classes(runs, class_file, algorithm, table, statistics):
    layers = [{"type": "linear", "out": 8}, {"type": "norm"}, {"type": "tanh"}]
    config = small(
        algorithm,
        network={"type": "sequential", "input": [6], "layers": layers},
        data={"source": "file", "path": class_file, "ways": 3, "shots": 2, "queries": 3},
        loss={"type": "cross_entropy"},
        **table,
    )
    config.pop("inner", None)
    folder = runs / f"{algorithm}-{abs(hash(str(table)))}-{statistics}"
    learner = kshot.load(
        trained(folder, config), "reference", overrides={"evaluate.norm_statistics": statistics}
    )
    model = learner.to_onnx()
    for ways, rows in ((2, 4), (4, 12), (5, 60)):  # one model serves tasks of every size
        x, y = vectors(ways, rows)
        query = vectors(ways, 7, seed=4)[0]
        expected = learner.adapt(x, y).predict(query)
        outputs = run(model, support_x=x, support_y=y.astype(np.int64), query_x=query)
        assert outputs["logits"].shape == (7, ways)
        np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, **CLOSE)


def test_a_calibrated_head(protonet):
    kshot.calibrate(protonet, device="cpu", episodes=40)
    learner = kshot.load(protonet, "reference", calibrated=True)
    x, y = vectors(3, 6)
    outputs = run(learner.to_onnx(), support_x=x, support_y=y.astype(np.int64), query_x=x)
    expected = learner.adapt(x, y).predict(x)
    np.testing.assert_allclose(outputs["probabilities"], expected.probabilities, **CLOSE)
    (protonet.folder / "calibration.json").unlink()


@pytest.mark.parametrize("width", [5, 300])  # systems of the size of the features, and of the rows
@pytest.mark.parametrize(
    "algorithm, table",
    [
        ("r2d2", {"loss": {"type": "mse"}}),
        ("alpaca", {}),
        ("dkt", {"dkt": {"kernel": "rbf"}}),
        ("dkt", {"dkt": {"kernel": "linear"}}),
        ("dkt", {"dkt": {"kernel": "cosine"}}),
    ],
)
def test_heads_for_numbers(runs, algorithm, table, width, task):
    config = small(algorithm, network={"layers": [1, 12, width], "activation": "tanh"}, **table)
    config.pop("inner", None)
    folder = runs / f"{algorithm}-{abs(hash(str(table)))}-{width}"
    learner = reference(trained(folder, config))
    model = learner.to_onnx()
    rng = np.random.default_rng(0)
    for rows in (1, 4, 40):
        x = rng.uniform(-2, 2, (rows, 1)).astype(np.float32)
        y = np.sin(x)
        expected = learner.adapt(x, y).predict(task[2])
        outputs = run(model, support_x=x, support_y=y, query_x=task[2])
        np.testing.assert_allclose(outputs["mean"], expected.mean, **CLOSE)
        if algorithm != "r2d2":
            np.testing.assert_allclose(outputs["std"], expected.std, **CLOSE)


def test_raw_units(runs):
    rng = np.random.default_rng(4)
    lines = ["patient,age,score"]
    for patient in range(15):
        for age in rng.integers(20, 80, 6):
            lines.append(f"p{patient},{age},{300 + 5 * age + 10 * patient}")
    (runs / "onnx.csv").write_text("\n".join(lines))
    kshot.import_table(runs / "onnx.csv", runs / "onnx.kshot", task="patient", target="score")
    data = {"source": "file", "path": runs / "onnx.kshot", "shots": 3, "queries": 2}
    network = {"layers": [1, 12, 5], "activation": "tanh"}
    x = np.array([[30.0], [50.0], [70.0]], np.float32)
    y = np.array([[470.0], [560.0], [640.0]], np.float32)
    head = reference(trained(runs / "onnx-head", small("alpaca", network=network, data=data)))
    p = head.adapt(x, y, units="raw").predict(x)
    outputs = run(head.to_onnx(units="raw"), support_x=x, support_y=y, query_x=x)
    np.testing.assert_allclose(outputs["mean"], p.mean, rtol=1e-5)
    np.testing.assert_allclose(outputs["std"], p.std, rtol=1e-5)
    with pytest.raises(ValueError, match="units"):
        head.to_onnx()
    descent = reference(trained(runs / "onnx-maml", small("maml", data=data)))
    fitted = descent.adapt(x, y, units="raw")
    outputs = run(fitted.to_onnx(), query_x=x)
    np.testing.assert_allclose(outputs["mean"], fitted.predict(x).mean, rtol=1e-5)


def test_what_cannot_be_exported(maml, abml, alpaca, task, runs):
    x, y, query = task
    with pytest.raises(ValueError, match=r"maml is a descent.*adapt\(...\).to_onnx"):
        reference(maml).to_onnx()
    with pytest.raises(ValueError, match="alpaca has no adapted network"):
        reference(alpaca).adapt(x, y).to_onnx()
    with pytest.raises(ValueError, match="samples: maml has no posterior"):
        reference(maml).adapt(x, y).to_onnx(samples=3)
    table = {"samples_inner": 2, "samples_outer": 3, "estimator": "flipout"}
    flipout = trained(runs / "flipout", small("abml", abml=table))
    with pytest.raises(ValueError, match='samples: abml.estimator = "flipout"'):
        reference(flipout).adapt(x, y).to_onnx(samples=3)
