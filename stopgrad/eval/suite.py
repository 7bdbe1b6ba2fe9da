"""Every evaluation, of one encoder, beside its baselines: the table, and what runs it.

Several encoders answer the same questions about the same samples: the trained backbone; the same backbone
untrained, its batch norm measured on training images, as the mean of several seeds; the samples without a network (raw
pixels of images); and whatever other encoders the caller names, each through its own preprocessing. The test split
reports and never selects: the one choice there is (the strength of a probe's penalty) is made inside the training
split, and the weights are those handed in.

To add an evaluation: a function (Encoded, Task) -> rows in a file of its own, and a line in EVALS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stopgrad import rng
from stopgrad.contracts import Batch, DataError, Maker, Result
from stopgrad.eval import labelfree, neighbours, probes, segments
from stopgrad.eval.config import PROTOCOL, EvalConfig
from stopgrad.eval.extract import BATCH_NORM_IMAGES, Encode, frozen, measure_batch_norm, through
from stopgrad.eval.table import BASELINE, CHANCE, RANDOM
from stopgrad.eval.task import Encoded, Task, standardiser
from stopgrad.eval.tower import raw_of, seen_by
from stopgrad.media import AnyPreprocess, AnyViews, medium_of

if TYPE_CHECKING:
    from stopgrad.data import Data

# (bank [N, D]) -> (shift, scale), [D] each. Cosines of raw pixels move by a point with the mean and std of the recipe;
# the baseline should not.
Scaling = Callable[[Tensor], tuple[Tensor, Tensor]]

EVALS: dict[str, Callable[[Encoded, Task], list[Result]]] = {
    "knn": neighbours.run,
    "linear": probes.run,
    "retrieval": labelfree.retrieval,
    "geometry": labelfree.geometry,
    "segments": segments.run,
}
NAMING = ("knn", "linear")  # those that name a label; asked for each attribute of the data too


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """An encoder that is scored beside the one in question: its rows are `baseline_KEY_*`."""

    backbone: nn.Module
    preprocess: AnyPreprocess
    told: str  # what it is, in words, for the protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """The images of one evaluation, read again for every encoder, so that memory holds no more than one batch."""

    data: Data
    preprocess: AnyPreprocess
    maker: Maker
    chosen: NDArray[np.int64]  # [P], test images that get two views
    config: EvalConfig
    threads: int
    labelled: bool

    def encoded(
        self, encode: Encode, *, scaling: Scaling | None = None, pixels: tuple[int, int, int] | None = None
    ) -> Encoded:
        """scaling: of features by the bank's, for kNN."""
        bank = queries = None
        if self.labelled:
            bank = self._through(encode, "train", np.arange(len(self.data.train)))
            queries = self._through(encode, "test", np.arange(len(self.data.test)))
            clean = queries[torch.from_numpy(self.chosen)]
            if scaling:
                mean, scale = scaling(bank)
                bank.sub_(mean).mul_(scale)
                queries.sub_(mean).mul_(scale)
        else:
            clean = self._through(encode, "test", self.chosen)
        first, second = self._views(encode)
        return Encoded(bank=bank, queries=queries, clean=clean, first=first, second=second, pixels=pixels)

    def _through(self, encode: Encode, split: str, index: NDArray[np.int64]) -> Tensor:
        images = self.data.train if split == "train" else self.data.test
        found = through(encode, images, index, self.preprocess, self.config.batch_size, self.threads)
        if not bool(torch.isfinite(found).all()):
            bad = index[int((~torch.isfinite(found).all(dim=1)).nonzero()[0])]
            raise DataError(
                f"evaluation: the features are not finite (first at {split} sample {bad}), so the encoder's training "
                "diverged; needed are finite weights: look at the run with `stopgrad diagnose RUN`"
            )
        return found

    def _views(self, encode: Encode) -> tuple[Tensor, Tensor]:
        """Features [P, D] of two views of each chosen image: of epoch 0, the same for every encoder."""
        first, second = [], []
        for start in range(0, len(self.chosen), self.config.batch_size):
            index = self.chosen[start : start + self.config.batch_size]
            samples = self.data.test.take(index)
            crops = self.maker(Batch(samples, index, epoch=0)).crops
            if len(crops) == 1:  # a recipe of one view an image: the second is the next epoch's
                crops = crops + self.maker(Batch(samples, index, epoch=1)).crops
            first.append(encode(crops[0]))
            second.append(encode(crops[1]))
        return torch.cat(first), torch.cat(second)


