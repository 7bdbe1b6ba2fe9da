"""Fine-tuning and distillation from the run they begin with to the run they leave: folder, resume, scores, errors."""

import csv
import dataclasses
import json
import math
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.faults.runs import comparable
from stopgrad.assemble import api
from stopgrad.assemble.build import build_method
from stopgrad.assemble.finetune import compose_distill, compose_finetune, distill, finetune
from stopgrad.assemble.lesson import Lesson, lesson_of
from stopgrad.assemble.projector import with_projector
from stopgrad.assemble.use import embed
from stopgrad.contracts import CheckpointError, ConfigError, DataError, InterruptedRunError, MissingInputError
from stopgrad.data import open_data
from stopgrad.encoder import load_encoder, save_encoder
from stopgrad.encoder.classifier import load_classifier
from stopgrad.methods.finetune import FinetuneConfig
from stopgrad.nn.config import BackboneConfig
from stopgrad.nn.kept import KeptLayer
from stopgrad.nn.with_kept import WithKept
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import dump, override
from stopgrad.recipe.text import load as load_recipe
from stopgrad.recipes.taught import Taken, finetuned
from stopgrad.rundir import RunDir
from stopgrad.training import checkpoint
from stopgrad.training.progress import Progress
from tests.assemble.few import CLASSES, QUIET, TRAIN, colours, few, into, place, pretrained


@pytest.fixture(name="place")
def _place() -> Path:
    return place()


@pytest.fixture(name="tuned")
def _tuned() -> Path:
    return place() / "tuned"


def lesson(recipe: Recipe, folder: Path) -> Lesson:
    """What a run of this recipe would be taught, without a step of it."""
    folder.mkdir(exist_ok=True)
    found = lesson_of(recipe, open_data(*recipe.of_images("here")[:1], recipe.views.sides[0]), RunDir(folder))
    assert found is not None
    return found


def state_of(run: Path) -> dict[str, Any]:
    found = checkpoint.load_newest(RunDir(run, writes=False), lambda _: None)
    assert found is not None
    return found["method"]  # type: ignore[no-any-return]


# --- fine-tuning ------------------------------------------------------------------------------------------------------


def test_a_run_has_what_every_run_has_and_its_classifier_and_labels(tuned: Path) -> None:
    names = {path.name for path in tuned.iterdir()}
    assert {
        "recipe.yaml", "log.jsonl", "status.json", "results.json", "encoder.safetensors", "report.html", "checkpoints",
        "gallery", "labels.csv", "classifier.safetensors", "init.safetensors",
    } <= names  # fmt: skip
    rows = list(csv.reader((tuned / "labels.csv").read_text().splitlines()))
    assert rows[0] == ["name", "class"]
    assert sorted(name for _, name in rows[1:]) == sorted(CLASSES * 4)
    assert all(path.startswith(f"train/{name}/{name}") for path, name in rows[1:])
    recipe = load_recipe(tuned / "recipe.yaml")
    assert recipe.method.name == "finetune"
    assert recipe.backbone.kept == (KeptLayer(width=16),)
    assert recipe.loop.batch_size == 12
    report = (tuned / "report.html").read_text()
    assert "<strong>Classifier accuracy on held-out samples, %</strong>" in report
    assert '<th scope="col">chance</th>' in report


