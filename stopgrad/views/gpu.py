"""The views of a batch in batched torch, on any device, meant for a GPU: float32, the definitions of `exact`.

Crop, antialiased resize and flips are one matrix along each axis, A_y X A_x^T, and so is the blur; a quarter turn is a
transpose and a flip. Operations that only some images drew run on those images alone; which ones is known on the host,
so nothing waits for the device. Images of different sizes are padded to the largest of their chunk; the matrices give
the padding no weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stopgrad.views import colour
from stopgrad.views.config import CropConfig
from stopgrad.views.params import BRIGHTNESS, CONTRAST, HUE, SATURATION, Params, blur_radius
from stopgrad.views.samples import Samples, white
from stopgrad.views.sensors import turned, turns_of

CHUNK_BYTES = 512 * 2**20  # of float32 pixels and matrices at a time

Operation = Callable[..., Tensor]
_COLOURS: tuple[tuple[int, Operation], ...] = (
    (BRIGHTNESS, colour.brightness),
    (CONTRAST, colour.contrast),
    (SATURATION, colour.saturation),
    (HUE, colour.hue),
)


def chunks(sizes: NDArray[np.int64], channels: int, side: int) -> Iterator[slice]:
    """Slices of a batch, in order, that fit in CHUNK_BYTES. sizes: [B, 2], (height, width)."""
    height, width = int(sizes[:, 0].max()), int(sizes[:, 1].max())
    floats = channels * (height + side) * (width + side) + (1 + channels) * side * (height + width + 2 * side)
    step = max(1, CHUNK_BYTES // (4 * floats))
    return (slice(start, min(start + step, len(sizes))) for start in range(0, len(sizes), step))


def stage(samples: Samples, device: torch.device) -> Tensor:
    """Images [H, W, C] of any size -> [B, C, H, W] on `device`, float32, 0 to 1, zeros beside smaller ones."""
    if isinstance(samples, np.ndarray):
        stacked = np.array(samples)  # a copy: a memory map is not torch's to write
    else:
        height, width = (max(sample.shape[axis] for sample in samples) for axis in (0, 1))
        stacked = np.zeros((len(samples), height, width, samples[0].shape[2]), dtype=samples[0].dtype)
        for place, sample in zip(stacked, samples, strict=True):
            place[: sample.shape[0], : sample.shape[1]] = sample
    tensor = torch.from_numpy(stacked)
    if device.type == "cuda":
        tensor = tensor.pin_memory().to(device, non_blocking=True)
    return tensor.permute(0, 3, 1, 2).float().div_(white(stacked.dtype))  # [B, C, H, W]


def apply(images: Tensor, params: Params, crop: CropConfig, side: int, normals: Sequence[int] = ()) -> Tensor:
    """images [B, C, H, W], 0 to 1 -> [B, C, S, S], 0 to 1, not normalised.

    normals: channels where normals begin, which are turned with the picture.
    """
    if normals:
        images = _with_turned(images, params, normals)
    x = geometry(images, params, crop.interpolation, side)
    if x.shape[1] == 3:
        shifts = {BRIGHTNESS: params.brightness, CONTRAST: params.contrast}
        shifts |= {SATURATION: params.saturation, HUE: params.hue}
    else:
        shifts = {BRIGHTNESS: params.brightness, CONTRAST: params.contrast}
    for place in range(4):
        for operation, run in _COLOURS:
            if operation in shifts:
                factor = shifts[operation]
                drawn = (params.order[:, place] == operation) & (factor != (0.0 if operation == HUE else 1.0))
                _on(x, drawn, run, factor)
    if x.shape[1] == 3:
        _on(x, params.gray, colour.gray)
    _on(x, params.sigma > 0, _blur, params.sigma)
    _on(x, params.solarize, lambda part: torch.where(part >= crop.solarize_threshold, 1 - part, part))
    return x


def _with_turned(images: Tensor, params: Params, normals: Sequence[int]) -> Tensor:
    images = images.clone()  # other crops are made of them too
    entries = turns_of(params.hflip, params.vflip, params.turns, params.angle).astype(np.float32)  # [B, 2, 2]
    matrix = _send(entries, images.device).permute(1, 2, 0)[..., None, None]  # [2, 2, B, 1, 1]
    for x in normals:
        images[:, x], images[:, x + 1] = turned(images[:, x], images[:, x + 1], matrix)
    return images


def _on(x: Tensor, drawn: NDArray[np.bool_], run: Operation, *values: NDArray[np.float64]) -> None:
    """x[drawn] = run(x[drawn], *values[drawn]), in place. Each value arrives as a tensor [b, 1, 1, 1]."""
    rows = np.flatnonzero(drawn)
    if not len(rows):
        return
    numbers = (_send(value[rows].astype(np.float32), x.device)[:, None, None, None] for value in values)
    if len(rows) == len(x):
        x.copy_(run(x, *numbers))
        return
    index = _send(rows, x.device)
    x.index_copy_(0, index, run(x.index_select(0, index), *numbers))


def _send(values: NDArray[np.generic], device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(device, non_blocking=True)


def geometry(images: Tensor, params: Params, interpolation: str, side: int) -> Tensor:
    """[B, C, H, W] -> [B, C, S, S]: crop, resize, flip, turn."""
    # Counter-clockwise, 90 degrees is a horizontal flip and then a transpose; 270 a vertical flip and then a transpose.
    odd = params.turns % 2 == 1
    across = params.hflip ^ ((params.turns == 1) | (params.turns == 2))
    down = params.vflip ^ ((params.turns == 3) | (params.turns == 2))
    box = _send(params.box.astype(np.float32), images.device)
    rows = _weights(box[:, 1], box[:, 3], _send(down, images.device), (images.shape[2], side), interpolation)
    columns = _weights(box[:, 0], box[:, 2], _send(across, images.device), (images.shape[3], side), interpolation)
    x = (rows[:, None] @ images @ columns[:, None].transpose(2, 3)).clamp_(0, 1)  # [B, C, S, S]; bicubic overshoots
    _on(x, odd, lambda part: part.transpose(2, 3).contiguous())  # where all are turned, it is written over itself
    _on(x, params.angle != 0, _rotate, params.angle)
    return x


def _weights(start: Tensor, length: Tensor, flip: Tensor, sizes: tuple[int, int], interpolation: str) -> Tensor:
    """The antialiased resize of `length` pixels from `start` (both [B]) as matrices [B, S, H], for sizes (H, S)."""
    source, side = sizes
    scale = (length / side)[:, None]  # [B, 1], source pixels a pixel
    place = torch.arange(side, device=start.device) + 0.5  # [S]
    place = torch.where(flip[:, None], side - place, place)  # [B, S]
    centre = start[:, None] + place * scale
    pixel = torch.arange(source, device=start.device) + 0.5  # [H]
    distance = ((pixel - centre[:, :, None]) / scale.clamp(min=1)[:, :, None]).abs()  # [B, S, H]
    inside = (pixel > start[:, None]) & (pixel < (start + length)[:, None])  # [B, H]
    kernel = _cubic(distance) if interpolation == "bicubic" else (1 - distance).clamp_(min=0)
    weights = kernel * inside[:, None]
    return weights / weights.sum(dim=2, keepdim=True)


def _cubic(d: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5, as Pillow and torch's antialiased resize have it (torch without antialias: -0.75)."""
    near = (1.5 * d - 2.5) * d * d + 1
    far = ((-0.5 * d + 2.5) * d - 4) * d + 2
    return torch.where(d < 1, near, torch.where(d < 2, far, 0.0))


