"""The definition of every operation: torchvision's, float32, one image at a time. What the others are tested against.

Where we differ from the PyTorch repositories, which run torchvision on 8-bit Pillow images: nothing is rounded between
operations, and the blur is a Gaussian cut at `blur_radius` and mirrored at the edge (torchvision's) instead of Pillow's
approximation by boxes. torchvision has no colour operation for other than 1 or 3 channels: `colour` says what is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from stopgrad.views.config import CropConfig
from stopgrad.views.params import BRIGHTNESS, CONTRAST, SATURATION, Params, blur_radius
from stopgrad.views.samples import white
from stopgrad.views.sensors import turned, turns_of


def view(
    sample: NDArray[Any], params: Params, i: int, crop: CropConfig, side: int, normals: Sequence[int] = ()
) -> Tensor:
    """Image `sample` [H, W, C] as row `i` of `params` says: [C, S, S], float32, 0 to 1, not normalised.

    normals: channels where normals begin, which are turned with the picture.
    """
    x, y, w, h = params.box[i].tolist()
    image = torch.from_numpy(sample.astype(np.float32)).permute(2, 0, 1) / white(sample.dtype)  # [C, H, W]
    for at in normals:
        matrix = turns_of(params.hflip[i], params.vflip[i], params.turns[i], params.angle[i]).tolist()
        image[at], image[at + 1] = turned(image[at], image[at + 1], matrix)
    mode = F.InterpolationMode(crop.interpolation)
    image = F.resized_crop(image, y, x, h, w, [side, side], interpolation=mode, antialias=True)
    image = image.clamp(0, 1)  # bicubic overshoots; 8-bit images are cut there too
    if params.hflip[i]:
        image = F.horizontal_flip(image)
    if params.vflip[i]:
        image = F.vertical_flip(image)
    if params.turns[i]:
        image = torch.rot90(image, int(params.turns[i]), (1, 2))
    if params.angle[i]:
        image = F.rotate(image, float(params.angle[i]), interpolation=F.InterpolationMode.BILINEAR)
    image = colour(image, params, i)
    if params.sigma[i]:
        sigma = float(params.sigma[i])
        image = F.gaussian_blur(image, [2 * blur_radius(sigma, side) + 1] * 2, [sigma] * 2)
    if params.solarize[i]:
        image = F.solarize(image, crop.solarize_threshold)
    return image


def colour(image: Tensor, params: Params, i: int) -> Tensor:
    """Jitter in the drawn order, then grayscale. image: [C, S, S], 0 to 1.

    One channel has no hue or saturation. Other than 1 or 3 have a brightness and a contrast, about the mean of all
    channels, and no gray.
    """
    if len(image) not in (1, 3):
        return _of_bands(image, params, i)
    for operation in params.order[i].tolist():
        if operation == BRIGHTNESS:
            image = F.adjust_brightness(image, float(params.brightness[i]))
        elif operation == CONTRAST:
            image = F.adjust_contrast(image, float(params.contrast[i]))
        elif operation == SATURATION:
            image = F.adjust_saturation(image, float(params.saturation[i]))
        else:
            image = F.adjust_hue(image, float(params.hue[i]))
    return F.rgb_to_grayscale(image, num_output_channels=image.shape[0]) if params.gray[i] else image


def _of_bands(image: Tensor, params: Params, i: int) -> Tensor:
    for operation in params.order[i].tolist():
        if operation == BRIGHTNESS:
            image = (image * float(params.brightness[i])).clamp(0, 1)
        elif operation == CONTRAST:
            factor = float(params.contrast[i])
            image = (factor * image + (1 - factor) * image.mean()).clamp(0, 1)
    return image
