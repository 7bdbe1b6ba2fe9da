"""InvaSpread's studies (arXiv:1904.03436)."""

from __future__ import annotations

from stopgrad.study.lab.claims import Higher
from stopgrad.study.lab.definition import Case, Study

UNCUT = ("views.crops.*.scale=[1.0, 1.0]", "views.crops.*.ratio=[1.0, 1.0]")
UNCOLOURED = ("views.crops.*.jitter=0",)

views = Study(
    name="invaspread/views",
    title="Which changes of a view does InvaSpread live on?",
    question="All of them, without crops, without colour jitter, and with neither.",
    source="InvaSpread, arXiv:1904.03436, ablation of augmentations; its rows leave out one operation, the last all",
    measured="kNN, CIFAR-10, ResNet-18",
    method="invaspread",
    cases=(
        Case(name="all", paper=83.6),
        Case(name="without crops", paper=56.2, settings=UNCUT),
        Case(name="without jitter", paper=75.7, settings=UNCOLOURED),
        Case(
            name="none",
            paper=37.4,
            settings=(
                *UNCUT,
                *UNCOLOURED,
                "views.crops.*.grayscale=0",
                "views.crops.*.hflip=0",
                "views.crops.*.blur=0",
            ),
        ),
    ),
    claims=(
        Higher(words="crops matter most", of="without jitter", than="without crops"),
        Higher(words="jitter matters", of="all", than="without jitter"),
        Higher(words="without any there is little to learn from", of="without crops", than="none"),
    ),
)

STUDIES = (views,)