def evaluate(
    backbone: nn.Module,
    fresh: Callable[[int], nn.Module],
    data: Data,
    preprocess: AnyPreprocess,
    views: AnyViews,
    config: EvalConfig,
    *,
    seed: int,
    device: torch.device | str,
    threads: int,
    say: Callable[[str], None] | None = None,
    others: Mapping[str, Other] | None = None,
) -> list[Result]:
    """Rows of every evaluation: the backbone's, `baseline_random_*`, `baseline_RAW_*`, `baseline_KEY_*` of `others`.

    fresh: seed -> the same architecture, untrained.  preprocess, views: the encoder's own test transform and training
    views, with the same mean and std.  say: told what is being done, a line at a time. Rows that need labels are there
    where both splits have them, and again for each attribute of the data, NAME_ATTRIBUTE. Raises DataError (a split
    without images, features that are not finite), ConfigError.
    """
    device, tell = torch.device(device), say or (lambda _: None)
    with _reader(data, preprocess, views, config, seed, device, threads) as reader:
        task = _task(reader, seed, device)
        count = len(data.train) + len(data.test) if reader.labelled else len(reader.chosen)
        tell(f"evaluation: {count:,} {task.many} through the encoder")
        backbone = seen_by(backbone.to(device), preprocess, config.tower)
        with frozen(backbone, device, config.precision == "bfloat16") as encode:
            own = _score(reader.encoded(encode), replace(task, protocol=f"{task.protocol}; weights as handed in"))
        seeds = [seed + i for i in range(config.random_seeds)]
        untrained = []
        for position, one in enumerate(seeds):
            tell(f"evaluation: baseline {position + 1} of {len(seeds) + 1}, the same backbone untrained, seed {one}")
            untrained.append(_untrained(seen_by(fresh(one).to(device), preprocess, config.tower), reader, task))
        raw = raw_of(preprocess, config.tower)
        tell(f"evaluation: baseline {len(seeds) + 1} of {len(seeds) + 1}, {raw.told}")
        bare = _score(
            reader.encoded(raw.encode, scaling=raw.scale or standardiser, pixels=raw.pixels),
            replace(task, protocol=f"{task.protocol}; {raw.protocol}"),
        )
    rows = [*own, *_mean(untrained, seeds), *(replace(row, name=f"{BASELINE}{raw.name}_{row.name}") for row in bare)]
    rows += [replace(row, name=CHANCE + row.name) for row in segments.chance(task)]
    for key, other in (others or {}).items():
        tell(f"evaluation: {other.told}")
        rows += [
            replace(row, name=f"{BASELINE}{key}_{row.name}")
            for row in _other(other, data, views, config, seed, device, threads)
        ]
    return rows


def _other(
    other: Other, data: Data, views: AnyViews, config: EvalConfig, seed: int, device: torch.device, threads: int
) -> list[Result]:
    own = other.preprocess
    views = medium_of(own).refitted(views, own)
    with _reader(data, own, views, config, seed, device, threads) as reader:
        task = _task(reader, seed, device)
        backbone = seen_by(other.backbone.to(device), own, config.tower, or_all=True)
        with frozen(backbone, device, config.precision == "bfloat16") as encode:
            return _score(reader.encoded(encode), replace(task, protocol=f"{task.protocol}; {other.told}"))


