"""One self-contained HTML page from what was found of one or several runs.

It asks nothing of any network, and its content policy lets nothing run but the script it was made with: script and
style are allowed by their sha256, pictures and sounds as data alone. Text comes through jinja2's escaping, data for the
script through JSON without `<`, `>` and `&`. Curves and maps are SVG made here and not by plotly, whose 4.8 MB write
style elements at run time that such a policy forbids, and whose charts neither a keyboard nor a printer reaches.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stopgrad.contracts import ConfigError
from stopgrad.reporting import charts as drawing
from stopgrad.reporting.charts import charts, number_text
from stopgrad.reporting.cost import cost
from stopgrad.reporting.found import Found, printable
from stopgrad.reporting.pictures import MARKS, drawn, map_data
from stopgrad.reporting.scores import Cell, Row, cells, scores
from stopgrad.version import __version__

TEMPLATES = Path(__file__).parent / "templates"
PICTURES = 6_000_000  # bytes of galleries in one page; runs after that are shown without
NEEDS = "the report needs jinja2: pip install 'stopgrad[report]'"
VERDICTS = {  # title, tone, sign
    "healthy": ("Healthy", "good", "✓"),
    "collapsed": ("Collapsed", "bad", "✕"),
    "partly_collapsed": ("Partly collapsed", "bad", "✕"),
    "not_learning": ("Not learning", "bad", "✕"),
    "diverged": ("Diverged", "bad", "✕"),
    "too_early": ("Too early to tell", "wait", "…"),
}
SECTIONS = (
    ("verdict", "Verdict"),
    ("scores", "Scores"),
    ("curves", "Curves"),
    ("views", "Views"),
    ("neighbours", "Neighbours"),
    ("captions", "Captions"),
    ("map", "Map"),
    ("odd", "Duplicates and outliers"),
    ("recipe", "Recipe"),
    ("cost", "Cost"),
)
PICTURED = ("views", "neighbours", "captions", "map", "odd")
# the ends of lines: as many as there are styles
ENDS = (
    "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0",
    "M-3-3h6v6h-6z",
    "M0-4l3.8 6.6h-7.6z",
    "M0-4.2l4.2 4.2l-4.2 4.2l-4.2-4.2z",
    "M0 4l3.8-6.6h-7.6z",
    "M-4-1.5h8v3h-8z",
)


def available() -> bool:
    """Whether what the page is made with is installed."""
    try:
        import jinja2  # noqa: F401
    except ImportError:
        return False
    return True


def render(runs: Sequence[Found]) -> str:
    """The page. `runs` has one or more. Raises ConfigError where jinja2 is not installed."""
    if not available():
        raise ConfigError(NEEDS)
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    css, js = (asset(name) for name in ("report.css", "report.js"))
    shown = [shape(run, number, room) for number, (run, room) in enumerate(zip(runs, with_pictures(runs)))]
    curves = charts([(run.name, run.log) for run in runs])
    data = {
        "charts": {chart.key: [{"name": line.name, "data": line.data} for line in chart.lines] for chart in curves},
        "maps": {
            str(number): map_data(run.gallery)
            for number, run in enumerate(runs)
            if run.gallery and shown[number]["gallery"]
        },
        "sounds": {
            str(number): run.gallery.sounds
            for number, run in enumerate(runs)
            if run.gallery and run.gallery.sounds and shown[number]["gallery"]
        },
    }
    several = len(runs) > 1
    alike = len({run.many for run in runs}) == 1
    tables = [one["scores"] for one in shown]
    any_gallery = any(one["gallery"] for one in shown)
    any_captions = any(one["gallery"] and one["gallery"]["captions"] for one in shown)
    absent = {*(() if any_gallery else PICTURED), *(() if any_captions else ("captions",))}
    return environment.get_template("report.html.j2").render(
        title=f"{len(runs)} runs" if several else runs[0].name,
        csp=policy(css, js),
        css=Markup(css),  # ours, without a `</`
        js=Markup(js),
        data=Markup(as_data(data)),  # no character of it can end the element
        runs=shown,
        several=several,
        synthetic=synthetic(runs),
        sections=[one for one in SECTIONS if one[0] not in absent],
        one=runs[0].one if alike else "a sample",
        many=runs[0].many if alike else "samples",
        any_gallery=any_gallery,
        any_captions=any_captions,
        charts=[{**fields(chart), "resting": resting(chart)} for chart in curves],
        together=together(tables) if several else [],
        comparable=len({fingerprint(one) for one in tables if one}) == 1,
        any_labels=any(one["gallery"] and one["gallery"]["labelled"] for one in shown),
        differences=differences([run.recipe for run in runs]),
        cost=cost(runs),
        marks=MARKS,
        ends=ENDS,
        width=drawing.WIDTH,
        height=drawing.HEIGHT,
        left=drawing.LEFT,
        right=drawing.RIGHT,
        version=__version__,
    )


def policy(css: str, js: str) -> str:
    """The content policy: nothing but this style, this script, and pictures and sounds inside the page."""
    return (
        f"default-src 'none'; script-src '{digest(js)}'; style-src '{digest(css)}'; img-src data:; media-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def as_data(value: object) -> str:
    """JSON that stays inside its element whatever the names in it are."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII: everything else is \\uXXXX
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def with_pictures(runs: Sequence[Found]) -> list[bool]:
    """Which runs' galleries find room in one page, in order."""
    spent, kept = 0, []
    for number, run in enumerate(runs):
        size = run.gallery.size if run.gallery else 0
        kept.append(number == 0 or spent + size <= PICTURES)
        spent += size if kept[-1] else 0
    return kept


