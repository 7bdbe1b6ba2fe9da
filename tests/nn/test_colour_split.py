"""Lab against its definition written for one pixel, and the backbone in two halves that is made of it."""

import math
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stopgrad.contracts import ConfigError
from stopgrad.nn.backbones import build_backbone, of_one_size
from stopgrad.nn.colour_split import LabSplit, lab, normalised_lab
from stopgrad.nn.config import BackboneConfig

Colour = tuple[float, float, float]
# sRGB's corners under D65, two digits
CORNERS: dict[Colour, Colour] = {
    (0, 0, 0): (0, 0, 0),
    (1, 1, 1): (100, 0, 0),
    (1, 0, 0): (53.24, 80.09, 67.20),
    (0, 1, 0): (87.73, -86.18, 83.18),
    (0, 0, 1): (32.30, 79.19, -107.86),
}


def one(colour: Colour, dtype: torch.dtype = torch.float64) -> Tensor:
    """A picture of one pixel, [1, 3, 1, 1]."""
    return torch.tensor(colour, dtype=dtype).reshape(1, 3, 1, 1)


def by_definition(colour: Colour) -> Colour:
    """CIE 1976 of one pixel."""
    r, g, b = (c / 12.92 if c <= 0.04045 else math.pow((c + 0.055) / 1.055, 2.4) for c in colour)
    x = (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047
    y = 0.2126729 * r + 0.7151522 * g + 0.0721750 * b
    z = (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883

    def f(t: float) -> float:
        return math.cbrt(t) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116

    return 116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z))


def back(found: Tensor) -> Tensor:
    """[3, N] of Lab -> sRGB from 0 to 1."""
    fy = (found[0] + 16) / 116
    bent = torch.stack([fy + found[1] / 500, fy, fy - found[2] / 200])
    ratio = torch.where(bent > 6 / 29, bent**3, 3 * (6 / 29) ** 2 * (bent - 4 / 29))
    xyz = ratio * torch.tensor([0.95047, 1.0, 1.08883], dtype=found.dtype)[:, None]
    matrix = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    linear = torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64)) @ xyz.double()
    curved = 1.055 * linear.clamp(min=0) ** (1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curved)


def colours(count: int) -> Tensor:
    """[1, 3, 1, N], 8-bit colours from all over the cube, its corners and the first dark steps among them."""
    levels = np.random.default_rng(0).integers(0, 256, (count, 3))
    ends = [*CORNERS, *((i / 255, i / 255, 0.0) for i in range(12))]
    every = np.concatenate([levels / 255, np.array(ends)])
    return torch.from_numpy(every.T.reshape(1, 3, 1, -1)).float()


@pytest.mark.parametrize("colour", CORNERS, ids=str)
def test_the_corners_of_srgb_are_where_everybody_has_them(colour: Colour) -> None:
    assert lab(one(colour)).flatten().tolist() == pytest.approx(CORNERS[colour], abs=0.01)


def test_every_pixel_is_what_the_definition_says() -> None:
    x = colours(500).double()
    found = lab(x)[0, :, 0].T
    expected = [by_definition((r, g, b)) for r, g, b in x[0, :, 0].T.tolist()]
    np.testing.assert_allclose(found.numpy(), np.array(expected), atol=1e-9)


def test_opencv_agrees_as_far_as_its_tables_go() -> None:
    x = colours(2000)
    theirs = cv2.cvtColor(x[0].permute(1, 2, 0).contiguous().numpy(), cv2.COLOR_RGB2Lab)  # [1, N, 3]
    np.testing.assert_allclose(lab(x)[0].permute(1, 2, 0).numpy(), theirs, atol=0.5)


def test_there_and_back_again_loses_no_step_of_eight_bits() -> None:
    x = colours(5000)
    lost = (back(lab(x)[0, :, 0]) - x[0, :, 0]).abs().max().item()
    assert lost < 1 / 255 / 50


def test_gray_has_no_colour() -> None:
    gray = torch.linspace(0, 1, 256).expand(1, 3, 1, 256)
    assert lab(gray)[:, 1:].abs().max().item() < 1e-3
    assert (lab(gray)[0, 0, 0].diff() > 0).all()


def test_normalised_by_what_srgb_reaches_nothing_lies_outside_one() -> None:
    axis = torch.linspace(0, 1, 33)
    cube = torch.cartesian_prod(axis, axis, axis).T.reshape(1, 3, 1, -1)
    found = normalised_lab(cube)[0, :, 0]
    torch.testing.assert_close(found.amax(dim=1), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.amin(dim=1), -torch.ones(3), atol=1e-3, rtol=0)
    middle = normalised_lab(one((0.0, 0.0, 0.0)))[0, :, 0, 0].tolist()  # L = a = b = 0
    assert middle == pytest.approx([-1, -(98.233 - 86.183) / (98.233 + 86.183), 13.379 / 202.335], abs=1e-5)


def test_what_is_no_colour_is_clamped_and_what_is_no_number_stays_none() -> None:
    assert torch.equal(lab(one((-0.5, 2.0, 0.5))), lab(one((0.0, 1.0, 0.5))))
    assert lab(one((float("nan"), 0.5, 0.5))).isnan().all()


