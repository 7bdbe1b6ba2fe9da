"""MoCo's studies (v1: arXiv:1911.05722, v2: arXiv:2003.04297)."""

from __future__ import annotations

from stopgrad.study.lab.claims import BetterThanRandom, Higher
from stopgrad.study.lab.definition import NOT_READ, Case, Study

V1, V2 = "MoCo, arXiv:1911.05722", "MoCo v2, arXiv:2003.04297"
LINEAR = "linear probe, ImageNet, ResNet-50, 200 epochs"
MLP = ("method.projector.layers=2", "method.projector.hidden=1024", "method.temperature=0.2")
BLUR = ("views.crops.*.blur=0.5",)

versions = Study(
    name="moco/versions",
    title="What of MoCo v2 is worth what?",
    question="MoCo v1 with v2's changes, one at a time.",
    source=f"{V2}, table 1",
    measured=LINEAR,
    method="moco_v1",
    cases=(
        Case(name="v1", paper=60.6),
        Case(name="with an MLP, temperature 0.2", paper=66.2, settings=MLP),
        Case(name="with more augmentation", paper=63.4, settings=BLUR),
        Case(name="with both", paper=67.3, settings=(*MLP, *BLUR)),
        Case(name="v2", method="moco_v2", paper=67.5),
    ),
    claims=(
        Higher(words="an MLP is better than a linear layer", of="with an MLP, temperature 0.2", than="v1"),
        Higher(words="so is more augmentation", of="with more augmentation", than="v1"),
        Higher(words="both are better than either", of="with both", than="with more augmentation"),
    ),
)

TEMPERATURES = {"0.07": 62.9, "0.1": 64.9, "0.2": 66.2, "0.3": 65.7, "0.4": 65.0, "0.5": 64.3}
temperature = Study(
    name="moco/temperature",
    title="Which temperature does MoCo v2 want?",
    question="Several, with its MLP.",
    source=f"{V2}, section 3",
    measured=LINEAR,
    method="moco_v2",
    cases=tuple(
        Case(name=value, paper=paper, settings=(f"method.temperature={value}",))
        for value, paper in TEMPERATURES.items()
    ),
    claims=(
        Higher(words="0.2 is better than v1's 0.07", of="0.2", than="0.07"),
        Higher(words="0.2 is better than 0.5", of="0.2", than="0.5"),
    ),
)

momentum = Study(
    name="moco/momentum",
    title="How slowly must MoCo's keys follow?",
    question="Key encoders from one that is the query encoder to one that hardly moves.",
    source=f"{V1}, section 4.1",
    measured="linear probe, ImageNet, ResNet-50, 4,096 keys",
    method="moco_v1",
    cases=(
        Case(name="0", paper="diverges", settings=("method.momentum=0",)),
        *(Case(name=m, paper=NOT_READ, settings=(f"method.momentum={m}",)) for m in ("0.9", "0.99", "0.999")),
    ),
    claims=(
        BetterThanRandom(words="a slow one teaches", of="0.99"),
        Higher(words="slower is better than fast", of="0.99", than="0.9"),
        Higher(words="without a slow copy it fails", of="0.99", than="0"),
    ),
)

queue = Study(
    name="moco/queue",
    title="How many negatives does MoCo want?",
    question="Queues of several lengths, at equal batch.",
    source=f"{V1}, figure 3",
    measured="linear probe, ImageNet, ResNet-50",
    method="moco_v1",
    cases=tuple(
        Case(name=str(keys), paper=NOT_READ, settings=(f"method.queue_size={keys}",))
        for keys in (1024, 2048, 4096, 8192)
    ),
    claims=(Higher(words="more are better", of="4096", than="1024"),),
)

BATCHES = (32, 128, 512)
negatives = Study(
    name="moco/negatives",
    title="Does a queue stand in for a large batch?",
    question="MoCo v2 and SimCLR at several batches, equal epochs, the rate proportional to the batch: MoCo's "
    "negatives are in its queue, SimCLR's in the batch. What they hold: MoCo on 8 GPUs 5.0 GB a GPU at a batch of 256, "
    "end to end 7.4, and 93 (estimated) at 4,096.",
    source=f"{V2}, tables 2 and 3",
    measured=LINEAR,
    method="moco_v2",
    cases=(
        *(
            Case(name=f"{words}, {size}", method=method, settings=(f"loop.batch_size={size}",), scales=("tiny",))
            for method, words in (("moco_v2", "MoCo v2"), ("simclr", "SimCLR"))
            for size in BATCHES
        ),
        Case(name="MoCo v2, 256", paper=67.5, settings=("loop.batch_size=256",), scales=("small", "paper")),
        *(
            Case(
                name=f"SimCLR, {size}",
                paper=NOT_READ,
                method="simclr",
                settings=(f"loop.batch_size={size}",),
                scales=("small", "paper"),
            )
            for size in (256, 4096)
        ),
    ),
    claims=(
        Higher(words="SimCLR wants a large batch", of="SimCLR, 512", than="SimCLR, 32"),
        Higher(words="at a small one MoCo v2 is better", of="MoCo v2, 32", than="SimCLR, 32"),
    ),
)

STUDIES = (versions, temperature, momentum, queue, negatives)
