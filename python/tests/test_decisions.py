"""Decisions of predictions: answers with bounded risk, prediction sets, prediction intervals."""

import shutil

import numpy as np
import pytest
from conftest import small, trained

import kshot


@pytest.fixture(scope="module")
def calibrated(protonet, tmp_path_factory):
    """A calibrated run. The classes are so far apart that some threshold keeps the bound."""
    folder = tmp_path_factory.mktemp("decisions") / "run"
    shutil.copytree(protonet.folder, folder)
    kshot.calibrate(folder, device="cpu", episodes=300)
    return folder


@pytest.fixture
def classes():
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(3, 6)) * 3
    y = np.arange(6) % 3
    query = centres[np.arange(30) % 3] + 1.5 * rng.normal(size=(30, 6))
    return centres[y] + rng.normal(size=(6, 6)), y, query


def test_answers_and_sets_of_classes(calibrated, classes):
    x, y, query = classes
    task = kshot.load(calibrated, device="cpu", calibrated=True).adapt(x, y)
    plain = task.predict(query)
    assert plain.answered is None and plain.in_set is None and plain.low is None
    p = task.predict(query, min_confidence=0.9, level=0.9)
    np.testing.assert_array_equal(p.probabilities, plain.probabilities)
    assert p.answered.dtype == bool and p.in_set.dtype == bool
    np.testing.assert_array_equal(p.answered, p.probabilities.max(axis=1) >= 0.9)
    assert p.answered.any() and not p.answered.all()
    # A set contains the most probable class. If it contains a class, it also contains every class
    # that is at least as probable.
    assert p.in_set[np.arange(30), p.labels].all()
    least = np.where(p.in_set, p.probabilities, 2).min()
    assert (p.probabilities[~p.in_set] <= least).all()
    wide = task.predict(query, level=0.98)
    assert (wide.in_set >= p.in_set).all()
    bounded = task.predict(query, max_risk=0.5)
    threshold = plain.probabilities.max(axis=1)[bounded.answered].min()
    np.testing.assert_array_equal(bounded.answered, plain.probabilities.max(axis=1) >= threshold)
    pytest.importorskip("pandas")
    columns = list(p.to_pandas().columns)
    assert columns[-4:] == ["answered", "in(0)", "in(1)", "in(2)"]


def test_many_tasks_decide_as_each_alone(calibrated, classes):
    x, y, query = classes
    learner = kshot.load(calibrated, device="cpu", calibrated=True)
    sizes = (30, 7, 12)
    asked = {"min_confidence": 0.8, "level": 0.9}
    many = learner.adapt_many([x] * 3, [y] * 3).predict([query[:n] for n in sizes], **asked)
    for p, n in zip(many, sizes, strict=True):
        alone = learner.adapt(x, y).predict(query[:n], **asked)
        np.testing.assert_array_equal(p.answered, alone.answered)
        np.testing.assert_array_equal(p.in_set, alone.in_set)


def test_intervals_of_values(runs, abml, task):
    folder = runs / "intervals"
    shutil.copytree(abml.folder, folder)
    kshot.calibrate(folder, device="cpu", episodes=60)
    x, y, query = task
    learner = kshot.load(folder, device="cpu", calibrated=True)
    p = learner.adapt(x, y).predict(query, level=0.9)
    assert p.low.shape == p.high.shape == p.mean.shape
    np.testing.assert_allclose(p.high - p.mean, p.mean - p.low, rtol=1e-12)
    score = (p.high - p.mean) / p.std  # all rows have the same quantile
    np.testing.assert_allclose(score, score[0, 0], rtol=1e-12)
    assert p.answered is None and p.in_set is None
    wide = learner.adapt(x, y).predict(query, level=0.95)
    assert (wide.low < p.low).all() and (wide.high > p.high).all()
    many = learner.adapt_many([x], [y]).predict([query], level=0.9)
    np.testing.assert_allclose(many[0].low, p.low, rtol=1e-4, atol=1e-5)
    pytest.importorskip("pandas")
    assert list(p.to_pandas().columns) == ["mean", "std", "low", "high"]


def test_intervals_are_in_the_tables_units(runs):
    pytest.importorskip("pandas")
    import pandas as pd

    rng = np.random.default_rng(0)
    groups = np.arange(400) % 40
    frame = pd.DataFrame({"group": groups, "x": rng.uniform(0, 100, 400)})
    frame["y"] = 1000 + frame["x"] * rng.normal(size=40)[groups] + rng.normal(size=400)
    data = kshot.data.from_frame(
        frame, task="group", target="y", out=runs / "units.kshot", quiet=True
    )
    config = small(
        "alpaca",
        network={"layers": [1, 8, 4], "activation": "tanh"},
        data={**data.config, "shots": 3, "queries": 4},
    )
    run = trained(runs / "units", config)
    kshot.calibrate(run, device="cpu", episodes=60)
    own = frame[frame["group"] == 7]
    task = kshot.load(run, device="cpu", calibrated=True).adapt(own[:4])
    p = task.predict(own[4:], level=0.8)
    score = (p.high - p.mean) / p.std
    np.testing.assert_allclose(score, score[0, 0], rtol=1e-9)
    assert (p.mean > 500).all() and (p.low < p.mean).all()


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"max_risk": 0.1}, "max_risk: .*expected a run that is loaded calibrated"),
        ({"level": 0.9}, "level: .*expected a run that is loaded calibrated"),
        ({"max_risk": 2}, "max_risk: expected a number between 0 and 1, got 2"),
        ({"min_confidence": -0.5}, "min_confidence: expected a number from 0 to 1"),
        ({"level": float("nan")}, "level: expected a number between 0 and 1"),
        ({"max_risk": 0.1, "min_confidence": 0.5}, "max_risk: expected without min_confidence"),
    ],
)
def test_what_cannot_be_decided(protonet, classes, asked, message):
    x, y, query = classes
    task = kshot.load(protonet, device="cpu").adapt(x, y)
    with pytest.raises(kshot.Error, match=message):
        task.predict(query, **asked)


def test_values_are_not_right_or_wrong(maml, task, calibrated, classes, capsys):
    fitted = kshot.load(maml, device="cpu").adapt(*task[:2])
    with pytest.raises(kshot.Error, match="min_confidence: the run predicts values.*level"):
        fitted.predict(task[2], min_confidence=0.5)
    x, y, query = classes
    model = kshot.load(calibrated, device="cpu", calibrated=True).adapt(x, y)
    with pytest.raises(kshot.Error, match="no threshold of confidence"):
        model.predict(query, max_risk=0.0015)
    model.predict(query, level=0.803)
    assert "kshot: level 0.803: the quantile for 0.81 is taken" in capsys.readouterr().err


def test_a_task_that_diverges_decides_nothing(runs, task):
    data = {"shots": 4, "queries": 5}
    run = trained(runs / "wild", small("abml", abml={"samples_outer": 3}, data=data))
    kshot.calibrate(run, device="cpu", episodes=60)
    learner = kshot.load(run, device="cpu", calibrated=True)
    x, y, query = task
    many = learner.adapt_many([x, x], [y, np.full_like(y, 3e38)]).predict([query] * 2, level=0.9)
    assert many.diverged.tolist() == [False, True]
    assert np.isfinite(many[0].low).all() and np.isnan(many[1].low).all()
