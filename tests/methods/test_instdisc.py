"""InstDisc against section 3 of its paper, written out in loops: the bank, the drawing, Z, the penalty."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stopgrad import rng
from stopgrad.contracts import ConfigError, Known, Views
from stopgrad.methods.instdisc import InstDiscConfig, instdisc
from stopgrad.methods.settings import HeadConfig
from stopgrad.recipes import instdisc as presets
from stopgrad.siamese.family import Siamese
from stopgrad.siamese.remembered import BankNCE, BankSoftmax
from tests.methods.toy import batch, clock, gradients, known, trunk

HEAD = HeadConfig(layers=1, dim=3, norm="none", output_norm="none")
IMAGES, M, TEMPERATURE = 12, 5, 0.2
RATE = 0.3


def small(**changes: Any) -> Siamese:
    settings = {"projector": HEAD, "negatives": M, "temperature": TEMPERATURE, **changes}
    config = InstDiscConfig(**settings)
    config.check(known(crops=1))
    return instdisc(trunk(), config, known(crops=1, images=IMAGES)).double()


def objective_of(method: Siamese) -> BankSoftmax:
    assert isinstance(method.objective, BankSoftmax)
    return method.objective


def bank_of(method: Siamese) -> Tensor:
    return objective_of(method).bank.vectors


def steps(method: Siamese, count: int, start: int = 0) -> list[float]:
    losses = []
    for step in range(start, start + count):
        loss = method(batch(step, crops=1), clock(step)).loss
        for name, gradient in gradients(loss, method).items():
            with torch.no_grad():
                method.get_parameter(name).sub_(RATE * gradient)
        method.after_step(clock(step))
        losses.append(loss.item())
    return losses


NAMES = ("backbone.linear.weight", "backbone.linear.bias", "projector.0.weight", "projector.0.bias")


def section_3(method: Siamese, count: int, m: int, keep: float, penalty: float) -> tuple[list[float], list[Any], Any]:
    """The paper's, in loops; m = 0: equation 2 over all images. Losses, gradients of each step, the bank at the end."""
    w = [method.get_parameter(name).detach().clone().requires_grad_() for name in NAMES]
    bank = [row.clone() for row in bank_of(method)]
    z, losses, found = None, [], []
    for step in range(count):
        views = batch(step, crops=1)
        vs, scores = [], []
        for image, i in zip(views.crops[0], views.index.tolist()):
            out = w[2] @ (w[0] @ image.flatten() + w[1]) + w[3]
            v = out / (out @ out) ** 0.5
            words = rng.bits(rng.NEGATIVES, clock().seed, step, views.index.numpy(), m) if m else []
            mine = words[len(vs)].tolist() if m else []
            drawn = [int(word) * IMAGES // 2**32 for word in mine]
            vs.append(v)
            scores.append([torch.exp(v @ bank[j] / TEMPERATURE) for j in [i, *drawn]])
        if m and z is None:
            every = [score.item() for row in scores for score in row]
            z = IMAGES * sum(every) / len(every)
        loss: Any = 0.0
        for v, i, (own, *others) in zip(vs, views.index.tolist(), scores):
            if m:
                noise = m / IMAGES
                h = [own / z / (own / z + noise), *(other / z / (other / z + noise) for other in others)]
                loss = loss - torch.log(h[0]) - sum(torch.log(1 - other) for other in h[1:])
            else:
                total: Any = sum(torch.exp(v @ row / TEMPERATURE) for row in bank)
                loss = loss - torch.log(own / total)
            loss = loss + penalty * ((v - bank[i]) @ (v - bank[i]))
        loss = loss / len(vs)
        found.append(torch.autograd.grad(loss, w))
        losses.append(loss.item())
        with torch.no_grad():
            for value, gradient in zip(w, found[-1]):
                value -= RATE * gradient
            for v, i in zip(vs, views.index.tolist()):
                row = keep * bank[i] + (1 - keep) * v
                bank[i] = row / (row @ row) ** 0.5
    return losses, found, torch.stack(bank).detach()


@pytest.mark.parametrize("negatives", [M, 0])
@pytest.mark.parametrize(("keep", "penalty"), [(0.0, 0.0), (0.5, 2.0)])
def test_losses_gradients_and_bank_are_the_papers(negatives: int, keep: float, penalty: float) -> None:
    def build() -> Siamese:
        return small(negatives=negatives, bank_momentum=keep, proximal=penalty)

    losses, found, bank = section_3(build(), 4, negatives, keep, penalty)
    method = build()
    ours = gradients(method(batch(0, crops=1), clock(0)).loss, method)
    assert set(ours) == set(NAMES)
    for name, expected in zip(NAMES, found[0]):
        torch.testing.assert_close(ours[name], expected, rtol=1e-6, atol=1e-10)
    method = build()
    assert steps(method, 4) == pytest.approx(losses, rel=1e-9)
    torch.testing.assert_close(bank_of(method), bank, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("negatives", "expected"), [(4096, 9.318), (0, math.log(IMAGES))])
def test_equal_similarities_cost_what_the_closed_form_says(negatives: int, expected: float) -> None:
    method = small(negatives=negatives)
    bank_of(method).copy_(torch.ones(IMAGES, 3, dtype=torch.float64) / math.sqrt(3))
    with torch.no_grad():
        method.get_parameter("projector.0.weight").zero_()
        method.get_parameter("projector.0.bias").fill_(1.0)
    assert method(batch(crops=1), clock()).loss.item() == pytest.approx(expected, abs=1e-3)


def test_a_random_bank_of_the_papers_width_costs_what_was_measured_for_it() -> None:
    """9.3 to 10.3 (reference, section 4): one epoch long every row is a random direction."""
    head = HeadConfig(layers=1, dim=128, norm="none", output_norm="none")
    config = InstDiscConfig(projector=head)
    method = instdisc(trunk(), config, known(crops=1, images=20_000)).double()
    assert 9.3 < method(batch(crops=1), clock()).loss.item() < 10.3


def test_a_penalty_adds_lambda_times_the_mean_squared_distance_to_the_old_row() -> None:
    views = batch(crops=1)
    method = small()
    v = torch.nn.functional.normalize(method.projector(method.backbone(views.crops[0])), dim=1)
    squares = [((v[i] - bank_of(method)[j]) ** 2).sum().item() for i, j in enumerate(views.index.tolist())]
    plain, more = small()(views, clock()).loss.item(), small(proximal=3.0)(views, clock()).loss.item()
    assert more - plain == pytest.approx(3 * sum(squares) / len(squares), rel=1e-9)


def test_only_the_rows_of_the_batch_change_and_only_after_the_step() -> None:
    method, views = small(bank_momentum=0.5), batch(crops=1)
    before = bank_of(method).clone()
    method(views, clock())
    assert torch.equal(bank_of(method), before)
    method.after_step(clock())
    touched = torch.zeros(IMAGES, dtype=torch.bool)
    touched[views.index] = True
    assert torch.equal(bank_of(method)[~touched], before[~touched])
    assert not (bank_of(method)[touched] == before[touched]).all(dim=1).any()
    torch.testing.assert_close(bank_of(method).norm(dim=1), torch.ones(IMAGES, dtype=torch.float64))
    assert not bank_of(method).requires_grad
    assert not any(parameter is bank_of(method) for parameter in method.parameters())


def nce_of(method: Siamese) -> BankNCE:
    assert isinstance(method.objective, BankNCE)
    return method.objective


def test_z_is_the_first_taken_steps_and_never_moves_again() -> None:
    method = small()
    normaliser = nce_of(method).normaliser
    method(batch(0, crops=1), clock(0))
    method.discard()
    assert not normaliser.kept  # the step was not taken, the next one may measure
    method(batch(1, crops=1), clock(1))
    method.after_step(clock(1))
    first = normaliser.log_z.clone()
    steps(method, 3, start=2)
    assert normaliser.kept
    assert torch.equal(normaliser.log_z, first)
    assert {"objective.normaliser.log_z", "objective.normaliser.kept"} <= set(method.state_dict())


def test_z_does_not_overflow_where_its_exponentials_do() -> None:
    method = small(temperature=0.005).float()
    bank_of(method).copy_(torch.nn.functional.normalize(torch.ones(IMAGES, 3), dim=1))
    views = batch(crops=1)
    loss = method(Views((views.crops[0].float(),), views.index), clock()).loss
    assert loss.isfinite()


@pytest.mark.parametrize("temperature", [0.005, 0.002])
def test_z_does_not_vanish_where_all_rows_lie_opposite(temperature: float) -> None:
    """exp(-2 / .005) is 0 in float32, and at .002 in float64: equal similarities cost the same wherever they lie."""
    method = small(temperature=temperature).float()
    opposite = torch.nn.functional.normalize(torch.ones(IMAGES, 3), dim=1)
    bank_of(method).copy_(opposite)
    with torch.no_grad():
        method.get_parameter("projector.0.weight").zero_()
        method.get_parameter("projector.0.bias").fill_(-1.0)
    views = batch(crops=1)
    expected = math.log(M + 1) + M * math.log(1 + 1 / M)
    for step in range(2):  # with the batch's own Z, and with the one that is kept
        loss = method(Views((views.crops[0].float(),), views.index), clock(step)).loss
        assert loss.item() == pytest.approx(expected, abs=1e-3)
        method.after_step(clock(step))
        bank_of(method).copy_(opposite)


def test_images_are_drawn_evenly_with_replacement_and_alike_in_any_batch() -> None:
    objective = nce_of(small(negatives=3000))
    index = torch.tensor([4, 9, 2])
    drawn = objective.drawn(index, clock(1))
    assert drawn.shape == (3, 3000)
    counts = torch.bincount(drawn.flatten(), minlength=IMAGES)
    assert len(counts) == IMAGES
    assert (counts - 750).abs().max() < 5 * math.sqrt(750)
    assert torch.equal(objective.drawn(index.flip(0), clock(1)), drawn.flip(0))
    assert not torch.equal(objective.drawn(index, clock(2)), drawn)
    assert not torch.equal(drawn[0], drawn[1])
    other = replace(clock(1), seed=4)
    assert not torch.equal(objective.drawn(index, other), drawn)


def test_the_log_has_the_cosine_of_an_image_with_its_own_row() -> None:
    method, views = small(), batch(crops=1)
    v = torch.nn.functional.normalize(method.projector(method.backbone(views.crops[0])), dim=1)
    expected = torch.stack([v[i] @ bank_of(method)[j] for i, j in enumerate(views.index.tolist())]).mean().item()
    agreement = method(views, clock()).logs["similarity"]
    assert agreement.item() == pytest.approx(expected)
    assert not agreement.requires_grad


CHANGES: list[dict[str, Any]] = [
    {"projector": replace(HEAD, dim=2)},
    {"negatives": M + 1},
    {"negatives": 0},
    {"temperature": 0.5},
    {"bank_momentum": 0.5},
    {"proximal": 1.0},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_setting_changes_what_is_computed(change: dict[str, Any]) -> None:
    assert not math.isclose(steps(small(**change), 4)[3], steps(small(), 4)[3])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0.0}, "method.temperature must be above 0, got 0.0; the paper uses 0.07"),
        ({"negatives": -1}, "method.negatives must be at least 0, got -1; the paper uses 4096"),
        ({"bank_momentum": 1.1}, r"method.bank_momentum must be in \[0, 1\], got 1.1; the paper uses 0"),
        ({"projector": replace(HEAD, hidden=64)}, "projector.hidden=64 is read between layers, .*projector.layers=2"),
        ({"proximal": -0.5}, "method.proximal must be at least 0, got -0.5; use 0, the paper prints no number"),
    ],
)
def test_a_setting_out_of_range_is_an_error(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        InstDiscConfig(**changes)


def test_a_second_view_is_an_error() -> None:
    found = Known(crops=(32, 32), batch_size=64, accumulate=1, backbone="tiny")
    with pytest.raises(ConfigError, match=r"instdisc compares 1 view .* got 2; keep the first"):
        InstDiscConfig().check(found)


def test_a_bank_for_nobody_can_be_weighed_but_not_trained_with() -> None:
    method = instdisc(trunk(), InstDiscConfig(projector=HEAD), known(crops=1, images=0)).double()
    assert bank_of(method).shape == (1, 3)
    with pytest.raises(ConfigError, match=r"row of its bank for every image .* Known\(images=N\)"):
        method(batch(crops=1), clock())


@pytest.mark.parametrize("negatives", [M, 0])
def test_a_step_that_is_not_taken_leaves_no_trace(negatives: int) -> None:
    method, views = small(negatives=negatives, bank_momentum=0.5), batch(crops=1)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for i in range(2):  # micro-batches
        method(Views((views.crops[0].chunk(2)[i],), views.index.chunk(2)[i]), clock())
    method.discard()
    method.after_step(clock())
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())


