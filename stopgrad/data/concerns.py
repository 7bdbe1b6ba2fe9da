"""What about the images makes a run unlikely to learn, told before it is started. Cheap: nothing is read for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from stopgrad.data.pack import PackedImages
from stopgrad.data.sources import Data
from stopgrad.views.config import ViewsConfig

FEW = 500  # training images; a first guess, nobody has measured from where SimSiam learns
ENLARGED = 0.75  # of the crop's side: images whose shorter side is below are enlarged even when taken whole
UNEQUAL = 20  # times as many images in the largest class as in the smallest


def concerns(data: Data, views: object, facts: Mapping[str, Any] | None = None) -> list[str]:
    """Sentences, the gravest first.  views: the run's.  facts: what was counted (images, copied, one_colour)."""
    said = []
    known = facts or {}
    total, copied, flat = (int(known.get(key, 0)) for key in ("images", "copied", "one_colour"))
    looked_at = int(known.get("near_looked_at", total))
    if copied:
        much = ": there is little to learn from" if copied > total / 2 else ""
        said.append(f"{copied:,} of {total:,} images are duplicates of others, byte for byte{much}")
    if flat:
        much = ": there is nothing to learn from" if flat > looked_at / 2 else ""
        said.append(f"{flat:,} of {looked_at:,} images are of one colour{much}")
    if len(data.train) < FEW:
        said.append(
            f"{len(data.train):,} training images are very few: the encoder will hardly learn more than they show"
        )
    if isinstance(data.train, PackedImages) and isinstance(views, ViewsConfig):
        image_size = views.image_size
        short = float(np.median(data.train.pack.sizes[data.train.rows].min(axis=1)))
        if short < ENLARGED * image_size:
            said.append(f"images are small: {short:.0f} pixels in the middle, enlarged to views of {image_size}")
    if data.train.labels is not None and data.classes:
        counts = np.bincount(data.train.labels, minlength=len(data.classes))
        if counts.max() >= UNEQUAL * max(1, counts.min()):
            said.append(
                f"classes are uneven: {counts.min():,} training images in the smallest, {counts.max():,} in the "
                "largest; only the evaluation sees classes"
            )
    return said