def test_the_classifier_stands_beside_chance_and_the_trunk_beside_where_it_began(tuned: Path) -> None:
    found = {row["name"]: row for row in json.loads((tuned / "results.json").read_text())}
    assert found["baseline_chance_classifier_top1"]["value"] == pytest.approx(100 / 3)
    assert 0 <= found["classifier_top1"]["value"] <= 100
    assert found["classifier_top1"]["n"] == 24
    assert "taught with the labels of 12 images" in found["classifier_top1"]["protocol"]
    for name in ("knn_top1", "baseline_init_knn_top1", "baseline_random_knn_top1", "baseline_pixels_knn_top1"):
        assert name in found
    # the rows are those of the files: one trunk, one classifier
    encoder, (classifier, classes) = (
        load_encoder(tuned / "encoder.safetensors"),
        load_classifier(tuned / "classifier.safetensors"),
    )
    assert classes == CLASSES
    assert isinstance(encoder.backbone, WithKept)
    result = api.evaluate(tuned, progress=QUIET)
    assert {row.name: row.value for row in result}["knn_top1"] == found["knn_top1"]["value"]
    embedded = embed(encoder, tuned.parent / "photos", progress=QUIET)
    test = [i for i, split in enumerate(embedded.split) if split == "test"]
    named = classifier(torch.from_numpy(embedded.features[test])).argmax(1).numpy()
    assert found["classifier_top1"]["value"] == pytest.approx(100 * float(np.mean(named == embedded.labels[test])))


def test_it_begins_at_the_runs_backbone_and_the_first_layer_of_its_projector(place: Path, tuned: Path) -> None:
    began, state = load_encoder(tuned / "init.safetensors").backbone.state_dict(), state_of(place / "pre")
    for name, value in began.items():
        there = name.replace("trunk.", "backbone.") if name.startswith("trunk.") else name.replace("kept", "projector")
        assert torch.equal(value, state[there]), name
    after = load_encoder(tuned / "encoder.safetensors").backbone.state_dict()
    assert not torch.equal(after["kept.0.weight"], began["kept.0.weight"])
    saved = state_of(tuned)
    assert not [name for name in saved if "projector" in name or "kept.3" in name]
    assert {"backbone.kept.0.weight", "classifier.weight", "labels"} <= saved.keys()


def test_the_first_loss_is_that_of_knowing_nothing(tuned: Path) -> None:
    log = RunDir(tuned).read_log()
    assert next(line for line in log if line["step"])["loss"] < math.log(3) + 0.3
    assert log[0]["examined"] == 24
    assert log[0]["chance"] == pytest.approx(100 * 8 / 24, abs=12)
    whole = [line for line in log if "accuracy" in line]
    assert {line["step"] for line in whole} == {0, 4, 8}
    assert api.diagnose_run(tuned).evidence[0].startswith("accuracy on held-out images")


def test_the_same_seed_and_data_have_the_same_labels_whatever_is_trained(
    place: Path, tuned: Path, tmp_path: Path
) -> None:
    scratch, _ = compose_finetune(place / "pre", "4-per-class", from_scratch=True, options=few(seed=3))
    assert (scratch.backbone.init, scratch.backbone.kept, scratch.backbone.width) == ("", (), 8)
    lesson(scratch, tmp_path / "scratch")
    assert (tmp_path / "scratch" / "labels.csv").read_bytes() == (tuned / "labels.csv").read_bytes()
    lesson(dataclasses.replace(scratch, seed=4), tmp_path / "other")
    assert (tmp_path / "other" / "labels.csv").read_bytes() != (tuned / "labels.csv").read_bytes()


def test_a_run_that_is_interrupted_goes_on_to_the_bit_without_its_beginning(place: Path, tuned: Path) -> None:
    class Signal(Progress):
        def step(self, clock: Any, fields: Any) -> None:
            if clock.step >= 4:
                os.kill(os.getpid(), signal.SIGINT)

    where = dataclasses.replace(into(place, "again"), progress=Signal(quiet=True))
    with pytest.raises(InterruptedRunError):
        finetune(
            place / "pre", "4-per-class", from_projector_layer=1, options=few("loop.epochs=8", seed=3), where=where
        )
    hidden = (place / "pre").rename(place / "gone")
    try:
        resumed = api.resume(place / "again", progress=QUIET)
    finally:
        hidden.rename(place / "pre")
    assert resumed.trained
    whole, again = comparable(tuned), comparable(place / "again")
    assert not [part for part in whole if whole[part] != again[part]]


