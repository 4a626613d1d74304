"""Compares kshot.metrics with torchmetrics, netcal, scikit-learn and scoringrules.

Other tests check which arguments are refused. `.ci/run` installs the libraries. Where a convention
differs, a test shows the difference.
"""

from __future__ import annotations

import doctest
import math
import warnings
from typing import Any

import numpy as np
import pytest

import kshot
from kshot import metrics


def library(name: str) -> Any:
    """Returns the module of a library. Skips the test where it cannot be imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            name,
            reason=f"{name} is not installed: its values are not compared",
            exc_type=ImportError,
        )


def problems() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns problems by name: probabilities and labels, both random and adversarial ones."""
    rng = np.random.default_rng(7)

    def labels(p: np.ndarray) -> np.ndarray:
        return np.array([rng.choice(p.shape[1], p=row) for row in p])

    spread = rng.dirichlet(np.full(5, 0.4), 300)
    sure = rng.dirichlet(np.full(4, 0.3), 100)
    sure[:40] = np.eye(4)[rng.integers(4, size=40)]
    # Multiples of 1 / 20 have ties, also between classes of a row, and some are edges of 15 bins.
    ties = rng.multinomial(20, [0.4, 0.3, 0.2, 0.1], 200) / 20
    undecided = np.full((30, 5), 0.2)
    undecided[20:] = rng.dirichlet(np.full(5, 20.0), 10)
    missing = rng.dirichlet(np.full(6, 0.5), 80)
    two = rng.dirichlet([0.7, 0.7], 150)
    return {
        "random": (spread, labels(spread)),
        "overconfident": (spread, rng.integers(5, size=300)),
        "exactly one": (sure, rng.permutation(labels(sure))),
        "ties": (ties, labels(ties)),
        "one fifth": (undecided, rng.integers(5, size=30)),
        "one row": (spread[:1], labels(spread[:1])),
        "one class missing": (missing, rng.integers(5, size=80)),
        "two classes": (two, labels(two)),
    }


PROBLEMS = problems()
every_problem = pytest.mark.parametrize("name", PROBLEMS)
bin_counts = pytest.mark.parametrize("bins", [10, 15])


def close(value: float, expected: Any, rel: float = 1e-9) -> None:
    assert value == pytest.approx(float(expected), rel=rel, abs=1e-12)


