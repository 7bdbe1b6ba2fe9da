"""Is it healthy? Measured on held-out images while the run goes on, without labels and without leaving a trace.

Backbone and head run in train-mode batch norm, as they train, with the running statistics put back afterwards. The
views are the run's own law, drawn once. An online kNN is shown where labels exist; the verdict never sees it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stopgrad import rng
from stopgrad.contracts import Batch, Clock, Images, Views
from stopgrad.diagnose import diagnose
from stopgrad.eval import knn_top1
from stopgrad.losses import geometry
from stopgrad.media import AnyPreprocess, medium_of
from stopgrad.method import Method
from stopgrad.nn.batch_norm import untouched_statistics
from stopgrad.rundir import RunDir
from stopgrad.training.config import WatchConfig

CHUNK = 256  # images a forward: batch norm needs many, memory few
SPECTRUM = 16  # singular values written to the log, largest first, as shares of their sum


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """What the online kNN needs: held-out queries, a bank of training images, and both sides' labels."""

    bank: Images
    queries: Images
    preprocess: AnyPreprocess


class Watch:
    """Called after every step; measures when it is due and returns fields for the log."""

    def __init__(
        self,
        *,
        method: Method,
        held: Images,
        make_views: Callable[[Batch], Views],
        labelled: Labelled | None,
        config: WatchConfig,
        recipe: dict[str, Any],
        run: RunDir,
        device: torch.device,
        bf16: bool,
        threads: int,
        also: Callable[[], Mapping[str, float]] | None = None,
        reaching: Callable[[Clock], Mapping[str, float]] | None = None,
        predicting: Callable[[Tensor, Tensor, Sequence[Tensor]], Mapping[str, float]] | None = None,
    ) -> None:
        """also: numbers of the method's own, measured with the others.  reaching: of watch.gradients.  predicting: of
        watch.predictor, from projections of two views and of more."""
        self.method = method
        self.config = config
        self.labelled = labelled
        self.recipe = recipe
        self.run = run
        self.device = device
        self.bf16 = bf16
        self.threads = threads
        self.also = also or dict
        self.reaching = reaching or (lambda _: {})
        self.predicting = predicting
        self.held = held
        self.make_views = make_views
        # shuffled: splits come class by class, and a batch norm that sees one class at a time measures something else
        index = rng.permutation(len(held), seed=0, epoch=0, purpose=rng.WATCH)
        samples = held.take(index)
        # an epoch no run reaches, so that these views are nobody's training views
        self.epoch = rng.key(rng.WATCH) >> 33
        self.views = make_views(Batch(samples, index, epoch=self.epoch))
        self.facts = data_facts(samples, self.views)
        self.history: list[dict[str, Any]] | None = None

    def __call__(self, clock: Clock, logged: Callable[[], Mapping[str, float | None]]) -> dict[str, Any]:
        last = clock.step >= clock.total_steps
        due = clock.step % self.config.every_steps == 0 or last
        knn_due = clock.step % self.config.knn_every_steps == 0 or last
        if not due and not (self.labelled and knn_due):
            return {}
        if self.history is None:  # after a resume the log has already been cut to the checkpoint
            self.history = [line for line in self.run.read_log() if "std_ratio" in line]
        fields: dict[str, Any] = {}
        was_training = self.method.training
        self.method.train()
        with torch.no_grad(), untouched_statistics(self.method), torch.random.fork_rng():
            if due:
                fields |= self.measure() | dict(self.also()) | dict(self.reaching(clock)) | self.prediction()
            if self.labelled is not None and knn_due:
                fields["knn_top1"] = self.online_knn(self.labelled)
        self.method.train(was_training)
        if due:
            if clock.step == 0:
                fields |= self.facts
            # the kNN and other labelled numbers stay out of the history the verdict is made from
            known = {name: value for name, value in fields.items() if name != "knn_top1"}
            line = {"step": clock.step, "epoch": clock.step / clock.steps_per_epoch, **logged(), **known}
            # as the log has it, so that a resumed run and one that was not say the same
            self.history.append({name: _finite(value) for name, value in line.items()})
            said = diagnose(self.history, self.recipe)
            fields["verdict"] = said.verdict
            if said.verdict == "collapsed" and self.config.stop_on_collapse:
                fields["stop"] = f"step {clock.step}: collapsed, stopping as asked. {said.sentence()}"
        return {name: _finite(value) for name, value in fields.items()}

    def measure(self) -> dict[str, Any]:
        """All label-free numbers. `z` is the projection, `h` the backbone's features.

        Where the method compares kinds of view, a second view is another kind of the same crop, and told apart are
        projections: the kinds' features have no space in common.
        """
        first, second = self.views.crops[:2]
        h0, z0 = self._embed(first)
        across = self._in_parts(self.method.across, first)
        if across is None:
            h1, z1 = self._embed(second)
            a, b, c, d = z0, z1, h0, h1
        else:
            a, b = c, d = across
        return {
            "std_ratio": geometry.std_ratio(z0),
            "rank_z": geometry.effective_rank(z0),
            "rank_h": geometry.effective_rank(h0),
            "spectrum_z": _shares(geometry.singular_values(z0)),
            "spectrum_h": _shares(geometry.singular_values(h0)),
            "correlation_z": geometry.correlation(z0),
            "alignment": geometry.alignment(a, b),
            "uniformity": geometry.uniformity(z0),
            "dead_h": geometry.dead_dimensions(h0),
            "cosine_positive": float(F.cosine_similarity(a, b).mean()),
            "cosine_random": float(F.cosine_similarity(a, b.roll(1, dims=0)).mean()),
            "retrieval_h": geometry.retrieval_at_1(c, d),
            "retrieval_z": geometry.retrieval_at_1(a, b),
            "separation_h": geometry.separation(c, d),
        }

    def prediction(self) -> dict[str, float]:
        """Of watch.predictor. The same further views every time, made again: they are many."""
        if self.predicting is None:
            return {}
        index = np.asarray(self.views.index)
        first, second = (self._embed(crop)[1] for crop in self.views.crops[:2])
        others = []
        for more in range(1, self.config.predictor + 1):
            views = self.make_views(Batch(self.held.take(index), index, epoch=self.epoch + more))
            others.append(self._embed(views.crops[0])[1])
        return dict(self.predicting(first, second, others))

    def online_knn(self, labelled: Labelled) -> float:
        """Top-1 of held-out training images, k = 20, features of the backbone; percent."""
        bank, queries = labelled.bank, labelled.queries
        assert bank.labels is not None
        assert queries.labels is not None
        x, y = self._features(bank, labelled.preprocess), self._features(queries, labelled.preprocess)
        return knn_top1(x, bank.labels, y, queries.labels, k=min(20, len(bank)), temperature=0.1)

    def rehearse(self) -> None:
        """One measurement of everything, thrown away, to know what it costs."""
        self.method.train()
        with torch.no_grad(), untouched_statistics(self.method):
            self.measure()
            self.also()
            if self.labelled is not None:
                self.online_knn(self.labelled)

    def _embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        found = self._in_parts(self.method.embed, crop)
        assert found is not None
        return found

    def _in_parts(
        self, of: Callable[[Tensor], tuple[Tensor, Tensor] | None], crop: Tensor
    ) -> tuple[Tensor, Tensor] | None:
        """What a function of the method's makes of a crop, some hundred images at a time; None where it has nothing."""
        parts = []
        for chunk in crop.tensor_split(parts_of(len(crop))):
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                part = of(chunk.to(self.device))
            if part is None:
                return None
            parts.append(part)
        return torch.cat([one.float() for one, _ in parts]), torch.cat([other.float() for _, other in parts])

    def _features(self, images: Images, preprocess: AnyPreprocess) -> Tensor:
        parts = []
        order = rng.permutation(len(images), seed=0, epoch=0, purpose=rng.WATCH)
        for index in np.array_split(order, parts_of(len(images))):
            x = medium_of(preprocess).clean(images.take(index), preprocess, self.threads)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
                parts.append(self.method.trunks()["backbone"](x.to(self.device)).float().cpu())
        found = torch.cat(parts)
        return found[torch.from_numpy(np.argsort(order))]  # back in the split's order, beside its labels


