"""Scores beside baselines, and what is to be said about them in plain words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from stopgrad.contracts import Result

BASELINE = "baseline_"
WHO = {
    "chance": "chance",
    "nearest_caption": "nearest caption",
    "teacher": "teacher",
    "random": "untrained",
    "pixels": "raw pixels",
    "words": "bag of words",
    "mfcc": "MFCC",
    "other": "other encoder",
    "init": "starting weights",
}
SUBJECT = {
    "nearest_caption": "The nearest caption",
    "chance": "Always naming the commonest class",
    "teacher": "The teacher",
    "random": "The same network untrained",
    "pixels": "Raw pixels",
    "words": "A bag of words",
    "mfcc": "MFCC features",
    "other": "The other encoder",
    "init": "The weights this run started from",
}
# Where labels are; else how often the second view is found.
HEADLINES = ("classifier_top1", "knn_top1", "linear_top1", "segments_ap")
LABEL_FREE = "retrieval_at_1"
# Without a best: a collapsed encoder has the best alignment there is, noise the best uniformity and the highest rank.
NEITHER = {
    "effective_rank": "number of directions; more is not better by itself",
    "alignment": "distance of two views; lower is better only where uniformity is low too",
    "uniformity": "how evenly features spread; lower is better only where alignment is low too",
}
EVERYDAY = {
    "zero_shot_top1": "Zero-shot accuracy",
    "zero_shot_top5": "Zero-shot accuracy, top 5",
    **{f"image_to_text_r{k}": f"Caption found among {k}" for k in (5, 10)},
    **{f"text_to_image_r{k}": f"Image found among {k}" for k in (5, 10)},
    "image_to_text_r1": "Caption found",
    "text_to_image_r1": "Image found",
    "classifier_top1": "Classifier accuracy",
    "same_as_teacher": "Answers as the teacher",
    "knn_top1": "kNN accuracy",
    "linear_top1": "Linear probe accuracy",
    "segments_ap": "Average precision of segment labels",
    "retrieval_at_1": "Second view found",
    "effective_rank": "Effective rank",
    "alignment": "Alignment",
    "uniformity": "Uniformity",
}
UNITS = {"classifier": "%", "same_as_teacher": "%", "knn": "%", "linear": "%", "segments": "%", "retrieval": "%"}


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    value: float | None
    best: bool


@dataclass(frozen=True, slots=True)
class Row:
    name: str  # as in results.json
    title: str
    about: str  # unit and direction
    cells: list[Cell]  # this run, then each baseline


@dataclass(frozen=True, slots=True)
class Said:
    """A sentence, and whether it is one that should give pause."""

    text: str
    warns: bool


@dataclass(frozen=True, slots=True)
class Scores:
    columns: list[str]
    rows: list[Row]
    sentences: list[Said]
    protocol: str


def scores(results: Sequence[Result]) -> Scores | None:
    """The table of everything that has a baseline; None where nothing has."""
    found = {row.name: row for row in results}
    own = [name for name in found if not name.startswith(BASELINE)]
    who: dict[str, dict[str, Result]] = {}
    for name, row in found.items():
        if name.startswith(BASELINE):
            metric = max((m for m in own if name.endswith(f"_{m}")), key=len, default="")
            if metric:
                who.setdefault(name[len(BASELINE) : -len(metric) - 1], {})[metric] = row
    if not who:
        return None
    rows = []
    for name in own:
        if any(name in theirs for theirs in who.values()):
            values = [number(found[name]), *(number(theirs.get(name)) for theirs in who.values())]
            rows.append(Row(name, title_of(name), about(name), cells(name, values)))
    first = next((found[name] for name in HEADLINES if name in found), None)
    return Scores(
        columns=["this run", *(WHO.get(name, name.replace("_", " ")) for name in who)],
        rows=rows,
        sentences=sentences(found, who),
        protocol=first.protocol if first else next(iter(found.values())).protocol,
    )


def number(row: Result | None) -> float | None:
    return None if row is None or row.value is None or isinstance(row.value, str) else float(row.value)


def cells(name: str, values: list[float | None]) -> list[Cell]:
    known = [value for value in values if value is not None]
    best: float | None = None
    if len(known) > 1 and name not in NEITHER:
        best = max(known)
    return [Cell("–" if v is None else f"{v:.2f}", v, v is not None and v == best) for v in values]


def title_of(name: str) -> str:
    """`knn_top1_k200` -> `kNN accuracy, k = 200`."""
    for known, title in EVERYDAY.items():
        if name == known:
            return title
        if name.startswith(known + "_"):
            rest = re.sub(r"^k([0-9]+)$", r"k = \1", name[len(known) + 1 :]).replace("_", " ")
            return f"{title}, {rest}"
    return name.replace("_", " ")


def about(name: str) -> str:
    unit = next((unit for start, unit in UNITS.items() if name.startswith(start)), "")
    return NEITHER.get(name) or ", ".join(filter(None, (unit, "higher is better")))


def sentences(found: dict[str, Result], who: dict[str, dict[str, Result]]) -> list[Said]:
    """Plain words on this run's features against each baseline; worst news first."""
    names = [name for name in HEADLINES if name in found] or [name for name in (LABEL_FREE,) if name in found]
    bad, good = [], []
    for name in names:
        mine = number(found[name])
        if mine is None:
            continue
        beaten = []
        for key, theirs in who.items():
            value = number(theirs.get(name))
            if value is None:
                continue
            noise = margin(mine, value, found[name].n)
            against = f"{value:.1f} % against {mine:.1f} %"
            known = "Guessing" if (key, name) == ("chance", "segments_ap") else SUBJECT.get(key)
            subject = (known or key.replace("_", " ").capitalize()) + which(theirs[name])
            verb = "are" if key in ("pixels", "mfcc", "init") else "is"
            what = lower_first(title_of(name))
            if abs(mine - value) < noise:
                chance = f"a difference that {found[name].n} samples can't tell from chance"
                bad.append(Said(f"{subject} {verb} level with this run in {what}: {against}, {chance}.", True))
            elif value > mine:
                bad.append(Said(f"{subject} {verb} better than this run in {what}: {against}.", True))
            else:
                beaten.append(f"{WHO.get(key, key.replace('_', ' '))} {value:.1f} %")
        if beaten:
            text = f"{title_of(name)} is {mine:.1f} %, above {' and '.join(beaten)}."
            good.append(Said(text, False))
    return bad + good


def which(row: Result) -> str:
    """` (timm:resnet18, pretrained by timm)` where the protocol names the encoder of a baseline."""
    named = [part for part in row.protocol.split("; ") if part.startswith("baseline")]
    return f" ({named[0].removeprefix('baseline').lstrip(': ')})" if named else ""


def lower_first(text: str) -> str:
    """`Linear probe` -> `linear probe`; `kNN` stays."""
    return text[:1].lower() + text[1:]


def margin(a: float, b: float, n: int) -> float:
    """Two standard errors of a difference of two percentages over n images each."""
    p = min(max((a + b) / 200, 0.0), 1.0)
    return 200 * math.sqrt(2 * p * (1 - p) / max(1, n))