def shape(run: Found, number: int, room: bool) -> dict[str, Any]:
    """One run as the template reads it."""
    said = run.diagnosis
    verdict, tone, sign = VERDICTS.get(said.verdict, (said.verdict, "wait", "?"))
    gallery = None
    if run.gallery and room:
        try:
            gallery = drawn(run.gallery, run.many)
        except (
            KeyError,
            IndexError,
            TypeError,
            ValueError,
            AttributeError,
        ):  # another version's, or cut short: what else there is
            gallery = None
    found = scores(run.results)
    return {
        "number": number,
        "name": run.name,
        "summary": summary(run),
        "verdict": verdict,
        "tone": tone,
        "sign": sign,
        "explanation": said.explanation,
        "cause": said.cause,
        "evidence": said.evidence,
        "next_command": said.next_command,
        "stopped": stopped(run),
        "scores": None
        if found is None
        else {**fields(found), "rows": [{**fields(row), "percent": row.about.startswith("%")} for row in found.rows]},
        "gallery": gallery,
        "why_absent": why_absent(run, room),
        "recipe_text": run.recipe_text,
        "again": f"stopgrad train {shlex.quote(run.path + '/recipe.yaml')}",
    }


def fields(thing: Any) -> dict[str, Any]:
    """A slotted dataclass, one level down."""
    return {name: getattr(thing, name) for name in thing.__dataclass_fields__}


def summary(run: Found) -> str:
    recipe = run.recipe
    parts = [
        str(recipe.get("method", {}).get("name", "")),
        str(recipe.get("backbone", {}).get("name", "")),
        run.source + (f" (synthetic {run.many})" if run.synthetic else ""),
        f"{run.steps:,} steps" if run.steps else "no step yet",
        size_of(recipe.get("views", {})),
    ]
    return " · ".join(part for part in parts if part)


def size_of(views: Mapping[str, Any]) -> str:
    """How large a sample is to the encoder, by a recipe's `views`."""
    kind = views.get("kind", "image")
    if kind == "text":
        return f"{views.get('length', '?')} tokens"
    if kind == "audio":
        return f"{views.get('window', '?')} samples at {views.get('sample_rate', '?')} Hz"
    return f"{views.get('image_size', '?')} px"


def stopped(run: Found) -> str:
    """What to say of a run that did not come to its end; "" of one that did."""
    if run.state in ("failed", "interrupted"):
        word = "failed" if run.state == "failed" else "was interrupted"
        return f"The run {word} before its end{': ' + run.message if run.message else ''}"
    if not run.finished:
        return "The run has not finished; this is what there is so far."
    return ""


def why_absent(run: Found, room: bool) -> str:
    if not room:
        return f"This page is full; that stands in the run's own report: stopgrad report {shlex.quote(run.path)}"
    if run.finished:
        return f"To make what is missing: stopgrad report {shlex.quote(run.path)}"
    return f"What is missing is made at the end of a run: stopgrad train {shlex.quote(run.path)} --resume"


def synthetic(runs: Sequence[Found]) -> str:
    made = [run for run in runs if run.synthetic]
    if not made:
        return ""
    names = ", ".join(dict.fromkeys(run.source for run in made))
    which = "The data" if len(made) == len(runs) else f"The data of {', '.join(run.name for run in made)}"
    return f"{which} ({names}) was made by a program; say so when you quote a number from this page."


def resting(chart: drawing.Chart) -> str:
    """What stands under a chart while nobody points at it: where each line ended."""
    ends = [(line.name, line.data[-1][3]) for line in chart.lines]
    if len(ends) == 1:
        return f"at the end {number_text(ends[0][1])}"
    return "at the end: " + "; ".join(f"{name} {number_text(value)}" for name, value in ends)


def together(tables: Sequence[Mapping[str, Any] | None]) -> list[Row]:
    """Each measure once, with a column a run: this run's own value."""
    names: dict[str, tuple[str, str]] = {}
    for table in tables:
        for row in table["rows"] if table else ():
            names.setdefault(row["name"], (row["title"], row["about"]))
    out = []
    for name, (title, about) in names.items():
        values = [own(table, name) for table in tables]
        out.append(Row(name, title, about, cells(name, values)))
    return out


def own(table: Mapping[str, Any] | None, name: str) -> float | None:
    rows = table["rows"] if table else ()
    found: Cell | None = next((row["cells"][0] for row in rows if row["name"] == name), None)
    return found.value if found else None


def fingerprint(table: Mapping[str, Any]) -> str:
    """The part of a protocol that says which images: equal means that scores can be compared."""
    parts = str(table["protocol"]).split("; ")
    return "; ".join(parts[1:3])


def differences(recipes: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """(setting, its value in each run) where they differ."""
    flat = [flattened(recipe) for recipe in recipes]
    keys = dict.fromkeys(key for one in flat for key in one)
    table = [(key, [one.get(key, "–") for one in flat]) for key in keys]
    return [(key, values) for key, values in table if len(set(values)) > 1]


def flattened(values: Mapping[str, Any], before: str = "") -> dict[str, str]:
    out: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            out |= flattened(value, f"{before}{key}.")
        else:
            out[f"{before}{key}"] = printable(str(value))
    return out
