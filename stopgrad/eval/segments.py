"""Which labels occur in an image, told from its features: data.labels, of which an image has several at once.

A label has a logistic regression of its own on the standardised features, in which the images that have it count as
much as those that lack it. The score is the mean over labels of the average precision on the test split, so that a rare
label counts as much as a common one; without a clue it is the mean share of test images that have a label, which the
protocol says. The strength of the penalty is one for all labels, chosen by the same score on a tenth of the training
split. Labels that hardly any training image has, or lacks, are left out, and those no test image has.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from stopgrad import rng
from stopgrad.contracts import Result
from stopgrad.eval.probes import coarse
from stopgrad.eval.task import Encoded, Task, standardiser

LEAST = 5  # training images that have a label, and that lack it
STRENGTHS = (1e1, 1e0, 1e-1, 1e-2)  # of the L2 penalty, as in probes: stronger, since many labels are rare
UNCHOSEN = 1e-1  # where the training split is too small to choose on

Values = NDArray[np.float32]  # [N, D]
Has = NDArray[np.bool_]  # [N, L]


def run(encoded: Encoded, task: Task) -> list[Result]:
    if encoded.bank is None or encoded.queries is None or task.occurring is None:
        return []
    train, test = task.occurring
    (bank, size), (queries, _) = coarse(encoded.bank, encoded), coarse(encoded.queries, encoded)
    mean, scale = standardiser(bank)
    x, y = (((part.float() - mean) * scale).numpy() for part in (bank, queries))
    used = probed(train, test)
    if not used.any():
        return []
    train, test = train[:, used], test[:, used]
    strength, chosen = _strength(x, train, task.seed)
    score = mean_average_precision(_scores(x, train, y, strength), test)
    how = (
        f"mean average precision of {used.sum()} of {len(used)} labels, a balanced logistic regression each on the "
        f"standardised features of {len(bank)} training images{size}, {chosen}; chance {100 * test.mean():.4g}"
    )
    return [task.result("segments_ap", score, len(queries), how)]


def chance(task: Task) -> list[Result]:
    """What `run` gives without a clue: the share of test images that have a label, mean over labels."""
    if task.occurring is None or not (used := probed(*task.occurring)).any():
        return []
    test = task.occurring[1][:, used]
    how = f"mean share of test images that have a label, of {used.sum()} labels"
    return [task.result("segments_ap", 100 * float(test.mean()), len(test), how)]


def probed(train: Has, test: Has) -> NDArray[np.bool_]:
    """[L], labels that are scored."""
    count = train.sum(axis=0)
    used: NDArray[np.bool_] = (count >= LEAST) & (len(train) - count >= LEAST) & test.any(axis=0)
    return used


def mean_average_precision(scores: Values, has: Has) -> float:
    """scores: [Q, L], the higher the likelier.  has: [Q, L], each label at least once.  0 to 100."""
    return 100.0 * float(np.mean([average_precision(scores[:, i], has[:, i]) for i in range(has.shape[1])]))


def average_precision(scores: NDArray[np.float32], has: NDArray[np.bool_]) -> float:
    """The precision at each image that has the label, mean over these. Equal scores share a place, the last of theirs.

    scores, has: [Q]; 0 to 1.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, hits = scores[order], np.cumsum(has[order])
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # of the images with an equal score
    precision = hits[last] / (last + 1)
    return float(precision[has[order]].mean())


def _strength(x: Values, has: Has, seed: int) -> tuple[float, str]:
    """Of the penalty, and how it was chosen, in words."""
    held = rng.permutation(len(x), seed, 1, rng.EVAL)[: len(x) // 10]
    rest = np.setdiff1d(np.arange(len(x)), held)
    usable = has[held].any(axis=0) & has[rest].any(axis=0) & ~has[rest].all(axis=0)
    if not usable.any():
        return UNCHOSEN, f"L2 strength {UNCHOSEN:g}, too few training images to choose"
    inside = has[:, usable]
    found = [
        mean_average_precision(_scores(x[rest], inside[rest], x[held], strength, tolerance=1e-2), inside[held])
        for strength in STRENGTHS
    ]
    strength = STRENGTHS[int(np.argmax(found))]  # of equal ones the strongest
    return strength, f"L2 strength {strength:g}, chosen on {len(held)} training images"


def _scores(x: Values, has: Has, y: Values, strength: float, tolerance: float = 1e-3) -> Values:
    """[Q, L] of y [Q, D], after fitting on x [N, D] and has [N, L]."""
    from sklearn.exceptions import ConvergenceWarning  # seconds to import, so not before a run's first step
    from sklearn.linear_model import LogisticRegression

    out = np.empty((len(y), has.shape[1]), np.float32)
    # one BLAS thread: see probes
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for i in range(has.shape[1]):
            model = LogisticRegression(
                C=1 / (strength * len(x)), class_weight="balanced", tol=tolerance, max_iter=300
            ).fit(x, has[:, i])
            out[:, i] = model.decision_function(y)
    return out
