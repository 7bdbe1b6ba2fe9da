"""DirectPred's studies (arXiv:2102.06810)."""

from __future__ import annotations

from stopgrad.study.lab.claims import BetterThanRandom, EndsHigher, Higher
from stopgrad.study.lab.definition import DENSE, Case, Study

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

ALONE = ("method.target=stop_gradient",)
TABLE_9 = {"mlp": 64.7, "linear": 59.4}
predictors = Study(
    name="directpred/predictors",
    title="Does a trained predictor find what DirectPred computes?",
    question="Computed, one trained matrix, and two trained layers, each with and without a slow target; and how far "
    "the eigenvectors of the correlation of its inputs are the matrix's own.",
    source=f"{PAPER}, table 9, 60 epochs with a slow target; figure 2 draws the alignment",
    measured="linear probe, ImageNet, ResNet-50, 60 epochs",
    method="directpred",
    settings=("watch.predictor=1", *DENSE),
    curves=("predictor_alignment", "predictor_asymmetry", "std_ratio", "loss", "rank_z", "knn_top1"),
    cases=(
        Case(name="computed", paper=64.4),
        Case(name="computed, no slow target", settings=ALONE),
        *(
            Case(
                name=f"{words}{', no slow target' if more else ''}",
                method="byol",
                paper=None if more else TABLE_9[kind],
                settings=(f"method.predictor={kind}", *more),
            )
            for kind, words in (("linear", "one trained matrix"), ("mlp", "two trained layers"))
            for more in ((), ALONE)
        ),
    ),
    claims=(
        EndsHigher(
            words="a trained matrix comes to have the eigenvectors of its inputs' correlation",
            of="one trained matrix",
            curve="predictor_alignment",
            than=0.9,
        ),
        Higher(words="computed is better than one trained matrix", of="computed", than="one trained matrix"),
        BetterThanRandom(words="it learns without a slow target too", of="computed, no slow target"),
    ),
)

TABLE_3 = {("linear", True): 74.51, ("symmetric", True): 75.09, ("linear", False): 72.85, ("symmetric", False): 36.62}
symmetry = Study(
    name="directpred/symmetry",
    title="May the predictor be symmetric?",
    question="One trained matrix, free or held symmetric, with and without a slow target.",
    source=f"{PAPER}, table 3, without bias",
    measured="linear probe, STL-10, ResNet-18, 100 epochs",
    method="byol",
    settings=("watch.predictor=1",),
    curves=("predictor_alignment", "std_ratio", "knn_top1"),
    cases=tuple(
        Case(
            name=f"{'free' if kind == 'linear' else 'symmetric'}{'' if slow else ', no slow target'}",
            paper=paper,
            settings=(f"method.predictor={kind}", *(() if slow else ALONE)),
        )
        for (kind, slow), paper in TABLE_3.items()
    ),
    claims=(
        BetterThanRandom(words="with a slow target symmetric does as well", of="symmetric"),
        Higher(
            words="without one, symmetry costs everything",
            of="free, no slow target",
            than="symmetric, no slow target",
        ),
    ),
)

STUDIES = (closed_form, epsilon, predictors, symmetry)
