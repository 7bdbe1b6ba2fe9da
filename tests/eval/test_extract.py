"""Features of a frozen backbone, measured batch norm, raw pixels."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from stopgrad import rng
from stopgrad.contracts import DataError, Preprocess
from stopgrad.eval import extract
from stopgrad.eval.extract import features, measure_batch_norm, without_network
from stopgrad.media.images import pixels_side
from stopgrad.views import preprocess_batch
from tests.eval.fakes import SIDE, Net, Split, split

PREPROCESS = Preprocess(image_size=SIDE)
CPU = "cpu"


def digest(module: nn.Module) -> str:
    """Of every parameter and buffer."""
    whole = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        whole.update(name.encode() + value.numpy().tobytes())
    return whole.hexdigest()


def test_a_backbone_is_left_as_it_was_found_to_the_bit_and_mode_by_mode() -> None:
    net = Net().train()
    net.norm.eval()  # somebody froze this one
    before = digest(net)
    features(net, split(20, 0), PREPROCESS, device=CPU)
    assert digest(net) == before
    assert (net.training, net.norm.training, net.dropout.training) == (True, False, True)


def test_modes_come_back_when_the_forward_fails() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(7, 2)).train()
    with pytest.raises(RuntimeError):
        features(net, split(4, 0), PREPROCESS, device=CPU)
    assert all(module.training for module in net.modules())


def test_features_are_those_of_eval_mode_in_the_order_of_the_split() -> None:
    net, images = Net(), split(21, 0)
    found = features(net.train(), images, PREPROCESS, device=CPU)
    with torch.no_grad():
        one_by_one = [net.eval()(preprocess_batch([images[i]], PREPROCESS, 1)) for i in range(21)]
    torch.testing.assert_close(found, torch.cat(one_by_one))
    assert found.dtype == torch.float32
    assert not found.requires_grad


@pytest.mark.parametrize("batch_size", [1, 7, 21, 500])
def test_batch_size_and_threads_do_not_change_the_features(batch_size: int) -> None:
    net, images = Net(), split(21, 0)
    whole = features(net, images, PREPROCESS, device=CPU)
    torch.testing.assert_close(whole, features(net, images, PREPROCESS, device=CPU, batch_size=batch_size, threads=3))


def test_bfloat16_is_used_where_asked_and_what_comes_back_is_float32() -> None:
    net, images = Net(), split(12, 0)
    plain, short = (features(net, images, PREPROCESS, device=CPU, bf16=bf16) for bf16 in (False, True))
    assert short.dtype == torch.float32
    assert not torch.equal(plain, short)
    torch.testing.assert_close(plain, short, rtol=0.05, atol=0.05)


def test_an_empty_split_is_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match="no images"):
        features(Net(), Split(np.zeros((0, 8, 8, 3), np.uint8), None), PREPROCESS, device=CPU)


def responses(net: Net, images: Split) -> torch.Tensor:
    """What the batch norm sees: [N, C, S, S]."""
    with torch.no_grad():
        hidden: torch.Tensor = net.conv(preprocess_batch(images.images, PREPROCESS, 1)).double()
    return hidden


def test_measured_batch_norm_of_one_batch_is_the_mean_and_variance_of_what_it_sees() -> None:
    net, images = Net(), split(60, 0)
    net.norm.running_mean += 5  # what was there before does not matter,
    net.norm.num_batches_tracked += 3  # nor how often
    measure_batch_norm(net, images, PREPROCESS, device=CPU, batch_size=60)
    seen = responses(net, images)
    torch.testing.assert_close(net.norm.running_mean.double(), seen.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.norm.running_var.double(), seen.var(dim=(0, 2, 3)), rtol=1e-5, atol=1e-5)


def test_measured_batch_norm_is_the_plain_mean_over_mixed_batches() -> None:
    net, images = Net(), split(60, 0)
    measure_batch_norm(net, images, PREPROCESS, device=CPU, batch_size=20)
    seen = responses(net, images)
    order = rng.permutation(60, 0, 0, rng.EVAL)
    variances = [seen[part].var(dim=(0, 2, 3)) for part in np.split(order, 3)]
    torch.testing.assert_close(net.norm.running_mean.double(), seen.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(net.norm.running_var.double(), torch.stack(variances).mean(0), rtol=1e-5, atol=1e-5)
    # The split comes class by class; batches in that order would see far less variance than there is.
    assert float((net.norm.running_var / seen.var(dim=(0, 2, 3))).min()) > 0.8


def test_measuring_moves_statistics_alone_and_draws_nothing() -> None:
    net = Net().train()
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    measure_batch_norm(net, split(30, 0), PREPROCESS, device=CPU, batch_size=10)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert torch.equal(torch.get_rng_state(), state)
    assert net.norm.momentum == 0.1
    assert net.norm.training
    assert net.training


def test_no_more_images_are_looked_at_than_the_statistics_need(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(Split):
        taken = 0

        def take(self, index: np.ndarray) -> np.ndarray:
            self.taken += len(index)
            return self.images[index]

    monkeypatch.setattr(extract, "BATCH_NORM_IMAGES", 16)
    images = Counted(split(40, 0).images, None)
    measure_batch_norm(Net(), images, PREPROCESS, device=CPU, batch_size=8)
    assert images.taken == 16
    measure_batch_norm(nn.Flatten(), images, PREPROCESS, device=CPU)  # nothing to measure, nothing is read
    assert images.taken == 16


@pytest.mark.parametrize("n", [1, 2, 3])
def test_batch_norm_can_be_measured_on_one_image_even_where_a_channel_has_one_value(n: int) -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3), nn.Flatten())
    measure_batch_norm(net, split(n, 0), PREPROCESS, device=CPU, batch_size=1)
    assert all(bool(torch.isfinite(value).all()) for value in net.state_dict().values())


def test_small_pixels_are_themselves_and_large_ones_are_averaged() -> None:
    images = split(5, 0)
    seen = preprocess_batch(images.images, PREPROCESS, 1).flatten(1)
    torch.testing.assert_close(without_network(images, PREPROCESS), seen)
    big = Split(np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8), None)
    found = without_network(big, Preprocess(image_size=64))
    assert found.shape == (4, 3 * 32 * 32)
    quarters = preprocess_batch(big.images, Preprocess(image_size=64), 1).unfold(2, 2, 2).unfold(3, 2, 2)
    torch.testing.assert_close(found, quarters.mean(dim=(4, 5)).flatten(1))


def test_no_more_than_3_x_32_x_32_numbers_stand_for_an_image() -> None:
    for channels in (1, 3, 4, 13, 5000):
        side = pixels_side(channels, 224)
        assert channels * side**2 <= 3 * 32 * 32 or side == 1
    assert pixels_side(3, 224) == pixels_side(1, 32) == 32
