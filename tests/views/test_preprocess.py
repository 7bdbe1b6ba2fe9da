"""The transform without chance is torchvision's Resize, CenterCrop and Normalize."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchvision.transforms import v2

from stopgrad.contracts import ConfigError, DataError, Preprocess
from stopgrad.views import ViewsConfig, preprocess_batch, preprocess_of

SIZES = [(32, 32), (60, 91), (91, 60), (20, 33), (300, 41)]


def image(size: tuple[int, int], channels: int = 3) -> NDArray[np.uint8]:
    return np.random.default_rng(size[0]).integers(0, 256, (*size, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "fraction"), [(32, 1.0), (28, 0.875), (33, 0.9)])
def test_it_is_torchvisions(channels: int, side: int, fraction: float) -> None:
    mean, std = (0.4, 0.5, 0.6)[:channels], (0.2, 0.25, 0.3)[:channels]
    preprocess = Preprocess(image_size=side, channels=channels, crop_fraction=fraction, mean=mean, std=std)
    theirs = v2.Compose(
        [
            v2.Resize(round(side / fraction), antialias=True),
            v2.CenterCrop(side),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
    )
    samples = [image(size, channels) for size in SIZES]
    ours = preprocess_batch(samples, preprocess)
    expected = torch.stack([theirs(torch.from_numpy(x).permute(2, 0, 1)) for x in samples])
    # Pillow and torch may round the same sum to neighbouring levels.
    assert ((ours - expected) * torch.tensor(std).view(-1, 1, 1) * 255).abs().max() < 1.01
    assert ours.is_contiguous(memory_format=torch.channels_last)


def test_an_image_of_the_right_size_is_only_normalised() -> None:
    x = image((32, 32))
    ours = preprocess_batch(np.stack([x, x]), Preprocess(image_size=32))[1]
    expected = (x / 255 - np.array((0.485, 0.456, 0.406))) / np.array((0.229, 0.224, 0.225))
    assert ours.permute(1, 2, 0).numpy() == pytest.approx(expected, abs=1e-6)


def test_threads_change_nothing() -> None:
    samples, preprocess = [image(size) for size in SIZES], Preprocess(image_size=32)
    assert torch.equal(preprocess_batch(samples, preprocess), preprocess_batch(samples, preprocess, threads=3))


def test_the_test_transform_of_a_config_has_its_size_and_statistics() -> None:
    small = preprocess_of(ViewsConfig(), 3)
    assert (small.image_size, small.channels, small.crop_fraction) == (32, 3, 1.0)
    assert small.mean == (0.485, 0.456, 0.406)
    large = preprocess_of(ViewsConfig(image_size=224), 1)
    assert (large.image_size, large.channels, large.crop_fraction) == (224, 1, 0.875)
    assert large.std == pytest.approx((0.226,))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(DataError, match=r"sample 1 of the batch is uint8 of shape \[32, 32, 1\]"):
        preprocess_batch([image((32, 32)), image((32, 32), 1)], Preprocess(image_size=32))
    with pytest.raises(ConfigError, match="mean and std need 1 values each"):
        preprocess_batch([image((32, 32), 1)], Preprocess(image_size=32, channels=1))