def test_a_target_that_is_kept_brings_its_own_projector(place: Path, tmp_path: Path) -> None:
    head = "method.projector={layers: 3, hidden: 16, dim: 8}"
    run = pretrained(
        tmp_path, "dino", place / "photos", "dino", head, "method.prototypes=7", "method.momentum=0.5", "data.limit=60"
    )
    recipe, _ = compose_finetune(run, "10%", from_projector_layer=2, options=few())
    assert [layer.activation for layer in recipe.backbone.kept] == ["gelu", "gelu"]
    file = run / "encoder.safetensors"
    began, state = with_projector(load_encoder(file), file, 2).backbone.state_dict(), state_of(run)
    for name, value in began.items():
        there = name.replace("trunk.", "target.target_backbone.").replace("kept.", "target.target_projector.")
        assert torch.equal(value, state[there]), name
    assert not torch.equal(began["kept.0.weight"], state["projector.0.weight"])


def test_by_default_one_layer_of_simclr_v2s_projector_is_kept_and_none_of_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert compose_finetune(place / "pre", "10%", options=few())[0].backbone.kept == ()
    monkeypatch.setattr("stopgrad.assemble.finetune.MIDDLE", ("simclr",))
    recipe, _ = compose_finetune(place / "pre", "10%", options=few())
    assert recipe.backbone.kept == (KeptLayer(width=16),)
    assert compose_finetune(place / "pre", "10%", from_projector_layer=0, options=few())[0].backbone.kept == ()
    both, _ = compose_finetune(place / "pre", "10%", from_projector_layer=3, options=few())
    assert both.backbone.kept == (*[KeptLayer(width=16)] * 2, KeptLayer(width=8, activation="none"))


