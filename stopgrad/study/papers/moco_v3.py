"""MoCo v3's studies (arXiv:2104.02057), and BYOL's ViTs beside it."""

from __future__ import annotations

from stopgrad.study.lab.claims import Higher
from stopgrad.study.lab.definition import DENSE, Case, Scale, Study

# AdamW as the paper trains its ViTs, at a rate that is high for them.
VIT = (
    "backbone.positions=sincos",
    "backbone.init_scheme=moco_v3",
    "optim={name: adamw, trust: 0.001, trust_clip: false, rate_1d: 1.0}",
    "optim.base_lr=0.004",
    "optim.weight_decay=0.1",
    "optim.exclude_1d=true",
)
# timm's smallest, of 6 layers, on 16 patches of an image brought to 64 pixels: seconds an epoch on two cores
SIZES: dict[Scale, tuple[str, int]] = {
    "tiny": ("test_vit", 64),
    "small": ("vit_small_patch16_224", 64),
    "paper": ("vit_small_patch16_224", 224),
}
METHODS = {"moco_v3": "MoCo v3", "byol": "BYOL"}
WAYS = {"trained": (), "frozen": ("backbone.patch_projection=frozen",)}


def case(scale: Scale, method: str, way: str) -> Case:
    name, pixels = SIZES[scale]
    beside = "" if scale == "tiny" else f", ViT-S at {pixels}"
    return Case(
        name=f"{METHODS[method]}, {way}{beside}",
        method=method,
        settings=(f"backbone.name={name}", f"views.image_size={pixels}", *WAYS[way]),
        scales=(scale,),
        epochs=5 / 8 if scale == "tiny" else 1.0,
    )


patches = Study(
    name="moco_v3/patches",
    title="Does a frozen patch projection steady a ViT?",
    question="The patch projection trained, or left as it was drawn. The largest gradient of the first layer that is "
    "trained since the line before, and kNN, over training.",
    source="MoCo v3, arXiv:2104.02057, figures 4 to 6, which draw curves; frozen gains 0.4 to 1.7, the more the higher "
    "the rate, and 1.3 with BYOL",
    measured="none: the paper draws curves",
    method="moco_v3",
    settings=(*VIT, *DENSE),
    curves=("gradient_first_layer", "knn_top1", "loss", "std_ratio"),
    cases=tuple(case(scale, method, way) for scale in SIZES for method in METHODS for way in WAYS),
    claims=tuple(
        Higher(words=f"{words}: frozen is at least as good", of=f"{words}, frozen", than=f"{words}, trained")
        for words in METHODS.values()
    ),
)

STUDIES = (patches,)
