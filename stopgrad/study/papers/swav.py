"""Multi-crop (SwAV, arXiv:2006.09882), method by method."""

from __future__ import annotations

from stopgrad.study.lab.claims import Higher
from stopgrad.study.lab.definition import Case, Study

# Two whole crops and four of half the side cost three: 9 epochs of the former are 6 of the latter.
OFF, ON = 9 / 8, 6 / 8
METHODS: dict[str, tuple[float | str | None, float | str | None]] = {
    "swav": (68.5, 71.8),
    "simclr": (None, None),
    "moco_v2": (71.6, 73.4),
    "byol": (71.4, 64.8),
    "simsiam": (None, None),
    "dino": (72.5, 75.9),
}
SETTINGS = {"swav": ("method.frozen_epochs=0",), "dino": ("method.frozen_epochs=0",)}

multi_crop = Study(
    name="swav/multi-crop",
    title="Which methods gain by small crops, at equal compute?",
    question="Two crops, and two with four of half the side beside them, for fewer epochs: the same pixels go through "
    "the network.",
    source="DINO, arXiv:2104.14294, appendix E, at equal epochs, not compute: 2 x 224 and 2 x 224 + 6 x 96",
    measured="linear probe, ImageNet, ViT-S/16, 300 epochs",
    method="swav",
    cases=tuple(
        case
        for name, (off, on) in METHODS.items()
        for case in (
            Case(name=f"{name}, 2 crops", method=name, paper=off, epochs=OFF, settings=SETTINGS.get(name, ())),
            Case(name=f"{name}, 2 + 4", method=name, paper=on, epochs=ON, local=4, settings=SETTINGS.get(name, ())),
        )
    ),
    claims=(
        *(
            Higher(words=f"{name} gains", of=f"{name}, 2 + 4", than=f"{name}, 2 crops")
            for name in ("swav", "moco_v2", "dino")
        ),
        Higher(words="byol loses", of="byol, 2 crops", than="byol, 2 + 4"),
    ),
)

STUDIES = (multi_crop,)
