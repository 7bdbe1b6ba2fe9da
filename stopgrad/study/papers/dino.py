"""DINO's studies (arXiv:2104.14294). Its numbers are k-NN on ImageNet with a ViT-S/16."""

from __future__ import annotations

from stopgrad.study.lab.claims import BetterThanRandom, Higher, NoBetterThanRandom
from stopgrad.study.lab.definition import DENSE, Case, Study

PAPER = "DINO, arXiv:2104.14294"
KNN = "k-NN, ImageNet, ViT-S/16"
SOFT = ("method.teacher_temperature=0.1", "method.warmup_teacher_epochs=0")  # as soft as the student
STILL = ("method.centre_momentum=1",)  # a centre that stays at 0
DRAWN = ("loss", "target_entropy", "kl", "std_ratio", "rank_z", "knn_top1")

collapse = Study(
    name="dino/collapse",
    title="What keeps DINO from collapsing?",
    question="Centring and sharpening of the teacher's answers: both, either, neither. Without centring the centre "
    "stays at 0, without sharpening the teacher is as soft as the student.",
    source=f"{PAPER}, figure 7 and section 5.3",
    measured="words: the paper draws entropies",
    method="dino",
    settings=DENSE,
    curves=DRAWN,
    cases=(
        Case(name="both", paper="learns"),
        Case(name="centring alone", paper="collapses to even answers", settings=SOFT),
        Case(name="sharpening alone", paper="collapses to one answer", settings=STILL),
        Case(name="neither", paper="collapses", settings=(*SOFT, *STILL)),
    ),
    claims=(
        BetterThanRandom(words="with both it learns", of="both"),
        Higher(words="centring alone is not enough", of="both", than="centring alone"),
        Higher(words="sharpening alone is not enough", of="both", than="sharpening alone"),
        NoBetterThanRandom(words="with neither it learns nothing", of="neither"),
    ),
)

MOMENTA = {"0": 69.1, "0.9": 69.7, "0.99": 69.4, "0.999": 0.1}
centre = Study(
    name="dino/centre",
    title="How fast must DINO's centre follow?",
    question="Several momenta of the centre.",
    source=f"{PAPER}, appendix D",
    measured=f"{KNN}, 100 epochs",
    method="dino",
    cases=tuple(
        Case(name=value, paper=paper, settings=(f"method.centre_momentum={value}",)) for value, paper in MOMENTA.items()
    ),
    claims=(
        Higher(words="one that hardly moves fails", of="0.9", than="0.999"),
        BetterThanRandom(words="one of the batch alone is enough", of="0"),
    ),
)

TEMPERATURES = {"0.02": 66.7, "0.04": 69.6, "0.06": 68.7, "0.08": 0.1}
sharpness = Study(
    name="dino/sharpness",
    title="How sharp must DINO's teacher be?",
    question="Several temperatures of the teacher, constant over the run; the student's is 0.1.",
    source=f"{PAPER}, appendix D",
    measured=f"{KNN}, 100 epochs",
    method="dino",
    cases=tuple(
        Case(
            name=value,
            paper=paper,
            settings=(f"method.teacher_temperature={value}", "method.warmup_teacher_epochs=0"),
        )
        for value, paper in TEMPERATURES.items()
    ),
    claims=(
        Higher(words="0.04 is better than 0.02", of="0.04", than="0.02"),
        Higher(words="0.08 is too soft", of="0.04", than="0.08"),
    ),
)

TABLE_7 = {"DINO": (72.8, ()), "no slow copy": (0.1, ("method.momentum=0", "method.momentum_schedule=constant"))}
parts = Study(
    name="dino/parts",
    title="What of DINO is needed?",
    question="As it is, without its slow copy (the teacher is the student of the step before), and the slow copy's "
    "momentum constant.",
    source=f"{PAPER}, table 7, rows 1 and 2, with multi-crop there; the third row is ours",
    measured=f"{KNN}, 300 epochs",
    method="dino",
    curves=DRAWN,
    cases=(
        *(Case(name=name, paper=paper, settings=settings) for name, (paper, settings) in TABLE_7.items()),
        Case(name="constant momentum", settings=("method.momentum_schedule=constant",)),
    ),
    claims=(
        BetterThanRandom(words="as it is it learns", of="DINO"),
        Higher(words="it needs the slow copy", of="DINO", than="no slow copy"),
    ),
)

STUDIES = (collapse, centre, sharpness, parts)
