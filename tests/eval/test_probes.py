"""Linear probes: what is separable is separated, the head starts at zero, nothing looks at the test split."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from stopgrad.eval.probes import STRENGTHS, lbfgs_head, linear_lbfgs, linear_sgd, sgd_head


def separable(n: int, classes: int = 3, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Clouds far apart, on channels of very different scales, beside a channel that never moves."""
    labels = np.arange(n) % classes
    generator = torch.Generator().manual_seed(seed)
    x = 8 * torch.eye(classes)[labels] + torch.randn(n, classes, generator=generator).clamp(-2, 2)
    return torch.cat([x * 10.0 ** torch.arange(classes), torch.full((n, 1), 7.3)], dim=1), labels


def noisy(n: int, classes: int = 4, d: int = 10, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(9))
    return centres[labels] + 2 * torch.randn(n, d, generator=generator), labels.numpy()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_what_is_linearly_separable_is_separated(classes: int) -> None:
    train, test = separable(200, classes), separable(50, classes, seed=1)
    assert linear_lbfgs(*train, *test) == 100
    assert linear_sgd(*train, *test, epochs=50) == 100


def test_the_sgd_head_starts_at_zero_with_uniform_predictions() -> None:
    x, y = noisy(64)
    head = sgd_head(x, y, epochs=0, lr=0.1, seed=0)
    logits = head.logits(x)
    torch.testing.assert_close(logits.softmax(dim=1), torch.full((64, 4), 0.25))
    assert float(F.cross_entropy(logits, torch.from_numpy(y))) == pytest.approx(math.log(4))


def test_the_sgd_probe_nears_the_best_linear_classifier() -> None:
    x, y = noisy(1000)
    head = sgd_head(x, y, epochs=60, lr=0.1, seed=0)
    loss = float(F.cross_entropy(head.logits(x), torch.from_numpy(y)))
    best = LogisticRegression(C=1e6, max_iter=1000).fit(x.numpy(), y)
    lowest = -np.log(best.predict_proba(x.numpy())[np.arange(len(y)), y]).mean()
    assert lowest - 1e-4 <= loss <= lowest + 0.01


def test_the_settings_of_the_sgd_probe_are_read() -> None:
    x, y = noisy(300)
    usual = sgd_head(x, y, epochs=3, lr=0.1, seed=0).weight
    assert torch.equal(usual, sgd_head(x, y, epochs=3, lr=0.1, seed=0).weight)
    for other in ({"epochs": 4}, {"lr": 0.2}, {"seed": 1}):
        assert not torch.equal(usual, sgd_head(x, y, **{"epochs": 3, "lr": 0.1, "seed": 0} | other).weight)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_lbfgs_head_is_the_minimum_of_the_penalised_loss(classes: int) -> None:
    x, y = noisy(400, classes)
    head, how = lbfgs_head(x, y, seed=0)
    strength = next(s for s in STRENGTHS if f"L2 strength {s:g}," in how)
    assert how.endswith("chosen on 40 training samples")
    weight, bias = head.weight.double().requires_grad_(), head.bias.double().requires_grad_()
    logits = F.linear(((x - head.mean) * head.scale).double(), weight, bias)
    # two classes: scikit-learn penalises the difference of the rows, which is half as much as both rows together
    penalty = weight.square().sum() * (2 if classes == 2 else 1)
    loss = F.cross_entropy(logits, torch.from_numpy(y)) + strength / 2 * penalty
    gradient = torch.autograd.grad(loss, [weight, bias])
    assert max(float(part.abs().max()) for part in gradient) < 1e-3


def test_scale_and_shift_of_a_channel_change_no_prediction() -> None:
    (x, y), (test, _) = noisy(300), noisy(100, seed=1)
    scale, shift = 10.0 ** torch.linspace(-3, 3, 10), torch.linspace(-5, 5, 10)
    plain, moved = lbfgs_head(x, y, 0)[0], lbfgs_head((x + shift) * scale, y, 0)[0]
    assert np.mean(plain.predict(test) == moved.predict((test + shift) * scale)) >= 0.98


def test_labels_need_not_be_consecutive_and_unseen_ones_are_wrong() -> None:
    x, y = separable(60)
    named = np.array([2, 5, 11])[y]
    assert linear_lbfgs(x, named, x, named) == 100
    assert linear_sgd(x, named, x, named, epochs=50) == 100
    assert linear_lbfgs(x, named, x, np.full(60, 7)) == 0


@pytest.mark.parametrize("n", [1, 2, 3, 9, 12])
def test_tiny_training_splits_work(n: int) -> None:
    x, y = separable(n)
    assert linear_lbfgs(x, y, x, y) == 100
    assert 0 <= linear_sgd(x, y, x, y, epochs=2) <= 100


def test_one_class_is_always_named() -> None:
    x, _ = noisy(20)
    assert linear_lbfgs(x, np.full(20, 4), x, np.full(20, 4)) == 100


def test_constant_features_predict_one_class_and_nothing_breaks() -> None:
    x, y = torch.full((40, 6), 0.1), np.repeat([0, 1], [30, 10])
    assert linear_lbfgs(x, y, x, y) == 75
    assert linear_sgd(x, y, x, y, epochs=20) == 75