def test_a_checkpoint_that_is_not_of_the_end_is_refused(place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pre"
    shutil.copytree(place / "pre", copy)
    newest = max((copy / "checkpoints").glob("*.ckpt"))
    newest.write_bytes(newest.read_bytes()[:-1])  # damaged: an older one is left
    with pytest.raises(CheckpointError, match="not of the run's end, its projector does not go with its encoder"):
        with_projector(load_encoder(copy / "encoder.safetensors"), copy / "encoder.safetensors", 1)
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(MissingInputError, match="has no checkpoint, where its projector would be"):
        compose_finetune(copy, "10%", from_projector_layer=1, options=few())
    assert compose_finetune(copy, "10%", from_projector_layer=0, options=few())


# --- its settings -----------------------------------------------------------------------------------------------------


def test_settings_are_the_papers_but_for_tiny(place: Path, tmp_path: Path) -> None:
    tiny, why = compose_finetune(place / "pre", "50%", options=few())
    assert tiny.optim.name == "sgd"
    assert tiny.optim.weight_decay == 0
    crop = tiny.views.crops[0]
    assert len(tiny.views.crops) == 1
    assert (crop.jitter, crop.grayscale, crop.blur, crop.solarize, crop.hflip) == (0, 0, 0, 0, 0.5)
    assert (tiny.views.image_size, tiny.views.mean) == (16, load_recipe(place / "pre" / "recipe.yaml").views.mean)
    assert tiny.loop.batch_size == 48
    assert "labels of 48 of 96 images, 16 of each of 3 classes" in why[0]
    resnet, why = compose_finetune(place / "pre", "100%", from_scratch=True, options=few(backbone="resnet18"))
    assert resnet.backbone.name == "resnet18"
    assert resnet.optim.base_lr == 0.1
    large = override(load_recipe(place / "pre" / "recipe.yaml"), ["backbone.width=32", "backbone.name=resnet18"])
    (tmp_path / "recipe.yaml").write_text(dump(large))
    (tmp_path / "encoder.safetensors").write_text("nobody reads it yet")
    tuned, why = compose_finetune(tmp_path, "50%", options=few())
    assert (tuned.optim.name, tuned.optim.exclude_1d, tuned.optim.weight_decay) == ("lars", True, 0)
    assert tuned.loop.batch_size == 48  # all there are; twice the run's, which had two views
    assert tuned.optim.peak_lr(48) == pytest.approx(0.005 * math.sqrt(48), rel=1e-4)
    assert tuned.optim.warmup_epochs == 0
    assert any("0.005 sqrt(batch), the paper's, for LARS" in line for line in why)


@pytest.mark.parametrize(
    ("images", "share", "batch", "epochs"),
    [
        (128116, 0.1, 1016, 30),  # ImageNet's, in 126 steps an epoch
        (12811, 0.01, 985, 60),
        (12811, 0.1, 985, 56),  # 13 steps an epoch, and 720 in all are the least
        (90, 0.01, 45, 360),
        (3, 0.01, 3, 720),
    ],
)
def test_steps_are_at_least_the_papers_at_one_percent(images: int, share: float, batch: int, epochs: int) -> None:
    run = api.compose("simsiam/imagenet", api.Options(batch_size=512))
    backbone = BackboneConfig(init="/x") if images < 100 else BackboneConfig(name="resnet50", init="/x")
    method = FinetuneConfig(labels="1%", classes=1000)
    recipe, _ = finetuned(run, backbone, method, Taken(images=images, share=share))
    assert (recipe.loop.batch_size, recipe.loop.epochs) == (batch, epochs)
    four, _ = finetuned(run, backbone, method, Taken(images=max(images, 8), share=share, processes=4))
    assert four.loop.batch_size % 4 == 0


def test_from_scratch_without_a_run_takes_images_and_backbone_from_the_options(place: Path) -> None:
    recipe, _ = compose_finetune(
        None, "10%", from_scratch=True, options=few(data=str(place / "photos"), image_size=16, backbone="tiny")
    )
    assert (recipe.backbone.name, recipe.backbone.init, recipe.views.image_size) == ("tiny", "", 16)
    assert recipe.data.source == str(place / "photos")
    assert len(recipe.views.crops) == 1


def test_options_and_settings_reach_the_recipe(place: Path) -> None:
    options = few("optim.base_lr=0.5", "data.limit=40", "seed=7", epochs=3, batch_size=4)
    recipe, why = compose_finetune(place / "pre", "50%", options=options)
    assert (recipe.optim.base_lr, recipe.data.limit, recipe.seed) == (0.5, 40, 7)
    assert (recipe.loop.epochs, recipe.loop.batch_size) == (3, 4)
    assert "of 40 images" in why[0]
    assert not any("loop.epochs" in line or "loop.batch_size" in line for line in why)


@pytest.mark.parametrize(
    ("labels", "changes", "error", "said"),
    [
        ("ten", {}, ConfigError, "needs a share such as 1%"),
        ("99-per-class", {}, DataError, f"blue has {TRAIN}, green has {TRAIN}, red has {TRAIN} training images"),
        ("10%", {"from_projector_layer": 4}, ConfigError, "the projector has 3 layers; use 3 or less"),
        ("10%", {"from_projector_layer": -1}, ConfigError, "must be 0 .* or more, got -1"),
        ("10%", {"from_projector_layer": 1, "from_scratch": True}, ConfigError, "nothing is kept with --from-scratch"),
        ("10%", {"backbone": "resnet18"}, ConfigError, "fine-tuning has the run's; leave it out, or add --from-sc"),
        ("10%", {"data": "plain"}, DataError, r"has no labels to learn from; a folder a class gives them"),
        ("10%", {"data": "nowhere"}, MissingInputError, "no such folder"),
        ("10%", {"run": "nowhere"}, MissingInputError, "no run there"),
        ("10%", {"run": "photos"}, MissingInputError, "no run there"),
        ("10%", {"run": None}, ConfigError, "name the run whose weights it begins from, or add --from-scratch"),
        ("10%", {"settings": ("views.crops=[{}, {}]",)}, ConfigError, "takes 1 view of an image"),
        ("10%", {"settings": ("optim.base_lrr=1",)}, ConfigError, "did you mean 'base_lr'"),
        ("10%", {"init": "timm:resnet18"}, ConfigError, "finetune: init='timm:resnet18' is read by nothing here"),
        ("10%", {"batch_size": 1}, ConfigError, "loop.batch_size must be at least 2"),
    ],
)
def test_a_mistake_of_fine_tuning_is_told_before_a_folder_is_made(
    place: Path, labels: str, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    run, how, rest = changes.pop("run", "pre"), {}, {}
    for name, value in changes.items():
        (how if name in ("from_projector_layer", "from_scratch") else rest)[name] = value
    if "data" in rest:
        rest["data"] = str(place / rest["data"])
    settings = rest.pop("settings", ())
    with pytest.raises(error, match=said):
        finetune(None if run is None else place / run, labels, options=few(*settings, **rest), where=into(place, "no"),
                 **how)  # fmt: skip
    assert not (place / "no").exists()


def test_a_run_that_is_not_finished_says_how_to_finish_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "recipe.yaml").write_bytes((place / "pre" / "recipe.yaml").read_bytes())
    with pytest.raises(
        MissingInputError, match=r"has no encoder yet; finish it with `stopgrad train .*begun --resume`"
    ):
        compose_finetune(tmp_path / "begun", "10%", options=few())
    assert compose_finetune(tmp_path / "begun", "10%", from_scratch=True, options=few())[0].backbone.init == ""


# --- distillation -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `tuned`, on images without labels."""
    options = few("loop.epochs=2", "loop.batch_size=24", data=str(place() / "plain"))
    where = into(tmp_path_factory.mktemp("student"), "student")
    return distill(place() / "tuned", options=options, where=where).path


def test_a_student_needs_no_labels_and_is_scored_beside_its_teacher(tuned: Path, student: Path) -> None:
    found = {row["name"]: row["value"] for row in json.loads((student / "results.json").read_text())}
    assert {"same_as_teacher", "baseline_chance_same_as_teacher", "retrieval_at_1"} <= found.keys()
    assert "classifier_top1" not in found
    assert not (student / "labels.csv").exists()
    recipe = load_recipe(student / "recipe.yaml")
    assert (recipe.backbone.kept, recipe.backbone.init, recipe.backbone.width) == ((), "", 8)
    assert recipe.method.temperature == 0.1  # as large as its teacher
    assert (student / "teacher.safetensors").read_bytes() == (tuned / "encoder.safetensors").read_bytes()
    assert load_classifier(student / "classifier.safetensors")[1] == CLASSES
    assert api.diagnose_run(student).evidence[0].startswith("agreement with the teacher on held-out images")
    kept = {name: value for name, value in state_of(student).items() if name.startswith("teacher.backbone.")}
    taught = load_encoder(tuned / "encoder.safetensors").backbone.state_dict()
    assert all(torch.equal(value, taught[name.removeprefix("teacher.backbone.")]) for name, value in kept.items())


def test_a_distillation_goes_on_to_the_bit_without_its_teacher(
    place: Path, tuned: Path, student: Path, tmp_path: Path
) -> None:
    class Signal(Progress):
        def step(self, clock: Any, fields: Any) -> None:
            if clock.step >= 3:
                os.kill(os.getpid(), signal.SIGINT)

    options = few("loop.epochs=2", "loop.batch_size=24", data=str(place / "plain"))
    where = dataclasses.replace(into(tmp_path, "again"), progress=Signal(quiet=True))
    with pytest.raises(InterruptedRunError):
        distill(tuned, options=options, where=where)
    hidden = tuned.rename(place / "gone")
    try:
        api.resume(tmp_path / "again", progress=QUIET)
    finally:
        hidden.rename(tuned)
    whole, again = comparable(student), comparable(tmp_path / "again")
    assert not [part for part in whole if whole[part] != again[part]]


def test_labels_may_be_learnt_besides(place: Path, tuned: Path, tmp_path: Path) -> None:
    recipe, why = compose_distill(tuned, labels="2-per-class", alpha=0.5, temperature=2.0, options=few(seed=5))
    assert "labels of 6 of 96 images, 2 of each of 3 classes" in why
    given = lesson(recipe, tmp_path / "mixed")
    assert len((tmp_path / "mixed" / "labels.csv").read_text().splitlines()) == 7
    assert sorted(given.labels[given.labels >= 0].tolist()) == [0, 0, 1, 1, 2, 2]
    assert len(given.kept) == len(given.held) == 96  # under 160 images all are both
    known = {given.kept.name(int(i)) for i in np.flatnonzero(given.labels >= 0)}
    assert known == {line.split(",")[0] for line in (tmp_path / "mixed" / "labels.csv").read_text().splitlines()[1:]}
    method = build_method(recipe, len(given.kept))
    given.begin(method)
    data = open_data(*recipe.of_images("here")[:1], 16)
    rows = {row.name: row.value for row in given.rows(recipe, data, method, torch.device("cpu"))}
    scored = {row["name"]: row["value"] for row in json.loads((tuned / "results.json").read_text())}
    assert rows["baseline_teacher_classifier_top1"] == scored["classifier_top1"]
    assert {"classifier_top1", "same_as_teacher", "baseline_chance_same_as_teacher"} <= rows.keys()


def test_a_student_may_be_another_backbone_or_begin_from_weights(place: Path, tuned: Path) -> None:
    small, _ = compose_distill(tuned, options=few(backbone="resnet18"))
    assert (small.backbone.name, small.method.temperature) == ("resnet18", 1.0)  # type: ignore[attr-defined]
    began, why = compose_distill(tuned, options=few(init=str(place / "pre")))
    assert began.backbone.init.endswith("pre/encoder.safetensors")
    assert began.backbone.kept == ()
    assert began.method.temperature == 0.1  # type: ignore[attr-defined]
    assert any("the paper's for a student as large as its teacher" in line for line in why)
    whole, _ = compose_distill(tuned, options=few(init=str(tuned)))
    assert whole.backbone.kept == (KeptLayer(width=16),)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"teacher": "pre"}, MissingInputError, "no classifier there; a finished run of `stopgrad finetune` has"),
        ({"teacher": "nowhere"}, MissingInputError, "no run there"),
        ({"temperature": 0.0}, ConfigError, "temperature must be above 0"),
        ({"alpha": 0.5}, ConfigError, "add --labels 10%"),
        ({"labels": "10%"}, ConfigError, "type --alpha 0.5"),
        ({"labels": "10%", "alpha": 2.0}, ConfigError, r"alpha must be in \[0, 1\]"),
        ({"labels": "10%", "alpha": 0.5, "data": "plain"}, DataError, "has no labels to learn from"),
        ({"settings": ("views.crops=[{}, {}]",)}, ConfigError, "takes 1 view of an image"),
        ({"backbone": "resnet18", "init": "pre"}, ConfigError, "holds a tiny, but the backbone asked for is resnet18"),
        ({"image_size": 32}, ConfigError, "distill: image_size=32 is read by nothing here; leave it out"),
        ({"baseline": "timm:resnet18"}, ConfigError, "distill: baseline='timm:resnet18' is read by nothing here"),
        ({"init": "photos"}, ConfigError, "needs an encoder.safetensors, a finished run, or timm:NAME"),
    ],
)
def test_a_mistake_of_distillation_is_told_before_a_folder_is_made(
    place: Path, tuned: Path, changes: dict[str, Any], error: type[Exception], said: str
) -> None:
    teacher = place / changes.pop("teacher", "tuned")
    how = {name: changes.pop(name) for name in ("temperature", "alpha", "labels") if name in changes}
    for name in ("data", "init"):
        if name in changes:
            changes[name] = str(place / changes[name])
    settings = changes.pop("settings", ())
    with pytest.raises(error, match=said):
        distill(teacher, options=few(*settings, **changes), where=into(place, "no"), **how)
    assert not (place / "no").exists()