def test_lab_is_not_computed_in_half_precision() -> None:
    x = colours(100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lab(x)
    assert found.dtype == torch.float32
    assert torch.equal(found, lab(x))


class Seen(nn.Module):
    """A half that hands out what it sees."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dim = 4 * channels

    def forward(self, x: Tensor) -> Tensor:  # [B, C, 2, 2] -> [B, 4 C]
        return x.flatten(1)


def test_the_halves_see_l_and_ab_of_one_crop_and_stand_side_by_side() -> None:
    split, x = LabSplit(Seen(1), Seen(2)), torch.rand(3, 3, 2, 2)
    expected = normalised_lab(x)
    luminance, chrominance = split.halves(x)
    assert torch.equal(luminance, expected[:, 0].flatten(1))
    assert torch.equal(chrominance, expected[:, 1:].flatten(1))
    assert torch.equal(split(x), torch.cat([luminance, chrominance], dim=1))
    assert (split.dims, split.dim) == ((4, 8), 12)


def test_the_half_that_sees_lightness_does_not_see_colour() -> None:
    """Red and the gray of the same lightness are one to it."""
    red = one((1.0, 0.0, 0.0), torch.float32).expand(2, 3, 16, 16)
    linear = 0.2126729
    level = 1.055 * linear ** (1 / 2.4) - 0.055
    gray = torch.full((2, 3, 16, 16), level)
    split = build_backbone(BackboneConfig(split="lab"), 3, 16, seed=0).eval()
    assert isinstance(split, LabSplit)
    with torch.no_grad():
        (light_red, colour_red), (light_gray, colour_gray) = split.halves(red), split.halves(gray)
    torch.testing.assert_close(light_red, light_gray, atol=1e-4, rtol=0)
    assert (colour_red - colour_gray).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "dims", "first"),
    [
        ("tiny", (64, 64), "stem.weight"),
        ("resnet18", (256, 256), "conv1.weight"),
        ("skresnet18", (256, 256), "conv1.weight"),
        ("vit_tiny_patch16_224", (192, 192), "patch_embed.proj.weight"),
    ],
)
def test_each_half_is_half_as_wide_where_that_can_be_built(name: str, dims: tuple[int, int], first: str) -> None:
    split = build_backbone(BackboneConfig(name=name, split="lab"), 3, 32, seed=0)
    assert isinstance(split, LabSplit)
    assert split.dims == dims
    assert split(torch.rand(2, 3, 32, 32)).shape == (2, sum(dims))
    channels = [half.get_parameter(first).shape[1] for half in (split.luminance, split.chrominance)]
    assert channels == [1, 2]


def test_a_half_resnet_has_the_codes_widths() -> None:
    split = build_backbone(BackboneConfig(name="resnet50", split="lab"), 3, 64, seed=0)
    assert isinstance(split, LabSplit)
    half = split.luminance
    shapes = {name: tuple(half.get_parameter(name).shape[:2]) for name in ("conv1.weight", "layer1.0.conv1.weight")}
    assert shapes == {"conv1.weight": (64, 1), "layer1.0.conv1.weight": (32, 64)}
    assert half.get_parameter("layer4.2.conv3.weight").shape[0] == 1024


def test_the_seed_decides_the_weights_and_the_halves_are_not_alike() -> None:
    a, b, c = (build_backbone(BackboneConfig(split="lab"), 3, 16, seed) for seed in (0, 0, 1))
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
    inner = "stages.0.conv1.weight"
    assert not torch.equal(a.get_parameter(f"luminance.{inner}"), c.get_parameter(f"luminance.{inner}"))
    assert not torch.equal(a.get_parameter(f"luminance.{inner}"), a.get_parameter(f"chrominance.{inner}"))


def test_both_halves_of_a_vit_lose_what_makes_it_take_other_sizes() -> None:
    split = build_backbone(BackboneConfig(name="vit_tiny_patch16_224", split="lab"), 3, 32, seed=0).eval()
    fixed, x = of_one_size(split, "vit_tiny_patch16_224"), torch.rand(2, 3, 32, 32)
    assert isinstance(fixed, LabSplit)
    assert not any(getattr(half, "dynamic_img_size", False) for half in (fixed.luminance, fixed.chrominance))
    assert not fixed.training
    with torch.no_grad():
        assert torch.equal(fixed(x), split(x))


def test_images_that_are_not_red_green_and_blue_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"backbone.split=lab needs images of 3 channels.* got 1; use backbone.split=no"
    ):
        build_backbone(BackboneConfig(split="lab"), 1, 32, seed=0)


def test_weights_of_one_backbone_are_no_start_for_two() -> None:
    with pytest.raises(
        ConfigError, match=r"backbone.split=lab makes two backbones .* than timm:resnet18; remove it, or"
    ):
        BackboneConfig(name="resnet18", split="lab", init="timm:resnet18")


def test_the_split_is_described_beside_the_weights_and_read_back() -> None:
    config = BackboneConfig(width=16, split="lab")
    assert config.described() == {"name": "tiny", "stem": "auto", "width": 16, "split": "lab"}
    assert BackboneConfig.from_description(config.described()) == config
    assert "split" not in BackboneConfig().described()  # as version 0.1 wrote it


@pytest.mark.parametrize("split", ["rgb", 1, None, ["lab"], {}])
def test_a_split_that_nobody_has_is_refused(split: Any) -> None:
    with pytest.raises(ConfigError, match=r"split must be of \('none', 'lab', .*\), got"):
        BackboneConfig.from_description({"name": "tiny", "stem": "auto", "width": 16, "split": split})
