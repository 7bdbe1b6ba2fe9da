"""What a taught run has besides: labels that may be known, a teacher, and exams while it runs and at its end.

The labels of the subset are the only ones a method gets to see. Those of held-out training images are looked at by the
watch, which tells accuracy beside chance; those of the test split at the end, once. In the run's folder:

    labels.csv                                            the images whose labels were known, with their classes
    classifier.safetensors                                the classifier on encoder.safetensors
    teacher.safetensors, teacher_classifier.safetensors   of a distillation: as they were when it began
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stopgrad.contracts import ConfigError, DataError, Images, Result
from stopgrad.data import Data
from stopgrad.data.labels import FEWEST, Labels, choose, drawn, listed, read_amount, set_aside
from stopgrad.data.loader import Subset
from stopgrad.encoder import load_encoder
from stopgrad.encoder.classifier import classifier_bytes, load_classifier
from stopgrad.eval import PROTOCOL
from stopgrad.eval.extract import frozen, through
from stopgrad.media import AnyPreprocess, medium_of
from stopgrad.method import Method
from stopgrad.methods.distill import DistillConfig
from stopgrad.methods.finetune import FinetuneConfig
from stopgrad.methods.taught import UNKNOWN, Answering, Distill, Taught
from stopgrad.recipe import Recipe
from stopgrad.rundir import RunDir

BATCH = 256  # images a forward of an exam
CLASSIFIER, TEACHER, TEACHER_CLASSIFIER = (
    f"{name}.safetensors" for name in ("classifier", "teacher", "teacher_classifier")
)


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """The images of a run that is taught, and what may be known of them."""

    kept: Images  # trained on
    held: Images  # watched
    labels: Labels  # [N of kept], UNKNOWN where it may not be known
    classes: tuple[str, ...]  # a name each output of the classifier, escaped
    named: bool  # whether the images' own classes are these
    preprocess: AnyPreprocess
    teacher: Answering | None = None

    def begin(self, method: Method) -> None:
        """Hands over labels and teacher, before anything of a checkpoint is read."""
        assert isinstance(method, Taught)
        method.learn(torch.from_numpy(self.labels))
        if isinstance(method, Distill):
            assert self.teacher is not None
            method.follow(self.teacher)

    def exam(self, method: Method, device: torch.device, bf16: bool, threads: int) -> Callable[[], dict[str, float]]:
        """What the watch asks for each time: numbers of held-out images, through the transform without chance."""
        assert isinstance(method, Taught)
        taught = method
        answers: list[Labels] = []

        def ask() -> dict[str, float]:
            def named_by(one: Answering) -> Labels:
                return _named_by(one, self.held, self.preprocess, device, bf16, threads)

            found = named_by(Answering(taught.backbone, taught.classifier))
            fields: dict[str, float] = {"examined": len(found)}
            if isinstance(taught, Distill):
                if not answers:  # the teacher's do not change
                    answers.append(named_by(_teacher_of(taught)))
                fields |= _marked(found, answers[0], "same_as_teacher")
            if self.named and self.held.labels is not None:
                fields |= _marked(found, self.held.labels, "accuracy")
            return fields

        return ask

    def rows(self, recipe: Recipe, data: Data, method: Method, device: torch.device) -> list[Result]:
        """The classifier on the test split: beside chance, and a student beside its teacher."""
        assert isinstance(method, Taught)
        bf16, threads = recipe.eval.precision == "bfloat16", recipe.loop.view_threads
        own = Answering(method.backbone, method.classifier)
        teacher = _teacher_of(method) if isinstance(method, Distill) else None
        found, answers = (
            None if one is None else _named_by(one, data.test, self.preprocess, device, bf16, threads)
            for one in (own, teacher)
        )
        assert found is not None
        knew = int((self.labels != UNKNOWN).sum())
        synthetic = " (synthetic)" if data.synthetic else ""
        protocol = (
            f"{PROTOCOL}; data {data.name}{synthetic}, {data.fingerprint[:12]}; {len(data.train)} training images, "
            f"test reports ({len(data.test)} images, split: {data.split_rule}), nothing selected on test; "
            f"{medium_of(self.preprocess).in_words(self.preprocess)}, the run's own classifier, taught with the labels "
            f"of {knew} images"
        )

        def row(name: str, value: float) -> Result:
            return Result(name, value, len(found), "test", recipe.seed, protocol)

        rows = []
        if self.named and data.test.labels is not None:
            right = _marked(found, data.test.labels, "accuracy")
            rows += [
                row("classifier_top1", right["accuracy"]),
                row("baseline_chance_classifier_top1", right["chance"]),
            ]
            if answers is not None:
                rows.append(row("baseline_teacher_classifier_top1", _marked(answers, data.test.labels, "x")["x"]))
        if answers is not None:
            same = _marked(found, answers, "same")
            rows += [row("same_as_teacher", same["same"]), row("baseline_chance_same_as_teacher", same["chance"])]
        return rows

    def save(self, run: RunDir, method: Method) -> None:
        """classifier.safetensors, beside the encoder it belongs to."""
        assert isinstance(method, Taught)
        run.write(run.path / CLASSIFIER, classifier_bytes(method.classifier, self.classes))


def _teacher_of(method: Distill) -> Answering:
    assert isinstance(method.teacher, Answering)
    return method.teacher


def _named_by(
    one: Answering, images: Images, preprocess: AnyPreprocess, device: torch.device, bf16: bool, threads: int
) -> Labels:
    """[N], what it takes each image for; in eval mode, and left as it was."""
    with frozen(one, device, bf16) as encode:
        logits: Tensor = through(encode, images, np.arange(len(images)), preprocess, BATCH, threads)  # [N, C]
    named: Labels = logits.argmax(dim=1).numpy()
    return named


def _marked(found: Labels, right: Labels, name: str) -> dict[str, float]:
    """Percentages: how many are right, and how many would be if always the commonest class were named."""
    known = right >= 0
    counts = np.bincount(right[known], minlength=1)
    share = 100.0 / max(1, int(known.sum()))
    return {name: share * float((found[known] == right[known]).sum()), "chance": share * float(counts.max())}


def lesson_of(recipe: Recipe, data: Data, run: RunDir) -> Lesson | None:
    """What is taught; None where a method learns without. Writes labels.csv and the teacher's copy.

    Raises DataError (no labels, too few of a class, other classes than the teacher's), ConfigError, MissingInputError,
    CheckpointError.
    """
    config = recipe.method
    if isinstance(config, FinetuneConfig):
        return _finetune(recipe, config, data, run)
    return _distill(recipe, config, data, run) if isinstance(config, DistillConfig) else None


def _finetune(recipe: Recipe, config: FinetuneConfig, data: Data, run: RunDir) -> Lesson:
    subset = choose(data.train.labels, data.classes, read_amount(config.labels), recipe.seed, data.name)
    if len(data.classes) != config.classes:
        raise ConfigError(
            f"method.classes={config.classes}, but {data.name} has {len(data.classes)} classes; type --set "
            f"method.classes={len(data.classes)}"
        )
    run.write(run.path / "labels.csv", listed(Subset(data.train, subset), data.classes))
    known, watched = set_aside(subset, data.train.labels, recipe.watch.images, recipe.seed)
    kept = Subset(data.train, known)
    assert kept.labels is not None
    return Lesson(
        kept=kept,
        held=Subset(data.train, watched),
        labels=kept.labels,
        classes=data.classes,
        named=True,
        preprocess=preprocess_of(recipe),
    )


def _distill(recipe: Recipe, config: DistillConfig, data: Data, run: RunDir) -> Lesson:
    teacher, classes, taught_with = load_teacher(Path(config.teacher), run)
    preprocess = preprocess_of(recipe)
    check_same_crop(taught_with, preprocess)
    if len(classes) != config.classes:
        raise ConfigError(f"method.classes={config.classes}, but the teacher knows {len(classes)}; put that number")
    named = data.classes == classes
    subset = np.zeros(0, np.int64)
    if config.labels:
        subset = choose(data.train.labels, data.classes, read_amount(config.labels), recipe.seed, data.name)
        if not named:
            raise DataError(
                f"distill: --labels needs the teacher's classes ({_few(classes)}), {data.name} has others "
                f"({_few(data.classes)}); leave --labels and --alpha out, or rename the folders"
            )
        run.write(run.path / "labels.csv", listed(Subset(data.train, subset), data.classes))
    everything = np.arange(len(data.train))
    known = np.full(len(everything), UNKNOWN, np.int64)
    if len(subset):
        known[subset] = _labels(data)[subset]
    others = np.setdiff1d(everything, subset)
    count = min(recipe.watch.images, len(data.train) // 10, len(others))
    kept = watched = everything
    if count >= FEWEST:
        watched = drawn(others, count, recipe.seed)
        kept = np.setdiff1d(everything, watched)
    return Lesson(
        kept=Subset(data.train, kept),
        held=Subset(data.train, watched),
        labels=known[kept],
        classes=classes,
        named=named,
        preprocess=preprocess,
        teacher=teacher,
    )


def check_same_crop(teacher: AnyPreprocess, student: AnyPreprocess) -> None:
    """Raises ConfigError where what one is shown is not what the other wants its images turned into."""
    if teacher == student:
        return
    mine, theirs = student.as_dict(), teacher.as_dict()
    differ = [name for name in {**theirs, **mine} if mine.get(name) != theirs.get(name)]
    raise ConfigError(
        f"distill: teacher and student see the same crop, but their {', '.join(differ)} differ; leave out the settings "
        "of views and data that change them"
    )


def preprocess_of(recipe: Recipe) -> AnyPreprocess:
    """The transform without chance that belongs to a recipe."""
    found: AnyPreprocess = medium_of(recipe.views).preprocess(recipe.data, recipe.views)
    return found


def _labels(data: Data) -> Labels:
    assert data.train.labels is not None
    return data.train.labels


def _few(names: tuple[str, ...]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "none"


def load_teacher(teacher: Path, run: RunDir) -> tuple[Answering, tuple[str, ...], AnyPreprocess]:
    """(the teacher, its classes, what it wants its images turned into), out of `run` where it is kept already.

    Raises MissingInputError or CheckpointError.
    """
    kept: Mapping[Path, Path] = {
        run.path / TEACHER: RunDir(teacher).encoder,
        run.path / TEACHER_CLASSIFIER: teacher / CLASSIFIER,
    }
    encoder_file, classifier_file = kept if all(copy.is_file() for copy in kept) else kept.values()
    classifier, classes = load_classifier(classifier_file)
    encoder = load_encoder(encoder_file)
    if classifier.in_features != encoder.dim:
        raise ConfigError(
            f"{classifier_file} reads {classifier.in_features} features, {encoder_file} gives {encoder.dim}; they are "
            "of two runs"
        )
    for copy, original in kept.items():
        if run.writes and not copy.is_file():
            run.write(copy, original.read_bytes())
    return Answering(encoder.backbone, classifier).eval(), classes, encoder.preprocess