def test_teacher_and_student_see_the_same_crop(place: Path, tuned: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="see the same crop, but their mean differ"):
        compose_distill(tuned, options=few("views.mean=[0.1, 0.1, 0.1]"))
    recipe, _ = compose_distill(tuned, options=few())
    _, views = recipe.of_images("here")
    larger = dataclasses.replace(recipe, views=dataclasses.replace(views, image_size=32))
    with pytest.raises(ConfigError, match="see the same crop, but their image_size differ"):
        lesson(larger, tmp_path / "x")  # a recipe that was written by hand
    made = load_encoder(place / "pre" / "encoder.safetensors")
    other = dataclasses.replace(made.preprocess, mean=(0.4, 0.4, 0.4))  # type: ignore[type-var]
    save_encoder(tmp_path / "other.safetensors", made.backbone, made.config, other)
    with pytest.raises(ConfigError, match="use weights that were trained alike"):
        compose_distill(tuned, options=few(init=str(tmp_path / "other.safetensors")))


def test_other_classes_than_the_teachers_are_no_accuracy_and_can_not_be_learnt(tuned: Path, tmp_path: Path) -> None:
    options = few(data=str(colours(tmp_path / "two", counts=(TRAIN, TRAIN))))
    mixed, _ = compose_distill(tuned, labels="2-per-class", alpha=0.5, options=options)
    with pytest.raises(DataError, match=r"needs the teacher's classes \(blue, green, red\), two has others"):
        lesson(mixed, tmp_path / "x")
    recipe, _ = compose_distill(tuned, options=options)
    given = lesson(recipe, tmp_path / "y")
    assert not given.named
    method = build_method(recipe, len(given.kept))
    given.begin(method)
    assert given.exam(method, torch.device("cpu"), False, 1)().keys() == {"examined", "same_as_teacher", "chance"}
    data = open_data(*recipe.of_images("here")[:1], 16)
    names = [row.name for row in given.rows(recipe, data, method, torch.device("cpu"))]
    assert names == ["same_as_teacher", "baseline_chance_same_as_teacher"]