def answers(p: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return p.max(axis=1), p.argmax(axis=1) == y


# ---- scikit-learn ----


@every_problem
def test_scores_are_those_of_scikit_learn(name):
    sk = library("sklearn.metrics")
    p, y = PROBLEMS[name]
    s = metrics.classification(p, y)
    classes = list(range(p.shape[1]))
    assert (s.rows, s.classes) == p.shape
    close(s.accuracy, sk.accuracy_score(y, p.argmax(axis=1)))
    if name != "exactly one":  # here scikit-learn clips probabilities at another value
        close(s.nll, sk.log_loss(y, p, labels=classes))
    if p.shape[1] > 2:
        close(s.brier, sk.brier_score_loss(y, p, labels=classes))
    else:
        # By default scikit-learn returns half of the score for two classes.
        close(s.brier, 2 * sk.brier_score_loss(y, p[:, 1], labels=classes))
        close(s.brier, sk.brier_score_loss(y, p[:, 1], labels=classes, scale_by_half=False))
    parts = s.brier_reliability - s.brier_resolution + s.brier_uncertainty + s.brier_within_bin
    close(parts, s.brier)
    both = [c for c in classes if 0 < np.sum(y == c) < len(y)]
    if both:
        close(s.auroc, np.mean([sk.roc_auc_score(y == c, p[:, c]) for c in both]))
    else:
        assert math.isnan(s.auroc)
    if len(both) == p.shape[1] > 2:
        close(s.auroc, sk.roc_auc_score(y, p, multi_class="ovr", average="macro"))


def test_the_likelihood_of_an_excluded_label_is_that_of_the_smallest_double():
    s = metrics.classification([[1.0, 0.0], [1.0, 0.0]], [0, 1])
    close(s.nll, -math.log(np.finfo(float).tiny) / 2)


@every_problem
@bin_counts
def test_the_reliability_diagram_is_that_of_scikit_learn(name, bins):
    """calibration_curve also has bins (low, high], and leaves out empty bins."""
    calibration = library("sklearn.calibration")
    p, y = PROBLEMS[name]
    confidence, right = answers(p, y)
    s = metrics.classification(p, y, bins=bins)
    share, mean = calibration.calibration_curve(right, confidence, n_bins=bins, pos_label=True)
    filled = s.reliability.count > 0
    assert s.reliability.count.sum() == len(y)
    np.testing.assert_allclose(s.reliability.accuracy[filled], share, rtol=1e-12)
    np.testing.assert_allclose(s.reliability.confidence[filled], mean, rtol=1e-12)
    np.testing.assert_array_equal(s.reliability.accuracy[~filled], 0)
    np.testing.assert_array_equal(s.reliability.low, np.arange(bins) / bins)
    np.testing.assert_array_equal(s.reliability.high, np.arange(1, bins + 1) / bins)
    gaps = np.abs(share - mean)
    close(s.ece, np.sum(gaps * s.reliability.count[filled]) / len(y))
    close(s.mce, gaps.max())


@every_problem
@bin_counts
def test_equal_mass_is_that_of_scikit_learn(name, bins):
    calibration = library("sklearn.calibration")
    p, y = PROBLEMS[name]
    confidence, right = answers(p, y)
    share, mean = calibration.calibration_curve(
        right, confidence, n_bins=bins, strategy="quantile", pos_label=True
    )
    edges = np.percentile(confidence, np.linspace(0, 1, bins + 1) * 100)
    count = np.bincount(np.searchsorted(edges[1:-1], confidence))
    expected = np.sum(np.abs(share - mean) * count[count > 0]) / len(y)
    close(metrics.classification(p, y, bins=bins).ece_equal_mass, expected)


@pytest.mark.parametrize("ties", [False, True])
def test_detection_is_that_of_scikit_learn(ties):
    sk = library("sklearn.metrics")
    rng = np.random.default_rng(3)
    for inside, outside in ((1, 1), (7, 40), (300, 200)):
        a, b = rng.normal(size=inside), 0.8 + rng.normal(size=outside)
        if ties:
            a, b = np.round(a), np.round(b)
        s = metrics.detection(a, b)
        truth = np.repeat([0, 1], [inside, outside])
        scores = np.concatenate([a, b])
        close(s.auroc, sk.roc_auc_score(truth, scores))
        close(s.aupr, sk.average_precision_score(truth, scores))
        # Rows inside are positive. The true-positive rate is the share of them at or below a
        # threshold.
        false, true, _ = sk.roc_curve(1 - truth, -scores, drop_intermediate=False)
        close(s.fpr95, false[true >= 0.95 - 1e-12].min())


# ---- netcal ----


@every_problem
@bin_counts
def test_calibration_errors_are_those_of_netcal(name, bins):
    """netcal has bins [low, high), the last one closed. This is edges="left"."""
    netcal = library("netcal.metrics")
    p, y = PROBLEMS[name]
    s = metrics.classification(p, y, bins=bins, edges="left")
    if name == "ties":
        # netcal's edges are multiples of the rounded width: 3 * 0.1 is above 0.3. A shift below the
        # tolerance moves probabilities at an exact edge above netcal's edge.
        p = np.minimum(p + 1e-13, 1.0)
    confidence, right = answers(p, y)
    # Where a class has no row, netcal does not know the number of classes. The confidences of the
    # predicted class are an equivalent input.
    close(s.ece, netcal.ECE(bins).measure(confidence, right.astype(int)))
    close(s.mce, netcal.MCE(bins).measure(confidence, right.astype(int)))
    if name in ("random", "overconfident", "ties"):
        close(s.ece, netcal.ECE(bins).measure(p, y))
        close(s.mce, netcal.MCE(bins).measure(p, y))
    each = [netcal.ECE(bins).measure(p[:, c], (y == c).astype(int)) for c in range(p.shape[1])]
    close(s.classwise_ece, np.mean(each))


def test_edges_of_netcal_are_rounded():
    """netcal's edge 3 * 0.1 is above 0.3. Here 0.3 is an edge and belongs to the upper bin."""
    netcal = library("netcal.metrics")
    confidence, right = np.array([0.3, 0.25]), np.array([1, 0])
    p = np.column_stack([confidence, *[(1 - confidence) / 4] * 4])
    s = metrics.classification(p, 1 - right, bins=10, edges="left")
    close(s.ece, (0.7 + 0.25) / 2)
    close(netcal.ECE(10).measure(confidence, right), 0.5 - 0.275)


def test_average_calibration_error_is_another_number():
    """netcal's ACE is the unweighted mean gap over non-empty bins, and no equal-mass error."""
    netcal = library("netcal.metrics")
    p, y = PROBLEMS["overconfident"]
    confidence, right = answers(p, y)
    s = metrics.classification(p, y, edges="left")
    ace = netcal.ACE(15).measure(confidence, right.astype(int))
    filled = s.reliability.count > 0
    close(ace, np.mean(np.abs(s.reliability.accuracy - s.reliability.confidence)[filled]))
    assert abs(ace - s.ece) > 0.01
    assert abs(ace - s.ece_equal_mass) > 0.01


def test_the_rule_for_edges_matters_at_one_fifth():
    """0.2 is an edge of 15 bins. The rules of scikit-learn and netcal give different errors."""
    netcal = library("netcal.metrics")
    p = np.array([[0.2] * 5, [0.21, 0.1975, 0.1975, 0.1975, 0.1975]])
    y = np.array([0, 1])
    right, left = (metrics.classification(p, y, edges=edges) for edges in ("right", "left"))
    assert list(np.flatnonzero(right.reliability.count)) == [2, 3]
    assert list(np.flatnonzero(left.reliability.count)) == [3]
    close(left.ece, netcal.ECE(15).measure(p.max(axis=1), np.array([1, 0])))
    close(right.ece, (0.8 + 0.21) / 2)
    close(left.ece, 0.5 - 0.205)
    # In float32 the same number is 0.2000000030, which is above the edge.
    single = metrics.classification(p.astype(np.float32), y)
    assert list(np.flatnonzero(single.reliability.count)) == [3]


# ---- torchmetrics ----


def torch_error(p: np.ndarray, y: np.ndarray, bins: int, norm: str) -> float:
    torch = library("torch")
    classification = library("torchmetrics.classification")
    metric = classification.MulticlassCalibrationError(p.shape[1], n_bins=bins, norm=norm)
    # torchmetrics keeps confidences as the default type, float32.
    return float(metric(torch.tensor(p, dtype=torch.float32), torch.tensor(y)))


@every_problem
@bin_counts
def test_calibration_errors_are_those_of_torchmetrics(name, bins):
    """torchmetrics has bins [low, high), and a further bin for a confidence of exactly 1."""
    p, y = PROBLEMS[name]
    if name in ("ties", "one fifth"):
        # Moves confidences off the edges, because edges in float32 and float64 round differently.
        p = 0.999 * p + 0.001 * np.arange(1, p.shape[1] + 1) / np.arange(1, p.shape[1] + 1).sum()
    confidence, right = answers(p, y)
    s = metrics.classification(p, y, bins=bins, edges="left")
    r = s.reliability
    sure = confidence == 1
    if not sure.any():
        close(s.ece, torch_error(p, y, bins, "l1"), rel=1e-5)
        close(s.mce, torch_error(p, y, bins, "max"), rel=1e-5)
        return
    # The last bin, divided into the rows below 1 and the rows at 1, gives torchmetrics' value.
    last = confidence >= r.low[-1]
    gaps = [abs(n * (a - c)) for n, a, c in zip(r.count, r.accuracy, r.confidence, strict=True)]
    parts = [np.abs(np.sum(right[rows] - confidence[rows])) for rows in (last & ~sure, sure)]
    close(torch_error(p, y, bins, "l1"), (sum(gaps[:-1]) + sum(parts)) / len(y), rel=1e-5)


def test_torchmetrics_has_a_bin_more_for_certainty():
    """A right row at 0.97 and a wrong row at 1 share our last bin, but no bin of torchmetrics."""
    p = np.array([[0.97, 0.03], [1.0, 0.0]])
    y = np.array([0, 1])
    close(metrics.classification(p, y).ece, 0.485)
    close(torch_error(p, y, 15, "l1"), (0.03 + 1.0) / 2, rel=1e-5)
    close(metrics.classification(p, y).mce, 0.485)
    close(torch_error(p, y, 15, "max"), 1.0, rel=1e-5)


@every_problem
def test_areas_and_accuracy_are_those_of_torchmetrics(name):
    torch = library("torch")
    classification = library("torchmetrics.classification")
    p, y = PROBLEMS[name]
    s = metrics.classification(p, y)
    inputs = torch.tensor(p), torch.tensor(y)
    classes = p.shape[1]
    accuracy = classification.MulticlassAccuracy(classes, average="micro")
    close(s.accuracy, accuracy(*inputs), rel=1e-6)
    if len(np.unique(y)) == classes:
        area = classification.MulticlassAUROC(classes, average="macro")
        close(s.auroc, area(*inputs), rel=1e-6)
    if classes == 2:
        close(s.auroc, classification.BinaryAUROC()(inputs[0][:, 1], inputs[1]), rel=1e-6)


def test_detection_is_that_of_torchmetrics():
    torch = library("torch")
    classification = library("torchmetrics.classification")
    rng = np.random.default_rng(4)
    # Multiples of 1 / 64 have ties and are exact in float32. They lie in [0, 1], because
    # torchmetrics applies a sigmoid to other numbers.
    a, b = rng.integers(0, 40, 90) / 64, rng.integers(20, 65, 60) / 64
    s = metrics.detection(a, b)
    scores = torch.tensor(np.concatenate([a, b]))
    truth = torch.tensor(np.repeat([0, 1], [90, 60]))
    close(s.auroc, classification.BinaryAUROC()(scores, truth), rel=1e-6)
    close(s.aupr, classification.BinaryAveragePrecision()(scores, truth), rel=1e-6)


# ---- risk and coverage, which no library has ----


@every_problem
def test_risk_and_coverage_by_definition(name):
    p, y = PROBLEMS[name]
    confidence, right = answers(p, y)
    s = metrics.classification(p, y, coverage=0.6, risk=0.2)
    curve = s.risk_coverage
    np.testing.assert_array_equal(curve.threshold, np.unique(confidence)[::-1])
    for t, coverage, risk in zip(curve.threshold, curve.coverage, curve.risk, strict=True):
        close(coverage, np.mean(confidence >= t))
        close(risk, np.mean(~right[confidence >= t]))
    close(s.risk_at_coverage, curve.risk[curve.coverage >= 0.6 - 1e-12][0])
    kept = curve.coverage[curve.risk <= 0.2 + 1e-12]
    close(s.coverage_at_risk, kept[-1] if len(kept) else 0.0)
    # The expectation of AURC over the orders of equal confidences: the error of each row is
    # replaced by the mean error of the rows with the same confidence.
    error = np.array([np.mean(~right[confidence == c]) for c in confidence])
    order = np.argsort(-confidence, kind="stable")
    close(s.aurc, np.mean(np.cumsum(error[order]) / np.arange(1, len(y) + 1)))


# ---- regression: scoringrules, SciPy and NumPy ----


def gaussians() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(11)
    mean, std = rng.normal(size=60), np.exp(rng.normal(size=60))
    y = mean + 1.5 * std * rng.normal(size=60)
    y[:3] = mean[0], mean[1] + 30 * std[1], mean[2] - 30 * std[2]
    return mean, std, y


def test_gaussians_are_those_of_scoringrules():
    rules, norm = library("scoringrules"), library("scipy.stats").norm
    for rows in (1, 60):
        mean, std, y = (a[:rows] for a in gaussians())
        s = metrics.regression(mean, std, y, levels=[0.3, 0.8], pit_bins=7)
        close(s.mse, np.mean((mean - y) ** 2))
        close(s.crps, np.mean(rules.crps_normal(y, mean, std)))
        close(s.nll, np.mean(rules.logs_normal(y, mean, std)))
        close(s.nll, -np.mean(norm.logpdf(y, mean, std)))
        close(s.sharpness, std.mean())
        np.testing.assert_allclose(s.pit, norm.cdf(y, mean, std), rtol=1e-9, atol=1e-300)
        np.testing.assert_array_equal(s.pit_histogram, np.histogram(s.pit, 7, (0, 1))[0])
        for i, level in enumerate(s.levels):
            low, high = norm.interval(level, mean, std)
            close(s.coverage[i], np.mean((low <= y) & (y <= high)))
            close(s.width[i], np.mean(high - low))


@pytest.mark.parametrize("draws", [1, 2, 30])
@pytest.mark.parametrize("each", [False, True])
def test_mixtures_are_those_of_scoringrules(draws, each):
    rules, stats = library("scoringrules"), library("scipy.stats")
    optimize = library("scipy.optimize")
    _, std, y = (a[:20] for a in gaussians())
    samples = np.random.default_rng(12).normal(size=(draws, 20))
    noise = std if each else 0.7
    s = metrics.regression_samples(samples, y, noise, levels=[0.5, 0.9])
    parts = samples.T, np.broadcast_to(noise, y.shape)[:, None] * np.ones(draws)
    close(s.crps, np.mean(rules.crps_mixnorm(y, *parts)))
    # scoringrules returns infinity where the density underflows.
    with np.errstate(divide="ignore"):
        logs = np.asarray(rules.logs_mixnorm(y, *parts))
    special = library("scipy.special")
    expected = -special.logsumexp(stats.norm.logpdf(y[:, None], *parts), axis=1) + np.log(draws)
    np.testing.assert_allclose(logs[np.isfinite(logs)], expected[np.isfinite(logs)], rtol=1e-9)
    close(s.nll, expected.mean())
    close(s.mse, np.mean((samples.mean(axis=0) - y) ** 2))
    close(s.sharpness, np.mean(np.sqrt(samples.var(axis=0) + parts[1][:, 0] ** 2)))

    rows = range(len(y))

    def cdf(x: float, i: int) -> float:
        return float(np.mean(stats.norm.cdf(x, parts[0][i], parts[1][i])))

    np.testing.assert_allclose(s.pit, [cdf(v, i) for i, v in enumerate(y)], rtol=1e-9, atol=1e-300)
    for b, level in enumerate(s.levels):
        low, high = (
            np.array([optimize.brentq(lambda x, i=i, q=q: cdf(x, i) - q, -99, 99) for i in rows])
            for q in ((1 - level) / 2, (1 + level) / 2)
        )
        close(s.coverage[b], np.mean((low <= y) & (y <= high)))
        close(s.width[b], np.mean(high - low), rel=1e-7)


@pytest.mark.parametrize("ties", [False, True])
def test_samples_are_those_of_scoringrules(ties):
    """The CRPS is that of the empirical distribution ("nrg"), not the fair estimator."""
    rules = library("scoringrules")
    rng = np.random.default_rng(13)
    samples, y = rng.normal(size=(25, 40)), rng.normal(size=40)
    if ties:
        samples, y = np.round(samples), np.round(y)
    s = metrics.regression_samples(samples, y)
    close(s.crps, np.mean(rules.crps_ensemble(y, samples.T, estimator="nrg")))
    assert abs(s.crps - np.mean(rules.crps_ensemble(y, samples.T, estimator="fair"))) > 0.01
    assert math.isnan(s.nll)
    close(s.sharpness, np.mean(samples.std(axis=0)))
    np.testing.assert_allclose(s.pit, np.mean((samples < y) + 0.5 * (samples == y), axis=0))
    for b, level in enumerate(s.levels):
        low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2], axis=0)
        # A quantile that equals the target may differ from it by rounding.
        inside = (low <= y + 1e-12) & (y <= high + 1e-12)
        close(s.coverage[b], np.mean(inside))
        close(s.width[b], np.mean(high - low))


