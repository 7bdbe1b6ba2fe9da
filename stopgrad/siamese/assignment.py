"""Objectives over soft assignments to prototypes: SwAV's codes from its own scores, DINO's from a centred teacher; and
what the two need besides: one projector forward for all crops, and the prototypes that both of DINO's branches end in.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import Clock, Views
from stopgrad.losses import sinkhorn, swapped_prediction
from stopgrad.nn.heads import Prototypes, WeightNormPrototypes, wide
from stopgrad.nn.memory import MovingAverage, Queue
from stopgrad.siamese.family import Part, Siamese, Vectors
from stopgrad.siamese.pairs import GLOBALS, Pairs


class MultiCrop(Siamese):
    """The family with the backbone run once a crop size (`bn_batch`), but the projector once over all crops, as SwAV's
    and DINO's code has it: where the projector has batch norm, global and local crops share its statistics."""

    def encode(self, views: Views, which: Sequence[int], backbone: nn.Module, projector: nn.Module) -> Vectors:
        if not which:  # a target that has its views from the online branch asks for none
            return {}
        h = super().encode(views, which, backbone, nn.Identity())
        return dict(zip(h, projector(torch.cat(list(h.values()))).chunk(len(h))))


class SwappedAssignment(Part):
    """Each crop predicts the codes of each global crop but itself. SwAV, arXiv:2006.09882, eq. 2 and 5.

    Codes spread the batches of all processes evenly over the prototypes. With a queue (section 4.3), what the last
    batches looked like is spread with them, one queue a global crop: its features are scored with the prototypes of
    now, and only the batch's codes are used. Features are remembered from `queue_from_epoch` on, and count once they
    fill the queue. With micro-batches, it is one of them that is spread, and what was remembered.

    With a predictor it is what predicts that goes through it, not what is assigned (SimSiam, section 6.2).

    codes: stop, as in the paper; flow lets gradient through Sinkhorn's iterations, into scores and prototypes.
    """

    def __init__(
        self,
        dim: int,
        prototypes: int,
        *,
        temperature: float,
        epsilon: float,
        iterations: int,
        codes: Literal["stop", "flow"],
        frozen_epochs: int,
        queue_size: int,
        queue_from_epoch: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.prototypes = Prototypes(dim, prototypes)
        self.queues = nn.ModuleList(Queue(queue_size, dim, seed) for _ in range(GLOBALS if queue_size else 0))
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.codes = codes
        self.frozen_epochs = frozen_epochs
        self.queue_from_epoch = queue_from_epoch
        self._full = False
        self.register_load_state_dict_post_hook(_look_again)  # type: ignore[no-untyped-call]

    @property
    def says(self) -> str:  # type: ignore[override]
        queue = ", queue" if self._queues else ""
        return f"swapped assignment (prototypes{queue})" + (", gradient through codes" if self.codes == "flow" else "")

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.autocast(index.device.type, enabled=False):  # epsilon and temperature magnify what half cuts off
            scores, wanted = self._scored(p, z, pairs, clock)
        if clock.epoch >= self.queue_from_epoch:
            for queue, view in zip(self._queues, pairs.targets):
                queue.stage(F.normalize(wide(z[view]), dim=1))
        return over_pairs(scores, wanted, pairs, self.temperature)

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        """Half of the cross-entropy's gradient: the code of the other view, in prototypes."""
        scores, wanted = self._scored(p, z, pairs, clock)
        return towards(scores, {view: codes.detach() for view, codes in wanted.items()}, pairs, self.temperature)

    def _scored(self, p: Vectors, z: Vectors, pairs: Pairs, clock: Clock) -> tuple[Vectors, Vectors]:
        """What each view predicts, and what is wanted of it: cosines of p with the prototypes, codes from those of z,
        which is p unless there is a predictor. {view: [B, K]} both."""
        scores = {view: self.prototypes(F.normalize(wide(vectors), dim=1)) for view, vectors in p.items()}
        with nullcontext() if self.codes == "flow" else torch.no_grad():
            own = {
                view: scores[view] if p[view] is z[view] else self.prototypes(F.normalize(wide(z[view]), dim=1))
                for view in pairs.targets
            }
            wanted = {view: self._codes(own[view], place, clock) for place, view in enumerate(pairs.targets)}
        return scores, wanted

    def _codes(self, scores: Tensor, place: int, clock: Clock) -> Tensor:
        """Of one global crop, [B, K]. place: which queue is its."""
        every = dist.gather(scores)  # [world * B, K]
        if self._uses_queues(clock):
            every = torch.cat([every, self.prototypes(self._queues[place].keys)])
        first = dist.rank() * len(scores)
        return sinkhorn(every, self.epsilon, self.iterations)[first : first + len(scores)]

    def _uses_queues(self, clock: Clock) -> bool:
        if not self._queues or clock.epoch < self.queue_from_epoch:
            return False
        if not self._full:  # full once is full for good, and looking waits for the device
            self._full = all(queue.filled() == len(queue.keys) for queue in self._queues)
        return self._full

    @property
    def _queues(self) -> list[Queue]:
        return cast(list[Queue], list(self.queues))

    def before_step(self, clock: Clock) -> None:
        if clock.epoch < self.frozen_epochs:
            self.prototypes.weight.grad = None

    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.prototypes.normalise()
        for queue in self._queues:
            queue.commit()

    def discard(self) -> None:
        for queue in self._queues:
            queue.discard()


class CentredCrossEntropy(Part):
    """Each crop of the student predicts the teacher's distribution over prototypes for each global crop but itself.
    DINO, arXiv:2104.14294, section 3.1.

    The centre is the moving average of what the teacher said before this step, over both global crops, micro-batches
    and processes; this step's moves it after the step. The teacher's temperature rises epoch by epoch, as in the code.
    """

    says = "centred cross-entropy (centre)"
    centre: MovingAverage  # value [1, K]

    def __init__(
        self,
        prototypes: int,
        *,
        student_temperature: float,
        teacher_temperature: float,
        warmup_temperature: float,
        warmup_epochs: int,
        centre_momentum: float,
    ) -> None:
        super().__init__()
        self.centre = MovingAverage([1, prototypes], centre_momentum, first_batch_initialises=False)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.warmup_temperature = warmup_temperature
        self.warmup_epochs = warmup_epochs

    def forward(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> tuple[Tensor, dict[str, Tensor]]:
        temperature = self.temperature_at(clock)
        wanted = {view: F.softmax((t_view - self.centre.value) / temperature, dim=1) for view, t_view in t.items()}
        self.centre.stage(torch.cat(list(t.values())).mean(dim=0, keepdim=True))
        return over_pairs(p, wanted, pairs, self.student_temperature)

    def attraction(
        self, p: Vectors, z: Vectors, t: Vectors, pairs: Pairs, index: Tensor, clock: Clock
    ) -> Tensor | None:
        """Half of the cross-entropy's gradient: what the teacher says, in prototypes."""
        temperature = self.temperature_at(clock)
        wanted = {view: F.softmax((t_view - self.centre.value) / temperature, dim=1) for view, t_view in t.items()}
        return towards(p, wanted, pairs, self.student_temperature)

    def temperature_at(self, clock: Clock) -> float:
        """Of the teacher: in equal steps from the first epoch's to the last's of the warm-up, then constant."""
        if clock.epoch >= self.warmup_epochs:
            return self.teacher_temperature
        done = clock.epoch / max(1, self.warmup_epochs - 1)
        return self.warmup_temperature + done * (self.teacher_temperature - self.warmup_temperature)

    def after_step(self, online: Siamese, clock: Clock) -> None:
        self.centre.commit()

    def discard(self) -> None:
        self.centre.discard()


class SharedPrototypes(Part):
    """The layer that both of DINO's branches end in: unit vectors [B, D] -> logits [B, K], cosines with K directions.

    It stands where a predictor would, so that the projection before it, of moderate width, is what is watched; the
    target's copy of it follows. No gradient moves it in the first `frozen_epochs`.
    """

    says = "none"

    def __init__(self, dim: int, prototypes: int, frozen_epochs: int) -> None:
        super().__init__()
        self.prototypes = WeightNormPrototypes(dim, prototypes)
        self.frozen_epochs = frozen_epochs

    def forward(self, z: Tensor) -> Tensor:
        with torch.autocast(z.device.type, enabled=False):  # bfloat16 is coarse beside a temperature of 0.04
            logits: Tensor = self.prototypes(wide(z))
        return logits

    def before_step(self, clock: Clock) -> None:
        if clock.epoch < self.frozen_epochs:
            self.prototypes.weight.grad = None


def towards(scores: Vectors, wanted: Vectors, pairs: Pairs, temperature: float) -> Tensor:
    """What a cross-entropy of scores [B, K] with what is wanted [B, K] draws by, mean over pairs and images."""
    drawn = [(wanted[target] * scores[online]).sum(dim=1).mean() for online, target in pairs.both]
    return torch.stack(drawn).mean() / temperature


def over_pairs(scores: Vectors, wanted: Vectors, pairs: Pairs, temperature: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of scores [B, K] with what is wanted [B, K], mean over the pairs; for the log, its two parts.

    Cross-entropy is the entropy of what is wanted plus the KL divergence from it. Entropy at ln K: all prototypes
    alike for all images, and at 0: one for all; either way the divergence goes to 0. Both are collapses.
    """
    costs = [swapped_prediction(scores[online], wanted[target], temperature) for online, target in pairs.both]
    loss = torch.stack(costs).mean()
    with torch.no_grad():
        entropies = {view: torch.special.entr(rows).sum(dim=1).mean() for view, rows in wanted.items()}
        entropy = torch.stack([entropies[target] for _, target in pairs.both]).mean()
        return loss, {"target_entropy": entropy, "kl": loss - entropy}


def _look_again(objective: nn.Module, _: object) -> None:
    """Other queues have been loaded."""
    objective._full = False  # type: ignore[assignment]
