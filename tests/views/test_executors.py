"""The fast executors against torchvision's definitions at equal parameters, and what must not change a pixel.

Errors are mean absolute differences in 1/255 of the pixel range, on textured pictures with noise down to single pixels,
which are harder on resampling than photographs. `pytest -s` prints the composed errors.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.contracts import Batch, ConfigError, DataError
from stopgrad.views import PRESETS, CropConfig, ViewMaker, ViewsConfig
from stopgrad.views.gpu import chunks

CPU = torch.device("cpu")
STILL = CropConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0), hflip=0, jitter=0, grayscale=0, blur=0)
JITTER = dataclasses.replace(STILL, jitter=1, brightness=0, contrast=0, saturation=0, hue=0)


def still(**values: object) -> CropConfig:
    return dataclasses.replace(STILL, **values)


CROP = {"scale": (0.2, 1.0), "ratio": (3 / 4, 4 / 3)}
SINGLE = {
    "crop": still(**CROP),
    "bicubic crop": still(interpolation="bicubic", **CROP),
    "horizontal flip": still(hflip=1),
    "vertical flip": still(vflip=1),
    "quarter turns": still(quarter_turns=1),
    "rotation": still(rotation=1),
    "wide rotation": still(rotation=1, rotation_degrees=180),
    "brightness": dataclasses.replace(JITTER, brightness=0.8),
    "contrast": dataclasses.replace(JITTER, contrast=0.8),
    "saturation": dataclasses.replace(JITTER, saturation=0.8),
    "hue": dataclasses.replace(JITTER, hue=0.1),
    "any hue": dataclasses.replace(JITTER, hue=0.5),
    "grayscale": still(grayscale=1),
    "blur": still(blur=1),
    "strong blur": still(blur=1, blur_sigma=(5.0, 30.0)),
    "solarize": still(solarize=1),
    "solarize low": still(solarize=1, solarize_threshold=0.25),
}
EVERYTHING = CropConfig(vflip=0.5, quarter_turns=0.5, rotation=0.5, grayscale=0.3, solarize=0.3, scale=(0.1, 1.0))


def picture(seed: int, height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    """Colour at every scale: noise of block sizes 1, 2, 4, ..., stronger where coarser."""
    rng = np.random.default_rng(seed)
    total = np.full((height, width, channels), 120.0)
    for block in (1, 2, 4, 8, 16, 32):
        coarse = rng.standard_normal((-(-height // block), -(-width // block), channels)) * 5 * block**0.5
        total += coarse.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    return np.clip(total, 0, 255).astype(np.uint8)


def batch(sizes: list[tuple[int, int]], channels: int = 3) -> Batch:
    return Batch([picture(i, h, w, channels) for i, (h, w) in enumerate(sizes)], np.arange(len(sizes)) + 10, 3)


SMALL = batch([(32, 32)] * 24)
MIXED = batch([(60, 80), (33, 50), (130, 90), (32, 32), (200, 61), (47, 47), (20, 24), (300, 310)] * 2)


def crops(work: Batch, executor: str, *laws: CropConfig, size: int = 32, threads: int = 1) -> tuple[Tensor, ...]:
    """Pixels 0 to 255, not normalised, for images of any number of channels."""
    channels = work.samples[0].shape[2]
    config = ViewsConfig(
        image_size=size, crops=laws, executor=executor, mean=(0.0,) * channels, std=(1 / 255,) * channels
    )  # type: ignore[arg-type]
    maker = ViewMaker(config, channels, seed=1, device=CPU, threads=threads)
    views = maker(work)
    maker.close()
    assert views.index.tolist() == work.index.tolist()
    return views.crops


def error(work: Batch, executor: str, law: CropConfig, size: int = 32) -> float:
    (ours,), (exact,) = crops(work, executor, law, size=size), crops(work, "exact", law, size=size)
    assert ours.shape == exact.shape == (len(work.samples), work.samples[0].shape[2], size, size)
    return float((ours - exact).abs().mean())


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("work", [SMALL, MIXED], ids=["same sizes", "mixed sizes"])
def test_a_single_operation_on_the_cpu_is_within_2_of_255_of_torchvision(name: str, work: Batch) -> None:
    assert error(work, "cpu", SINGLE[name]) <= 2


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("work", [SMALL, MIXED], ids=["same sizes", "mixed sizes"])
def test_a_single_operation_in_batched_torch_is_torchvisions_up_to_rounding(name: str, work: Batch) -> None:
    assert error(work, "gpu", SINGLE[name]) <= 0.02


@pytest.mark.parametrize("executor", ["cpu", "gpu"])
@pytest.mark.parametrize("name", ["moco_v2", "byol", "swav_globals", "dino_globals"])
def test_composed_views_stay_near_torchvisions(name: str, executor: str) -> None:
    for work, label in ((SMALL, "32 to 32"), (MIXED, "mixed to 32")):
        for view, law in enumerate(PRESETS[name]):
            off = error(work, executor, law)
            print(f"{name} view {view}, {label}, {executor}: mean error {off:.3f}/255")
            assert off <= (1.5 if executor == "cpu" else 0.05)
    everything = error(MIXED, executor, EVERYTHING, size=48)
    print(f"everything at once, {executor}: mean error {everything:.3f}/255")
    assert everything <= 2


@pytest.mark.parametrize("shrink", [1.05, 1.2, 1.34, 1.5, 1.7, 1.8, 1.95, 2.3, 2.7, 3.5, 4.5, 8.0])
def test_shrinking_is_antialiased_at_every_factor(shrink: float) -> None:
    side = round(32 * shrink)
    assert error(batch([(side, side)] * 4), "cpu", STILL) <= 2


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
def test_flips_and_turns_are_numpys(executor: str) -> None:
    work = batch([(32, 32)] * 12)
    plain = np.stack(list(work.samples))
    as_pixels = [c.permute(0, 2, 3, 1).numpy() for c in crops(work, executor, still(hflip=1), still(vflip=1))]
    assert as_pixels[0] == pytest.approx(plain[:, :, ::-1], abs=0.01)
    assert as_pixels[1] == pytest.approx(plain[:, ::-1], abs=0.01)
    (turned,) = crops(work, executor, still(quarter_turns=1))
    for sample, view in zip(plain, turned.permute(0, 2, 3, 1).numpy(), strict=True):
        assert any(np.abs(np.rot90(sample, k) - view).max() < 0.01 for k in (1, 2, 3))


@pytest.mark.parametrize("executor", ["cpu", "gpu"])
def test_one_channel_has_brightness_and_contrast_but_no_colour(executor: str) -> None:
    work = batch([(40, 60), (32, 32), (90, 70), (64, 64)], channels=1)
    for name, law in SINGLE.items():
        assert error(work, executor, law) <= 2, name
    (still_one,) = crops(work, executor, STILL)
    colour = dataclasses.replace(JITTER, saturation=0.8, hue=0.5, grayscale=1.0)
    assert torch.equal(crops(work, executor, colour)[0], still_one)
    for change in ({"brightness": 0.8}, {"contrast": 0.8}):
        assert not torch.equal(crops(work, executor, dataclasses.replace(JITTER, **change))[0], still_one)
    assert error(work, executor, EVERYTHING) <= 2


def test_views_are_the_same_bits_in_any_batch_and_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stopgrad.views.maker.WORTH_A_THREAD", 0)
    laws = (EVERYTHING, dataclasses.replace(EVERYTHING, size=24))
    whole = crops(MIXED, "cpu", *laws)
    for threads in (2, 3, 7):
        assert all(map(torch.equal, whole, crops(MIXED, "cpu", *laws, threads=threads)))
    order = np.array([5, 0, 11])
    part = crops(Batch([MIXED.samples[i] for i in order], MIXED.index[order], MIXED.epoch), "cpu", *laws)
    assert all(torch.equal(a[order], b) for a, b in zip(whole, part, strict=True))


def test_a_stacked_batch_gives_the_bits_of_a_list() -> None:
    stacked = Batch(np.stack(list(SMALL.samples)), SMALL.index, SMALL.epoch)
    for executor in ("cpu", "gpu", "exact"):
        assert torch.equal(crops(SMALL, executor, EVERYTHING)[0], crops(stacked, executor, EVERYTHING)[0])


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
def test_a_read_only_memory_map_is_read_and_left_as_it_was(executor: str, tmp_path: Path) -> None:
    pixels = np.stack(list(SMALL.samples))
    np.save(tmp_path / "store.npy", pixels)
    mapped = np.load(tmp_path / "store.npy", mmap_mode="r")
    ours = crops(Batch(mapped, SMALL.index, SMALL.epoch), executor, EVERYTHING)[0]
    assert torch.equal(ours, crops(SMALL, executor, EVERYTHING)[0])
    assert (np.load(tmp_path / "store.npy") == pixels).all()
    listed = crops(Batch([mapped[i] for i in range(len(mapped))], SMALL.index, SMALL.epoch), executor, EVERYTHING)
    assert torch.equal(ours, listed[0])


def test_batched_torch_gives_the_same_views_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = crops(MIXED, "gpu", EVERYTHING)[0]
    monkeypatch.setattr("stopgrad.views.gpu.CHUNK_BYTES", 8 * 2**20)
    sizes = np.array([sample.shape[:2] for sample in MIXED.samples])
    assert 1 < len(list(chunks(sizes, 3, 32))) < len(sizes)
    assert (crops(MIXED, "gpu", EVERYTHING)[0] - whole).abs().max() < 0.05


def test_autocast_around_the_call_takes_nothing_from_the_pixels() -> None:
    whole = crops(SMALL, "gpu", EVERYTHING)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(crops(SMALL, "gpu", EVERYTHING)[0], whole)


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
def test_crops_are_normalised_float32_and_channels_last(executor: str) -> None:
    config = ViewsConfig(crops=(STILL, dataclasses.replace(STILL, size=16)), executor=executor)  # type: ignore[arg-type]
    views = ViewMaker(config, 3, seed=0, device=CPU, threads=1)(SMALL)
    assert [tuple(crop.shape) for crop in views.crops] == [(24, 3, 32, 32), (24, 3, 16, 16)]
    for crop in views.crops:
        assert crop.dtype == torch.float32
        assert crop.is_contiguous(memory_format=torch.channels_last)
    expected = (np.stack(list(SMALL.samples)) / 255 - np.array(config.mean)) / np.array(config.std)
    assert views.crops[0].permute(0, 2, 3, 1).numpy() == pytest.approx(expected, abs=1e-5)


CHANGES = {
    "size": 16, "scale": (0.1, 0.2), "ratio": (2.0, 3.0), "interpolation": "bicubic", "hflip": 1.0, "vflip": 1.0,
    "quarter_turns": 0.0, "rotation": 0.0, "rotation_degrees": 90.0, "jitter": 0.0, "brightness": 0.1, "contrast": 0.1,
    "saturation": 0.1, "hue": 0.4, "grayscale": 1.0, "blur": 0.0, "blur_sigma": (3.0, 4.0), "solarize": 1.0,
    "solarize_threshold": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("executor", ["cpu", "gpu", "exact"])
def test_every_setting_of_a_crop_changes_what_comes_out(executor: str) -> None:
    assert CHANGES.keys() == {field.name for field in dataclasses.fields(CropConfig)}
    before = crops(SMALL, executor, EVERYTHING)[0]
    for name, value in CHANGES.items():
        after = crops(SMALL, executor, dataclasses.replace(EVERYTHING, **{name: value}))[0]
        assert before.shape != after.shape or not torch.equal(before, after), name


def test_auto_is_cpu_without_a_gpu_and_gpu_with_one() -> None:
    assert ViewMaker(ViewsConfig(), 3, 0, CPU, 1).executor == "cpu"
    assert ViewMaker(ViewsConfig(crops=(STILL,)), 3, 0, torch.device("cuda"), 1).executor == "gpu"


def test_what_cannot_be_viewed_is_named() -> None:
    maker = ViewMaker(ViewsConfig(), 3, 0, CPU, 1)
    good = picture(0, 32, 32)
    for bad, found in (
        (good.astype(np.float32), r"float32 of shape \[32, 32, 3\]"),
        (good[:, :, :1], r"uint8 of shape \[32, 32, 1\]"),
        (good[:, :, 0], r"uint8 of shape \[32, 32\]"),
        (good[:0], r"uint8 of shape \[0, 32, 3\]"),
    ):
        with pytest.raises(DataError, match=f"sample 1 of the batch is {found}; images must be uint8"):
            maker(Batch([good, bad], np.arange(2), 0))
    with pytest.raises(ConfigError, match="3 values, the images 2 channels"):
        ViewMaker(ViewsConfig(), 2, 0, CPU, 1)
    with pytest.raises(ConfigError, match="threads must be at least 1, got 0"):
        ViewMaker(ViewsConfig(), 3, 0, CPU, 0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_cuda_device_the_views_are_those_of_the_cpu() -> None:
    device = torch.device("cuda")
    laws = (EVERYTHING, PRESETS["byol"][0])
    for work, size in ((SMALL, 32), (MIXED, 96)):
        maker = ViewMaker(
            ViewsConfig(image_size=size, crops=laws, mean=(0.0,) * 3, std=(1 / 255,) * 3), 3, 1, device, 1
        )
        views = maker(work)
        for ours, expected in zip(views.crops, crops(work, "gpu", *laws, size=size), strict=True):
            assert ours.device.type == "cuda"
            assert (ours.cpu() - expected).abs().mean() < 0.1
