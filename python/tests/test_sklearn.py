import pickle

import numpy as np
import pytest
from conftest import small, trained

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.linear_model import Ridge  # noqa: E402
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

import kshot  # noqa: E402
from kshot.sklearn import (  # noqa: E402
    FewShotClassifier,
    FewShotRegressor,
    MetaClassifier,
    MetaRegressor,
)


@pytest.mark.filterwarnings("default")
@parametrize_with_checks(
    [
        FewShotClassifier(),
        FewShotClassifier(head="centroid"),
        FewShotClassifier(head="mahalanobis"),
        FewShotRegressor(),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 6)) * 6
    y = np.arange(30) % 3
    return centres[y] + rng.normal(size=(30, 6)), np.array(["ant", "bee", "cat"])[y]


@pytest.mark.parametrize("head", ["logistic", "centroid", "mahalanobis"])
def test_a_classifier_on_the_data_alone(blobs, head):
    X, y = blobs
    model = FewShotClassifier(head=head).fit(X[:9], y[:9])
    assert model.classes_.tolist() == ["ant", "bee", "cat"]
    assert model.score(X[9:], y[9:]) == 1
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


def test_a_regressor_on_the_data_alone_is_a_ridge():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 4))
    y = X @ [1, 2, 3, 4] + 1000
    expected = Ridge(alpha=0.5).fit(X, y).predict(X)
    model = FewShotRegressor(alpha=0.5).fit(X, y)
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-6)
    two = FewShotRegressor(alpha=0.5).fit(X, np.stack([y, -y], axis=1)).predict(X)
    np.testing.assert_allclose(two, np.stack([expected, -expected], axis=1), rtol=1e-6)
    with pytest.raises(ValueError, match="return_std"):
        model.predict(X, return_std=True)


def test_a_run_as_prior(protonet, blobs):
    X, y = blobs
    model = FewShotClassifier(protonet.folder, device="cpu").fit(X[:9], y[:9])
    learner = kshot.load(protonet, "cpu")
    labels = np.searchsorted(model.classes_, y[:9])
    expected = learner.adapt(X[:9], labels).predict(X[9:]).probabilities
    np.testing.assert_allclose(model.predict_proba(X[9:]), expected)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(X), model.predict_proba(X))
    assert clone(model).prior == protonet.folder
    with pytest.raises(ValueError, match="prior: expected a run that predicts numbers"):
        FewShotRegressor(protonet.folder).fit(X, np.zeros(30))
    with pytest.raises(ValueError, match="X has 5 features, but the prior expects 6"):
        FewShotClassifier(protonet.folder).fit(X[:, :5], y)


def test_a_run_with_few_outputs_takes_few_classes(runs, class_file, blobs):
    data = {"source": "file", "path": class_file, "ways": 4, "shots": 2, "queries": 3}
    run = trained(
        runs / "four",
        small("maml", network={"layers": [6, 8, 4]}, loss={"type": "cross_entropy"}, data=data),
    )
    X, y = blobs
    model = FewShotClassifier(run.folder, device="cpu").fit(X, y)
    proba = model.predict_proba(X)
    assert proba.shape == (30, 3)
    np.testing.assert_allclose(proba.sum(axis=1), 1)
    with pytest.raises(ValueError, match="5 classes, expected at most the prior's 4"):
        FewShotClassifier(run.folder).fit(X, np.arange(30) % 5).predict(X)


def test_partial_fit_adds_rows(blobs):
    X, y = blobs
    whole = FewShotClassifier().fit(X[:9], y[:9])
    parts = FewShotClassifier().partial_fit(X[:3], y[:3], classes=np.unique(y))
    parts.partial_fit(X[3:9], y[3:9])
    np.testing.assert_array_equal(parts.predict_proba(X), whole.predict_proba(X))
    with pytest.raises(ValueError, match="'dog' is not among classes"):
        parts.partial_fit(X[:1], ["dog"])
    target = X[:, 0]
    whole = FewShotRegressor().fit(X, target)
    parts = FewShotRegressor().partial_fit(X[:7], target[:7]).partial_fit(X[7:], target[7:])
    np.testing.assert_array_equal(parts.predict(X), whole.predict(X))


def test_predictions_reuse_the_adaptation(protonet, alpaca, blobs, monkeypatch):
    adapted = []
    adapt = kshot.Learner.adapt
    monkeypatch.setattr(
        kshot.Learner, "adapt", lambda self, *a, **k: adapted.append(1) or adapt(self, *a, **k)
    )
    X, y = blobs
    model = FewShotClassifier(protonet.folder, device="cpu").fit(X[:6], y[:6])
    first = model.predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), first)
    np.testing.assert_array_equal(model.predict(X[:4]), model.classes_[first[:4].argmax(axis=1)])
    assert len(adapted) == 1
    # A new adaptation is needed for more rows, other rows, another prior, and a copy.
    model.partial_fit(X[6:], y[6:])
    whole = FewShotClassifier(protonet.folder, device="cpu").fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(model.predict_proba(X), whole)
    model.fit(X[:6], y[:6])
    np.testing.assert_array_equal(model.predict_proba(X), first)
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict_proba(X), first)
    model.set_params(prior=str(protonet.folder / "last.safetensors"))
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)
    assert len(adapted) == 6
    x = X[:, :1] / 10
    regressor = FewShotRegressor(alpaca.folder, device="cpu").fit(x[:5], np.sin(x[:5, 0]))
    mean, std = regressor.predict(x, return_std=True)
    np.testing.assert_array_equal(regressor.predict(x), mean)
    assert len(adapted) == 7


