"""A backbone in two halves is a backbone like any other: as a file, exported, as a start, in a recipe, in a run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from stopgrad.assemble import api, begin
from stopgrad.assemble.api import Options, choose, compose
from stopgrad.assemble.use import embed
from stopgrad.contracts import CheckpointError, ConfigError, Preprocess
from stopgrad.data.probe import Machine, Probe
from stopgrad.encoder import Encoder, export_encoder, load_encoder, save_encoder
from stopgrad.encoder.export import FORMATS
from stopgrad.encoder.pixels import FromPixels
from stopgrad.nn.backbones import build_backbone
from stopgrad.nn.colour_split import LabSplit
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump, load
from stopgrad.recipes import cmc as presets
from stopgrad.recipes.fitted import with_backbone
from stopgrad.recipes.folder import folder
from stopgrad.training.progress import Progress
from tests.training.small_run import SETTINGS

SIDE = 16
PREPROCESS = Preprocess(image_size=SIDE, mean=(0.0,) * 3, std=(1.0,) * 3)
AS_THEY_ARE = ("views.mean=[0,0,0]", "views.std=[1,1,1]")
SPLIT = ("backbone.split=lab", *AS_THEY_ARE)
OURS = {"scenes": presets.scenes, "cifar10": presets.cifar10, "imagenet": presets.imagenet}
LAPTOP = Machine(cores=2, memory=16 * 10**9)
SERVER = Machine(cores=32, memory=256 * 10**9, gpu="NVIDIA H200", gpu_memory=140 * 10**9)


def encoder(name: str = "tiny", side: int = SIDE) -> Encoder:
    """A split backbone whose batch norm has seen something."""
    width = {"width": 16} if name == "tiny" else {}
    config = BackboneConfig(name=name, split="lab", **width)  # type: ignore[arg-type]
    backbone = build_backbone(config, 3, side, seed=3)
    with torch.no_grad():
        backbone(torch.rand(8, 3, side, side))
    return Encoder(backbone.eval(), replace(PREPROCESS, image_size=side), config)


def saved(path: Path) -> Encoder:
    one = encoder()
    save_encoder(path, one.backbone, one.config, one.preprocess)
    return one


def test_what_is_loaded_computes_the_same_and_has_an_untrained_twin(tmp_path: Path) -> None:
    one = saved(tmp_path / "encoder.safetensors")
    found = load_encoder(tmp_path / "encoder.safetensors")
    x = torch.rand(3, 3, SIDE, SIDE)
    assert torch.equal(found(x), one(x))
    assert (found.config, found.dim) == (one.config, 32 + 32)
    fresh = found.fresh(seed=3)
    assert isinstance(fresh, LabSplit)
    assert [p.shape for p in fresh.parameters()] == [p.shape for p in one.backbone.parameters()]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_the_same_function_of_pixels(suffix: str, tmp_path: Path) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
        pytest.importorskip("onnxscript")
    one = encoder()
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, SIDE, SIDE)).astype(np.float32)
    pixels[0] = 0  # black, white and the brightest red are where Lab bends
    pixels[1] = 255
    pixels[2, 0] = 255
    done = export_encoder(one, tmp_path / f"encoder{suffix}", pixels, "noise")
    if suffix == ".safetensors":
        assert "tiny in two halves is stopgrad's own architecture" in done.checked
        return
    assert done.difference is not None
    assert done.difference <= 1e-5
    if suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx", providers=["CPUExecutionProvider"])
        found = session.run(["features"], {"pixels": pixels})[0]
        with torch.no_grad():
            expected = FromPixels(one)(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)


def described(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    with safetensors.safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["stopgrad"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(
    "change", [{"split": "rgb"}, {"split": 1}, {"split": "none"}, {"width": 40_000}, {"width": 32}]
)
def test_a_description_that_the_weights_do_not_fit_is_refused_in_one_line(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    saved(path)
    found, tensors = described(path)
    text = json.dumps({**found, "backbone": {**found["backbone"], **change}})
    path.write_bytes(safetensors.torch.save(tensors, {"stopgrad": text}))
    with pytest.raises(CheckpointError) as caught:
        load_encoder(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_an_encoder_in_two_halves_is_a_start_and_brings_what_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    saved(path)
    recipe, _ = choose("simsiam", Options(init=str(path)))
    assert (recipe.backbone.split, recipe.backbone.width) == ("lab", 16)
    assert (recipe.views.mean, recipe.views.std) == (PREPROCESS.mean, PREPROCESS.std)


def test_weights_of_timm_are_no_start_for_two_halves_and_that_is_the_first_thing_said() -> None:
    start = begin.Start(init="timm:resnet18", backbone="resnet18", settings=(), preprocess=None)
    with pytest.raises(ConfigError, match=r"backbone.split=lab makes two backbones .* than timm:resnet18; remove it"):
        begin.gently(presets.cifar10(), start, {})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["backbone.split=lab"], r"reads pixels from 0 to 1, got views.mean=\[0.485.*type --set views.mean=\[0,0,0\]"),
        (["backbone.split=lab", "views.mean=[0,0,0]"], r"views.std=\[0.229.*--set views.std=\[1,1,1\]"),
        (
            ["backbone.split=lab", "views.mean=[]", "views.std=[]"],
            r"got views.mean=\[\] and views.std=\[\]; type --set",
        ),
        (
            ["backbone.split=lab", "data.channels=1", "views.mean=[0]", "views.std=[1]"],
            r"in colour, 3 channels, got data.channels=1; use backbone.split=none",
        ),
        (["backbone.split=rgb"], r"backbone.split: 'rgb' is not a choice"),
    ],
    ids=str,
)
def test_a_recipe_that_lab_can_not_be_made_of_says_what_to_type(settings: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        compose("simsiam", Options(settings=settings))


def test_the_split_is_what_the_method_knows_and_survives_being_written_down(tmp_path: Path) -> None:
    recipe = compose("simsiam", Options(settings=list(SPLIT)))
    assert recipe.known().split == "lab"
    assert compose("simsiam", Options()).known().split == "none"
    (tmp_path / "recipe.yaml").write_text(dump(recipe))
    assert load(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("preset", OURS)
def test_another_backbone_is_split_as_well(preset: str) -> None:
    recipe, _ = with_backbone(OURS[preset](), "resnet34", OURS)
    assert recipe.backbone == BackboneConfig(name="resnet34", split="lab")
    tiny, _ = with_backbone(OURS[preset](), "tiny", OURS)
    assert tiny.backbone.split == "lab"
    assert tiny.method == presets.scenes().method


def of_folder(machine: Machine, side: int = 300, channels: int = 3, deep: float = 0.0) -> tuple[Recipe, dict[str, str]]:
    sizes = np.array([[side, side]], np.int64)
    return folder(Probe(images=4000, train=4000, sizes=sizes, channels=channels, deep=deep), machine, OURS)


@pytest.mark.parametrize("deep", [0.0, 1.0])
@pytest.mark.parametrize("machine", [LAPTOP, SERVER], ids=["laptop", "server"])
def test_for_images_nobody_has_seen_pixels_stay_as_they_are(machine: Machine, deep: float) -> None:
    for side in (32, 300):
        recipe, why = of_folder(machine, side, deep=deep)
        assert recipe.backbone.split == "lab"
        assert (recipe.views.mean, recipe.views.std) == (PREPROCESS.mean, PREPROCESS.std)
        assert "lightness and colour" in why["views.mean"]
        assert recipe.views.crops[0].jitter == 0


def test_gray_images_have_no_colour_to_split_off() -> None:
    with pytest.raises(ConfigError, match=r"got data.channels=1; use backbone.split=none and another method than cmc"):
        of_folder(LAPTOP, channels=1)


def colour_folder(path: Path) -> Path:
    """40 pictures of one colour and some noise, of two classes."""
    random = np.random.default_rng(0)
    for i in range(40):
        place = path / ("warm" if i % 2 else "cold")
        place.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 90, (SIDE, SIDE, 3), dtype=np.uint8)
        pixels[:, :, 0 if i % 2 else 2] += 120
        Image.fromarray(pixels).save(place / f"{i}.png")
    return path


def test_a_run_with_two_halves_goes_all_the_way_to_its_report(tmp_path: Path) -> None:
    """By a method that knows of no halves; CMC's own run is the contract suite's."""
    settings = (*SETTINGS, *SPLIT, "data.limit=0", "loop.batch_size=10", "loop.epochs=2", "watch.every_steps=3")
    options = Options(
        data=str(colour_folder(tmp_path / "pictures")),
        settings=(*settings, "backbone.width=16", f"views.image_size={SIDE}", "eval.k=[3]"),
    )
    done = api.train("simsiam/scenes", out=tmp_path, name="run", options=options, progress=Progress(quiet=True))
    assert (done.path / "report.html").stat().st_size > 10_000
    found = load_encoder(done.path / "encoder.safetensors")
    assert isinstance(found.backbone, LabSplit)
    features = embed(done.path, tmp_path / "pictures").features
    assert features.shape == (40, found.dim)