def parts_of(count: int) -> int:
    """How many forwards `count` images make: about CHUNK each and equal, so that none sees a remainder of a few."""
    return max(1, round(count / CHUNK))


def data_facts(samples: Any, views: Views) -> dict[str, Any]:
    """What the data alone says, once: a run on one image a thousand times over can't learn, whatever the method."""
    distinct = len({_content(sample) for sample in samples})
    pixels, other = (crop.flatten(1).float() for crop in views.crops[:2])
    comparable = pixels.shape == other.shape  # an image and its caption are not
    return {
        "held_images": len(views.index),
        "held_distinct": distinct,
        "pixel_std": float(pixels.std(dim=0).mean()),
        "pixel_retrieval": geometry.retrieval_at_1(pixels, other) if comparable else None,
    }


def _content(sample: Any) -> bytes:
    """Of a sample, of all parts of one that has several."""
    return b"".join(part.tobytes() for part in sample) if isinstance(sample, tuple) else bytes(sample.tobytes())


def _shares(singular: Tensor) -> list[float | None]:
    return [_finite(float(value)) for value in singular[:SPECTRUM] / singular.sum().clamp_min(1e-30)]


def _finite(value: Any) -> Any:
    """A float to six decimals, None where JSON has no number for it; anything else as it is."""
    if not isinstance(value, float):
        return value
    return round(value, 6) if math.isfinite(value) else None