def test_a_point_prediction_has_no_distribution():
    s = metrics.regression_samples([[1.0, 2.0]], [0.5, 4.0])
    close(s.crps, 1.25)
    close(s.mse, (0.25 + 4) / 2)
    assert s.sharpness == 0
    assert s.levels.size == s.coverage.size == s.pit.size == s.pit_histogram.size == 0


def test_every_number_is_a_target():
    rng = np.random.default_rng(14)
    samples, y = rng.normal(size=(6, 5, 3)), rng.normal(size=(5, 3))
    s = metrics.regression_samples(samples, y, 0.3)
    flat = metrics.regression_samples(samples.reshape(6, 15), y.ravel(), np.full(15, 0.3))
    assert s.rows == 15 and s.pit.shape == (5, 3)
    assert (s.crps, s.nll) == (flat.crps, flat.nll)
    assert metrics.regression(y, 0.5, y + 1).pit.shape == (5, 3)


# ---- intervals ----


def test_intervals_are_those_of_scipy_within_their_noise():
    stats = library("scipy.stats")
    values = np.random.default_rng(15).gamma(2.0, size=80)
    s = metrics.mean_interval(values, level=0.9, resamples=20000)
    close(s.value, values.mean())
    peer = stats.bootstrap(
        (values,), np.mean, confidence_level=0.9, n_resamples=20000, method="percentile", rng=1
    ).confidence_interval
    error = values.std() / math.sqrt(80)
    assert s.low == pytest.approx(peer.low, abs=0.05 * error)
    assert s.high == pytest.approx(peer.high, abs=0.05 * error)
    assert metrics.mean_interval(values, seed=1) == metrics.mean_interval(values, seed=1)
    assert metrics.mean_interval(values, seed=1) != metrics.mean_interval(values, seed=2)
    assert math.isnan(metrics.mean_interval([1.0]).low)


