"""CPC's presets. All take Adam at a constant rate, as the papers and the re-implementations do."""

from __future__ import annotations

from dataclasses import replace

from stopgrad.data.audio import AudioDataConfig
from stopgrad.data.texts import TextDataConfig
from stopgrad.methods.cpc import CPCConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.optim.config import OptimConfig
from stopgrad.recipe import Recipe
from stopgrad.recipes.base import SMALL_CROPS, TINY_BATCH, on_cifar10, on_imagenet, on_scenes
from stopgrad.training.config import LoopConfig
from stopgrad.views.audio_config import AudioViewsConfig
from stopgrad.views.config import CropConfig, ViewsConfig
from stopgrad.views.text_config import TextViewsConfig

# Section 3.2: the shorter side of a photograph of 4:3 to 300, a square of 256 from anywhere, a flip, no colour.
CROP = CropConfig(scale=(0.55, 0.55), ratio=(1.0, 1.0), jitter=0.0, grayscale=1.0, blur=0.0)
# rschwarz15/CPCV2-PyTorch: 30 of 32 pixels. It pads by 2 before, which is left out.
CIFAR_CROP = CropConfig(scale=(0.88, 0.88), ratio=(1.0, 1.0), jitter=0.0, grayscale=0.0, blur=0.0)

TEXT_WIDTH = 128  # of ours; the paper: 2400
AUDIO_BATCH = 64  # section 3.1: 8 GPUs of 8


def adam(lr: float, batch_size: int) -> OptimConfig:
    """At a rate of `lr`, whatever the batch of the preset is; it does not fall."""
    return OptimConfig(name="adamw", base_lr=lr * 256 / batch_size, weight_decay=0.0, end=1.0)


def scenes() -> Recipe:
    """The embedded data set on two CPU cores in minutes, 7 x 7 patches of 8 pixels. Synthetic images.

    Four directions and patch augmentation as in version 2, 64 negatives, no row that overlaps the context's.
    """
    recipe = on_scenes(
        CPCConfig(
            steps=3,
            drawn=64,
            skip=1,
            directions=4,
            context=64,
            context_layers=3,
            patch_less=1,
            patch_flip=0.5,
            patch_drop_colours=0.5,
        ),
        adam(1e-3, TINY_BATCH),
        crops=SMALL_CROPS[:1],
    )
    return replace(recipe, backbone=BackboneConfig(name="tiny", norm="layer", patches=8))


def cifar10() -> Recipe:
    """ResNet-18 on 5 x 5 patches of 10 pixels, 500 epochs, batch 16. Expected: we know of no published number for it;
    needs a GPU.

    Crop, grid, steps, directions, negatives, batch, rate and length are those of rschwarz15/CPCV2-PyTorch, whose
    network is a WideResNet-28-2 and whose patch augmentation a list of AutoAugment's. How often colours are dropped is
    our guess.
    """
    recipe = on_cifar10(
        CPCConfig(
            steps=3,
            drawn=16,
            skip=1,
            directions=4,
            patch_less=0,
            patch_flip=0.5,
            patch_drop_colours=0.5,
        ),
        adam(2e-4, 16),
        epochs=500,
        batch_size=16,
        crops=(CIFAR_CROP,),
    )
    return replace(
        recipe,
        views=ViewsConfig(image_size=30, crops=(CIFAR_CROP,)),
        backbone=BackboneConfig(name="resnet18", stem="small", norm="layer", patches=10),
    )


def imagenet() -> Recipe:
    """Three stages of a ResNet-101 on 7 x 7 patches of 64 pixels, gray, 5 rows ahead, batch 512. Expected: 48.7 linear
    (version 1, table 3); needs GPUs.

    The paper names neither the length, here 200 epochs, nor the number of negatives, here 128 an image and step.
    """
    return _on_imagenet("resnet101", CPCConfig(drawn=128), CROP)


def imagenet_v2() -> Recipe:
    """Three stages of a ResNet-50 on 7 x 7 patches of 64 pixels in colour, four directions, patch augmentation, batch
    512. Expected: 63.8 linear (version 2 with a ResNet-50); needs GPUs.

    Crop, optimiser and length are those of `imagenet`, and how often colours are dropped is our guess: no code of
    version 2 was released.
    """
    method = CPCConfig(drawn=128, directions=4, patch_flip=0.5, patch_drop_colours=0.5)
    return _on_imagenet("resnet50", method, replace(CROP, grayscale=0.0))


def audio() -> Recipe:
    """A folder of recordings at 16 kHz: windows of 1.28 s, 512 channels, 12 steps of 10 ms ahead, batch 64. Expected on
    LibriSpeech's 100 hours: speakers 97.4, phones 64.6 linear (version 1, tables 1 and 2), frame by frame; needs GPUs.

    Norm and 128 negatives, drawn for each recording and step, are facebookresearch/CPC_audio's, which trains for 200
    epochs; the paper names 300,000 steps instead.
    """
    return _of_audio(
        16_000,
        20_480,
        CPCConfig(steps=12, drawn=128),
        width=512,
        context=256,
        optim=adam(2e-4, AUDIO_BATCH),
        epochs=200,
    )


def audio_small() -> Recipe:
    """A folder of short recordings at 8 kHz on two CPU cores in minutes: windows of half a second, 128 channels, 6
    steps of 20 ms ahead, which is as far as the paper looks. Rate and length are a guess; nobody has measured it."""
    return _of_audio(
        8_000, 4_000, CPCConfig(steps=6, drawn=64), width=128, context=128, optim=adam(1e-3, AUDIO_BATCH), epochs=30
    )


def text() -> Recipe:
    """Sentences, token by token: the captions of the embedded scenes, or --data captions.csv. A first guess.

    Three steps ahead as in section 3.3, where the steps are sentences; a word in ten is left out, else a sentence is
    always the same.
    """
    return Recipe(
        method=CPCConfig(steps=3, drawn=128),
        data=TextDataConfig(),
        views=TextViewsConfig(views=1, synonyms=0.0, swap=0.0, dropout=0.0),
        backbone=BackboneConfig(name="cpc_text", width=TEXT_WIDTH, context=TEXT_WIDTH),
        optim=adam(1e-3, TINY_BATCH),
        loop=LoopConfig(epochs=15, batch_size=TINY_BATCH),
    )


def _of_audio(
    sample_rate: int, window: int, method: CPCConfig, *, width: int, context: int, optim: OptimConfig, epochs: int
) -> Recipe:
    return Recipe(
        method=method,
        data=AudioDataConfig(),
        views=AudioViewsConfig(sample_rate=sample_rate, window=window),
        backbone=BackboneConfig(name="cpc_audio", width=width, context=context, norm="layer"),
        optim=optim,
        loop=LoopConfig(epochs=epochs, batch_size=AUDIO_BATCH),
    )


def _on_imagenet(backbone: str, method: CPCConfig, crop: CropConfig) -> Recipe:
    patches = BackboneConfig(name=backbone, stem="standard", norm="layer", patches=64, stages=3)
    recipe = on_imagenet(method, adam(2e-4, 512), epochs=200, batch_size=512, crops=(crop,), backbone=patches)
    return replace(recipe, views=ViewsConfig(image_size=256, crops=(crop,)))
