"""The one forward: who gets gradient, who shares batch statistics, and what a forward leaves behind."""

import pytest
import torch
from torch import Tensor, nn

from stopgrad.contracts import Clock, ConfigError, Views
from stopgrad.losses import negative_cosine
from stopgrad.siamese.family import BatchNormBatch, Siamese
from stopgrad.siamese.objectives import MeanOverPairs
from stopgrad.siamese.pairs import Pairs
from stopgrad.siamese.targets import Momentum, Shared, StopGradient, momentum_at

CLOCK = Clock(step=0, total_steps=10, steps_per_epoch=5)
BOTH = Pairs(((0, 1), (1, 0)))


class Recorder(nn.Module):
    """A linear trunk that notes the batch sizes it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 6)
        self.dim = 6
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        out: Tensor = self.linear(x.flatten(1)[:, :12])
        return out


def views(count: int = 2, b: int = 8, sizes: tuple[int, ...] = (2, 2, 2, 2)) -> Views:
    generator = torch.Generator().manual_seed(0)
    crops = tuple(torch.randn(b, 3, sizes[i], sizes[i], generator=generator) for i in range(count))
    return Views(crops, torch.arange(b))


def family(target: str = "stop_gradient", pairs: Pairs = BOTH, bn_batch: BatchNormBatch = "view") -> Siamese:
    torch.manual_seed(0)
    backbone, projector = Recorder(), nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5, affine=False))
    targets: dict[str, nn.Module] = {"stop_gradient": StopGradient(), "shared": Shared()}
    return Siamese(
        backbone=backbone,
        projector=projector,
        predictor=nn.Linear(5, 5),
        target=targets[target] if target in targets else Momentum(backbone, projector, 0.9),
        objective=MeanOverPairs(negative_cosine),
        pairs=pairs,
        bn_batch=bn_batch,
    )


def test_the_loss_is_algorithm_1_written_out() -> None:
    method, batch = family(), views()
    z = [method.projector(method.backbone(crop)) for crop in batch.crops]
    p = [method.predictor(z_i) for z_i in z]
    by_hand = 0.5 * negative_cosine(p[0], z[1].detach()) + 0.5 * negative_cosine(p[1], z[0].detach())
    out = method(batch, CLOCK)
    assert out.loss.item() == pytest.approx(by_hand.item(), abs=1e-7)
    ours = torch.autograd.grad(out.loss, list(method.parameters()))
    theirs = torch.autograd.grad(by_hand, list(method.parameters()))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_gradient_flows_into_the_target_only_where_it_is_shared() -> None:
    gradients = {}
    for target in ("stop_gradient", "shared"):
        method = family(target)
        method(views(), CLOCK).loss.backward()
        gradients[target] = method.backbone.linear.weight.grad.clone()  # type: ignore[union-attr]
    assert not torch.allclose(gradients["stop_gradient"], gradients["shared"])


@pytest.mark.parametrize(("bn_batch", "expected"), [("view", [8, 8, 8]), ("all", [24]), ("size", [16, 8])])
def test_crops_that_share_statistics_go_through_one_forward(bn_batch: BatchNormBatch, expected: list[int]) -> None:
    pairs = Pairs(((0, 1), (1, 0), (2, 0)))
    method = family(pairs=pairs, bn_batch=bn_batch)
    sizes = (4, 4, 2) if bn_batch == "size" else (2, 2, 2)
    method(views(3, sizes=sizes), CLOCK)
    assert method.backbone.seen == expected


def test_an_asymmetric_target_view_is_encoded_without_gradient() -> None:
    method, batch = family(pairs=Pairs(((0, 1),))), views()
    crops = [crop.requires_grad_() for crop in batch.crops]
    method(batch, CLOCK).loss.backward()
    assert crops[0].grad is not None
    assert crops[1].grad is None


def test_too_few_crops_are_an_error_that_says_how_many() -> None:
    with pytest.raises(ConfigError, match="1 given, the method compares 2"):
        family()(views(1), CLOCK)


@pytest.mark.parametrize("target", ["stop_gradient", "shared", "momentum"])
def test_a_forward_changes_nothing_but_batch_norm_statistics(target: str) -> None:
    method = family(target)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method(views(), CLOCK)
    changed = {name for name, value in method.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.split(".")[-1] in ("running_mean", "running_var", "num_batches_tracked") for name in changed)


def test_the_momentum_target_is_an_exponential_average_in_closed_form() -> None:
    method = family("momentum")
    start = method.target.target_backbone.linear.weight.clone()  # type: ignore[union-attr]
    with torch.no_grad():
        method.backbone.linear.weight.add_(1.0)  # type: ignore[union-attr, operator, arg-type]
    clock = Clock(step=0, total_steps=10**9, steps_per_epoch=1)  # so early that the cosine has not moved
    for _ in range(5):
        method.after_step(clock)
    moved = method.target.target_backbone.linear.weight  # type: ignore[union-attr]
    torch.testing.assert_close(moved, 0.9**5 * start + (1 - 0.9**5) * (start + 1.0))  # type: ignore[operator]


def test_the_momentum_target_gets_no_gradient_and_has_its_own_statistics() -> None:
    method = family("momentum")
    method(views(), CLOCK).loss.backward()
    assert all(parameter.grad is None for parameter in method.target.parameters())
    assert method.target.target_projector[1].num_batches_tracked == 2  # type: ignore[index, union-attr]


def test_momentum_rises_from_its_start_to_exactly_one() -> None:
    assert momentum_at(0.9, Clock(0, 10, 5)) == pytest.approx(0.9)
    assert momentum_at(0.9, Clock(5, 10, 5)) == pytest.approx(0.95)
    assert momentum_at(0.9, Clock(10, 10, 5)) == 1
