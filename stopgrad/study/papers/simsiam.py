"""SimSiam's studies (arXiv:2011.10566), but for those of section 5: simsiam_hypothesis.py."""

from __future__ import annotations

from stopgrad.study.lab.claims import Below, BetterThanRandom, EndsAs, Higher, NoBetterThanRandom
from stopgrad.study.lab.definition import DENSE, Case, Study

PAPER = "SimSiam, arXiv:2011.10566"
LINEAR = "linear probe, ImageNet, ResNet-50, 100 epochs, batch 512"
COLLAPSED = ("collapsed",)
WITH, WITHOUT = "with stop-gradient", "without stop-gradient"

stop_gradient = Study(
    name="simsiam/stop-gradient",
    title="Does SimSiam need stop-gradient?",
    question="The same network, views and optimiser; only whether gradient flows into the other view's projection.",
    source=f"{PAPER}, figure 2",
    measured=LINEAR,
    method="simsiam",
    settings=DENSE,
    decisive=True,
    cases=(
        Case(name=WITH, paper=67.7, settings=("method.predictor_lr=decayed",)),
        Case(name=WITHOUT, paper=0.1, settings=("method.predictor_lr=decayed", "method.target=shared")),
    ),
    claims=(
        Below(words="without it the loss goes to its minimum of -1 at once", of=WITHOUT, bound=-0.9),
        EndsAs(words="without it all outputs are one point", of=WITHOUT, verdicts=COLLAPSED),
        NoBetterThanRandom(words="without it the features are worth no more than chance", of=WITHOUT),
        EndsAs(words="with it outputs spread over the sphere", of=WITH, verdicts=("healthy",)),
        BetterThanRandom(words="with it accuracy rises", of=WITH),
    ),
)

predictor = Study(
    name="simsiam/predictor",
    title="Does SimSiam need its predictor?",
    question="None, one that stays random, one whose rate falls with the others' and one whose rate stays.",
    source=f"{PAPER}, table 1; the asymmetric row is told in section 4.2",
    measured=LINEAR,
    method="simsiam",
    decisive=True,
    cases=(
        Case(name="rate decayed (baseline)", paper=67.7, settings=("method.predictor_lr=decayed",)),
        Case(name="no predictor", paper=0.1, settings=("method.predictor=none",)),
        Case(
            name="no predictor, asymmetric",
            paper="fails too",
            settings=("method.predictor=none", "method.pairs=asymmetric"),
        ),
        Case(name="fixed random", paper=1.5, settings=("method.predictor=frozen",)),
        Case(name="rate constant", paper=68.1),
    ),
    claims=(
        EndsAs(words="without a predictor it collapses", of="no predictor", verdicts=COLLAPSED),
        NoBetterThanRandom(words="without a predictor features are worth nothing", of="no predictor"),
        EndsAs(words="and so it does one-sided", of="no predictor, asymmetric", verdicts=COLLAPSED),
        EndsAs(
            words="a fixed random predictor does not converge, and does not collapse",
            of="fixed random",
            verdicts=("not_learning",),
        ),
        Higher(words="a constant rate is at least as good", of="rate constant", than="rate decayed (baseline)"),
    ),
)

batch_norm = Study(
    name="simsiam/batch-norm",
    title="Where does SimSiam want batch norm?",
    question="In no head, between layers, also behind the projector, and behind the predictor too.",
    source=f"{PAPER}, table 3",
    measured=LINEAR,
    method="simsiam",
    decisive=True,
    cases=(
        Case(
            name="none",
            paper=34.6,
            settings=("method.projector.norm=none", "method.projector.output_norm=none", "method.predictor_norm=none"),
        ),
        Case(name="hidden", paper=67.4, settings=("method.projector.output_norm=none",)),
        Case(name="default", paper=68.1),
        Case(name="all", paper="unstable", settings=("method.predictor_output_norm=batch",)),
    ),
    claims=(
        BetterThanRandom(words="without any it learns slowly and does not collapse", of="none"),
        Higher(words="between layers is enough to do almost as well", of="hidden", than="none"),
        Higher(words="behind the predictor it is harmful", of="default", than="all"),
    ),
)

similarity = Study(
    name="simsiam/similarity",
    title="Is cosine what keeps SimSiam from collapsing?",
    question="Cosine against a cross-entropy of the softmax over channels.",
    source=f"{PAPER}, section 4.5",
    measured=LINEAR,
    method="simsiam",
    cases=(
        Case(name="cosine", paper=68.1),
        Case(name="cross-entropy", paper=63.2, settings=("method.similarity=cross_entropy",)),
    ),
    claims=(
        BetterThanRandom(words="cross-entropy learns too, so it is not cosine", of="cross-entropy"),
        Higher(words="cosine is better", of="cosine", than="cross-entropy"),
    ),
)

symmetrisation = Study(
    name="simsiam/symmetrisation",
    title="Does SimSiam need a symmetric loss?",
    question="Both directions, one, and one for two pairs of views.",
    source=f"{PAPER}, section 4.6",
    measured=LINEAR,
    method="simsiam",
    cases=(
        Case(name="symmetric", paper=68.1),
        Case(name="asymmetric", paper=64.8, settings=("method.pairs=asymmetric",)),
        Case(name="asymmetric 2x", paper=67.3, settings=("method.pairs=asymmetric_2x",), views=4),
    ),
    claims=(
        BetterThanRandom(words="one-sided it learns too", of="asymmetric"),
        Higher(words="symmetric is better, at equal epochs", of="symmetric", than="asymmetric"),
        Higher(words="most of it is made up by two pairs", of="asymmetric 2x", than="asymmetric"),
    ),
)