def test_pipelines_and_searches(blobs):
    X, y = blobs
    groups = np.arange(30) // 6
    model = make_pipeline(StandardScaler(), FewShotClassifier())
    assert cross_val_score(model, X, y, groups=groups, cv=GroupKFold(3)).mean() == 1
    search = GridSearchCV(
        FewShotRegressor(), {"alpha": [0.1, 1e6]}, cv=GroupKFold(3), scoring="r2"
    ).fit(X, X[:, 0] * 2, groups=groups)
    assert search.best_params_ == {"alpha": 0.1}


def test_what_the_estimators_refuse(blobs):
    X, y = blobs
    with pytest.raises(ValueError, match="head: expected one of"):
        FewShotClassifier(head="forest").fit(X, y)
    with pytest.raises(ValueError, match="alpha: expected a positive number"):
        FewShotRegressor(alpha=0).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="method: expected one of"):
        MetaRegressor(method="protonet").fit(X, X[:, 0], groups=y)
    with pytest.raises(ValueError, match="groups: expected one per row"):
        MetaRegressor().fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"groups: expected shape \(30,\)"):
        MetaClassifier().fit(X, y, groups=y[:3])
    with pytest.raises(ValueError, match="groups: expected a group of at least 2 rows"):
        MetaRegressor().fit(X, X[:, 0], groups=np.arange(30))
    with pytest.raises(ValueError, match="steps: expected at least 1"):
        MetaRegressor(steps=0).fit(X, X[:, 0], groups=y)


def patients(rng, count):
    """Lines through the origin, one slope per patient, in units far from the network's."""
    rows = []
    for patient in range(count):
        slope = rng.normal()
        x = rng.uniform(-1, 1, 12)
        rows += [(patient, 50 + 20 * v, 1000 + 300 * slope * v + rng.normal()) for v in x]
    table = np.array(rows)
    return table[:, 0].astype(int), table[:, 1:2], table[:, 2]


def test_a_prior_from_groups_beats_the_data_alone():
    rng = np.random.default_rng(1)
    groups, X, y = patients(rng, 60)
    meta = MetaRegressor(hidden=(16, 8), steps=300, shots=3, queries=5, device="cpu", threads=2)
    assert meta.fit(X, y, groups=groups) is meta
    assert meta.n_left_out_ == 0 and len(meta.reports_) == 6
    model = meta.task_estimator()
    errors, alone, inside = [], [], []
    for slope in rng.normal(size=20):
        x = rng.uniform(30, 70, (12, 1))
        target = 1000 + 15 * slope * (x[:, 0] - 50)
        mean, std = model.fit(x[:2], target[:2]).predict(x[2:], return_std=True)
        assert mean.shape == std.shape == (10,)
        errors.append(np.abs(mean - target[2:]).mean())
        inside.append(np.mean(np.abs(mean - target[2:]) < 3 * std))
        ridge = FewShotRegressor(alpha=10).fit(x[:2], target[:2])
        alone.append(np.abs(ridge.predict(x[2:]) - target[2:]).mean())
    assert np.mean(errors) < 0.5 * np.mean(alone)
    assert np.mean(inside) > 0.8
    copy = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copy.predict(x), model.predict(x))
    fresh = clone(model).fit(x[:2], target[:2])
    np.testing.assert_array_equal(fresh.predict(x), model.predict(x))


@pytest.mark.parametrize("method", ["dkt", "r2d2", "maml", "abml"])
def test_other_regressors(method):
    groups, X, y = patients(np.random.default_rng(1), 20)
    meta = MetaRegressor(method, hidden=(8, 4), steps=3, device="cpu", overrides={"seed": 5})
    model = meta.fit(X, np.stack([y, -y], axis=1), groups=groups).task_estimator()
    assert meta.config_["seed"] == 5
    assert model.fit(X[:5], np.stack([y, -y], axis=1)[:5]).predict(X).shape == (len(X), 2)


@pytest.mark.parametrize("method", ["protonet", "r2d2", "bayes_protonet"])
def test_classifiers_from_groups(method):
    """Tasks of two or three classes, which differ in the first of six features."""
    rng = np.random.default_rng(2)
    X, y, groups = [], [], []
    for task in range(40):
        for c in range(2 + task % 2):
            rows = rng.normal(size=(6, 6)) * 5
            rows[:, 0] = c + 0.05 * rng.normal(size=6)
            X.append(rows)
            y += [f"{task}-{c}"] * 6
            groups += [task] * 6
    X.append(rng.normal(size=(1, 6)))
    meta = MetaClassifier(
        method, hidden=(16,), shots=2, queries=3, steps=150, learning_rate=0.01, device="cpu"
    )
    meta.fit(np.concatenate(X), [*y, "alone"], groups=[*groups, 99])
    assert meta.n_left_out_ == 1
    rng = np.random.default_rng(3)
    scores, alone = [], []
    for _ in range(20):
        labels = np.array(["yes", "no"])[np.arange(12) % 2]
        rows = rng.normal(size=(12, 6)) * 5
        rows[:, 0] = (labels == "yes") + 0.05 * rng.normal(size=12)
        model = meta.task_estimator().fit(rows[:4], labels[:4])
        scores.append(model.score(rows[4:], labels[4:]))
        alone.append(FewShotClassifier().fit(rows[:4], labels[:4]).score(rows[4:], labels[4:]))
    assert np.mean(scores) > np.mean(alone) + 0.1
