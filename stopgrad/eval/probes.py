"""Linear probes on cached features: multinomial logistic regression by L-BFGS, and by SGD as the papers train it.

Both standardise the channels by the training split first. The papers train on augmented crops and let the learning
rate follow the features' scale (SGD lr 30 for MoCo, LARS for SimSiam and SimCLR); features cached once, without
augmentation, cost minutes less and one to two points, and standardised ones take an ordinary learning rate
(methods-contrastive.md, 14.2). So compare these scores with each other and with their baselines, not with the tables.

SGD: SimCLR's CIFAR-10 row (batch, lr 0.1 a 256 images, weight decay 0, 100 epochs, cosine, zero-initialised head)
with MoCo's batch of 256 and plain momentum 0.9.
L-BFGS: scikit-learn's solver. The strength of its L2 penalty is chosen on a tenth of the training split, then fitted
again on all of it; the test split is seen once, by the final head.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits
from torch import Tensor

from stopgrad import rng
from stopgrad.contracts import Result
from stopgrad.eval.task import Encoded, Task, percent, standardiser

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

Labels = NDArray[np.int64]

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # of the L2 penalty: mean loss + strength / 2 * |w|^2
UNCHOSEN = 1e-2  # where the training split is too small to choose on
_BATCH = 256  # of the SGD probe
# Raw pixels are averaged to this side before a probe: at 32 px one fit takes ten times as long and scores no higher
# (CIFAR-10, 10,000 images: 39.4 at 16 px, 38.9 at 32 px).
_PIXELS_SIDE = 16


@dataclass(frozen=True, slots=True)
class Head:
    """A fitted linear classifier, with the standardisation it was fitted behind."""

    mean: Tensor  # [D]
    scale: Tensor  # [D]
    weight: Tensor  # [C, D]
    bias: Tensor  # [C]
    classes: Labels  # [C], label of each row

    def logits(self, x: Tensor) -> Tensor:
        return F.linear((x.float() - self.mean) * self.scale, self.weight, self.bias)  # [B, C]

    def predict(self, x: Tensor) -> Labels:
        """[B, D] -> [B], labels; of equal classes the lowest."""
        found: Labels = self.classes[self.logits(x).argmax(dim=1).numpy()]
        return found


def linear_lbfgs(train_x: Tensor, train_y: Labels, test_x: Tensor, test_y: Labels, *, seed: int = 0) -> float:
    """Percentage right on test_x [Q, D] after training on train_x [N, D]; the penalty chosen inside train_x."""
    return percent(lbfgs_head(train_x, train_y, seed)[0].predict(test_x), test_y)


def linear_sgd(
    train_x: Tensor,
    train_y: Labels,
    test_x: Tensor,
    test_y: Labels,
    *,
    epochs: int = 100,
    lr: float = 0.1,
    seed: int = 0,
) -> float:
    """Percentage right on test_x [Q, D] after `epochs` over train_x [N, D]; the last epoch counts."""
    return percent(sgd_head(train_x, train_y, epochs, lr, seed).predict(test_x), test_y)


def lbfgs_head(x: Tensor, y: Labels, seed: int) -> tuple[Head, str]:
    """The head fitted on x [N, D], y [N], and how its penalty was chosen, in words."""
    mean, scale = standardiser(x)
    classes = np.unique(y)
    if len(classes) < 2:
        head = Head(mean, scale, x.new_zeros(1, x.shape[1]).float(), torch.zeros(1), classes)
        return head, "the training split has one class"
    standard = ((x.float() - mean) * scale).numpy()
    held = rng.permutation(len(y), seed, 1, rng.EVAL)[: len(y) // 10]
    rest = np.setdiff1d(np.arange(len(y)), held)
    if len(held) == 0 or len(np.unique(y[rest])) < 2:
        strength, how = UNCHOSEN, f"L2 strength {UNCHOSEN:g}, too few training samples to choose"
    else:
        scores = [
            percent(_fit(standard[rest], y[rest], s, tolerance=1e-3).predict(standard[held]), y[held])
            for s in STRENGTHS
        ]
        strength = STRENGTHS[int(np.argmax(scores))]  # of equal ones the strongest
        how = f"L2 strength {strength:g}, chosen on {len(held)} training samples"
    model = _fit(standard, y, strength, tolerance=1e-4)
    weight, bias = (torch.from_numpy(np.asarray(part, dtype=np.float32)) for part in (model.coef_, model.intercept_))
    if len(classes) == 2:  # scikit-learn keeps the difference of the two rows
        weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
    return Head(mean, scale, weight, bias, classes), how


def sgd_head(x: Tensor, y: Labels, epochs: int, lr: float, seed: int) -> Head:
    """The head after `epochs` of SGD on x [N, D], y [N]; all zero before the first."""
    mean, scale = standardiser(x)
    classes, position = np.unique(y, return_inverse=True)
    standard, target = (x.float() - mean) * scale, torch.from_numpy(position)
    weight = torch.zeros(len(classes), x.shape[1], requires_grad=True)
    bias = torch.zeros(len(classes), requires_grad=True)
    batch = min(_BATCH, len(y))
    steps = max(1, epochs * (len(y) // batch))  # the last, incomplete batch of an epoch is left out
    optimizer = torch.optim.SGD([weight, bias], lr=lr * batch / 256, momentum=0.9)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
    with torch.enable_grad():
        for epoch in range(epochs):
            order = torch.from_numpy(rng.permutation(len(y), seed, 2 + epoch, rng.EVAL))
            for part in torch.split(order[: len(y) // batch * batch], batch):
                optimizer.zero_grad()
                loss = F.cross_entropy(F.linear(standard[part], weight, bias), target[part])
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
    return Head(mean, scale, weight.detach(), bias.detach(), classes)


def run(encoded: Encoded, task: Task) -> list[Result]:
    config = task.config
    if encoded.bank is None or encoded.queries is None or task.bank_labels is None or task.query_labels is None:
        return []
    (bank, size), (queries, _) = coarse(encoded.bank, encoded), coarse(encoded.queries, encoded)
    ahead = f"linear probe on the standardised features of {len(bank)} training {task.many}{size}"
    results = []
    if config.linear in ("lbfgs", "both"):
        head, chosen = lbfgs_head(bank, task.bank_labels, task.seed)
        score = percent(head.predict(queries), task.query_labels)
        results.append(task.result("linear_top1", score, len(queries), f"{ahead}, L-BFGS, {chosen}"))
    if config.linear in ("sgd", "both"):
        head = sgd_head(bank, task.bank_labels, config.linear_epochs, config.linear_lr, task.seed)
        how = f"{ahead}, SGD, {config.linear_epochs} epochs, lr {config.linear_lr:g}, batch {_BATCH}, last epoch"
        results.append(
            task.result("linear_sgd_top1", percent(head.predict(queries), task.query_labels), len(queries), how)
        )
    return results


def _fit(x: NDArray[np.float32], y: Labels, strength: float, tolerance: float) -> LogisticRegression:
    from sklearn.exceptions import ConvergenceWarning  # seconds to import, so not before a run's first step
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (strength * len(y)), tol=tolerance, max_iter=1000)
    # One BLAS thread: the products are thin, and where other processes keep the cores busy OpenBLAS's threads wait for
    # each other (measured on two busy cores, 10,000 x 192: 0.33 s with one thread, 12 to 20 s with two).
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def coarse(x: Tensor, encoded: Encoded) -> tuple[Tensor, str]:
    """Pixels at a side a probe can be fitted on, and a note on it; features as they are."""
    if encoded.pixels is None or encoded.pixels[1] <= _PIXELS_SIDE:
        return x, ""
    side = _PIXELS_SIDE
    return F.adaptive_avg_pool2d(x.reshape(-1, *encoded.pixels), side).flatten(1), f" at {side} x {side} px"
