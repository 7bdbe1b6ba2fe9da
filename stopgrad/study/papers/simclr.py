"""SimCLR's studies (arXiv:2002.05709). Numbers of its figures are read off bars and not quoted."""

from __future__ import annotations

import itertools

from stopgrad.study.lab.claims import Higher
from stopgrad.study.lab.definition import NOT_READ, Case, Study

PAPER = "SimCLR, arXiv:2002.05709"

projector = Study(
    name="simclr/projector",
    title="What is the projector worth, and which?",
    question="None, one linear layer or an MLP behind the backbone, of several widths; the backbone's features are "
    "scored.",
    source=f"{PAPER}, figure 8",
    measured="linear probe, ImageNet, ResNet-50",
    method="simclr",
    cases=(
        Case(name="none", paper=NOT_READ, settings=("method.project=false",)),
        *(
            Case(
                name=f"{'linear' if layers == 1 else 'MLP'}, {dim}",
                paper=NOT_READ,
                settings=(f"method.projector.layers={layers}", f"method.projector.dim={dim}"),
            )
            for layers in (1, 2)
            for dim in (32, 128, 512)
        ),
    ),
    claims=(
        Higher(words="a linear layer is better than none", of="linear, 128", than="none"),
        Higher(words="an MLP is better than a linear layer", of="MLP, 128", than="linear, 128"),
        Higher(words="whatever the width", of="MLP, 512", than="linear, 512"),
    ),
)

TEMPERATURES = {"0.05": 59.7, "0.1": 64.4, "0.2": None, "0.5": 60.7, "1": 58.0}
temperature = Study(
    name="simclr/temperature",
    title="How does SimCLR's temperature trade alignment against uniformity?",
    question="Temperatures from .05 to 1.",
    source=f"{PAPER}, table 5",
    measured="linear probe, ImageNet, ResNet-50, 100 epochs",
    method="simclr",
    curves=("loss", "alignment", "uniformity", "std_ratio", "knn_top1"),
    cases=tuple(
        Case(name=value, paper=paper, settings=(f"method.temperature={value}",))
        for value, paper in TEMPERATURES.items()
    ),
    claims=(Higher(words="a low temperature is better than a high one", of="0.1", than="1"),),
)

# Each alone, and pairs of them: the rest is off. The paper crops and resizes all of its images first.
OFF = ("views.crops.*.jitter=0", "views.crops.*.grayscale=0", "views.crops.*.blur=0")
WHOLE = ("views.crops.*.scale=[1.0, 1.0]", "views.crops.*.ratio=[1.0, 1.0]")
CHANGES = {
    "crop": ("views.crops.*.scale=[0.08, 1.0]", "views.crops.*.ratio=[0.75, 1.3333]"),
    "colour": ("views.crops.*.jitter=0.8", "views.crops.*.grayscale=0.2"),
    "blur": ("views.crops.*.blur=0.5",),
    "turn": ("views.crops.*.quarter_turns=0.75",),
}


def of_changes(*names: str) -> tuple[str, ...]:
    return (*OFF, *WHOLE, *(setting for name in names for setting in CHANGES[name]))


views = Study(
    name="simclr/views",
    title="Which changes of a view does contrast live on?",
    question="Crops, colours, blur and turns of a quarter: each alone, and each two of them.",
    source=f"{PAPER}, figure 5: a grid, which here has four of its operations, applied to both views",
    measured="linear probe, ImageNet, ResNet-50",
    method="simclr",
    cases=(
        *(Case(name=name, paper=NOT_READ, settings=of_changes(name)) for name in CHANGES),
        *(
            Case(name=f"{one} and {other}", paper=NOT_READ, settings=of_changes(one, other))
            for one, other in itertools.combinations(CHANGES, 2)
        ),
    ),
    claims=(
        Higher(words="crops need colours beside them", of="crop and colour", than="crop"),
        Higher(words="and colours need crops", of="crop and colour", than="colour"),
        Higher(words="no other pair is as good: blur for colour", of="crop and colour", than="crop and blur"),
        Higher(words="nor turns for crops", of="crop and colour", than="colour and turn"),
    ),
)

TABLE_4 = {
    "margin": (50.9, ("method.loss=margin",)),
    "NT-Logistic": (51.6, ("method.loss=nt_logistic",)),
    "margin, semi-hard": (57.5, ("method.loss=margin", "method.semi_hard=true")),
    "NT-Logistic, semi-hard": (57.9, ("method.loss=nt_logistic", "method.semi_hard=true")),
    "NT-Xent": (63.9, ()),
}
losses = Study(
    name="simclr/losses",
    title="Is it the softmax over all negatives?",
    question="The same method with a margin, with yes or no for each pair, both also with the semi-hard negative "
    "alone, and with NT-Xent. The paper tunes each loss's margin or temperature, here they are as they stand.",
    source=f"{PAPER}, table 4",
    measured="linear probe, ImageNet, ResNet-50, 100 epochs",
    method="simclr",
    cases=tuple(Case(name=name, paper=paper, settings=settings) for name, (paper, settings) in TABLE_4.items()),
    claims=(
        Higher(words="NT-Xent is better than a margin", of="NT-Xent", than="margin, semi-hard"),
        Higher(words="and than yes or no", of="NT-Xent", than="NT-Logistic, semi-hard"),
        Higher(words="both others want the semi-hard negative: margin", of="margin, semi-hard", than="margin"),
        Higher(words="and yes or no", of="NT-Logistic, semi-hard", than="NT-Logistic"),
    ),
)

LARS = ("optim.name=lars", "optim.exclude_1d=true", "optim.trust=0.02", "optim.base_lr=0.3")
optimiser = Study(
    name="simclr/optimiser",
    title="Do large batches need LARS?",
    question="SGD at the preset's batch, and SGD and LARS at the largest, at equal epochs; the rate is proportional to "
    "the batch.",
    source=f"{PAPER}, section 2.2 and appendix B.1, which have no table of it",
    measured="none",
    method="simclr",
    cases=(
        Case(name="SGD, 64", scales=("tiny",)),
        Case(name="SGD, 512", settings=("loop.batch_size=512",), scales=("tiny",)),
        Case(name="LARS, 512", settings=("loop.batch_size=512", *LARS), scales=("tiny",)),
        Case(
            name="SGD, 4096",
            settings=("loop.batch_size=4096", "optim.name=sgd", "optim.base_lr=0.1", "optim.warmup_epochs=10"),
            scales=("small", "paper"),
        ),
        Case(
            name="LARS, 4096",
            settings=("loop.batch_size=4096", *LARS, "optim.warmup_epochs=10"),
            scales=("small", "paper"),
        ),
    ),
    claims=(Higher(words="at a large batch LARS is better than SGD", of="LARS, 512", than="SGD, 512"),),
)

STUDIES = (projector, temperature, views, losses, optimiser)