BATCHES = {64: 66.1, 128: 67.3, 256: 68.1, 512: 68.1, 1024: 68.0, 2048: 67.9, 4096: 64.0}
batch_size = Study(
    name="simsiam/batch-size",
    title="Does SimSiam need large batches?",
    question="Batches of several sizes at equal epochs, the rate proportional to the batch.",
    source=f"{PAPER}, table 2",
    measured="linear probe, ImageNet, ResNet-50, 100 epochs",
    method="simsiam",
    cases=(
        Case(name="32", settings=("loop.batch_size=32",), scales=("tiny",)),
        *(
            Case(
                name=str(size),
                paper=paper,
                settings=(f"loop.batch_size={size}", *(["optim.warmup_epochs=10"] if size >= 1024 else [])),
                scales=("tiny", "small", "paper") if size <= 512 else ("small", "paper"),
            )
            for size, paper in BATCHES.items()
        ),
    ),
    claims=(
        BetterThanRandom(words="it works with small batches", of="64"),
        Higher(words="a batch of 256 is better than one of 64", of="256", than="64"),
    ),
)

DIMS = {256: 65.3, 512: 67.2, 1024: 67.5, 2048: 68.1}
dimension = Study(
    name="simsiam/dimension",
    title="How wide must SimSiam's output be?",
    question="Projections of several widths, the predictor's bottleneck a quarter of them.",
    source=f"{PAPER}, appendix B",
    measured=LINEAR,
    method="simsiam",
    cases=(
        *(
            Case(
                name=str(dim),
                paper=paper,
                settings=(f"method.projector.dim={dim}", f"method.predictor_hidden={dim // 4}"),
            )
            for dim, paper in DIMS.items()
        ),
        Case(
            name="2048, no bottleneck",
            paper="less stable, or fails",
            settings=("method.projector.dim=2048", "method.predictor_hidden=2048"),
        ),
    ),
    claims=(Higher(words="wider is better", of="2048", than="256"),),
)

METHODS = {
    "simclr": 66.5,
    "moco_v2": 67.4,
    "byol": 66.5,
    "swav": 66.5,
    "simsiam": 68.1,
}
methods = Study(
    name="simsiam/methods",
    title="How does SimSiam compare with its relatives?",
    question="Equal epochs, each method with its own preset's views, heads and rate.",
    source=f"{PAPER}, table 4, the column of 100 epochs",
    measured="linear probe, ImageNet, ResNet-50, 100 epochs; all reproduced by the authors",
    method="simsiam",
    cases=tuple(Case(name=name, method=name, paper=paper) for name, paper in METHODS.items()),
    claims=tuple(BetterThanRandom(words=f"{name} learns", of=name) for name in METHODS),
)

simclr = Study(
    name="simsiam/simclr",
    title="Do a predictor and stop-gradient help SimCLR?",
    question="SimCLR as it is, with a predictor, and with both.",
    source=f"{PAPER}, section 6.2",
    measured="linear probe, ImageNet, ResNet-50, 100 epochs, batch 4096",
    method="simclr",
    cases=(
        Case(name="SimCLR", paper=66.5),
        Case(name="with predictor", paper=66.4, settings=("method.predictor=mlp",)),
        Case(
            name="with predictor and stop-gradient",
            paper=66.0,
            settings=("method.predictor=mlp", "method.target=stop_gradient"),
        ),
    ),
    claims=(
        BetterThanRandom(words="with both it still learns", of="with predictor and stop-gradient"),
        Higher(
            words="neither is of help where there are negatives", of="SimCLR", than="with predictor and stop-gradient"
        ),
    ),
)

swav = Study(
    name="simsiam/swav",
    title="What are SwAV's predictor and stop-gradient worth?",
    question="SwAV as it is, with gradient through its codes.",
    source=f"{PAPER}, section 6.2",
    measured="linear probe, ImageNet, ResNet-50, 100 epochs, batch 4096",
    method="swav",
    cases=(
        Case(name="SwAV", paper=66.5),
        Case(name="with predictor", paper=65.2, settings=("method.predictor=mlp",)),
        Case(name="without stop-gradient", paper="diverges", settings=("method.codes=flow",)),
    ),
    claims=(
        BetterThanRandom(words="as it is it learns", of="SwAV"),
        Higher(words="a predictor is of no help", of="SwAV", than="with predictor"),
        Higher(words="it needs stop-gradient", of="SwAV", than="without stop-gradient"),
    ),
)

byol = Study(
    name="simsiam/byol",
    title="Does BYOL need its momentum encoder?",
    question="BYOL as it is, without the slow copy, and without it with a predictor that learns faster.",
    source=f"{PAPER}, section 6.2 and BYOL, arXiv:2006.07733, table 5a; 300 epochs there",
    measured="linear probe, ImageNet, ResNet-50, 300 epochs",
    method="byol",
    cases=(
        Case(name="BYOL", paper=72.5),
        Case(name="without momentum", paper=0.3, settings=("method.target=stop_gradient",)),
        Case(
            name="without momentum, predictor at 10 times the rate",
            paper=66.5,
            settings=("method.target=stop_gradient", "method.predictor_rate=10"),
        ),
    ),
    claims=(
        Higher(words="without its slow copy it is worse", of="BYOL", than="without momentum"),
        Higher(
            words="a predictor that learns faster makes up for most of it",
            of="without momentum, predictor at 10 times the rate",
            than="without momentum",
        ),
    ),
)

STUDIES = (
    stop_gradient,
    predictor,
    batch_size,
    batch_norm,
    similarity,
    symmetrisation,
    dimension,
    methods,
    simclr,
    swav,
    byol,
)
