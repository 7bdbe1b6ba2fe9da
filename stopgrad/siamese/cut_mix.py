"""CutMix (arXiv:1905.04899) without labels: a part of an image is another image's, and so is its part of the target.

UniGrad (arXiv:2112.05141, tables 3 and 4) trains with it and no source says how; this is our reading. Images of the
step are pasted into each other; targets are those of whole images, and a prediction is compared with
kept * t[i] + (1 - kept) * t[partner], t unit vectors, kept the share of the area that is the image's own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stopgrad import dist, rng
from stopgrad.contracts import Clock, Output, Views
from stopgrad.losses.inputs import widen
from stopgrad.siamese.family import Siamese

GRID = 8  # a box's edges lie on eighths of the side, so that it is the same share of crops of all sizes


class CutMixed(Siamese):
    """The family on mixed images.  share: of the images that are mixed, 0 to 1.

    Which, with which of the step's images over all processes, and where, follows from seed, epoch and index alone, and
    is the same in all views of an image. With loop.accumulate the images of the micro-batch are mixed.
    """

    compares_images = False  # its views are made of each other before they are encoded

    def __init__(self, *, share: float, **parts: Any) -> None:
        super().__init__(**parts)
        self.share = share

    def forward(self, views: Views, clock: Clock) -> Output:
        drawn = rng.uniform(rng.CUT_MIX, clock.seed, clock.epoch, views.index.cpu().numpy(), draws=5)
        device, count = views.index.device, len(drawn) * dist.world()
        partner = torch.from_numpy((drawn[:, 0] * count).astype(np.int64)).to(device)
        boxes = boxes_of(drawn[:, 1:4]) * (drawn[:, 4:5] < self.share)  # [B, 4] eighths; no box: nothing is pasted
        kept = torch.from_numpy(1 - areas(boxes)).to(device)
        crops = list(views.crops)
        for view in self.pairs.online:
            crops[view] = pasted(crops[view], dist.gather(crops[view])[partner], torch.from_numpy(boxes).to(device))
        z = self.encode(Views(tuple(crops), views.index), self.pairs.online, self.backbone, self.projector)
        p = {view: self.predictor(z_view) for view, z_view in z.items()}
        whole = self.target(views, {}, self, self.pairs.targets, clock)  # not of z, which is of mixed images
        t = {view: mixed(rows.detach(), partner, kept) for view, rows in whole.items()}
        loss, logs = self.objective(p, z, t, self.pairs, views.index, clock)
        embedding = torch.cat([z[view].detach() for view in self.pairs.online])
        return Output(loss=loss, embedding=embedding, logs={**logs, "kept": kept.mean()})


def boxes_of(drawn: NDArray[np.float64]) -> NDArray[np.int64]:
    """[B, 3] in [0, 1): the share that is cut out and where its centre lies -> [B, 4]: top, bottom, left, right in
    eighths of the side, cut off at the image's edges. The share is uniform, as with the paper's alpha of 1."""
    half = np.sqrt(drawn[:, :1]) * GRID / 2
    centre = drawn[:, 1:] * GRID
    edges = np.stack([centre - half, centre + half], axis=2).round().clip(0, GRID)  # [B, 2, 2]
    return edges.reshape(len(drawn), 4).astype(np.int64)


def areas(boxes: NDArray[np.int64]) -> NDArray[np.float64]:
    """[B, 4] -> [B], shares of the image."""
    sides = (boxes[:, [1, 3]] - boxes[:, [0, 2]]) / GRID
    found: NDArray[np.float64] = sides.prod(axis=1)
    return found


def pasted(crop: Tensor, other: Tensor, boxes: Tensor) -> Tensor:
    """crop with `other` inside the boxes: [B, C, S, S] twice, [B, 4] eighths of S -> [B, C, S, S]."""
    at = torch.arange(crop.shape[-1], device=crop.device) * GRID // crop.shape[-1]  # [S], which eighth a pixel is in
    rows = (at >= boxes[:, :1]) & (at < boxes[:, 1:2])  # [B, S]
    columns = (at >= boxes[:, 2:3]) & (at < boxes[:, 3:])
    return torch.where((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), other, crop)


def mixed(t: Tensor, partner: Tensor, kept: Tensor) -> Tensor:
    """[B, D] -> [B, D]: unit vectors, each averaged with its partner's, by area."""
    unit = F.normalize(widen(t), dim=1)
    own = kept.to(unit).unsqueeze(1)
    return own * unit + (1 - own) * dist.gather(unit)[partner]
