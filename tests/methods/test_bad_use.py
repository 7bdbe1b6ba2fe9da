"""What a user can get wrong about a method is one line before the first step, with what to type."""

import shlex

import pytest

from stopgrad.assemble.api import Options, compose
from stopgrad.assemble.build import build_method
from stopgrad.contracts import ConfigError
from stopgrad.methods import METHODS

SMALL_SECOND = "views.crops.1.size=16"
THREE = "views.crops=[{}, {}, {size: 16}]"

WRONG: list[tuple[str, str, str]] = [
    # a batch smaller than the method needs
    ("simclr", "loop.batch_size=1", "loop.batch_size must be at least 2"),
    ("moco_v2", "loop.batch_size=30 method.bn_splits=8", "groups need equally many images, 2 or more, .* use --set"),
    ("moco_v1", "loop.batch_size=8 method.bn_splits=8", "use --set loop.batch_size=16 or --set method.bn_splits=4"),
    # a queue smaller than the batch
    (
        "moco_v2",
        "method.queue_size=32",
        "queue_size=32 is below the 64 keys of one step .* use --set method.queue_size=",
    ),
    ("moco_v2", "method.queue_size=64 method.pairs=symmetric", "is below the 128 keys of one step"),
    ("swav", "method.queue_size=32", "queue_size=32 does not hold a batch of 64; type --set method.queue_size=960"),
    # views of unequal size where equal ones are needed
    *(
        (name, SMALL_SECOND, "needs them equal, got 32 and 16 pixels; type --set")
        for name in METHODS
        if name not in ("instdisc", "cpc", "cmc", "clip")  # of one view, or of an image and a text
    ),
    # multi-crop on a method without it
    ("invaspread", THREE, "has no multi-crop, got 3; keep the first two, or use"),
    ("instdisc", "views.crops=[{}, {}]", "compares 1 view with the bank's row of its image, got 2; keep the first"),
    # fewer than two prototypes
    ("swav", "method.prototypes=1", "method.prototypes must be at least 2, got 1; the paper uses 3000"),
    ("dino", "method.prototypes=1", "method.prototypes must be at least 2, got 1; the paper uses 65536"),
    # temperature 0
    *(
        (name, f"method.{field}=0", rf"method\.{field} must be above 0, got 0\.?0?; the paper uses")
        for name, field in (
            ("instdisc", "temperature"),
            ("invaspread", "temperature"),
            ("moco_v1", "temperature"),
            ("moco_v2", "temperature"),
            ("moco_v3", "temperature"),
            ("simclr", "temperature"),
            ("swav", "temperature"),
            ("swav", "epsilon"),
            ("dino", "student_temperature"),
            ("dino", "teacher_temperature"),
        )
    ),
]


@pytest.mark.parametrize(("name", "settings", "said"), WRONG, ids=lambda value: str(value)[:60])
def test_it_is_told_before_anything_is_built(name: str, settings: str, said: str) -> None:
    asked = settings.split(" method") if "views" not in settings else [settings]
    words = [asked[0], *(f"method{rest}" for rest in asked[1:])]
    with pytest.raises(ConfigError, match=said):
        compose(f"{name}/scenes", Options(settings=words))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_refuses_a_setting_it_does_not_have(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'temprature'"):
        compose(f"{name}/scenes", Options(settings=["method.temprature=1"]))


@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
@pytest.mark.parametrize("setting", ["patch_projection=frozen", "positions=sincos", "heads=12"])
def test_an_option_for_vits_alone_says_so_elsewhere(backbone: str, setting: str) -> None:
    with pytest.raises(ConfigError, match=f"backbone.{setting.split('=')[0]}"):
        build_method(compose("moco_v3/scenes", Options(backbone=backbone, settings=[f"backbone.{setting}"])), 100)


def test_a_local_crop_that_the_patches_do_not_divide_is_told_before_the_first_step() -> None:
    settings = shlex.split('views.image_size=32 "views.crops=[{}, {}, {size: 20}]"')
    recipe = compose("dino/scenes", Options(backbone="vit_tiny_patch16_224", settings=settings))
    with pytest.raises(ConfigError, match=r"20-pixel images: .* use --set views\.crops\.N\.size=16"):
        build_method(recipe, 100)
