"""Metrics of predictions: calibration, likelihood, CRPS, coverage, detection, intervals.

The functions score the predictions of any program. Their conventions are those of `kshot evaluate`,
which docs/uncertainty.md explains. They need no run:

    scores = kshot.metrics.classification(probabilities, labels)
    print(scores.accuracy, scores.ece, scores.aurc)

Arguments are arrays of NumPy, or of any library with `__dlpack__` (in host memory) or `__array__`.
The functions compute in float64. They raise ValueError for an argument with a wrong shape, without
rows, or with a value that is NaN or out of range, and TypeError for an argument of a wrong type.
The message names the argument.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import _core
from ._arrays import as_float64, as_labels
from ._runs import IntervalScore

__all__ = [
    "ClassificationScores",
    "DetectionScores",
    "RegressionScores",
    "Reliability",
    "RiskCoverage",
    "classification",
    "detection",
    "mean_interval",
    "regression",
    "regression_samples",
]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram with bins of equal width. The arrays [bins] include empty bins."""

    low: Array  #: lower edges of the bins of confidence
    high: Array  #: upper edges of the bins
    count: Counts  #: number of rows in each bin
    confidence: Array  #: mean confidence of the rows in each bin; 0 for an empty bin
    accuracy: Array  #: share of right predictions in each bin; 0 for an empty bin


@dataclass(frozen=True)
class RiskCoverage:
    """A risk-coverage curve with one point per distinct confidence, the highest first."""

    threshold: Array  #: rows with at least this confidence are answered
    coverage: Array  #: share of the rows that are answered
    risk: Array  #: share of the answered rows that are wrong


@dataclass(frozen=True)
class ClassificationScores:
    """Scores of a classifier over rows.

    The predicted class of a row is its most probable class; ties go to the lowest class. The
    confidence of a row is the probability of the predicted class.
    """

    rows: int
    classes: int
    accuracy: float  #: share of right predictions
    nll: float  #: mean of -log p(label), nats per row
    #: Mean of sum_c (p_c - 1[c = label])^2, in [0, 2]. It equals brier_reliability -
    #: brier_resolution + brier_uncertainty + brier_within_bin (Murphy 1973).
    brier: float
    brier_reliability: float  #: mean squared gap between probability and share of the class
    brier_resolution: float  #: variance of the share of the class between bins
    brier_uncertainty: float  #: variance of the classes, which predictions do not change
    brier_within_bin: float  #: the part that binning loses (Stephenson et al. 2008)
    ece: float  #: expected calibration error with bins of equal width
    mce: float  #: the largest calibration gap of a bin that is not empty
    #: Expected calibration error with bins between quantiles of the confidences.
    ece_equal_mass: float
    classwise_ece: float  #: mean over classes of the calibration error of one class
    aurc: float  #: area under the risk-coverage curve
    #: Share of wrong answers at the highest threshold that answers at least the share `coverage` of
    #: the rows.
    risk_at_coverage: float
    #: Largest share of the rows that a threshold answers with at most the share `risk` of wrong
    #: answers; 0 where there is none.
    coverage_at_risk: float
    #: Area under the ROC curve of one class against the rest, mean over the classes that have such
    #: a curve. For two classes it is the AUROC of class 1. NaN where all rows have the same class.
    auroc: float
    reliability: Reliability = field(repr=False)
    risk_coverage: RiskCoverage = field(repr=False)


@dataclass(frozen=True)
class RegressionScores:
    """Scores of predictive distributions of numbers."""

    rows: int  #: number of targets
    mse: float  #: mean squared error of the predictive mean
    nll: float  #: mean of -log density, in nats per target; NaN for samples without noise
    crps: float  #: mean continuous ranked probability score, in target units
    sharpness: float  #: mean standard deviation of the prediction, in target units
    levels: Array  #: probabilities of the central bands, [bands]
    coverage: Array  #: share of the targets in their band, [bands]
    width: Array  #: mean width of the bands in target units, [bands]
    #: Probability integral transform of each target, with the shape of the targets.
    pit: Array = field(repr=False)
    pit_histogram: Counts  #: counts of `pit` in equal bins [low, high), the last one closed


