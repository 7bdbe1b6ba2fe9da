"""SimCLR's studies (arXiv:2002.05709). Numbers of its figures are read off bars and not quoted."""

from __future__ import annotations

from stopgrad.study.lab.claims import Higher
from stopgrad.study.lab.definition import NOT_READ, Case, Study

PAPER = "SimCLR, arXiv:2002.05709"

projector = Study(
    name="simclr/projector",
    title="What is the projector worth, and which?",
    question="One linear layer or an MLP behind the backbone, of several widths; the backbone's features are scored.",
    source=f"{PAPER}, figure 8",
    measured="linear probe, ImageNet, ResNet-50",
    method="simclr",
    cases=tuple(
        Case(
            name=f"{'linear' if layers == 1 else 'MLP'}, {dim}",
            paper=NOT_READ,
            settings=(f"method.projector.layers={layers}", f"method.projector.dim={dim}"),
        )
        for layers in (1, 2)
        for dim in (32, 128, 512)
    ),
    claims=(
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
    cases=tuple(
        Case(name=value, paper=paper, settings=(f"method.temperature={value}",))
        for value, paper in TEMPERATURES.items()
    ),
    claims=(Higher(words="a low temperature is better than a high one", of="0.1", than="1"),),
)

views = Study(
    name="simclr/views",
    title="Which changes of a view does contrast live on?",
    question="Crops and colours, either alone, and neither.",
    source=f"{PAPER}, figure 5",
    measured="linear probe, ImageNet, ResNet-50",
    method="simclr",
    cases=(
        Case(name="crops and colours", paper=NOT_READ),
        Case(
            name="crops",
            paper=NOT_READ,
            settings=("views.crops.*.jitter=0", "views.crops.*.grayscale=0", "views.crops.*.blur=0"),
        ),
        Case(
            name="colours",
            paper=NOT_READ,
            settings=("views.crops.*.scale=[1.0, 1.0]", "views.crops.*.ratio=[1.0, 1.0]"),
        ),
    ),
    claims=(
        Higher(words="crops need colours beside them", of="crops and colours", than="crops"),
        Higher(words="and colours need crops", of="crops and colours", than="colours"),
    ),
)

STUDIES = (projector, temperature, views)
