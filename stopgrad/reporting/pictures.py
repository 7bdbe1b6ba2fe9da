"""The gallery of a run as a template draws it: where each thumbnail lies on its sheet, names, captions, the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stopgrad.reporting.found import Gallery, printable

MAP_SIZE, LOWEST_MAP, EDGE = 620, 310, 16  # width and least height of the map, about pixels; the margin inside it
CLASSES = 20  # that have an entry in the legend
CAPTION, TEXT = 28, 80  # characters: of a name, of a text


@dataclass(frozen=True, slots=True)
class Mark:
    """A shape around the point where it is drawn, as a relative SVG path; classes differ by shape, then by colour."""

    path: str
    hollow: bool


_CIRCLE = "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0"
_SQUARE = "m-2.6-2.6h5.2v5.2h-5.2z"
_TRIANGLE = "m0-3.4l3.3 5.8h-6.6z"
_DIAMOND = "m0-3.7l3.7 3.7l-3.7 3.7l-3.7-3.7z"
_PLUS = "m-3.4 0h6.8m-3.4-3.4v6.8"
_CROSS = "m-2.6-2.6l5.2 5.2m0-5.2l-5.2 5.2"
MARKS = (
    Mark(_CIRCLE, False),
    Mark(_SQUARE, False),
    Mark(_TRIANGLE, False),
    Mark(_DIAMOND, False),
    Mark(_PLUS, True),
    Mark(_CROSS, True),
    Mark(_CIRCLE, True),
    Mark(_SQUARE, True),
    Mark(_TRIANGLE, True),
    Mark(_DIAMOND, True),
)


def drawn(gallery: Gallery, many: str = "images") -> dict[str, Any]:
    """What the template needs.  many: what samples are called.

    Raises KeyError, IndexError or TypeError where the index contradicts itself.
    """
    index = gallery.index
    sheet, classes = index["thumbs"], [printable(str(name)) for name in index["classes"]]
    images = [picture(image, at, sheet, classes, at in gallery.sounds) for at, image in enumerate(index["images"])]
    near, similar = index["neighbours"]["index"], index["neighbours"]["similarity"]
    labels = [image["label"] for image in index["images"]]
    views = index["views"]
    return {
        "thumbs": gallery.thumbs,
        "thumbs_size": gallery.thumbs_size,
        "side": sheet["side"],
        "views": gallery.views,
        "views_size": gallery.views_size,
        "views_alt": f"{views['rows']} rows of {many}; columns: {', '.join(views['columns'])}",
        "columns": ", ".join(views["columns"]),
        "views_told": " ".join(f"{capital(told)}." for told in (views["told"], sheet["told"]) if told),
        "examples": [
            {
                "image": images[i],
                "near": [
                    {
                        "image": images[other],
                        "similarity": f"{value:.2f}",
                        "other": labels[i] is not None and labels[other] != labels[i],
                    }
                    for other, value in zip(near[i], similar[i])
                ],
            }
            for i in index["examples"]
            if near[i]
        ],
        "captions": [
            {
                "image": images[item["image"]],
                "found": [
                    {
                        "text": beginning(printable(str(one["text"]))),
                        "similarity": f"{one['similarity']:.2f}",
                        "own": bool(one["own"]),
                    }
                    for one in item["found"]
                ],
            }
            for item in index.get("captions", [])
        ],
        "searched_told": f"Searched among {searched(index, many)}."
        + (" ▶ plays the first seconds of a sound." if gallery.sounds else ""),
        "agree": agreement(labels, near) if classes else "",
        "map": drawn_map(index, classes, many),
        "odd": odd(index, images, many),
        "labelled": any(label is not None for label in labels),
    }


def picture(
    image: Mapping[str, Any], at: int, sheet: Mapping[str, Any], classes: Sequence[str], heard: bool = False
) -> dict[str, Any]:
    name = printable(str(image["name"]))
    label = classes[image["label"]] if image["label"] is not None and image["label"] < len(classes) else ""
    text = printable(str(image.get("text", "")))
    return {
        "x": at % sheet["columns"] * sheet["side"],
        "y": at // sheet["columns"] * sheet["side"],
        "at": at,
        "heard": heard,
        "label": (f"{name}, {label}" if label else name) + (f": {text}" if text else ""),
        "caption": beginning(text) or label or short(name),
        "caption_with_split": f"{beginning(text) or short(name)} ({image['split']})",
    }


def searched(index: Mapping[str, Any], many: str) -> str:
    of, shown = index["of"], index["shown"]
    tested = sum(image["split"] == "test" for image in index["images"][:shown])
    parts = [f"{tested:,} of {of['test']:,} test {many}"]
    if shown > tested:
        parts.append(f"{shown - tested:,} of {of['train']:,} training {many}")
    return " and ".join(parts)


def agreement(labels: Sequence[int | None], near: Sequence[Sequence[int]]) -> str:
    """How often the nearest neighbour is of the same class, in words."""
    pairs = [(labels[i], labels[row[0]]) for i, row in enumerate(near) if row and labels[i] is not None]
    if not pairs:
        return ""
    same = 100 * sum(a == b for a, b in pairs) / len(pairs)
    return f"Over all of them, the nearest neighbour is of the same class for {same:.1f} %."


def odd(index: Mapping[str, Any], images: Sequence[Mapping[str, Any]], many: str) -> dict[str, Any]:
    found = index["duplicates"]
    groups, total, count = found["groups"], found["total_images"], index["searched"]
    if not groups:
        told = f"No near-duplicates among {count:,} {many} ({found['rule']})."
    elif total > count / 2:
        told = (
            f"{total:,} of {count:,} {many} count as near-duplicates ({found['rule']}): there is less to learn from "
            "than it seems."
        )
    else:
        told = (
            f"{total:,} of {count:,} {many} stand in {found['total_groups']:,} "
            f"{'group' if found['total_groups'] == 1 else 'groups'} of near-duplicates ({found['rule']}). "
            "A group across train and test makes scores look better than they are."
        )
    return {
        "told": told,
        "groups": [
            {"images": [images[i] for i in group], "told": f"{size} {many}" if size > len(group) else "Alike"}
            for group, size in zip(groups, found["sizes"])
        ],
        "outliers": [
            {"image": images[item["image"]], "similarity": f"{item['similarity']:.2f}"} for item in index["outliers"]
        ],
    }


def drawn_map(index: Mapping[str, Any], classes: Sequence[str], many: str) -> dict[str, Any] | None:
    """Marks by class as one path each; None where there are too few samples for a map."""
    points = placed(index["map"]["points"])
    if len(points) < 3:
        return None
    labels = [image["label"] for image in index["images"][: len(points)]]
    groups = []
    for label in sorted({-1 if label is None else label for label in labels}):
        number = max(0, label) % len(MARKS)
        mine = [p for p, own in zip(points, labels) if (-1 if own is None else own) == label]
        path = "".join(f"M{x:g} {y:g}{MARKS[number].path}" for x, y in mine)
        groups.append({"label": label, "mark": number, "hollow": MARKS[number].hollow, "path": path})
    method, why = index["map"]["method"], index["map"]["told"]
    how = "PaCMAP, which keeps neighbours together and bends distances" if method == "PaCMAP" else method
    because = f" ({why})" if why else ""
    return {
        "size": (MAP_SIZE, map_height(points)),
        "groups": groups,
        "about": f"{len(points):,} {many} ({searched(index, many)}), placed by their features with {how}{because}.",
        "alt": f"Map of {len(points)} {many} by their features, made with {method}",
        "legend": [
            {"label": label, "mark": label % len(MARKS), "name": name} for label, name in enumerate(classes[:CLASSES])
        ],
        "more": more(len(classes)),
    }


def more(classes: int) -> str:
    left = f"{classes - CLASSES} further classes are not listed. " if classes > CLASSES else ""
    return left + ("Classes share marks: there are more of them than marks." if classes > len(MARKS) else "")


def map_data(gallery: Gallery) -> dict[str, Any] | None:
    """What the page's script needs to answer a pointer on the map."""
    index = gallery.index
    points = placed(index["map"]["points"])
    if len(points) < 3:
        return None
    images = index["images"]
    return {
        "points": points,
        "names": [printable(str(image["name"])) for image in images],
        "labels": [image["label"] for image in images],
        "classes": [printable(str(name)) for name in index["classes"]],
        "neighbours": index["neighbours"]["index"],
        "similarity": index["neighbours"]["similarity"],
        "side": index["thumbs"]["side"],
        "columns": index["thumbs"]["columns"],
    }


def placed(points: Sequence[Sequence[float]]) -> list[list[float]]:
    """Points of any scale, in the units of the map; one scale for both axes. y points down, as on a screen."""
    if not points:
        return []
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    size = max(max(xs) - min(xs), max(ys) - min(ys)) or 1.0
    scale = (MAP_SIZE - 2 * EDGE) / size
    middle = (max(xs) + min(xs)) / 2
    lowered = max(0.0, LOWEST_MAP - 2 * EDGE - scale * (max(ys) - min(ys))) / 2  # a flat map stands in its middle
    left, top = MAP_SIZE / 2, EDGE + lowered
    return [[round(left + scale * (x - middle), 1), round(top + scale * (max(ys) - y), 1)] for x, y in points]


def map_height(places: Sequence[Sequence[float]]) -> float:
    """Of a map of `placed` points: no higher than they need."""
    return max(LOWEST_MAP, round(max(y for _, y in places) + EDGE, 1))


def short(name: str) -> str:
    """The end of a long name, which tells files of a folder apart; no line ends after the dots."""
    return name if len(name) <= CAPTION else "…\u2060" + name[-CAPTION + 1 :]


def beginning(text: str) -> str:
    """Of a text: what it says first tells it apart."""
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
