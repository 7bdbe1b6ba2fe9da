"""What two towers are worth together: zero-shot classification, and retrieval of captions and of images.

Beside them stand chance, the same towers untrained, and the nearest caption: an encoder without a network that takes an
image for the caption of the training image nearest to it in raw pixels, and a text for a bag of its words. Test images
that are there twice, with several captions, are one image; a caption that several images have is one text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stopgrad.contracts import DataError, Images, Result
from stopgrad.data.captioned import CAPTION, IMAGE, Part
from stopgrad.data.loader import Subset
from stopgrad.eval import cross_retrieval, zero_shot
from stopgrad.eval.config import PROTOCOL, EvalConfig
from stopgrad.eval.extract import Encode, frozen, measure_batch_norm, through
from stopgrad.eval.search import nearest
from stopgrad.eval.table import CHANCE, NEAREST, RANDOM
from stopgrad.eval.task import standardiser
from stopgrad.media import medium_of
from stopgrad.views.captioned_config import CaptionedPreprocess

if TYPE_CHECKING:
    from stopgrad.data import Data

Scores = dict[str, float]
Towers = tuple[nn.Module, nn.Module]  # of images, of text, into one space
BATCH, LONGEST_SHOWN = 256, 300  # texts in a forward; characters of one that is shown
ZERO_SHOT, CAPTION_OF, IMAGE_OF = "zero_shot_top", "image_to_text_r", "text_to_image_r"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The questions, the same for everybody who answers."""

    data: Data
    preprocess: CaptionedPreprocess
    config: EvalConfig
    device: torch.device
    threads: int
    images: Images  # [I], distinct test images
    captions: tuple[bytes, ...]  # [T], distinct test captions; () where the images have none
    pairs: NDArray[np.int64]  # [P, 2], an image and its caption
    classes: tuple[str, ...]  # () without labels
    labels: NDArray[np.int64]  # [I], -1 where nobody said

    def see(self, encode: Encode, images: Images) -> Tensor:
        """[I, D]"""
        index = np.arange(len(images))
        found = through(encode, images, index, self.preprocess.image, self.config.batch_size, self.threads)
        return self.finite(found, "images")

    def read(self, encode: Encode, texts: Sequence[bytes]) -> Tensor:
        """[T, D]"""
        text = self.preprocess.text
        clean, size = medium_of(text).clean, self.config.batch_size
        samples = [np.frombuffer(one, np.uint8) for one in texts]
        parts = [encode(clean(samples[at : at + size], text)) for at in range(0, len(samples), size)]
        return self.finite(torch.cat(parts), "texts")

    @staticmethod
    def finite(found: Tensor, what: str) -> Tensor:
        if not bool(torch.isfinite(found).all()):
            raise DataError(
                f"evaluation: the features of {what} are not finite, so the towers' training diverged; look at the run "
                "with `stopgrad diagnose RUN`"
            )
        return found

    def scores(self, images: Tensor, read: Callable[[Sequence[bytes]], Tensor]) -> Scores:
        """images: [I, D], what somebody makes of them, and of texts by `read`."""
        found: Scores = {}
        known = self.labels >= 0
        if self.classes and known.any():
            vectors = zero_shot.class_vectors(
                lambda texts: read([text.encode() for text in texts]), self.classes, self.config.templates
            )
            right = zero_shot.accuracy(images[torch.from_numpy(known)], vectors, self.labels[known])
            found |= {f"{ZERO_SHOT}{k}": value for k, value in right.items()}
        if self.captions:
            texts = read(self.captions)
            there = cross_retrieval.recall(images, texts, self.pairs)
            back = cross_retrieval.recall(texts, images, self.pairs[:, ::-1])
            found |= {f"{CAPTION_OF}{k}": value for k, value in there.items()}
            found |= {f"{IMAGE_OF}{k}": value for k, value in back.items()}
        return found

    def chance(self) -> Scores:
        found: Scores = {}
        if self.classes and (self.labels >= 0).any():
            wanted = [k for k in zero_shot.TOP if k < len(self.classes)]
            found |= {f"{ZERO_SHOT}{k}": 100.0 * k / len(self.classes) for k in wanted}
        if self.captions:
            there = cross_retrieval.chance(len(self.captions), self.pairs)
            back = cross_retrieval.chance(len(self.images), self.pairs[:, ::-1])
            found |= {f"{CAPTION_OF}{k}": value for k, value in there.items()}
            found |= {f"{IMAGE_OF}{k}": value for k, value in back.items()}
        return found