@dataclass(frozen=True)
class DetectionScores:
    """How well a score separates rows outside of a distribution from rows inside."""

    auroc: float  #: area under the ROC curve; equal scores count half
    aupr: float  #: average precision with the rows outside as positive
    #: Share of the rows outside that pass at the threshold that at least 95 % of the rows inside
    #: pass (Liang et al. 2018).
    fpr95: float


def _count(value: Any, name: str, least: int = 1, most: int = 2**63 - 1) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        message = f"{name}: expected a whole number, got {type(value).__name__}"
        raise TypeError(message) from None
    if not least <= number <= most:
        limit = f"at least {least}" if number < least else f"at most {most}"
        raise ValueError(f"{name}: {number}, expected {limit}")
    return number


def _number(value: Any, name: str) -> float:
    array = as_float64(value, name)
    if array.ndim != 0:
        raise ValueError(f"{name}: expected one number, got shape {array.shape}")
    return float(array)


def _same_shape(array: Array, name: str, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def _targets(y: Any) -> Array:
    array = as_float64(y, "y")
    if array.ndim == 0 or array.size == 0:
        raise ValueError(f"y: expected at least one target, got shape {array.shape}")
    return array


def _levels(levels: Sequence[float]) -> list[float]:
    array = as_float64(levels, "levels")
    if array.ndim != 1:
        raise ValueError(f"levels: expected a list of numbers, got shape {array.shape}")
    return [float(level) for level in array]


def _regression(scores: dict[str, Any], shape: tuple[int, ...]) -> RegressionScores:
    if scores["pit"].size:
        scores["pit"] = scores["pit"].reshape(shape)
    return RegressionScores(**scores)


def classification(
    probabilities: Any,
    labels: Any,
    bins: int = 15,
    edges: Literal["right", "left"] = "right",
    *,
    coverage: float = 0.8,
    risk: float = 0.05,
) -> ClassificationScores:
    """Scores predicted probabilities: accuracy, likelihood, calibration, rejection.

    probabilities: [n, classes]; each row sums to one within 0.001.
    labels: [n], whole numbers from 0 to classes - 1.
    bins: number of bins of the calibration errors.
    edges: the edge that belongs to a bin. "right": bins (low, high], the first one closed, as in
        scikit-learn. "left": bins [low, high), the last one closed, as in netcal.
    coverage: the share of the rows for `risk_at_coverage`, in [0, 1].
    risk: the share of wrong answers for `coverage_at_risk`, in [0, 1].

    >>> scores = classification([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]], [0, 0, 1], bins=2)
    >>> round(scores.accuracy, 4), round(scores.ece, 4), round(scores.brier, 4)
    (0.6667, 0.0667, 0.3067)
    >>> scores.reliability.count.tolist()
    [0, 3]
    """
    p = as_float64(probabilities, "probabilities")
    if p.ndim != 2:
        raise ValueError(f"probabilities: expected shape (rows, classes), got {p.shape}")
    y = as_labels(labels, "labels", len(p))
    if edges not in ("right", "left"):
        raise ValueError(f'edges: {edges!r}, expected "right" or "left"')
    d = _core.classification_scores(
        p,
        y,
        p.shape[1],
        _count(bins, "bins", most=10**6),
        edges,
        _number(coverage, "coverage"),
        _number(risk, "risk"),
    )
    reliability = Reliability(**d.pop("reliability"))
    risk_coverage = RiskCoverage(**d.pop("risk_coverage"))
    return ClassificationScores(**d, reliability=reliability, risk_coverage=risk_coverage)


def regression(
    mean: Any,
    std: Any,
    y: Any,
    *,
    levels: Sequence[float] = (0.5, 0.9, 0.95),
    pit_bins: int = 10,
) -> RegressionScores:
    """Scores Gaussian predictions: error, likelihood, CRPS, coverage, PIT.

    mean: predictive means [n], or any other shape. Every number is a target of its own.
    std: standard deviations above 0, with the shape of `mean`, or one number for all.
    y: targets, with the shape of `mean`.
    levels: probabilities of central bands, between 0 and 1.
    pit_bins: number of bins of the PIT histogram.

    >>> scores = regression([0.0, 1.0], [1.0, 2.0], [0.5, 4.0], levels=[0.5, 0.9])
    >>> scores.coverage
    array([0.5, 1. ])
    >>> round(scores.crps, 4), round(scores.nll, 4)
    (1.1601, 1.8905)
    """
    target = _targets(y)
    mu = as_float64(mean, "mean")
    _same_shape(mu, "mean", target.shape)
    sigma = as_float64(std, "std")
    if sigma.ndim == 0:
        sigma = np.full(target.shape, sigma)
    _same_shape(sigma, "std", target.shape)
    bins = _count(pit_bins, "pit_bins", most=10**6)
    scores = _core.regression_scores(mu, sigma, target, _levels(levels), bins)
    return _regression(scores, target.shape)


def regression_samples(
    samples: Any,
    y: Any,
    noise_std: Any = None,
    *,
    levels: Sequence[float] = (0.5, 0.9, 0.95),
    pit_bins: int = 10,
) -> RegressionScores:
    """Scores posterior samples of predictions: error, likelihood, CRPS, coverage, PIT.

    samples: [samples, n], or [samples, ...] with the shape of `y` after the first axis.
    y: targets, [n] or any other shape. Every number is a target of its own.
    noise_std: standard deviation of the observation noise, above 0: one number, or an array with
        the shape of `y`. The prediction is then the mixture of N(sample, noise_std^2). None: the
        prediction is the empirical distribution of the samples. It has no density, so that `nll` is
        NaN.
    levels: probabilities of central bands, between 0 and 1.
    pit_bins: number of bins of the PIT histogram.

    One sample without noise is a point prediction. Then `crps` is its mean absolute error, and
    `levels`, `coverage`, `width`, `pit` and `pit_histogram` are empty.

    >>> scores = regression_samples([[1.0, 2.0], [3.0, 6.0]], [2.0, 3.0], noise_std=0.5)
    >>> round(scores.mse, 4), round(scores.sharpness, 4)
    (0.5, 1.5898)
    """
    target = _targets(y)
    drawn = as_float64(samples, "samples")
    if drawn.ndim == 0 or drawn.shape[1:] != target.shape or len(drawn) == 0:
        expected = ", ".join(["samples", *map(str, target.shape)])
        raise ValueError(f"samples: expected shape ({expected}), got {drawn.shape}")
    noise = np.empty(0) if noise_std is None else as_float64(noise_std, "noise_std")
    if noise_std is not None and noise.ndim > 0:
        _same_shape(noise, "noise_std", target.shape)
    bins = _count(pit_bins, "pit_bins", most=10**6)
    scores = _core.regression_scores_of_samples(
        drawn, len(drawn), target, noise, _levels(levels), bins
    )
    return _regression(scores, target.shape)


def detection(inside: Any, outside: Any) -> DetectionScores:
    """Scores the detection of rows outside of a distribution: AUROC, AUPR, FPR at 95 %.

    inside: [n], scores of rows inside the distribution.
    outside: [m], scores of rows outside of it.
    A larger score means "outside". Infinite scores are allowed.

    >>> detection([0.1, 0.2, 0.3], [0.3, 0.9])
    DetectionScores(auroc=0.9166666666666666, aupr=0.8333333333333333, fpr95=0.5)
    """
    scores = []
    for name, data in (("inside", inside), ("outside", outside)):
        array = as_float64(data, name)
        if array.ndim != 1 or array.size == 0:
            raise ValueError(f"{name}: expected shape (rows,), got {array.shape}")
        scores.append(array)
    return DetectionScores(*_core.detection_scores(*scores))


def mean_interval(
    values: Any, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> IntervalScore:
    """Returns the mean over episodes with its percentile bootstrap interval.

    values: [episodes], for example the accuracy of each episode. The differences of two methods on
        the same episodes give a paired interval.
    level: coverage of the interval, in (0, 1).
    resamples: number of resamples of the episodes, drawn with replacement.
    seed: the same seed draws the same episodes for any values.

    The ends of the interval are NaN for one episode.

    >>> score = mean_interval([0.5, 0.75, 1.0, 0.75])
    >>> score.value, score.low < 0.75 < score.high
    (0.75, True)
    """
    array = as_float64(values, "values")
    if array.ndim != 1 or array.size == 0:
        raise ValueError(f"values: expected shape (episodes,), got {array.shape}")
    return IntervalScore(
        *_core.mean_interval(
            array,
            _count(resamples, "resamples"),
            _number(level, "level"),
            _count(seed, "seed", least=0, most=2**64 - 1),
        )
    )
