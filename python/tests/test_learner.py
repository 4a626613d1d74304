import os
import threading

import numpy as np
import pytest
from conftest import small, trained

import kshot
from kshot import _arrays, _core


class Exporter:
    """An array of another library, which has only the interface DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **arguments):
        return self.array.__dlpack__(**arguments)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


@pytest.fixture
def learner(maml):
    return kshot.load(maml, device="cpu", threads=2)


def test_a_fitted_task_predicts_as_often_as_wanted(learner, task):
    x, y, query = task
    fitted = learner.adapt(x, y)
    first = fitted.predict(query)
    assert first.mean.shape == first.std.shape == (5, 1)
    assert first.samples.shape == (1, 5, 1)
    assert first.inner_steps == 2
    assert first.probabilities is None and first.entropy is None
    again = fitted.predict(query)
    np.testing.assert_array_equal(first.mean, again.mean)
    assert fitted.predict(query[:2]).mean.shape == (2, 1)


class Counting:
    """Wraps a native learner and counts its adaptations."""

    def __init__(self, native):
        self.native = native
        self.adaptations = 0

    def __getattr__(self, name):
        return getattr(self.native, name)

    def adapt(self, support):
        self.adaptations += 1
        return self.native.adapt(support)


@pytest.mark.parametrize("name", ["maml", "abml", "alpaca"])
def test_predictions_reuse_the_adaptation(name, request, task):
    learner = kshot.load(request.getfixturevalue(name), device="cpu", threads=2)
    learner._native = counting = Counting(learner._native)
    x, y, query = (array.copy() for array in task)
    fitted = learner.adapt(x, y)
    assert counting.adaptations == 1
    expected = fitted.predict_steps(query)[-1]  # this call adapts again, step by step
    x[:] = 0  # must not matter, because the task has its own copy
    y[:] = 0
    for rows in (query, query[:2], np.concatenate([query, query])):
        found = fitted.predict(rows)
        n = min(len(rows), 5)
        np.testing.assert_array_equal(found.mean[:n], expected.mean[:n])
        np.testing.assert_array_equal(found.std[:n], expected.std[:n])
        np.testing.assert_array_equal(found.samples[:, :n], expected.samples[:, :n])
    for tensor, values in expected.adapted.items():
        np.testing.assert_array_equal(found.adapted[tensor], values)
    assert counting.adaptations == 1
    many = learner.adapt_many([task[0]] * 3, [task[1]] * 3)
    assert counting.adaptations == 1
    np.testing.assert_array_equal(many[2].predict(query).mean, expected.mean)
    many[2].predict(query)
    many[-1].predict(query)
    assert counting.adaptations == 2


@pytest.mark.parametrize("name", ["maml", "abml", "alpaca"])
def test_predictions_of_many_tasks_reuse_the_adaptation(name, request):
    learner = kshot.load(request.getfixturevalue(name), device="cpu", threads=2)
    rng = np.random.default_rng(2)
    xs = rng.uniform(-2, 2, (20, 4, 1)).astype(np.float32)
    ys, queries = np.sin(xs), xs[:, ::-1].copy()
    fresh = learner.adapt_many(xs.copy(), ys.copy()).predict(queries)
    alone = learner.adapt(xs[0], ys[0]).predict(queries[0])
    once = learner.predict_many(xs, ys, queries)
    many = learner.adapt_many(xs, ys)
    assert many.nbytes > 0 and many.nbytes % (4 * 20) == 0
    xs[:] = 0  # must not matter, because the tasks have their own copies
    ys[:] = 0
    many.predict([q[: 1 + i % 3] for i, q in enumerate(queries)])
    again = many.predict(queries)
    np.testing.assert_array_equal(again.mean, fresh.mean)
    np.testing.assert_array_equal(again.std, fresh.std)
    for i in range(20):
        np.testing.assert_array_equal(again[i].samples, fresh[i].samples)
        np.testing.assert_array_equal(once[i].samples, fresh[i].samples)
    np.testing.assert_array_equal(once.std, fresh.std)
    np.testing.assert_array_equal(again[0].samples, alone.samples)


def test_what_does_not_fit_among_many_names_the_task(learner):
    xs, ys, queries = ragged(9)
    xs[3] = np.full_like(xs[3], np.nan)
    with pytest.raises(kshot.Error, match=r"^task 3: support rows: expected finite numbers"):
        learner.adapt_many(xs, ys)
    xs, ys, queries = ragged(9)
    queries[5] = queries[5][:0]
    with pytest.raises(kshot.Error, match="^task 5: query rows: "):
        learner.adapt_many(xs, ys).predict(queries)
    with pytest.raises(kshot.Error, match="^task 5: query rows: "):
        learner.predict_many(xs, ys, queries)
    with pytest.raises(ValueError, match="^queries: expected 9 tasks, got 8"):
        learner.predict_many(xs, ys, queries[:8])


def test_the_adapted_network_is_the_one_that_predicts(learner, task):
    x, y, query = task
    p = learner.adapt(x, y).predict(query)
    w = {name.removeprefix("theta.layers."): v for name, v in p.adapted.items()}
    hidden = np.maximum(query @ w["0.weight"].T + w["0.bias"], 0)
    expected = hidden @ w["1.weight"].T + w["1.bias"]
    np.testing.assert_allclose(p.mean, expected, rtol=1e-4, atol=1e-5)


def test_steps_begin_with_the_prior(learner, task):
    x, y, query = task
    steps = learner.adapt(x, y).predict_steps(query)
    assert [p.inner_steps for p in steps] == [0, 1, 2]
    other = learner.adapt(x, -y).predict_steps(query)
    np.testing.assert_array_equal(steps[0].mean, other[0].mean)
    assert not np.allclose(steps[2].mean, other[2].mean)


def test_posterior_samples(abml, task):
    x, y, query = task
    learner = kshot.load(abml, device="cpu", overrides={"evaluate.samples": 6})
    p = learner.adapt(x, y).predict(query)
    assert p.samples.shape == (6, 5, 1)
    np.testing.assert_allclose(p.mean, p.samples.mean(axis=0))
    np.testing.assert_allclose(p.model_std, p.samples.std(axis=0, ddof=1))
    assert (p.std >= p.model_std).all()


def test_the_prior_alone(alpaca, maml, task):
    learner = kshot.load(alpaca, device="cpu")
    prior = learner.adapt().predict(task[2])
    fitted = learner.adapt(task[0], task[1]).predict(task[2])
    assert (fitted.std < prior.std).all()
    with pytest.raises(kshot.Error, match="support rows"):
        kshot.load(maml).adapt()


def test_classification(protonet):
    learner = kshot.load(protonet, device="cpu")
    assert learner.classification and learner.outputs == 0
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(4, 6)) * 10
    y = np.arange(8) % 4
    x = centres[y] + rng.normal(size=(8, 6))
    p = learner.adapt(x, y).predict(centres)
    assert p.probabilities.shape == p.std.shape == (4, 4)
    np.testing.assert_allclose(p.probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(p.labels, np.arange(4))
    expected = -(p.probabilities * np.log(np.maximum(p.probabilities, 1e-300))).sum(axis=1)
    np.testing.assert_allclose(p.entropy, expected, atol=1e-12)
    with pytest.raises(kshot.Error, match="class 4 .* has no support row"):
        learner.adapt(x, y, ways=5).predict(centres)


def ragged(count):
    rng = np.random.default_rng(2)
    xs = [rng.uniform(-2, 2, (1 + i % 6, 1)).astype(np.float32) for i in range(count)]
    queries = [rng.uniform(-2, 2, (1 + i % 3, 1)).astype(np.float32) for i in range(count)]
    return xs, [np.sin(x) for x in xs], queries


@pytest.mark.parametrize("name", ["maml", "alpaca"])
def test_many_tasks_are_what_each_is_alone(name, request):
    learner = kshot.load(request.getfixturevalue(name), device="cpu", threads=2)
    xs, ys, queries = ragged(37)
    many = learner.adapt_many(xs, ys)
    assert len(many) == 37
    predictions = many.predict(queries)
    assert len(predictions) == 37
    assert not predictions.diverged.any()
    for i, p in enumerate(predictions):
        alone = learner.adapt(xs[i], ys[i]).predict(queries[i])
        np.testing.assert_allclose(p.mean, alone.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(p.std, alone.std, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(p.samples, alone.samples, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(p.mean, many[i].predict(queries[i]).mean, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="one by one"):
        predictions.mean  # noqa: B018
    assert [p.mean.shape for p in predictions[1:3]] == [(2, 1), (3, 1)]
    np.testing.assert_array_equal(predictions[-1].mean, predictions[36].mean)


def test_many_tasks_of_one_size(abml):
    learner = kshot.load(abml, device="cpu", overrides={"evaluate.samples": 4})
    rng = np.random.default_rng(2)
    xs = rng.uniform(-2, 2, (20, 4, 1)).astype(np.float32)
    predictions = learner.adapt_many(xs, np.sin(xs)).predict(xs[:, :3])
    assert predictions.mean.shape == predictions.std.shape == (20, 3, 1)
    for i, p in enumerate(predictions):
        assert p.samples.shape == (4, 3, 1)
        np.testing.assert_allclose(p.mean, p.samples.mean(axis=0))
        np.testing.assert_array_equal(predictions.mean[i], p.mean)
        np.testing.assert_array_equal(predictions.std[i], p.std)


def test_many_tasks_with_their_own_classes(protonet):
    learner = kshot.load(protonet, device="cpu")
    rng = np.random.default_rng(3)
    xs = [rng.normal(size=(2 * n, 6)) for n in (2, 3, 4)]
    ys = [np.arange(2 * n) % n for n in (2, 3, 4)]
    predictions = learner.adapt_many(xs, ys).predict(xs)
    for i, p in enumerate(predictions):
        alone = learner.adapt(xs[i], ys[i]).predict(xs[i])
        np.testing.assert_allclose(p.probabilities, alone.probabilities, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(p.entropy, alone.entropy, rtol=1e-4, atol=1e-6)


def test_a_task_that_diverges_is_marked(learner):
    xs, ys, queries = ragged(9)
    ys[4] = np.full_like(ys[4], 3e38)
    predictions = learner.adapt_many(xs, ys).predict(queries)
    assert predictions.diverged.tolist() == [i == 4 for i in range(9)]
    assert np.isnan(predictions[4].mean).all() and predictions[4].diverged
    with pytest.raises(kshot.Error, match="the adaptation diverged"):
        learner.adapt(xs[4], ys[4]).predict(queries[4])


def test_tasks_are_joined_whatever_their_arrays_are(learner):
    rng = np.random.default_rng(4)
    xs = [rng.uniform(-2, 2, (n, 1)).astype(np.float32) for n in (3, 1, 4)]
    ys = [np.sin(x) for x in xs]
    expected = learner.predict_many(xs, ys, xs)
    mixed = [xs[0], xs[1].astype(np.float64), np.repeat(xs[2], 2, axis=0)[::2]]
    flat = [x[:, 0] for x in xs]
    swapped = [x.astype(">f4") for x in xs]
    for rows in (mixed, flat, swapped, [x.tolist() for x in xs], tuple(xs), [*map(Exporter, xs)]):
        found = learner.predict_many(rows, ys, rows)
        for i in range(3):
            np.testing.assert_array_equal(found[i].mean, expected[i].mean)
    with pytest.raises(ValueError, match=r"^xs\[1\]: expected shape"):
        learner.adapt_many([xs[0], np.zeros((1, 2), np.float32), xs[2]], ys)
    with pytest.raises(ValueError, match=r"^xs\[0\]: expected shape"):
        learner.adapt_many([np.zeros((3, 2), np.float32)] * 3, ys)
    with pytest.raises(TypeError, match="expected real numbers"):
        learner.adapt_many([x.astype(object) for x in xs], ys)
    with pytest.raises(ValueError, match=r"^ys\[1\]: "):
        learner.adapt_many(xs, [ys[0], ys[0], ys[2]])


def test_no_tasks(learner):
    assert len(learner.adapt_many([], []).predict([])) == 0
    assert len(learner.predict_many([], [], [])) == 0


def test_arrays_are_read_in_place(task):
    x = np.ascontiguousarray(task[0])
    x.flags.writeable = False
    rows = _arrays.as_rows(x, "x", (1,))
    assert np.shares_memory(rows, x)
    support = _core.Support(rows, None, rows, 0)
    assert support.address == x.ctypes.data
    exported = np.arange(6, dtype=np.float32).reshape(6, 1)
    rows = _arrays.as_rows(Exporter(exported), "x", (1,))
    assert _core.Support(rows, None, rows, 0).address == exported.ctypes.data


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: x.tolist(),
        lambda x: np.asfortranarray(np.hstack([x, x]))[:, :1],
        lambda x: x[:, 0],
        lambda x: np.repeat(x, 2, axis=0)[::2],
        Exporter,
    ],
)
def test_layouts_and_types(learner, task, convert):
    x, y, query = task
    expected = learner.adapt(x, y).predict(query).mean
    p = learner.adapt(convert(x), convert(y)).predict(convert(query))
    np.testing.assert_array_equal(p.mean, expected)


@pytest.mark.parametrize(
    "x, y, error, message",
    [
        (np.zeros((3, 2)), np.zeros(3), ValueError, r"x: expected shape \(rows, 1\), got \(3, 2\)"),
        (np.zeros((3, 1)), np.zeros(2), ValueError, r"y: expected shape \(3, 1\), got \(2, 1\)"),
        (np.zeros((3, 1), complex), np.zeros(3), TypeError, "x: expected real numbers"),
        (np.array([["a"]]), np.zeros(1), TypeError, "x: expected real numbers"),
        ([[1.0], [2.0, 3.0]], np.zeros(2), ValueError, "x: .*rows of different lengths"),
        (np.full((2, 1), 1e300), np.zeros(2), ValueError, "x: .*range of float32"),
        (np.full((2, 1), np.nan), np.zeros(2), kshot.Error, "support rows: expected finite"),
        (np.zeros((2, 1)), None, TypeError, "y: expected together with x"),
        (np.zeros(()), np.zeros(1), ValueError, r"x: expected shape"),
    ],
)
def test_what_does_not_fit(learner, x, y, error, message):
    with pytest.raises(error, match=message):
        learner.adapt(x, y)


@pytest.mark.parametrize(
    "y, error, message",
    [
        (["a", "b"], TypeError, "y: expected whole numbers"),
        ([0.5, 1.0], TypeError, "y: expected whole numbers"),
        ([0, -1], ValueError, "y: expected labels from 0 on, got -1 to 0"),
        ([[0, 1]], ValueError, r"y: expected shape \(2,\)"),
    ],
)
def test_labels_that_do_not_fit(protonet, y, error, message):
    with pytest.raises(error, match=message):
        kshot.load(protonet).adapt(np.zeros((2, 6)), y)


@pytest.mark.parametrize(
    "convert",
    [
        lambda xs: xs,
        lambda xs: xs[..., 0],
        lambda xs: xs.astype(np.float64),
        lambda xs: list(xs),
        lambda xs: xs.tolist(),
        lambda xs: [Exporter(x) for x in xs],
        Exporter,
    ],
)
def test_stacks_and_lists(learner, convert):
    xs = np.random.default_rng(0).uniform(-2, 2, (7, 4, 1)).astype(np.float32)
    ys = np.sin(xs)
    expected = learner.adapt_many(xs, ys).predict(xs).mean
    fitted = learner.adapt_many(convert(xs), convert(ys))
    predictions = fitted.predict(convert(xs))
    np.testing.assert_array_equal(predictions.mean, expected)
    np.testing.assert_allclose(fitted[3].predict(xs[3]).mean, expected[3], rtol=1e-4, atol=1e-5)
    assert len(fitted[2:5]) == 3


def test_many_tasks_that_do_not_fit(learner):
    xs, ys, queries = ragged(3)
    with pytest.raises(ValueError, match=r"ys: expected 3 tasks"):
        learner.adapt_many(xs, ys[:2])
    with pytest.raises(ValueError, match=r"ys\[1\]: expected shape \(2, 1\)"):
        learner.adapt_many(xs, [ys[0], ys[0], ys[2]])
    xs[2] = np.full_like(xs[2], np.inf)
    with pytest.raises(kshot.Error, match="^task 2: support rows: expected finite"):
        learner.adapt_many(xs, ys)
    with pytest.raises(TypeError, match="xs: expected rows for each task, got int"):
        learner.adapt_many(3, 4)
    with pytest.raises(ValueError, match="xs: expected rows per task|xs.0.: expected shape"):
        learner.adapt_many(np.zeros(3), np.zeros(3))
    xs, ys, queries = ragged(3)
    with pytest.raises(TypeError, match=r"xs\[1\]: expected real numbers"):
        learner.adapt_many([xs[0], ["a", "b"], xs[2]], ys)
    with pytest.raises(ValueError, match="xs: expected 3 tasks, got 2"):
        learner.adapt_many(xs, ys).predict(queries[:2])


@pytest.fixture(scope="module")
def patients(runs):
    """A run that was trained on a table. The import standardised its column and its target."""
    rng = np.random.default_rng(4)
    lines = ["patient,age,score"]
    for patient in range(15):
        for age in rng.integers(20, 80, 6):
            lines.append(f"p{patient},{age},{300 + 5 * age + 10 * patient}")
    (runs / "patients.csv").write_text("\n".join(lines))
    kshot.import_table(
        runs / "patients.csv", runs / "patients.kshot", task="patient", target="score"
    )
    data = {"source": "file", "path": runs / "patients.kshot", "shots": 3, "queries": 2}
    config = small("alpaca", network={"layers": [1, 12, 5], "activation": "tanh"}, data=data)
    return trained(runs / "patients", config)


def test_units_are_said_where_they_matter(patients):
    learner = kshot.load(patients, device="cpu")
    x, y = np.array([30.0, 50.0, 70.0]), np.array([470.0, 560.0, 640.0])
    with pytest.raises(ValueError, match='units: .*expected "raw"'):
        learner.adapt(x, y)
    with pytest.raises(ValueError, match="units: expected"):
        learner.adapt(x, y, units="metres")
    column, target = learner.preprocessing["columns"][0], learner.preprocessing["targets"][0]
    p = learner.adapt(x, y, units="raw").predict([40.0, 60.0])
    encoded = [(v - c["mean"]) / c["std"] for v, c in ((x, column), (y, target))]
    query = (np.array([40.0, 60.0]) - column["mean"]) / column["std"]
    expected = learner.adapt(*encoded, units="network").predict(query)
    np.testing.assert_allclose(p.mean, expected.mean * target["std"] + target["mean"])
    np.testing.assert_allclose(p.std, expected.std * target["std"])
    np.testing.assert_allclose(p.samples, expected.samples * target["std"] + target["mean"])
    many = learner.adapt_many([x], [y], units="raw").predict([[40.0, 60.0]])
    np.testing.assert_allclose(many.mean[0], p.mean, rtol=1e-5)
    np.testing.assert_allclose(many.std[0], p.std, rtol=1e-5)
    np.testing.assert_allclose(many[0].mean, p.mean, rtol=1e-5)


def test_a_run_that_is_not_there(tmp_path):
    with pytest.raises(kshot.Error, match="nothing"):
        kshot.load(tmp_path / "nothing")


def test_overrides_that_do_not_fit(maml):
    with pytest.raises(kshot.ConfigError, match="^overrides: evaluate.stepz: unknown key"):
        kshot.load(maml, overrides={"evaluate.stepz": 3})
    with pytest.raises(kshot.ConfigError, match="^overrides: evaluate.episodes: expected"):
        kshot.evaluate(maml, episodes=0)


def test_devices(maml):
    with pytest.raises(kshot.DeviceError):
        kshot.load(maml, device="cuda:97")
    assert kshot.load(maml, device="reference").device.startswith("reference")


def test_several_threads_share_a_learner(learner, task):
    x, y, query = task
    expected = learner.adapt(x, y).predict(query).mean
    results = []

    def work():
        for _ in range(20):
            results.append(learner.adapt(x, y).predict(query).mean)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    for mean in results:
        np.testing.assert_array_equal(mean, expected)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_is_told(learner, task):
    x, y, query = task
    fitted = learner.adapt(x, y)
    fitted.predict(query)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            fitted.predict(query)
            text = "no error"
        except kshot.Error as error:
            text = str(error)
        os.write(writer, text.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert b"Learner: made in the parent process" in os.read(reader, 1000)
    os.close(reader)
    os.close(writer)


def test_pandas(learner, protonet, task):
    pytest.importorskip("pandas")
    frame = learner.adapt(task[0], task[1]).predict(task[2]).to_pandas()
    assert list(frame.columns) == ["mean", "std"] and len(frame) == 5
    x = np.random.default_rng(0).normal(size=(4, 6))
    frame = kshot.load(protonet).adapt(x, [0, 1, 0, 1]).predict(x).to_pandas()
    assert list(frame.columns) == ["label", "p(0)", "p(1)", "entropy", "mutual_information"]
