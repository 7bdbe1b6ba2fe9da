"""UniGrad's studies (arXiv:2112.05141). Numbers are those of the released code's README, where it has the row."""

from __future__ import annotations

from stopgrad.study.lab.claims import BetterThanRandom, Higher, KeepsShare
from stopgrad.study.lab.definition import DENSE, NOT_READ, Case, Study

PAPER = "UniGrad, arXiv:2112.05141"
LINEAR = "linear probe, ImageNet, ResNet-50, 100 epochs, as the README of fundamentalvision/UniGrad has them"
DRAWN = ("loss", "similarity", "balance", "std_ratio", "rank_z", "knn_top1")
SOFT = "method.negative_weight=50"  # of unit vectors, as the released configuration of Barlow Twins' gradient

gradients = Study(
    name="unigrad/gradients",
    title="Is there one gradient for three families?",
    question="The same network and slow target; the embedding gets each family's gradient, in full or simplified.",
    source=f"{PAPER}, table 1",
    measured=LINEAR + "; rows matched by us",
    method="unigrad",
    decisive=True,
    curves=DRAWN,
    cases=(
        Case(name="(b) contrastive", paper=70.0, settings=("method.form=contrastive",)),
        Case(name="(d) asymmetric, computed predictor", paper=NOT_READ, settings=("method.form=asymmetric",)),
        Case(name="(e) its negatives as F u (UniGrad)", paper=70.2),
        Case(
            name="(f) Barlow Twins in full",
            paper=NOT_READ,
            settings=("method.form=barlow_twins", "method.negative_weight=0.005", "optim.base_lr=0.005"),
        ),
        Case(
            name="(g) with A = I",
            paper=NOT_READ,
            settings=("method.form=barlow_twins_identity", "method.negative_weight=0.005", "optim.base_lr=0.005"),
        ),
        Case(name="(h) on unit vectors", paper=70.0, settings=("method.form=decorrelation_target", SOFT)),
        Case(
            name="(i) VICReg in full",
            paper=NOT_READ,
            settings=("method.form=vicreg", "method.negative_weight=1"),
        ),
        Case(name="(j) on unit vectors", paper=69.8, settings=("method.form=decorrelation_online", SOFT)),
    ),
    claims=(
        BetterThanRandom(words="the contrastive form learns", of="(b) contrastive"),
        BetterThanRandom(words="the asymmetric form learns", of="(d) asymmetric, computed predictor"),
        BetterThanRandom(words="so it does with its negatives written out", of="(e) its negatives as F u (UniGrad)"),
        BetterThanRandom(words="so does what is left of Barlow Twins", of="(h) on unit vectors"),
        BetterThanRandom(words="so does what is left of VICReg", of="(j) on unit vectors"),
    ),
)

FAMILIES = {
    "contrastive": ("method.form=contrastive",),
    "asymmetric": (),
    "decorrelation": ("method.form=decorrelation_target", SOFT),
}
TABLE_2 = {"contrastive": (67.6, 70.0), "asymmetric": (67.9, 70.2), "decorrelation": (67.6, 70.0)}
WAYS = ("stop-gradient", "momentum", "momentum for the positive term only")

target = Study(
    name="unigrad/target",
    title="What is a slow target worth, and where?",
    question="Each family's gradient with the network itself as the target, with its slow copy, and with the slow copy "
    "in the positive part alone.",
    source=f"{PAPER}, table 2",
    measured=LINEAR,
    method="unigrad",
    decisive=True,
    curves=DRAWN,
    cases=tuple(
        Case(name=f"{family}, {way}", paper=paper, settings=(*settings, *more))
        for family, settings in FAMILIES.items()
        for way, paper, more in (
            (WAYS[0], TABLE_2[family][0], ("method.target=stop_gradient",)),
            (WAYS[1], TABLE_2[family][1], ()),
            (WAYS[2], "about full momentum", ("method.negatives=online",)),
        )
    ),
    claims=tuple(
        claim
        for family in FAMILIES
        for claim in (
            Higher(
                words=f"{family}: a slow target is better than the network itself",
                of=f"{family}, momentum",
                than=f"{family}, stop-gradient",
            ),
            KeepsShare(
                words=f"{family}: in the positive part alone it keeps at least half of that",
                of=f"{family}, momentum for the positive term only",
                full=f"{family}, momentum",
                base=f"{family}, stop-gradient",
                share=0.5,
            ),
        )
    ),
)

METHODS = ("simclr", "moco_v2", "byol", "simsiam", "directpred", "barlow_twins", "vicreg", "unigrad")
process = Study(
    name="unigrad/process",
    title="How do the families come to where they end?",
    question="Every method by its own preset; pull and push of the gradient that reaches the embeddings, the cosines "
    "of two views and of two images, and the rank, over training.",
    source=f"{PAPER}, figure 2; what its panels hold is not verified",
    measured="none: the paper draws curves",
    method="unigrad",
    settings=("watch.gradients=true", *DENSE),
    curves=(
        "cosine_positive",
        "cosine_random",
        "gradient_balance",
        "gradient_positive",
        "gradient_negative",
        "correlation_z",
        "rank_z",
        "std_ratio",
        "knn_top1",
    ),
    cases=tuple(Case(name=name, method=name) for name in METHODS),
    claims=tuple(BetterThanRandom(words=f"{name} learns", of=name) for name in METHODS),
)

crops = Study(
    name="unigrad/crops",
    title="Is UniGrad better with small crops, and with CutMix?",
    question="Two crops, and two with four of half the side beside them, at equal epochs; with each image a part of "
    "another, and with both.",
    source=f"{PAPER}, table 3; how its CutMix works is in no source, ours is the reading in siamese/cut_mix.py",
    measured=LINEAR,
    method="unigrad",
    cases=(
        Case(name="2 crops", paper=70.3),
        Case(name="2 + 4", paper=NOT_READ, local=4),
        Case(name="2 crops, CutMix", paper=NOT_READ, settings=("method.cut_mix=1",)),
        Case(name="2 + 4, CutMix", paper=NOT_READ, local=4, settings=("method.cut_mix=1",)),
    ),
    claims=(
        Higher(words="small crops help", of="2 + 4", than="2 crops"),
        Higher(words="so does CutMix", of="2 crops, CutMix", than="2 crops"),
        Higher(words="both are better than either", of="2 + 4, CutMix", than="2 + 4"),
    ),
)

length = Study(
    name="unigrad/length",
    title="What is a longer run of UniGrad worth?",
    question="The same run, half as long and as long as it is, with and without CutMix.",
    source=f"{PAPER}, table 4: 74.9 after 800 epochs with CutMix, 70.3 after 100 without (the README)",
    measured=LINEAR,
    method="unigrad",
    cases=(
        Case(name="short", epochs=1 / 2),
        Case(name="long", paper=70.3),
        Case(name="short, CutMix", epochs=1 / 2, settings=("method.cut_mix=1",)),
        Case(name="long, CutMix", settings=("method.cut_mix=1",)),
    ),
    claims=(
        Higher(words="longer is better", of="long", than="short"),
        Higher(words="also with CutMix", of="long, CutMix", than="short, CutMix"),
    ),
)

STUDIES = (gradients, target, process, crops, length)
