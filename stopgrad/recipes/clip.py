"""CLIP's presets: images with captions, from the embedded scenes to the paper's 400 million pairs.

The paper has one recipe for all sizes of model, and none for a few thousand pairs: what the small presets have instead
is a first guess.
"""

from __future__ import annotations

from stopgrad.data.captioned import CaptionedDataConfig
from stopgrad.methods.clip import CLIPConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import TINY_BATCH
from stopgrad.training.config import LoopConfig
from stopgrad.views.captioned_config import CLIP_CROP, CaptionedViewsConfig
from stopgrad.views.config import IMAGENET_MEAN, IMAGENET_STD, CropConfig
from stopgrad.views.text_config import TextViewsConfig

CAPTIONS = "captions"  # the preset for any source of one's own
SMALL_TEXT = BackboneConfig(name="text_transformer", width=128, layers=2, heads=4, pool="end", causal=True)
BETAS = (0.9, 0.98)  # the paper's with a ViT; .999 with a ResNet. Its epsilon of 1e-6 is no setting here (1e-8)
# Titles of things do not say what is left or right: flipped, and a part of it. A-CLIP is for 400 million pairs.
PART = CropConfig(
    scale=(0.5, 1.0), ratio=(3 / 4, 4 / 3), interpolation="bicubic", jitter=0.0, grayscale=0.0, blur=0.0, hflip=0.5
)


def plain_text(length: int) -> TextViewsConfig:
    """Captions as they are, `length` tokens of them."""
    return TextViewsConfig(length=length, views=1, synonyms=0.0, deletion=0.0, swap=0.0, dropout=0.0)


def scenes() -> Recipe:
    """The embedded data set and its captions on two CPU cores in minutes. Synthetic images.

    Whole images, neither flipped nor cut: captions say where things are. Rate and decay are a first guess.
    """
    return _small("scenes-v1", 32, CLIP_CROP, LoopConfig(epochs=15, batch_size=TINY_BATCH))


def captions() -> Recipe:
    """Images of yours with captions (--data captions.csv), with `tiny` on two CPU cores. A first guess.

    Crops are flipped and take half of the area or more, which captions that say left or right do not allow:
    --set views.crops.0.hflip=0.
    """
    return _small("captions.csv", 64, PART, LoopConfig(epochs=30, batch_size=TINY_BATCH))


def vit_l14() -> Recipe:
    """ViT-L/14, 32 epochs of 400 million pairs, batch 32,768; --data SHARDS. Expected: 75.5 zero-shot on ImageNet
    (mlfoundations/open_clip, docs/openclip_results.csv, OpenAI's weights); 12 days on 256 V100 (paper, section 2.5).

    The smaller models' rates are printed in a table we could not read, this one's is 4e-4. Weights of timm's ViT begin
    as timm has them.
    """
    text = BackboneConfig(name="text_transformer", width=768, layers=12, heads=12, pool="end", causal=True)
    return Recipe(
        method=CLIPConfig(dim=768, text=text),
        data=CaptionedDataConfig(source="captions.csv"),
        views=CaptionedViewsConfig(),
        backbone=BackboneConfig(name="vit_large_patch14_clip_224", stem="auto"),
        optim=OptimConfig(
            name="adamw",
            base_lr=3.125e-6,  # 4e-4 at this batch
            betas=BETAS,
            weight_decay=0.2,
            exclude_1d=True,
            warmup_epochs=0.164,  # 2,000 steps
        ),
        loop=LoopConfig(epochs=32, batch_size=32768, view_threads=8),
    )


def _small(source: str, side: int, crop: CropConfig, loop: LoopConfig) -> Recipe:
    return Recipe(
        method=CLIPConfig(dim=128, text=SMALL_TEXT),
        data=CaptionedDataConfig(source=source),
        views=CaptionedViewsConfig(
            image_size=side, crops=(crop,), mean=IMAGENET_MEAN, std=IMAGENET_STD, text=plain_text(32)
        ),
        backbone=BackboneConfig(name="tiny"),
        optim=OptimConfig(
            name="adamw", base_lr=4e-3, betas=BETAS, weight_decay=0.2, exclude_1d=True, warmup_epochs=1.0
        ),
        loop=loop,
    )