def _score(encoded: Encoded, task: Task) -> list[Result]:
    rows = [row for run in EVALS.values() for row in run(encoded, task)]
    for name, (bank, queries) in task.attributes.items():
        asked = replace(task, bank_labels=bank, query_labels=queries, protocol=f"{task.protocol}; {name} is named")
        rows += [replace(row, name=f"{row.name}_{name}") for key in NAMING for row in EVALS[key](encoded, asked)]
    return rows


def _untrained(backbone: nn.Module, reader: _Reader, task: Task) -> list[Result]:
    config, bf16 = reader.config, reader.config.precision == "bfloat16"
    measure_batch_norm(
        backbone,
        reader.data.train,
        reader.preprocess,
        device=task.device,
        batch_size=config.batch_size,
        threads=reader.threads,
        bf16=bf16,
    )
    looked_at = min(BATCH_NORM_IMAGES, len(reader.data.train))
    told = f"untrained weights, batch norm measured on {looked_at} training {task.many}"
    with frozen(backbone, task.device, bf16) as encode:
        return _score(reader.encoded(encode), replace(task, protocol=f"{task.protocol}; {told}"))


def _mean(runs: list[list[Result]], seeds: list[int]) -> list[Result]:
    """One row of each name from one a seed; what each seed gave stands in the protocol."""
    out = []
    for same in zip(*runs, strict=True):
        values = [row.value for row in same if isinstance(row.value, float)]
        mean = sum(values) / len(values) if len(values) == len(same) else None
        each = ", ".join(f"{seed}: {value:.4g}" for seed, value in zip(seeds, values)) if mean is not None else "none"
        told = f"{same[0].protocol}; mean over seeds ({each}), what was chosen is seed {seeds[0]}'s"
        out.append(replace(same[0], name=RANDOM + same[0].name, value=mean, protocol=told))
    return out


@contextmanager
def _reader(
    data: Data,
    preprocess: AnyPreprocess,
    views: AnyViews,
    config: EvalConfig,
    seed: int,
    device: torch.device,
    threads: int,
) -> Iterator[_Reader]:
    for split, images in (("training", data.train), ("test", data.test)):
        if len(images) == 0:
            many = medium_of(preprocess).many
            raise DataError(f"evaluation: {data.name} has no {split} {many}; at least one is needed, check --data")
    medium = medium_of(preprocess)
    medium.check_fit(views, preprocess)
    maker = medium.maker(views, preprocess, seed, device, threads)
    try:
        yield _Reader(
            data=data,
            preprocess=preprocess,
            maker=maker,
            # A shuffle, since test splits often come class by class; in the split's order for quick reading.
            chosen=np.sort(rng.permutation(len(data.test), seed, 1, rng.EVAL)[: config.retrieval_images]),
            config=config,
            threads=threads,
            labelled=_has_labels(data) or bool(data.attributes) or data.occurring is not None,
        )
    finally:
        maker.close()


def _has_labels(data: Data) -> bool:
    return data.train.labels is not None and data.test.labels is not None


def _task(reader: _Reader, seed: int, device: torch.device) -> Task:
    data, medium = reader.data, medium_of(reader.preprocess)
    synthetic = " (synthetic)" if data.synthetic else ""
    protocol = (
        f"{PROTOCOL}; data {data.name}{synthetic}, {data.fingerprint[:12]}; {len(data.train)} training {medium.many}, "
        f"test reports ({len(data.test)} {medium.many}, split: {data.split_rule}), nothing selected on test; "
        f"{medium.in_words(reader.preprocess)}, "
        f"backbone in {reader.config.precision}"
    ) + (f", features of {reader.config.tower} alone" if reader.config.tower else "")
    return Task(
        config=reader.config,
        bank_labels=data.train.labels if _has_labels(data) else None,
        query_labels=data.test.labels if _has_labels(data) else None,
        attributes={name: (known.train, known.test) for name, known in data.attributes.items()},
        occurring=(data.occurring.train, data.occurring.test) if data.occurring is not None else None,
        device=device,
        seed=seed,
        protocol=protocol,
        many=medium.many,
    )
