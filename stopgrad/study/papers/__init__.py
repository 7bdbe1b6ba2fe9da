"""The papers' studies, a file a paper. A new one is a `Study` there, in its STUDIES."""

from __future__ import annotations

from stopgrad.study.lab.definition import Study
from stopgrad.study.papers import (
    byol,
    dino,
    directpred,
    invaspread,
    moco,
    moco_v3,
    simclr,
    simsiam,
    simsiam_hypothesis,
    swav,
    unigrad,
)

STUDIES: dict[str, Study] = {
    study.name: study
    for paper in (simsiam, simsiam_hypothesis, unigrad, byol, directpred, simclr, moco, moco_v3, swav, invaspread, dino)
    for study in paper.STUDIES
}