# ---- the interface ----


def test_the_examples_of_the_docstrings():
    result = doctest.testmod(metrics, extraglobs={"kshot": kshot})
    assert result.attempted >= 8 and not result.failed


class Foreign:
    """An array of another library, which has only `__array__` or only `__dlpack__`."""

    def __init__(self, values: Any, protocol: str) -> None:
        array = np.array(values)
        names = ["__dlpack__", "__dlpack_device__"] if protocol == "dlpack" else ["__array__"]
        for name in names:
            setattr(type(self), name, lambda _, *a, name=name, **k: getattr(array, name)(*a, **k))


@pytest.mark.parametrize("protocol", ["dlpack", "array"])
def test_arrays_of_other_libraries(protocol):
    def foreign(values: Any) -> Any:
        return type("One", (Foreign,), {})(values, protocol)

    p, y = PROBLEMS["random"]
    assert metrics.classification(foreign(p), foreign(y)).ece == metrics.classification(p, y).ece
    mean, std, target = gaussians()
    s = metrics.regression(foreign(mean), foreign(std), foreign(target))
    assert s.crps == metrics.regression(mean, std, target).crps


def test_other_layouts_and_types():
    p, y = PROBLEMS["ties"]
    expected = metrics.classification(p, y)
    assert metrics.classification(np.asfortranarray(p), y.astype(np.uint8)).ece == expected.ece
    assert metrics.classification(p.tolist(), y.astype(float).tolist()).ece == expected.ece
    half = metrics.classification(PROBLEMS["random"][0].astype(np.float16), PROBLEMS["random"][1])
    assert half.nll == pytest.approx(metrics.classification(*PROBLEMS["random"]).nll, rel=1e-2)


