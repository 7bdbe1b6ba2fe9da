"""16 bits and any number of channels: the executors against each other at equal parameters, and what is left out."""

import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Batch, DataError, Preprocess
from stopgrad.views import PRESETS, CropConfig, ViewMaker, ViewsConfig, preprocess_batch
from tests.views.test_executors import EVERYTHING, JITTER, SINGLE, STILL, crops, picture

CPU = torch.device("cpu")
SIZES = [(60, 80), (32, 32), (130, 90), (20, 24), (300, 310)]
COLOUR = ("saturation", "hue", "any hue", "grayscale")


def deep(seed: int, height: int, width: int, channels: int) -> NDArray[np.uint16]:
    """16 bits, of which the lower are noise."""
    noise = np.random.default_rng(seed).integers(0, 257, (height, width, channels))
    return (picture(seed, height, width, channels).astype(np.int64) * 256 + noise).astype(np.uint16)


def batch(channels: int, bits: int) -> Batch:
    make = picture if bits == 8 else deep
    return Batch([make(i, *size, channels) for i, size in enumerate(SIZES)], np.arange(len(SIZES)) + 10, 3)


def error(work: Batch, executor: str, law: CropConfig) -> float:
    (ours,), (exact,) = crops(work, executor, law), crops(work, "exact", law)
    assert ours.shape == exact.shape == (len(SIZES), work.samples[0].shape[2], 32, 32)
    return float((ours - exact).abs().mean())


@pytest.mark.parametrize("executor", ["cpu", "gpu"])
@pytest.mark.parametrize(("channels", "bits"), [(1, 16), (3, 16), (5, 8), (5, 16), (2, 8)])
def test_single_operations_are_within_2_of_255_of_the_definition(executor: str, channels: int, bits: int) -> None:
    work = batch(channels, bits)
    for name, law in SINGLE.items():
        assert error(work, executor, law) <= 2, name
    assert error(work, executor, EVERYTHING) <= 2


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
def test_sixteen_bits_and_eight_are_the_same_picture(executor: str) -> None:
    eight = batch(3, 8)
    sixteen = Batch([x.astype(np.uint16) * np.uint16(257) for x in eight.samples], eight.index, eight.epoch)
    for law in (EVERYTHING, PRESETS["byol"][1]):
        assert (crops(eight, executor, law)[0] - crops(sixteen, executor, law)[0]).abs().mean() <= 2


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
def test_sixteen_bits_are_not_rounded_to_eight(executor: str) -> None:
    faint = [np.arange(1000, 1000 + 32 * 32, dtype=np.uint16).reshape(32, 32, 1).repeat(5, axis=2)]  # within 4 levels
    (view,) = crops(Batch(faint, np.array([0]), 0), executor, STILL)
    assert view[0].permute(1, 2, 0).numpy() * 257 == pytest.approx(faint[0], abs=0.1)


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
@pytest.mark.parametrize("channels", [2, 5])
def test_without_red_green_and_blue_there_is_no_colour_but_brightness_and_contrast(
    executor: str, channels: int
) -> None:
    work = batch(channels, 16)
    (untouched,) = crops(work, executor, STILL)
    for name in COLOUR:
        assert torch.equal(crops(work, executor, SINGLE[name])[0], untouched), name
    brighter, contrasted = (
        crops(work, executor, dataclasses.replace(JITTER, **{name: 0.8}))[0] for name in ("brightness", "contrast")
    )
    ratio = (brighter / untouched.clamp(min=1)).flatten(1)
    assert not torch.equal(brighter, untouched)
    # where nothing is cut off at white, a factor an image; and a contrast moves nothing at the mean of all channels
    assert ((ratio.quantile(0.3, dim=1) - ratio.quantile(0.2, dim=1)).abs() < 0.02).all()
    assert (contrasted.mean(dim=(1, 2, 3)) - untouched.mean(dim=(1, 2, 3))).abs().max() < 8


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
def test_a_channel_is_worked_on_alone(executor: str) -> None:
    """All that is left for many channels, but for the contrast, does not mix them."""
    law = dataclasses.replace(EVERYTHING, contrast=0.0)
    five = batch(5, 16)
    turned = Batch([x[:, :, ::-1] for x in five.samples], five.index, five.epoch)
    assert torch.allclose(crops(five, executor, law)[0].flip(1), crops(turned, executor, law)[0], atol=1e-3)


