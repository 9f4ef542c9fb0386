"""Images of digits, and what samples of them are judged by.

    images   scikit-learn's 1797 digits of 8 x 8, whole numbers 0 .. 16, in the order of default_rng(0).permutation;
             x = pixel / 8 - 1, the first 1400 to train on, the last 397 held out
    judge    scikit-learn's MLPClassifier((64,), max_iter=600, random_state=0), fitted on the training part

Measures of 1000 samples, each clipped to [-1, 1]
    agreement   share of samples in which the judge sees the digit that was asked for
    distance    Frechet's, |m - m'|^2 + tr(S + S' - 2 (S S')^(1/2)), of the judge's 64 ReLU units and those of the
                held-out part
    nearest     median distance to the nearest training image, over that of the held-out part: a copy has 0

Source: Dowson & Landau 1982 (J. Multivariate Anal. 12:450) for the distance; Heusel et al. 2017 (1706.08500) for its
use.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np

SIDE = 8
PIXELS = SIDE * SIDE
CLASSES = 10
LARGEST = 16
TRAINING = 1400
SAMPLES = 1000


class Digits(NamedTuple):
    """x float32[N 64] in [-1, 1] and labels of both parts."""

    x: np.ndarray
    labels: np.ndarray
    held_x: np.ndarray
    held_labels: np.ndarray


class Scores(NamedTuple):
    """The three measures of a set of images; agreement is None where no digit was asked for."""

    agreement: float | None
    distance: float
    nearest: float


class Judge(NamedTuple):
    """The fitted classifier, its accuracy on the held-out part, and what samples are compared with."""

    classifier: Any
    accuracy: float
    units: np.ndarray
    training: np.ndarray
    held_nearest: float


def load():
    """The digits, in two parts."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    x, labels = (images[order] / 8 - 1).astype(np.float32), labels[order]
    return Digits(x[:TRAINING], labels[:TRAINING], x[TRAINING:], labels[TRAINING:])


def fit_judge(digits, *, max_iter=600):
    """The judge of samples."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.neural_network import MLPClassifier

    x, held = digits.x.astype(np.float64), digits.held_x.astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        classifier = MLPClassifier((64,), max_iter=max_iter, random_state=0).fit(x, digits.labels)
    accuracy = float(classifier.score(held, digits.held_labels))
    return Judge(classifier, accuracy, units(classifier, held), x, float(np.median(nearest(held, x)[0])))


def units(classifier, x):
    """The ReLU units float[N 64] of the judge."""
    return np.maximum(x @ classifier.coefs_[0] + classifier.intercepts_[0], 0)


def scores(judge, x, labels=None):
    """Scores of images x[N 64]; they are clipped first.

    Raises
    ------
    ValueError
        An image that is not finite.
    """
    x = np.clip(np.asarray(x, np.float64).reshape(len(x), -1), -1, 1)
    if not np.isfinite(x).all():
        raise ValueError(f"scores: {int((~np.isfinite(x)).any(1).sum())} of {len(x)} images are not finite")
    agreement = None if labels is None else float(np.mean(judge.classifier.predict(x) == labels))
    ratio = float(np.median(nearest(x, judge.training)[0])) / judge.held_nearest
    return Scores(agreement, frechet(units(judge.classifier, x), judge.units), ratio)


def references(judge, digits, count=SAMPLES, seed=0):
    """{name: Scores} of what needs no model: the training part (the floor), a Gaussian fitted to it, and noise."""
    g, x = np.random.default_rng(seed), judge.training
    fitted = g.multivariate_normal(x.mean(0), np.cov(x.T) + 1e-6 * np.eye(PIXELS), count, method="cholesky")
    return {
        "training images (the floor)": scores(judge, x, digits.labels)._replace(nearest=0.0),
        "Gaussian fit": scores(judge, fitted),
        "noise": scores(judge, g.standard_normal((count, PIXELS))),
    }


def frechet(a, b):
    """Frechet distance of the Gaussians fitted to the rows of a[N d] and b[M d].

    The trace of the root is that of the symmetric S^(1/2) S' S^(1/2), by eigenvalues.

    >>> a = np.array([[0.0], [2.0]])
    >>> round(frechet(a, 3 * a + 5), 12)     # means 1 and 8, deviations sqrt 2 and 3 sqrt 2
    57.0
    """
    m, n = a.mean(0), b.mean(0)
    S, R = np.atleast_2d(np.cov(a.T)), np.atleast_2d(np.cov(b.T))
    values, vectors = np.linalg.eigh(S)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ R @ root), 0)).sum()
    return float(((m - n) ** 2).sum() + np.trace(S) + np.trace(R) - 2 * overlap)


def nearest(x, others):
    """(distance, index) of the nearest row of `others` for each row of x.

    >>> nearest(np.array([[0.0, 3.0]]), np.array([[9.0, 9.0], [4.0, 0.0]]))
    (array([5.]), array([1]))
    """
    squares = (x * x).sum(1)[:, None] - 2 * x @ others.T + (others * others).sum(1)
    at = squares.argmin(1)
    return np.sqrt(((x - others[at]) ** 2).sum(1)), at


def asked(count=SAMPLES):
    """The digits asked for: 0, 1, .. 9, 0, 1, .."""
    return np.arange(count) % CLASSES
