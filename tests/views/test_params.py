"""What is drawn follows torchvision's laws, and depends on nothing but seed, epoch, image and view."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import RandomResizedCrop

from stopgrad.views import CropConfig, Params, draw
from stopgrad.views.params import boxes

N = 20_000
EVERYTHING = CropConfig(vflip=0.3, quarter_turns=0.6, rotation=0.4, solarize=0.25)


def drawn(crop: CropConfig, size: tuple[int, int] = (48, 64), n: int = N, **where: int) -> Params:
    place = {"seed": 0, "epoch": 0, "view": 0, **where}
    return draw(crop, np.tile(np.array(size), (n, 1)), place["seed"], place["epoch"], np.arange(n), place["view"])


def arrays(params: Params) -> dict[str, NDArray[np.generic]]:
    return {field.name: getattr(params, field.name) for field in dataclasses.fields(params)}


def near(values: NDArray[np.generic], expected: float) -> bool:
    """The mean lies within four standard errors of what is expected."""
    x = values.astype(float)
    return bool(abs(x.mean() - expected) < 4 * x.std() / math.sqrt(len(x)))


@pytest.mark.parametrize("size", [(32, 32), (375, 500)])
def test_crops_have_the_moments_of_torchvision(size: tuple[int, int]) -> None:
    n = 3000
    torch.manual_seed(0)
    image, ratio = torch.empty(1, *size), [3 / 4, 4 / 3]
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], ratio) for _ in range(n)], float)  # y, x, h, w
    ours = drawn(CropConfig(), size, n).box[:, [1, 0, 3, 2]].astype(float)
    for a, b in zip(ours.T, theirs.T, strict=True):
        assert abs(a.mean() - b.mean()) < 4 * math.hypot(a.std(), b.std()) / math.sqrt(n)
        assert np.quantile(a, [0.1, 0.5, 0.9]) == pytest.approx(np.quantile(b, [0.1, 0.5, 0.9]), abs=0.05 * max(size))
    areas = [x[:, 2] * x[:, 3] for x in (ours, theirs)]
    assert areas[0].std() == pytest.approx(areas[1].std(), rel=0.06)


def box_by_loop(crop: CropConfig, height: int, width: int, u: NDArray[np.float64]) -> list[int]:
    """RandomResizedCrop.get_params, line by line, on given random numbers: x, y, w, h."""
    low, high = math.log(crop.ratio[0]), math.log(crop.ratio[1])
    for k in range(10):
        area = height * width * (crop.scale[0] + (crop.scale[1] - crop.scale[0]) * u[k])
        ratio = math.exp(low + (high - low) * u[10 + k])
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return [int(u[20] * (width - w + 1)), int(u[21] * (height - h + 1)), w, h]
    w, h = width, height
    if width / height < crop.ratio[0]:
        h = round(width / crop.ratio[0])
    elif width / height > crop.ratio[1]:
        w = round(height * crop.ratio[1])
    return [(width - w) // 2, (height - h) // 2, w, h]


@pytest.mark.parametrize("scale", [(0.2, 1.0), (0.05, 0.14), (0.99, 1.0)])
def test_crops_are_those_of_a_loop_on_the_same_numbers(scale: tuple[float, float]) -> None:
    crop = CropConfig(scale=scale)
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 80, (400, 2))  # tall, wide and tiny ones: the fallback is among them
    u = rng.random((400, 22))
    expected = [box_by_loop(crop, h, w, row) for (h, w), row in zip(sizes.tolist(), u, strict=True)]
    assert boxes(crop, sizes, u).tolist() == expected


def test_a_crop_never_leaves_its_image() -> None:
    sizes = np.random.default_rng(0).integers(1, 500, (N, 2))
    x, y, w, h = draw(CropConfig(scale=(0.01, 1.0)), sizes, 0, 0, np.arange(N), 0).box.T
    assert min(x.min(), y.min()) == 0
    assert min(w.min(), h.min()) >= 1
    assert ((x + w <= sizes[:, 1]) & (y + h <= sizes[:, 0])).all()


def test_every_operation_is_drawn_with_its_probability() -> None:
    p = drawn(EVERYTHING)
    assert near(p.hflip, 0.5)
    assert near(p.vflip, 0.3)
    assert near(p.turns > 0, 0.6)
    assert near(p.angle != 0, 0.4)
    assert near(p.brightness != 1, 0.8)
    assert near(p.gray, 0.2)
    assert near(p.sigma > 0, 0.5)
    assert near(p.solarize, 0.25)


def test_every_value_is_uniform_over_its_range() -> None:
    p = drawn(EVERYTHING)
    jittered, turned = p.brightness != 1, p.turns > 0
    for values, low, high in [
        (p.brightness[jittered], 0.6, 1.4),
        (p.contrast[jittered], 0.6, 1.4),
        (p.saturation[jittered], 0.6, 1.4),
        (p.hue[jittered], -0.1, 0.1),
        (p.angle[p.angle != 0], -15, 15),
        (p.sigma[p.sigma > 0], 0.1, 2.0),
    ]:
        assert near(values, (low + high) / 2)
        assert values.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.03)
        assert low <= values.min() < values.max() < high
    assert np.bincount(p.turns[turned], minlength=4)[1:] == pytest.approx(turned.sum() / 3, rel=0.05)


def test_all_24_orders_of_the_jitter_come_equally_often() -> None:
    orders, counts = np.unique(drawn(CropConfig()).order, axis=0, return_counts=True)
    assert len(orders) == 24
    assert (np.sort(orders, axis=1) == np.arange(4)).all()
    assert ((counts - N / 24) ** 2 / (N / 24)).sum() < 50  # chi squared, 23 degrees of freedom: p = 0.001


def test_what_is_not_drawn_changes_nothing() -> None:
    p = drawn(CropConfig(hflip=0, jitter=0, grayscale=0, blur=0), n=100)
    assert not (p.hflip | p.vflip | p.gray | p.solarize).any()
    assert (np.stack([p.brightness, p.contrast, p.saturation]) == 1).all()
    assert not np.stack([p.hue, p.angle, p.sigma, p.turns]).any()


@pytest.mark.parametrize("change", [{"view": 1}, {"epoch": 1}, {"seed": 1}])
def test_another_view_epoch_or_seed_is_independent(change: dict[str, int]) -> None:
    first, second = arrays(drawn(EVERYTHING)), arrays(drawn(EVERYTHING, **change))
    for name, values in first.items():
        a, b = (x.reshape(N, -1)[:, 0].astype(float) for x in (values, second[name]))
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / math.sqrt(N), name


def test_the_parameters_of_one_view_are_independent_of_each_other() -> None:
    p = arrays(drawn(EVERYTHING))
    names = [name for name in p if name not in ("box", "order")]
    # Where and whether are separate draws, but values hang together with whether the jitter was drawn at all.
    jittered = p["brightness"] != 1
    table = np.stack([p[name][jittered].astype(float) for name in names])
    off_diagonal = np.corrcoef(table) - np.eye(len(names))
    assert abs(off_diagonal).max() < 5 / math.sqrt(jittered.sum())


def test_an_image_has_the_same_parameters_in_any_batch() -> None:
    index = np.array([7, 123_456_789_012, 0, 3])
    sizes = np.array([[32, 32], [40, 30], [64, 20], [50, 50]])
    together = arrays(draw(EVERYTHING, sizes, 5, 2, index, 1))
    for i in range(4):
        alone = arrays(draw(EVERYTHING, sizes[i : i + 1], 5, 2, index[i : i + 1], 1))
        assert all((alone[name][0] == together[name][i]).all() for name in alone)


def test_changing_one_probability_leaves_the_other_draws_alone() -> None:
    before = arrays(drawn(EVERYTHING, n=500))
    after = arrays(drawn(dataclasses.replace(EVERYTHING, hflip=1.0), n=500))
    assert [name for name in before if not (before[name] == after[name]).all()] == ["hflip"]
