"""Is the run healthy? One verdict, the evidence, the cause and the next command, from label-free numbers alone.

Collapse is not one number. A head that ends in an affine-free batch norm can't send everything to a point: without
stop-gradient SimSiam falls to about rank one instead, and std_ratio alone stays where a slow healthy run has it. So the
verdict reads std_ratio together with the effective rank of the projection (z) and of the backbone's features (h),
beside what the run itself had before its first step. How the thresholds were fitted stands in docs/verdict.md.

No torch, no labels: it is given the lines of the log, without the kNN. Only a run that is taught, by labels or by a
teacher, is judged by what it was taught: such features gather class by class, which here would look like a collapse.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

VERDICTS = ("healthy", "collapsed", "partly_collapsed", "not_learning", "diverged", "too_early")

# Thresholds; the runs they were fitted on, `make demo` among them, stand in docs/verdict.md
POINT = 0.05  # std_ratio: all outputs alike
FLAT_RANK, FLAT_SHARE = 3.0, 0.15  # rank of z: about a line, or so small a part of what it was
FLAT_STD = 0.85  # and std_ratio below this
ASYMMETRIC = ("simsiam", "byol", "directpred")  # nothing but stop-gradient, predictor and target keep them apart
HALF = 0.5  # rank of h, of what it was before the first step
UNLEARNT = 0.6  # cosine of prediction and target, as a part of the cosine of the two projections
EARLY_STEPS, EARLY_EPOCHS = 60, 1  # until both are over only a collapse or a divergence can be told
MOVED = 0.95  # of the images confused with another at the start; a rank has risen by as much
PATIENCE_STEPS = 1000  # before this many steps features that have not moved yet are no sign: SimSiam starts slowly
SAMPLES = {"audio": "sounds", "text": "texts"}  # what is said instead of images, by the kind of samples
FEW_DISTINCT = 0.5  # share of held-out images that differ from each other
FLAT_PIXELS = 1e-3  # std of normalised pixels over images, mean over pixels
LUCK = 1e-3  # how seldom answers that know nothing may come so far above chance
SMALL_BATCH = 8  # images a batch norm sees; with fewer its output is nearly a sign
USUAL_BATCH = 64  # what is proposed instead
PAPER_LR, HIGH_LR = 0.05, 40.0  # SimSiam, section 3; and how many times that is too much: `tiny` is healthy at 19


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What is said of a run."""

    verdict: str  # one of VERDICTS
    evidence: tuple[str, ...]
    cause: str  # method, data, optimiser, or nothing
    explanation: str
    next_command: str
    since_step: int  # first measured step from which this verdict has held without a break

    def sentence(self) -> str:
        """Verdict, cause and explanation, for a line on the terminal."""
        because = f" (cause: {self.cause})" if self.cause else ""
        return f"{self.verdict}{because}: {self.explanation}"