def test_what_is_drawn_does_not_depend_on_the_channels() -> None:
    many = batch(5, 16)
    same = Batch([x[:, :, :1] for x in many.samples], many.index, many.epoch)
    law = dataclasses.replace(EVERYTHING, contrast=0.0)
    assert torch.allclose(crops(same, "cpu", law)[0], crops(many, "cpu", law)[0][:, :1], atol=1e-3)


def test_threads_and_company_change_no_bit() -> None:
    work = batch(5, 16)
    whole = crops(work, "cpu", EVERYTHING)[0]
    assert torch.equal(whole, crops(work, "cpu", EVERYTHING, threads=3)[0])
    part = Batch([work.samples[i] for i in (3, 1)], work.index[[3, 1]], work.epoch)
    assert torch.equal(crops(part, "cpu", EVERYTHING)[0], whole[[3, 1]])


def test_views_are_normalised_a_channel() -> None:
    mean, std = (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1)
    work = Batch([deep(0, 32, 32, 5)], np.array([0]), 0)
    expected = (work.samples[0] / 65535 - np.array(mean)) / np.array(std)
    for executor in ("cpu", "gpu", "exact"):
        config = ViewsConfig(crops=(STILL,), executor=executor, mean=mean, std=std)  # type: ignore[arg-type]
        view: Tensor = ViewMaker(config, 5, 0, CPU, 1)(work).crops[0]
        assert view.is_contiguous(memory_format=torch.channels_last)
        assert view[0].permute(1, 2, 0).numpy() == pytest.approx(expected, abs=1e-4)


def test_a_batch_of_two_depths_is_refused() -> None:
    mixed = Batch([picture(0, 32, 32), deep(0, 32, 32, 3)], np.arange(2), 0)
    with pytest.raises(DataError, match="sample 1 of the batch is uint16, the first is uint8; all need the same depth"):
        ViewMaker(ViewsConfig(), 3, 0, CPU, 1)(mixed)


def test_the_test_transform_treats_each_channel_as_it_treats_gray() -> None:
    samples = [picture(i, *size, 5) for i, size in enumerate(SIZES)]
    many = preprocess_batch(samples, Preprocess(image_size=28, channels=5, mean=(0.0,) * 5, std=(1.0,) * 5))
    for band in range(5):
        gray = [x[:, :, band : band + 1] for x in samples]
        one = preprocess_batch(gray, Preprocess(image_size=28, channels=1, mean=(0.0,), std=(1.0,)))
        assert torch.equal(many[:, band : band + 1], one)


def test_the_test_transform_of_16_bits_is_that_of_8_without_the_rounding() -> None:
    eight = [picture(i, *size) for i, size in enumerate(SIZES)]
    sixteen = [x.astype(np.uint16) * np.uint16(257) for x in eight]
    settings = Preprocess(image_size=28, crop_fraction=0.875, mean=(0.0,) * 3, std=(1 / 255,) * 3)
    for threads in (1, 3):
        off = preprocess_batch(eight, settings) - preprocess_batch(sixteen, settings, threads)
        assert off.abs().max() < 1.01  # Pillow rounds after each of two passes
        assert off.abs().mean() > 0.05


def test_the_depth_is_kept_with_the_transform_and_old_ones_have_8() -> None:
    wide = Preprocess(image_size=32, depth=16)
    assert Preprocess.from_dict(wide.as_dict()) == wide
    old = Preprocess(image_size=32).as_dict()
    assert "depth" not in old  # the bytes of encoders from before there was one
    assert Preprocess.from_dict(old).depth == 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("channels", "bits"), [(3, 16), (5, 16), (5, 8)])
def test_on_a_cuda_device_they_are_the_same(channels: int, bits: int) -> None:
    work = batch(channels, bits)
    stacked = Batch(np.stack([deep(i, 40, 40, channels) for i in range(4)]), np.arange(4), 0)
    config = ViewsConfig(image_size=32, crops=(EVERYTHING,), mean=(0.0,) * channels, std=(1 / 255,) * channels)
    for some in (work, stacked):
        on_device = ViewMaker(config, channels, 1, torch.device("cuda"), 1)(some).crops[0]
        assert on_device.device.type == "cuda"
        assert (on_device.cpu() - crops(some, "gpu", EVERYTHING)[0]).abs().mean() < 0.1
