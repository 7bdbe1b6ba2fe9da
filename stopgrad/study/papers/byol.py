"""BYOL's studies (arXiv:2006.07733)."""

from __future__ import annotations

from stopgrad.study.lab.claims import BetterThanRandom, EndsAs, Higher, NoBetterThanRandom
from stopgrad.study.lab.definition import Case, Study

PAPER = "BYOL, arXiv:2006.07733"
LINEAR = "linear probe, ImageNet, ResNet-50, 300 epochs, batch 4096"

momentum = Study(
    name="byol/momentum",
    title="How slowly must BYOL's target follow?",
    question="From a target that never moves to one that is the network itself.",
    source=f"{PAPER}, table 5a",
    measured=LINEAR,
    method="byol",
    cases=(
        Case(name="constant random target", paper=18.8, settings=("method.target_momentum=1",)),
        Case(name="0.999", paper=69.8, settings=("method.target_momentum=0.999",)),
        Case(name="0.99", paper=72.5, settings=("method.target_momentum=0.99",)),
        Case(name="0.9", paper=68.4, settings=("method.target_momentum=0.9",)),
        Case(name="stop-gradient of the network itself", paper=0.3, settings=("method.target=stop_gradient",)),
    ),
    claims=(
        BetterThanRandom(words="even a random target teaches something", of="constant random target"),
        Higher(words="one that follows teaches more", of="0.99", than="constant random target"),
        Higher(words="the network itself is no target", of="0.99", than="stop-gradient of the network itself"),
    ),
)

norms = Study(
    name="byol/norms",
    title="Does BYOL live on batch norm?",
    question="Batch norm, none, layer norm, and group norm with weight standardisation in projector and predictor.",
    source="Fetterman and Albrecht, Understanding self-supervised and contrastive learning with BYOL (2020), table; "
    "the last row: BYOL works even without batch statistics, arXiv:2010.10241, as others report it",
    measured="linear probe, STL-10, ResNet-18, 10 epochs, batch 256",
    method="byol",
    cases=(
        Case(name="batch norm in both", paper=57.7),
        Case(name="in the projector", paper=55.3, settings=("method.predictor_norm=none",)),
        Case(name="in the predictor", paper=48.0, settings=("method.projector.norm=none",)),
        Case(name="none", paper=28.3, settings=("method.projector.norm=none", "method.predictor_norm=none")),
        Case(
            name="layer norm in both",
            paper=29.4,
            settings=("method.projector.norm=layer", "method.predictor_norm=layer"),
        ),
        Case(
            name="group norm, standardised weights",
            paper="learns (73.9, batch norm 74.3, after 1,000 epochs on ImageNet)",
            settings=("method.projector.norm=group", "method.predictor_norm=group"),
        ),
    ),
    claims=(
        Higher(words="one batch norm in either head is enough", of="in the predictor", than="none"),
        Higher(words="without any it learns nothing beyond random weights", of="batch norm in both", than="none"),
        Higher(words="layer norm is no substitute", of="batch norm in both", than="layer norm in both"),
    ),
)

grid = Study(
    name="byol/grid",
    title="Predictor, slow target, negatives: which of them is needed?",
    question="The rows of table 5b that have no negatives beside BYOL's, and SimCLR's family for those that have.",
    source=f"{PAPER}, table 5b. Its loss with weighted negatives is unverified: the rows with negatives are SimCLR's "
    "NT-Xent with a predictor and a slow copy",
    measured=LINEAR,
    method="byol",
    cases=(
        Case(name="predictor, slow target (BYOL)", paper=72.5),
        Case(name="predictor", paper=0.3, settings=("method.target=stop_gradient",)),
        Case(name="slow target", paper=0.2, settings=("method.predictor=none",)),
        Case(name="nothing", paper=0.1, settings=("method.predictor=none", "method.target=stop_gradient")),
        Case(
            name="predictor, slow target, negatives",
            method="simclr",
            paper=70.9,
            settings=("method.predictor=mlp", "method.target=momentum"),
        ),
        Case(name="slow target, negatives", method="simclr", paper=70.7, settings=("method.target=momentum",)),
        Case(name="predictor, negatives", method="simclr", paper=69.1, settings=("method.predictor=mlp",)),
        Case(name="negatives (SimCLR)", method="simclr", paper=69.4),
    ),
    claims=(
        EndsAs(words="without predictor and slow target it collapses", of="nothing", verdicts=("collapsed",)),
        NoBetterThanRandom(words="and its features are worth nothing", of="nothing"),
        Higher(words="without a predictor it is worth nothing", of="predictor, slow target (BYOL)", than="slow target"),
        BetterThanRandom(words="negatives need neither", of="negatives (SimCLR)"),
    ),
)

STUDIES = (momentum, grid, norms)