P, Y = [[0.5, 0.5], [0.25, 0.75]], [0, 1]


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: metrics.classification(P, [0, 2]), ValueError, r"labels\[1\]: 2, expected 0 to 1"),
        (lambda: metrics.classification(P, [0, -1]), ValueError, "labels: expected labels from 0"),
        (lambda: metrics.classification(P, [0.5, 1]), TypeError, "labels: expected whole numbers"),
        (lambda: metrics.classification(P, ["a", "b"]), TypeError, "labels: expected whole"),
        (lambda: metrics.classification(P, [0]), ValueError, r"labels: expected shape \(2,\)"),
        (lambda: metrics.classification(P[0], Y), ValueError, r"expected shape \(rows, classes\)"),
        (lambda: metrics.classification(np.empty((0, 2)), []), ValueError, "no rows"),
        (lambda: metrics.classification(np.empty((2, 0)), Y), ValueError, "classes: 0"),
        (lambda: metrics.classification([["a", "b"]], [0]), TypeError, "expected real numbers"),
        (lambda: metrics.classification([[1], [1, 2]], Y), ValueError, "rows of different lengths"),
        (
            lambda: metrics.classification([[0.5, 0.4], [0.5, 0.5]], Y),
            ValueError,
            r"probabilities\[0\]: sum 0\.9",
        ),
        (
            lambda: metrics.classification([[0.5, 0.5], [math.nan, 0.5]], Y),
            ValueError,
            r"probabilities\[1\]: nan, expected 0 to 1",
        ),
        (lambda: metrics.classification([[2.0, -1.0]], [0]), ValueError, "expected 0 to 1"),
        (lambda: metrics.classification(P, Y, bins=0), ValueError, "bins: 0, expected at least 1"),
        (lambda: metrics.classification(P, Y, bins=2.5), TypeError, "bins: expected a whole"),
        (lambda: metrics.classification(P, Y, bins=10**30), ValueError, "bins: 1.*at most"),
        (lambda: metrics.classification(P, Y, edges="up"), ValueError, "edges: 'up', expected"),
        (lambda: metrics.classification(P, Y, coverage=2), ValueError, "coverage: 2.0"),
        (lambda: metrics.classification(P, Y, risk=[0.1]), ValueError, "risk: expected one number"),
        (lambda: metrics.regression([1.0], [0.0], [1.0]), ValueError, r"std\[0\]: 0.0.*above 0"),
        (lambda: metrics.regression([1.0], [math.inf], [1.0]), ValueError, r"std\[0\]: inf"),
        (lambda: metrics.regression([1.0], [1.0], [math.nan]), ValueError, r"y\[0\]: nan"),
        (lambda: metrics.regression([[1.0]], 1.0, [1.0]), ValueError, r"mean: expected shape \(1,"),
        (lambda: metrics.regression([1.0], [1.0, 2.0], [1.0]), ValueError, "std: expected shape"),
        (lambda: metrics.regression([], [], []), ValueError, "y: expected at least one target"),
        (lambda: metrics.regression([1j], 1.0, [1.0]), TypeError, "mean: expected real numbers"),
        (lambda: metrics.regression([1], 1, [1], levels=[1.0]), ValueError, "levels: 1.0"),
        (
            lambda: metrics.regression([1], 1, [1], levels=0.5),
            ValueError,
            "levels: expected a list",
        ),
        (lambda: metrics.regression([1], 1, [1], pit_bins=0), ValueError, "pit_bins: 0"),
        (
            lambda: metrics.regression_samples([1.0, 2.0], [1.0, 2.0]),
            ValueError,
            r"samples: expected shape \(samples, 2\), got \(2,\)",
        ),
        (
            lambda: metrics.regression_samples(np.empty((0, 1)), [1]),
            ValueError,
            "samples: expected",
        ),
        (lambda: metrics.regression_samples([[1.0]], [1.0], 0), ValueError, r"noise_std\[0\]: 0"),
        (lambda: metrics.regression_samples([[1, 2]], [1, 2], [1]), ValueError, "noise_std: exp"),
        (lambda: metrics.detection([], [1.0]), ValueError, "inside: expected shape"),
        (lambda: metrics.detection([1.0], [math.nan]), ValueError, "outside: a score is NaN"),
        (lambda: metrics.mean_interval([]), ValueError, "values: expected shape"),
        (lambda: metrics.mean_interval([math.nan]), ValueError, r"values\[0\]: nan"),
        (lambda: metrics.mean_interval([1.0], level=1), ValueError, "level: 1.0"),
        (lambda: metrics.mean_interval([1.0], resamples=0), ValueError, "resamples: 0"),
        (lambda: metrics.mean_interval([1.0], seed=-1), ValueError, "seed: -1"),
    ],
)
def test_what_does_not_fit_is_refused(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)