def _rotate(x: Tensor, degrees: Tensor) -> Tensor:
    """By `degrees` [b, 1, 1, 1] counter-clockwise about the centre, black outside."""
    angle = torch.deg2rad(degrees[:, 0, 0, 0])
    cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    theta = torch.stack([cos, -sin, zero, sin, cos, zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _blur(x: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian of `sigma` [b, 1, 1, 1] pixels along both axes, mirrored at the edge: one matrix [S, S] an image."""
    side = x.shape[2]
    spread = sigma[:, 0, 0]  # [b, 1]
    reach = blur_radius(float(sigma.max()), side)
    offset = torch.arange(-reach, reach + 1, device=x.device)  # [T]
    taps = torch.exp(-0.5 * (offset / spread) ** 2)  # [b, T]
    taps = taps * (offset.abs() <= (3 * spread).ceil())
    taps = taps / taps.sum(dim=1, keepdim=True)
    place = (torch.arange(side, device=x.device)[:, None] + offset).abs()  # [S, T]; mirrored at 0, then at S - 1
    place = side - 1 - (side - 1 - place).abs()
    fold = F.one_hot(place, side).to(x.dtype)  # [S, T, S]: which pixel a tap reads
    matrix = torch.einsum("bt,sth->bsh", taps, fold)[:, None]  # [b, 1, S, S]
    return matrix @ x @ matrix.transpose(2, 3)