def asked_of(
    data: Data, preprocess: CaptionedPreprocess, config: EvalConfig, device: torch.device, threads: int
) -> Asked:
    """data: images with captions, or images that only have labels."""
    test = data.test
    paired = len(test) > 0 and isinstance(test[0], tuple)
    images: Images = Part(test, IMAGE) if paired else test
    names = np.array([test.name(i) for i in range(len(test))])
    _, firsts, image = np.unique(names, return_index=True, return_inverse=True)
    captions: dict[bytes, int] = {}
    if paired:
        texts = Part(test, CAPTION)
        caption = [captions.setdefault(texts[i].tobytes(), len(captions)) for i in range(len(test))]
        pairs = np.stack([image.reshape(-1), np.array(caption)], axis=1).astype(np.int64)
    else:
        pairs = np.zeros((0, 2), np.int64)
    labels = test.labels[firsts] if test.labels is not None else np.full(len(firsts), -1)
    classes = tuple(map(zero_shot.in_words, data.classes)) if len(data.classes) > 1 else ()
    return Asked(
        data=data,
        preprocess=preprocess,
        config=config,
        device=device,
        threads=threads,
        images=Subset(images, firsts),
        captions=tuple(captions),
        pairs=pairs,
        classes=classes,
        labels=labels,
    )


def evaluate_pairs(
    towers: Towers,
    fresh: Callable[[int], Towers],
    data: Data,
    preprocess: CaptionedPreprocess,
    config: EvalConfig,
    *,
    seed: int,
    device: torch.device | str,
    threads: int,
    say: Callable[[str], None] | None = None,
) -> list[Result]:
    """Rows of both evaluations: the towers', `baseline_chance_*`, `baseline_nearest_caption_*`, `baseline_random_*`.

    fresh: seed -> the same towers, untrained.  data: images with captions; labelled images without captions get the
    zero-shot rows alone, and none at all where there is neither. Raises DataError (features that are not finite).
    """
    tell = say or (lambda _: None)
    asked = asked_of(data, preprocess, config, torch.device(device), threads)
    likely = asked.chance()
    if not likely:
        return []
    tell(f"evaluation: {len(asked.images):,} images and {len(asked.captions):,} captions through both towers")
    rows = _rows(asked, seed, "", _answers(asked, towers), "weights as handed in")
    rows += _rows(asked, seed, CHANCE, likely, "expected of an order drawn at random")
    if asked.captions:
        tell("evaluation: baseline, the nearest caption")
        rows += _rows(asked, seed, NEAREST, _by_nearest_caption(asked), NEAREST_TOLD)
    seeds = [seed + i for i in range(config.random_seeds)]
    untrained = []
    for position, one in enumerate(seeds):
        tell(f"evaluation: baseline {position + 1} of {len(seeds)}, both towers untrained, seed {one}")
        image, text = fresh(one)
        trained_on = Part(data.train, IMAGE) if asked.captions else data.train
        measure_batch_norm(
            image.to(asked.device),
            trained_on,
            preprocess.image,
            device=asked.device,
            batch_size=config.batch_size,
            threads=threads,
        )
        untrained.append(_answers(asked, (image, text)))
    if untrained:
        mean = {name: sum(one[name] for one in untrained) / len(untrained) for name in likely}
        rows += _rows(asked, seed, RANDOM, mean, f"untrained weights, mean over seeds {', '.join(map(str, seeds))}")
    return rows


