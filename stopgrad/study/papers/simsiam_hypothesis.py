"""SimSiam's hypothesis (arXiv:2011.10566, section 5): an alternation of two problems, and a mean over views."""

from __future__ import annotations

from stopgrad.study.lab.claims import BetterThanRandom, EndsAs, EndsHigher, Higher, SameBits
from stopgrad.study.lab.definition import DENSE, Case, Study
from stopgrad.study.papers.simsiam import COLLAPSED, LINEAR, PAPER

SIMSIAM = "SimSiam"

alternation = Study(
    name="simsiam/alternation",
    title="Is SimSiam an alternation of two problems?",
    question="The target is what the network said k steps ago at most: it is renewed every k steps.",
    source=f"{PAPER}, section 5.2, multi-step alternation",
    measured=LINEAR,
    method="simsiam",
    decisive=True,
    cases=(
        Case(name=SIMSIAM),
        Case(name="k = 1", paper=68.1, settings=("method.target=lagged", "method.lag=1")),
        Case(name="k = 5", settings=("method.target=lagged", "method.lag=5"), scales=("tiny",)),
        Case(name="k = 20", settings=("method.target=lagged", "method.lag=20"), scales=("tiny",)),
        Case(name="k = 10", paper=68.7, settings=("method.target=lagged", "method.lag=10"), scales=("small", "paper")),
        Case(name="k = 100", paper=68.9, settings=("method.target=lagged", "method.lag=100"), scales=("paper",)),
        Case(name="k = an epoch", paper=67.0, settings=("method.target=lagged", "method.lag=0")),
    ),
    claims=(
        SameBits(words="with k = 1 it is SimSiam", of="k = 1", as_=SIMSIAM),
        BetterThanRandom(words="5 steps on one target work", of="k = 5"),
        BetterThanRandom(words="20 steps on one target work", of="k = 20"),
        BetterThanRandom(words="even an epoch on one target works", of="k = an epoch"),
    ),
)

AVERAGE = ("method.predictor=none", "method.target=average", "data.limit=2048", "loop.epochs=40")
ALONE = ("method.predictor=none", "data.limit=2048", "loop.epochs=40")
MEMORY = {0.0: 0.1, 0.5: None, 0.8: 55.0, 0.9: None, 0.99: None}
expectation = Study(
    name="simsiam/expectation",
    title="Can a moving average stand in for the predictor?",
    question="No predictor; the target of an image is the moving average of what was said of it before. "
    "At --scale tiny on 2,048 images, so that each is visited often.",
    source=f"{PAPER}, section 5.2, expectation over augmentations",
    measured=LINEAR + "; m = 0.8 alone is published",
    method="simsiam",
    decisive=True,
    cases=(
        Case(name="no predictor", settings=ALONE, scales=("tiny",)),
        *(
            Case(
                name=f"m = {m:g}", paper=paper, settings=(*AVERAGE, f"method.average_momentum={m:g}"), scales=("tiny",)
            )
            for m, paper in MEMORY.items()
        ),
        Case(name="m = 0.8, random at first", settings=(*AVERAGE, "method.average_first=random"), scales=("tiny",)),
        Case(
            name="m = 0.8, used before it is moved", settings=(*AVERAGE, "method.average_order=after"), scales=("tiny",)
        ),
        *(
            Case(
                name=f"m = {m:g} ",
                paper=paper,
                settings=("method.predictor=none", "method.target=average", f"method.average_momentum={m:g}"),
                scales=("small", "paper"),
            )
            for m, paper in MEMORY.items()
        ),
    ),
    claims=(
        SameBits(words="with m = 0 it is SimSiam without a predictor", of="m = 0", as_="no predictor"),
        EndsAs(words="which collapses", of="m = 0", verdicts=COLLAPSED),
        Higher(words="a moving average prevents that without any predictor", of="m = 0.8", than="m = 0", by=5.0),
    ),
)

samples = Study(
    name="simsiam/samples",
    title="Do more views of an image make a better target?",
    question="The target is the mean of several views, which nothing is trained on.",
    source=f"{PAPER}, section 5.1: one view is a sample of the expectation; the paper has no table of this",
    measured="none",
    method="simsiam",
    cases=(
        Case(name="1 view", settings=()),
        Case(name="2 views", settings=("method.eta_views=2",), views=3),
        Case(name="4 views", settings=("method.eta_views=4",), views=5),
    ),
    claims=(BetterThanRandom(words="a target of several views is learnt from as well", of="4 views"),),
)

estimate = Study(
    name="simsiam/estimate",
    title="Does the predictor say the mean of an image's views?",
    question="On held-out images, the cosine of the prediction from one view with another view and with the mean of "
    "eight more, beside that of the projection itself with the mean; and the two other ways to such a mean, a vector "
    "kept for each image and a slow copy of the network, both without a predictor.",
    source=f"{PAPER}, section 5.2: a hypothesis, which the paper does not measure",
    measured="none",
    method="simsiam",
    settings=("watch.predictor=8", *DENSE),
    curves=("predictor_mean", "predictor_view", "projection_mean", "std_ratio", "knn_top1"),
    cases=(
        Case(name=SIMSIAM),
        Case(name="no predictor", settings=("method.predictor=none",)),
        Case(
            name="no predictor, a vector an image",
            settings=("method.predictor=none", "method.target=average"),
        ),
        Case(
            name="no predictor, a slow copy",
            settings=("method.predictor=none", "method.target=momentum"),
        ),
    ),
    claims=(
        EndsHigher(
            words="what is predicted is nearer to the mean than to a view",
            of=SIMSIAM,
            curve="predictor_mean",
            than="predictor_view",
        ),
        EndsHigher(
            words="and nearer to it than the view it is predicted from",
            of=SIMSIAM,
            curve="predictor_mean",
            than="projection_mean",
        ),
    ),
)

STUDIES = (alternation, expectation, samples, estimate)
