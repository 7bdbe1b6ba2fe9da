"""DirectPred's studies (arXiv:2102.06810)."""

from __future__ import annotations

from stopgrad.study.lab.claims import BetterThanRandom, Higher
from stopgrad.study.lab.definition import Case, Study

PAPER = "DirectPred, arXiv:2102.06810"

closed_form = Study(
    name="directpred/closed-form",
    title="Can the predictor be computed instead of trained?",
    question="From the correlation matrix of its inputs, at every step or every fifth, or as that matrix itself.",
    source=f"{PAPER}, table 8, CIFAR-10 after 100 epochs",
    measured="linear probe, CIFAR-10, ResNet-18, 100 epochs, batch 128",
    method="directpred",
    cases=(
        Case(name="DirectPred", paper=85.21),
        Case(name="every 5 steps", paper=84.93, settings=("method.every=5",)),
        Case(name="DirectCopy", settings=("method.form=directcopy",)),
        Case(name="without momentum", settings=("method.target=stop_gradient",)),
        Case(name="a trained predictor of two layers (BYOL)", method="byol"),
    ),
    claims=(
        BetterThanRandom(words="a computed predictor teaches", of="DirectPred"),
        Higher(
            words="at least as much as a trained one", of="DirectPred", than="a trained predictor of two layers (BYOL)"
        ),
    ),
)

EPSILONS = {"0": 76.77, "0.01": 77.11, "0.1": 77.86, "0.5": 75.06}
epsilon = Study(
    name="directpred/epsilon",
    title="How much must be added to the predictor's eigenvalues?",
    question="Several amounts, the rest as it is.",
    source=f"{PAPER}, table 6",
    measured="linear probe, STL-10, ResNet-18, 100 epochs",
    method="directpred",
    cases=tuple(
        Case(name=value, paper=paper, settings=(f"method.epsilon={value}",)) for value, paper in EPSILONS.items()
    ),
    claims=(Higher(words="a tenth is better than half", of="0.1", than="0.5"),),
)

STUDIES = (closed_form, epsilon)
