"""The settings refuse what can't be drawn, and the presets are the table of methods-siamese.md, 0.3, to the letter.

Those for CIFAR are solo-learn's files and SimCLR's appendix B.9.
"""

import dataclasses
import subprocess
import sys

import pytest

from stopgrad.contracts import ConfigError
from stopgrad.views import PRESETS, CropConfig, ViewsConfig


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"size": 4}, r"size must be 0 .* or 8 to 4096 pixels, got 4"),
        ({"scale": (0.5, 0.2)}, r"scale must be 0 < low <= high, got \(0.5, 0.2\).*scale: \(0.2, 1.0\)"),
        ({"scale": (0.5, 1.2)}, r"scale must be 0 < low <= high <= 1"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"ratio": (2.0, 1.0)}, "ratio must be 0 < low <= high"),
        ({"ratio": (1.0, float("inf"))}, "ratio must be 0 < low <= high"),
        ({"interpolation": "nearest"}, "interpolation must be bilinear or bicubic, got 'nearest'"),
        ({"hflip": 1.5}, "hflip must be a probability, 0 to 1, got 1.5"),
        ({"solarize": -0.1}, "solarize must be a probability"),
        ({"jitter": float("nan")}, "jitter must be a probability"),
        ({"brightness": 1.5}, "brightness must be 0 to 1.0, got 1.5"),
        ({"saturation": -1.0}, "saturation must be 0 to 1.0"),
        ({"hue": 0.6}, "hue must be 0 to 0.5, got 0.6"),
        ({"rotation_degrees": 200.0}, "rotation_degrees must be 0 to 180"),
        ({"blur_sigma": (0.0, 2.0)}, "blur_sigma must be 0 < low <= high"),
        ({"solarize_threshold": 2.0}, "solarize_threshold must be 0 to 1"),
    ],
)
def test_a_crop_that_cannot_be_drawn_is_refused_with_a_hint(values: dict[str, object], hint: str) -> None:
    with pytest.raises(ConfigError, match=f"views.crops: .*{hint}"):
        CropConfig(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("values", "hint"),
    [
        ({"image_size": 0}, "views.image_size must be 8 to 4096 pixels, got 0"),
        ({"crops": ()}, "views.crops is empty"),
        ({"crops": (CropConfig(size=32), CropConfig(size=96))}, r"\[32, 96\], large crops must come first"),
        ({"executor": "cuda"}, "views.executor must be auto, cpu, gpu or exact, got 'cuda'"),
        ({"mean": (0.5,)}, "one value a channel .* got 1 and 3"),
        ({"mean": ()}, "one value a channel .*or none: measured.* got 0 and 3"),
        ({"mean": (0.5,) * 65, "std": (1.0,) * 65}, "one value a channel .1 to 64 each.* got 65 and 65"),
        ({"std": (1.0, 0.0, 1.0)}, "views.std must be above 0"),
        ({"mean": (float("nan"),) * 3}, "views.mean must be finite"),
    ],
)
def test_views_that_cannot_be_made_are_refused_with_a_hint(values: dict[str, object], hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        ViewsConfig(**values)  # type: ignore[arg-type]


def test_three_statistics_are_averaged_for_one_channel_and_others_must_be_as_many_as_channels() -> None:
    config = ViewsConfig(mean=(0.1, 0.2, 0.6), std=(0.2, 0.3, 0.4))
    assert config.statistics(3) == ((0.1, 0.2, 0.6), (0.2, 0.3, 0.4))
    mean, std = config.statistics(1)
    assert mean == pytest.approx((0.3,))
    assert std == pytest.approx((0.3,))
    assert ViewsConfig(mean=(0.5,), std=(0.25,)).statistics(1) == ((0.5,), (0.25,))
    five = ViewsConfig(mean=(0.5,) * 5, std=(0.1,) * 5)
    assert five.statistics(5) == ((0.5,) * 5, (0.1,) * 5)
    with pytest.raises(
        ConfigError, match=r"ImageNet's 3 values, the images 5 channels; type --set views.mean=\[\] --set"
    ):
        ViewsConfig().statistics(5)
    for channels in (4, 1):
        with pytest.raises(ConfigError, match=f"have 5 values, the images {channels} channels"):
            five.statistics(channels)
    with pytest.raises(ConfigError, match="are to be measured, and were not"):
        ViewsConfig(mean=(), std=()).statistics(3)
    with pytest.raises(ConfigError, match="have 1 value, the images 3 channels"):
        ViewsConfig(mean=(0.5,), std=(0.25,)).statistics(3)


def law(scale: tuple[float, float], blur: float, **others: object) -> dict[str, object]:
    """A row of the table: every field, written out."""
    row: dict[str, object] = {
        "size": 0, "scale": scale, "ratio": (3 / 4, 4 / 3), "interpolation": "bilinear", "hflip": 0.5, "vflip": 0.0,
        "quarter_turns": 0.0, "rotation": 0.0, "rotation_degrees": 15.0, "jitter": 0.8, "brightness": 0.4,
        "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "grayscale": 0.2, "blur": blur, "blur_sigma": (0.1, 2.0),
        "solarize": 0.0, "solarize_threshold": 0.5,
    }  # fmt: skip
    return {**row, **others}


CUBIC = {"interpolation": "bicubic", "saturation": 0.2}
STRONG = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
TABLE = {
    "moco_v2": [law((0.2, 1.0), 0.5)] * 2,
    "moco_v2_cifar": [law((0.2, 1.0), 0.0)] * 2,
    "simclr_cifar": [law((0.08, 1.0), 0.0, interpolation="bicubic")] * 2,
    "byol_cifar": [law((0.08, 1.0), 0.0, **CUBIC), law((0.08, 1.0), 0.0, solarize=0.2, **CUBIC)],
    "swav_cifar": [law((0.08, 1.0), 0.5, interpolation="bicubic", **STRONG)] * 2,
    "byol": [law((0.08, 1.0), 1.0, **CUBIC), law((0.08, 1.0), 0.1, solarize=0.2, **CUBIC)],
    "moco_v3": [law((0.08, 1.0), 1.0, saturation=0.2), law((0.08, 1.0), 0.1, solarize=0.2, saturation=0.2)],
    "moco_v3_resnet": [law((0.2, 1.0), 1.0, saturation=0.2), law((0.2, 1.0), 0.1, solarize=0.2, saturation=0.2)],
    "swav": [law((0.14, 1.0), 0.5, **STRONG)] * 2 + [law((0.05, 0.14), 0.5, size=96, **STRONG)] * 6,
    "swav_globals": [law((0.08, 1.0), 0.5, **STRONG)] * 2,
    "dino": [law((0.4, 1.0), 1.0, **CUBIC), law((0.4, 1.0), 0.1, solarize=0.2, **CUBIC)]
    + [law((0.05, 0.4), 0.5, size=96, **CUBIC)] * 8,
    "dino_globals": [law((0.14, 1.0), 1.0, **CUBIC), law((0.14, 1.0), 0.1, solarize=0.2, **CUBIC)],
}


def test_the_presets_are_the_papers_tables() -> None:
    assert {name: [dataclasses.asdict(crop) for crop in crops] for name, crops in PRESETS.items()} == TABLE


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_can_be_used(name: str) -> None:
    assert ViewsConfig(image_size=224, crops=PRESETS[name]).crops == PRESETS[name]


def test_the_default_is_simsiam_on_cifar() -> None:
    assert ViewsConfig().crops == PRESETS["moco_v2_cifar"]


def test_settings_and_presets_import_without_torch() -> None:
    code = "import sys; from stopgrad.views import ViewsConfig, PRESETS; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
