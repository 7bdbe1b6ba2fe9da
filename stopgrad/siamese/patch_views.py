"""What happens to each patch by itself before it is encoded (CPC, section 3.2; CPC v2, arXiv:1905.09272).

Drawn from (seed, step, index of the image, place of the patch) alone, so that a resumed run goes on with the same.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad import rng
from stopgrad.contracts import Clock

DRAWS = 5  # numbers a patch


class PatchViews:
    """A random part of the patch, padded back with zeros; a flip; and colours dropped, all but one channel.

    less: pixels by which the part's side is smaller than the patch's, 4 in CPC (60 of 64).  flip, drop_colours:
    probabilities. What is dropped becomes 0, the mean of normalised images.
    """

    def __init__(self, less: int, flip: float, drop_colours: float) -> None:
        self.less, self.flip, self.drop_colours = less, flip, drop_colours

    def __call__(self, patches: Tensor, index: Tensor, clock: Clock) -> Tensor:
        """patches: [B, G, G, C, P, P].  index: [B]. Returns the same shape."""
        if not (self.less or self.flip or self.drop_colours):
            return patches
        x = patches.flatten(0, 2)  # [B * G * G, C, P, P]
        draws = DRAWS * patches.shape[1] * patches.shape[2]
        drawn = rng.uniform(rng.PATCHES, clock.seed, clock.step, index.cpu().numpy(), draws)
        u = torch.from_numpy(drawn).to(x.device).reshape(-1, DRAWS)  # [B * G * G, 5]
        if self.less:
            x = self._part(x, (u[:, :2] * (self.less + 1)).long())
        if self.flip:
            x = torch.where((u[:, 2] < self.flip)[:, None, None, None], x.flip(3), x)
        if self.drop_colours:
            channels = x.shape[1]
            stays = F.one_hot((u[:, 3] * channels).long(), channels).bool() | (u[:, 4] >= self.drop_colours)[:, None]
            x = x * stays[:, :, None, None]
        return x.reshape(patches.shape)

    def _part(self, x: Tensor, corner: Tensor) -> Tensor:
        """x: [N, C, P, P].  corner: [N, 2], rows and columns left out above and to the left."""
        along = torch.arange(x.shape[-1] - self.less, device=x.device)
        rows, columns = corner[:, :1] + along, corner[:, 1:] + along  # [N, P - less] each
        which = torch.arange(len(x), device=x.device)[:, None, None]
        part = x[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # [N, C, P - less, P - less]
        before, after = self.less // 2, self.less - self.less // 2
        return F.pad(part, (before, after, before, after))