def diagnose(history: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> Diagnosis:
    """The verdict on a run so far.

    history: lines of the log that hold measurements, in order, the first from step 0; lines of skipped steps may stand
    between them.  recipe: nested plain settings, read to name a cause and a next command, never for the verdict.
    """
    if not history or history[0].get("rank_h") is None:
        explanation = "no measurement yet; wait for the first, or look at error.log"
        return Diagnosis("too_early", (), "", explanation, "", 0)
    judge, tell, show = verdict, explain, evidence
    if "chance" in history[0]:
        judge, tell, show = taught_verdict, explain_taught, taught_evidence
    tokens = [judge(line, history[0]) for line in history]
    token = tokens[-1]
    since = len(tokens) - 1
    while since > 0 and tokens[since - 1] == token:
        since -= 1
    cause, explanation, command = tell(token, history, recipe)
    kind = recipe.get("views", {}).get("kind", "image")
    seen = tuple(in_words_of(kind, line) for line in show(history))
    return Diagnosis(token, seen, cause, in_words_of(kind, explanation), command, int(history[since]["step"]))


def in_words_of(kind: str, text: str) -> str:
    """Sentences here are of images; of another kind of samples they say what those are."""
    if kind not in SAMPLES:
        return text
    return text.replace("images", SAMPLES[kind]).replace("by pixels", "without a network")


def verdict(line: Mapping[str, Any], start: Mapping[str, Any]) -> str:
    """The token for one line of the log, beside the line from before the first step."""
    if line.get("skipped") or (line["step"] > 0 and line.get("loss") is None):
        return "diverged"
    std, rank_z, rank_h = (line.get(name) for name in ("std_ratio", "rank_z", "rank_h"))
    if std is None or rank_z is None or rank_h is None:
        return "diverged"
    few = rank_z < max(FLAT_RANK, FLAT_SHARE * start["rank_z"])
    flat = few and std < FLAT_STD
    shrunk = rank_h < HALF * start["rank_h"]
    agreement = line.get("agreement")
    # a collapse is a solution: predictions meet their targets, because nothing is left to predict
    learnt = agreement is None or agreement >= UNLEARNT * line["cosine_positive"]
    if std < POINT or (flat and shrunk and learnt):
        return "collapsed"
    if nothing_to_learn(start):  # however many steps it takes
        return "not_learning"
    if line["step"] < EARLY_STEPS or line["epoch"] <= EARLY_EPOCHS:
        return "too_early"
    if not learnt:
        return "not_learning"
    # a random ResNet's features fill more directions than what it learns first: fewer of h alone are no sign so early
    if flat or (shrunk and (few or line["step"] >= PATIENCE_STEPS)):
        return "partly_collapsed"
    if _moved(line, start):
        return "healthy"
    return "not_learning" if line["step"] >= PATIENCE_STEPS else "too_early"


def _moved(line: Mapping[str, Any], start: Mapping[str, Any]) -> bool:
    """Whether the backbone tells an image's second view from other images better than before the first step, or has
    more directions."""
    confused, before = 100 - line["separation_h"], 100 - start["separation_h"]
    return bool(confused < MOVED * before or line["rank_h"] > start["rank_h"] / MOVED)


def nothing_to_learn(start: Mapping[str, Any]) -> str:
    """What is wrong with the data itself, from the facts of step 0; empty where nothing is."""
    distinct, held = start.get("held_distinct", 1), start.get("held_images", 1)
    if distinct < FEW_DISTINCT * held:
        return f"only {distinct} of {held} held-out images differ from each other"
    if start.get("pixel_std", 1.0) < FLAT_PIXELS:
        return "the images are of one colour, there is nothing to tell apart"
    return ""


def explain(token: str, history: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> tuple[str, str, str]:
    """(cause, explanation, next command) for a verdict, from the data's facts and the recipe."""
    if token == "healthy":
        return "", "features spread and tell images apart better than at the start", ""
    if token == "too_early":
        return "", "not enough steps to tell; nothing alarming so far", ""
    start, method, optim, loop = history[0], recipe["method"], recipe["optim"], recipe["loop"]
    again = f"stopgrad train {method['name']} --data {recipe['data']['source']}"
    other = f"stopgrad train {method['name']} --data OTHER_IMAGES"
    if found := nothing_to_learn(start):
        return "data", found, other
    groups = loop["accumulate"] * method.get("bn_splits", 1)  # MoCo's batch norm takes a batch for several
    per_norm = loop["batch_size"] // groups
    if per_norm < SMALL_BATCH:
        enough = groups * max(SMALL_BATCH, -(-USUAL_BATCH // groups))
        return "optimiser", f"batch norm sees {per_norm} images at a time", f"{again} --batch-size {enough}"
    asymmetric = method["name"] in ASYMMETRIC
    if asymmetric and method.get("target") == "shared":
        found = "no stop-gradient: gradient flows into both views"
        return "method", found, f"{again} --set method.target=stop_gradient"
    if asymmetric and method.get("predictor") == "none" and method.get("target") != "momentum":
        found = "no predictor: stop-gradient alone halves the gradient and does nothing else"
        return "method", found, f"{again} --set method.predictor=mlp"
    if asymmetric and method.get("predictor") == "frozen":
        return "method", "the predictor is frozen at random weights", f"{again} --set method.predictor=mlp"
    if optim.get("name", "sgd") == "sgd" and optim["base_lr"] > HIGH_LR * PAPER_LR:
        found, lower = f"base learning rate {optim['base_lr']:g}, which is high", optim["base_lr"] / 10
        if method["name"] == "simsiam":
            found, lower = f"base learning rate {optim['base_lr']:g}, the paper uses {PAPER_LR:g}", PAPER_LR
        return "optimiser", found, f"{again} --set optim.base_lr={lower:g}"
    if token == "diverged":
        found = "loss or gradient is not finite"
        return "optimiser", found, f"{again} --set optim.base_lr={optim['base_lr'] / 10:g} optim.warmup_epochs=1"
    if token == "not_learning":
        found = "features tell images apart no better than before the first step"
        return "optimiser", found, f"{again} --epochs {2 * loop['epochs']}"
    found = "the features lost more than half of their directions"
    return "method", found, f"{again} --set optim.base_lr={optim['base_lr'] / 2:g}"


def evidence(history: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the verdict rests on, now beside before the first step."""
    start = history[0]
    last = next((line for line in reversed(history) if line.get("rank_h") is not None), start)
    skipped = sum(bool(line.get("skipped")) for line in history)
    pixels = f", by pixels {_show(start, 'pixel_retrieval')} %" if start.get("pixel_retrieval") is not None else ""
    lines = [
        f"std_ratio {_show(last, 'std_ratio')} at step {last['step']} (near 1 is healthy, 0 is a point)",
        f"effective rank of the projection {_show(last, 'rank_z')}, at the start {_show(start, 'rank_z')}",
        f"effective rank of the backbone {_show(last, 'rank_h')}, at the start {_show(start, 'rank_h')}",
        f"second view nearer than {_show(last, 'separation_h')} % of other images, at the start "
        f"{_show(start, 'separation_h')} %; the nearest of all for {_show(last, 'retrieval_h')} %, at the start "
        f"{_show(start, 'retrieval_h')} %" + pixels,
        f"{_meeting(last)}the projections of two views meet with cosine {_show(last, 'cosine_positive')}, of two "
        f"images with {_show(last, 'cosine_random')}",
    ]
    return (*lines, f"{skipped} logged steps were not finite") if skipped else tuple(lines)


def _meeting(line: Mapping[str, Any]) -> str:
    """Of methods that predict a target."""
    return f"predictions meet their targets with cosine {_show(line, 'agreement')}, " if "agreement" in line else ""


def _show(line: Mapping[str, Any], name: str) -> str:
    value = line.get(name)
    return "none" if value is None else f"{value:.2f}" if value < 10 else f"{value:.1f}"


# --- runs that are taught: fine-tuning with labels, distillation ------------------------------------------------------


def taught_verdict(line: Mapping[str, Any], start: Mapping[str, Any]) -> str:
    """The token for one line of the log, by what held-out images are taken for."""
    if line.get("skipped") or (line["step"] > 0 and line.get("loss") is None):
        return "diverged"
    if by_luck(line) < LUCK:
        return "healthy"
    return "too_early" if line["step"] < EARLY_STEPS or line["epoch"] <= EARLY_EPOCHS else "not_learning"


def by_luck(line: Mapping[str, Any]) -> float:
    """How probable so many right answers are for somebody who knows nothing but the commonest class: binomial."""
    n, p = int(line["examined"]), line["chance"] / 100
    right = round(_judged(line)[1] / 100 * n)
    if right <= 0 or p >= 1:
        return 1.0
    logs = (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(right, n + 1))
    terms = (log + k * math.log(p) + (n - k) * math.log1p(-p) for k, log in enumerate(logs, right))
    return min(1.0, math.fsum(map(math.exp, terms)))


def _judged(line: Mapping[str, Any]) -> tuple[str, float]:
    """What is judged, in words, and the percentage: accuracy where the images have labels, else the teacher's mark."""
    if "accuracy" in line:
        return "accuracy on held-out images", float(line["accuracy"])
    return "agreement with the teacher on held-out images", float(line["same_as_teacher"])


def explain_taught(token: str, history: Sequence[Mapping[str, Any]], recipe: Mapping[str, Any]) -> tuple[str, str, str]:
    """(cause, explanation, next command), as `explain`."""
    again, optim, loop = _taught_again(recipe), recipe["optim"], recipe["loop"]
    if token == "diverged":
        found = "loss or gradient is not finite"
        return "optimiser", found, f"{again} --set optim.base_lr={optim['base_lr'] / 10:g} optim.warmup_epochs=1"
    line = next(line for line in reversed(history) if "chance" in line)
    what, percent = _judged(line)
    found = f"{what} is {percent:.1f} %, always the commonest class is right in {line['chance']:.1f} %"
    if token == "healthy":
        return "", found, ""
    if token == "too_early":
        return "", f"{found}; not enough steps to tell", ""
    if wrong := nothing_to_learn(history[0]):
        return "data", wrong, ""
    return "optimiser", f"{found}, which may be luck", f"{again} --epochs {2 * loop['epochs']}"


def _taught_again(recipe: Mapping[str, Any]) -> str:
    """The command that begins such a run."""
    method, backbone, source = recipe["method"], recipe["backbone"], ["--data", recipe["data"]["source"]]
    if method["name"] == "distill":
        return shlex.join(["stopgrad", "distill", method["teacher"], *source])
    run = [backbone["init"].removesuffix("/encoder.safetensors")]
    kept = ["--from-projector-layer", str(method["from_projector_layer"])]
    begin = [*run, *kept] if backbone["init"] else ["--from-scratch", "--backbone", backbone["name"]]
    return shlex.join(["stopgrad", "finetune", *begin, *source, "--labels", method["labels"]])


def taught_evidence(history: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """What the verdict rests on, now beside before the first step."""
    start = history[0]
    last = next((line for line in reversed(history) if "chance" in line), start)
    skipped = sum(bool(line.get("skipped")) for line in history)
    (what, percent), (_, before) = _judged(last), _judged(start)
    lines = [
        f"{what} {percent:.1f} % at step {last['step']}, at the start {before:.1f} %; of {last['examined']} images, "
        f"{last['chance']:.1f} % are of the commonest class",
    ]
    if "accuracy" in last and "same_as_teacher" in last:
        lines.append(f"the teacher's answer was given for {last['same_as_teacher']:.1f} % of them")
    lines.append(f"effective rank of the backbone {_show(last, 'rank_h')}, at the start {_show(start, 'rank_h')}")
    return (*lines, f"{skipped} logged steps were not finite") if skipped else tuple(lines)
