"""A cheap look at a source of sounds, before anything is decoded: how many, how long, at what rates."""

from __future__ import annotations

import contextlib
import io
from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data.layout import TRAIN
from stopgrad.data.sound import SOUNDS, library
from stopgrad.data.sources import SOURCES, list_source

HEADERS, HEAD_BYTES = 256, 1 << 24  # files looked at, spread evenly; bytes of each at most


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundProbe:
    """What is known of a source from its list of files and some headers."""

    sounds: int
    train: int  # about how many of them are for training
    seconds: NDArray[np.float64]  # [S], of those looked at
    rate: int  # Hz, of most of those


def holds_sounds(source: str) -> bool:
    """Whether a source has sounds and no image; False for one that can't be listed, which others say better."""
    from stopgrad.data.folder import IMAGES

    if source.partition(":")[0] in (*SOURCES, "hf"):
        return False
    try:
        return _count(source, SOUNDS) > 0 and _count(source, IMAGES) == 0
    except (DataError, MissingInputError, ConfigError):
        return False


def _count(source: str, wanted: object) -> int:
    from stopgrad.data.listing import sample

    try:
        with contextlib.closing(list_source(source, wanted)) as listing:  # type: ignore[arg-type]
            known = listing.count()
            return sample(listing, 1, 64)[0] if known is None else known
    except MissingInputError:  # none of this kind
        return 0


def probe_sounds(source: str) -> SoundProbe:
    """Raises what `open_audio` raises for a source that is not there, MissingInputError where no sound can be read."""
    from stopgrad.data.listing import sample

    with contextlib.closing(list_source(source, SOUNDS)) as listing:
        count, heads = sample(listing, HEADERS, HEAD_BYTES)
        split = listing.layout(np.arange(count)).split
        said = listing.layout(np.arange(count)).rule
    found = [one for _, _, head in heads if (one := _look(head)) is not None]
    if not found:
        raise MissingInputError(f"data.source: none of the {len(heads)} files looked at is a sound that can be read")
    train = int((split == TRAIN).sum())
    rates = Counter(rate for _, rate in found)
    return SoundProbe(
        sounds=count,
        train=train if said else round(0.8 * train),
        seconds=np.array([seconds for seconds, _ in found]),
        rate=rates.most_common(1)[0][0],
    )


def _look(head: bytes) -> tuple[float, int] | None:
    """(seconds, Hz) by the header; None where it can't be read."""
    reader = library()
    try:
        with reader.SoundFile(io.BytesIO(head)) as file:
            return (float(file.frames / file.samplerate), int(file.samplerate)) if file.samplerate > 0 else None
    except Exception:  # soundfile raises its own, and whatever the bytes lead it into
        return None