def test_classes_that_are_not_the_images_are_named(place: Path, tuned: Path, tmp_path: Path) -> None:
    recipe, _ = compose_finetune(place / "pre", "10%", options=few("method.classes=7"))
    with pytest.raises(ConfigError, match=r"method\.classes=7, but photos has 3 classes; type --set method\.classes=3"):
        lesson(recipe, tmp_path / "x")
    recipe, _ = compose_distill(tuned, options=few("method.classes=7"))
    with pytest.raises(ConfigError, match=r"method\.classes=7, but the teacher knows 3"):
        lesson(recipe, tmp_path / "y")


def test_a_teacher_of_two_runs_is_refused(place: Path, tuned: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned, tmp_path / "mixed")
    shutil.copy(place / "pre" / "encoder.safetensors", tmp_path / "mixed" / "encoder.safetensors")
    recipe, _ = compose_distill(tmp_path / "mixed", options=few())
    with pytest.raises(ConfigError, match=r"reads 16 features, .* gives 32; they are of two runs"):
        lesson(recipe, tmp_path / "x")
    (tmp_path / "mixed" / "classifier.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="no classifier of stopgrad"):
        compose_distill(tmp_path / "mixed", options=few())


def test_all_labels_leave_a_part_to_be_watched(place: Path, tuned: Path, tmp_path: Path) -> None:
    options = few(data=str(colours(tmp_path / "many", counts=(60, 60, 60))))
    recipe, _ = compose_finetune(place / "pre", "100%", options=options)
    given = lesson(recipe, tmp_path / "x")
    assert (len(given.kept), len(given.held)) == (162, 18)
    assert len((tmp_path / "x" / "labels.csv").read_text().splitlines()) == 181
    assert recipe.loop.batch_size == 54
    mixed, _ = compose_distill(tuned, labels="50-per-class", alpha=0.5, options=options)
    given = lesson(mixed, tmp_path / "y")
    assert (len(given.kept), len(given.held)) == (162, 18)
    assert (given.labels >= 0).sum() == 150  # none of them is watched
    assert not {given.kept.name(i) for i in range(162)} & {given.held.name(i) for i in range(18)}