def test_micro_batches_write_the_rows_and_the_z_of_the_whole_batch() -> None:
    method, whole, views = small(), small(), batch(crops=1)
    for i in range(2):
        method(Views((views.crops[0].chunk(2)[i],), views.index.chunk(2)[i]), clock())
    whole(views, clock())
    for one in (method, whole):
        one.after_step(clock())
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(method.state_dict()[name], value)


@pytest.mark.parametrize("negatives", [M, 0])
def test_a_restored_method_continues_to_the_bit(negatives: int) -> None:
    method, twin = small(negatives=negatives), small(negatives=negatives)
    steps(method, 3)
    twin.load_state_dict(method.state_dict())
    assert steps(method, 3, start=3) == steps(twin, 3, start=3)


def test_the_presets_take_the_codes_bank_whose_numbers_they_quote() -> None:
    for preset in (presets.scenes, presets.cifar10, presets.imagenet):
        method = preset().method
        assert isinstance(method, InstDiscConfig)
        assert method.bank_momentum == 0.5
    assert InstDiscConfig().bank_momentum == 0.0
    assert presets.cifar10().optim.peak_lr(128) == pytest.approx(0.03)
    assert presets.imagenet().optim.peak_lr(256) == pytest.approx(0.03)


def test_the_preset_for_small_sets_has_cifars_loss_and_imagenets_crop() -> None:
    small, cifar = presets.small(), presets.cifar10()
    assert (small.method, small.optim) == (cifar.method, cifar.optim)
    assert (small.method.negatives, small.method.temperature) == (0, 0.1)  # type: ignore[attr-defined]
    assert small.views == presets.imagenet().views