def _answers(asked: Asked, towers: Towers) -> Scores:
    image, text = (tower.to(asked.device) for tower in towers)
    bf16 = asked.config.precision == "bfloat16"
    with frozen(image, asked.device, bf16) as see, frozen(text, asked.device, bf16) as read:
        return asked.scores(asked.see(see, asked.images), lambda texts: asked.read(read, texts))


NEAREST_TOLD = (
    "no network: an image is the bag of words of the caption of the training image nearest to it in raw pixels "
    "(standardised, cosine), a text the bag of its own, tf-idf"
)
WEIGHED = 20_000  # training captions that weigh words, at most


def _by_nearest_caption(asked: Asked) -> Scores:
    image, text = (medium_of(one).raw(one) for one in (asked.preprocess.image, asked.preprocess.text))
    train = asked.data.train
    bank, queries = asked.see(image.encode, Part(train, IMAGE)), asked.see(image.encode, asked.images)
    mean, scale = standardiser(bank)
    _, found = nearest((queries - mean) * scale, (bank - mean) * scale, 1)  # [I, 1]
    captions = Part(train, CAPTION)
    some = np.unique(np.linspace(0, len(captions) - 1, min(len(captions), WEIGHED)).astype(np.int64))
    counts = asked.read(text.encode, [captions[int(i)].tobytes() for i in some])
    shift, weight = (text.scale or standardiser)(counts)

    def read(texts: Sequence[bytes]) -> Tensor:
        return (asked.read(text.encode, texts) - shift) * weight

    return asked.scores(read([captions[int(i)].tobytes() for i in found[:, 0]]), read)


def _rows(asked: Asked, seed: int, who: str, scores: Scores, told: str) -> list[Result]:
    data = asked.data
    synthetic = " (synthetic)" if data.synthetic else ""
    image, text = (medium_of(one).in_words(one) for one in (asked.preprocess.image, asked.preprocess.text))
    protocol = (
        f"{PROTOCOL}; data {data.name}{synthetic}, {data.fingerprint[:12]}; split: {data.split_rule}; {image}; {text}; "
        f"towers in {asked.config.precision}; {told}"
    )
    named = f"{len(asked.classes)} classes, templates {', '.join(map(repr, asked.config.templates))}"
    searched = f"{len(asked.captions)} captions of {len(asked.images)} test images, cosine"
    out = []
    for name, value in scores.items():
        is_zero_shot = name.startswith(ZERO_SHOT)
        how = f"zero-shot: {named}" if is_zero_shot else f"retrieval: {searched}"
        n = int((asked.labels >= 0).sum()) if is_zero_shot else len(asked.images)
        if name.startswith(IMAGE_OF):
            n = len(asked.captions)
        out.append(Result(f"{who}{name}", value, n, "test", seed, f"{protocol}; {how}"))
    return out


def captions_found(
    images: Tensor,
    chosen: Sequence[int],
    captions: Sequence[bytes],
    text: nn.Module,
    preprocess: CaptionedPreprocess,
    device: torch.device,
    count: int = 3,
) -> list[dict[str, Any]]:
    """The captions nearest to some images, to be looked at: {image, found: [{text, similarity, own}]}.

    images: [P, D], unit length, and their captions [P], of which each is looked for once.  chosen: positions of both.
    """
    texts = list(dict.fromkeys(captions))
    clean = medium_of(preprocess.text).clean
    with frozen(text.to(device), device) as read:
        samples = [np.frombuffer(one, np.uint8) for one in texts]
        parts = [read(clean(samples[at : at + BATCH], preprocess.text)) for at in range(0, len(samples), BATCH)]
    near, index = nearest(images[list(chosen)], torch.cat(parts), count)  # [C, count] both
    return [
        {
            "image": image,
            "found": [
                {
                    "text": texts[i].decode("utf-8", "replace")[:LONGEST_SHOWN],
                    "similarity": round(value, 3),
                    "own": texts[i] == captions[image],
                }
                for value, i in zip(values, places)
            ],
        }
        for image, values, places in zip(chosen, near.tolist(), index.tolist())
    ]
