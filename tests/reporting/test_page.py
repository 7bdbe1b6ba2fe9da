"""The page without a browser: what stands in it, in which order, and that nothing in it can load or run."""

import base64
import hashlib
import json
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from stopgrad.assemble.report import names, report
from stopgrad.contracts import ConfigError, MissingInputError, Result, StorageError
from stopgrad.reporting import page, scores
from stopgrad.reporting.found import as_url, read_gallery, read_results
from stopgrad.rundir import RunDir
from tests.reporting import made

pytest.importorskip("jinja2")


class Read(HTMLParser):
    """Elements with their attributes, and the text inside some of them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.inside: list[tuple[str, dict[str, str], str]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        self.open.append(tag)
        if tag in ("script", "style", "h2", "title", "main"):
            self.inside.append((tag, given, ""))

    def handle_data(self, data: str) -> None:
        for at in range(len(self.inside) - 1, -1, -1):
            tag, given, text = self.inside[at]
            if self.open and tag == self.open[-1]:
                self.inside[at] = (tag, given, text + data)
                break
        if self.open and self.open[-1] not in ("script", "style"):
            self.words += data

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def text_of(self, tag: str) -> list[str]:
        return [text for name, _, text in self.inside if name == tag]


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a whole run with names that try to break out."""
    path = made.run(tmp_path_factory.mktemp("runs") / "<b>name</b>", data=made.evil_data())
    return report(path).read_text()


def sha256(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"


def test_the_verdict_comes_first_and_all_parts_follow_in_order(evil: str) -> None:
    assert [text.strip() for text in Read(evil).text_of("h2")] == [
        "Verdict",
        "What the features are worth",
        "Curves",
        "What the method sees",
        "Nearest neighbours",
        "Map of the features",
        "Near-duplicates and outliers",
        "Recipe",
        "Cost",
    ]
    said = evil.index("<strong>Healthy:</strong> features spread and tell images apart better than at the start.")
    assert said < evil.index('id="scores"')


def test_the_policy_allows_exactly_the_script_and_style_that_are_there(evil: str) -> None:
    found = Read(evil)
    policy = next(a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    running = [text for tag, a, text in found.inside if tag == "script" and a.get("type") != "application/json"]
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [sha256(text) for text in running]
    assert rules["style-src"].split() == [sha256(text) for text in found.text_of("style")]
    assert rules["img-src"] == rules["media-src"] == "data:"
    assert "unsafe" not in policy


def test_nothing_is_loaded_from_anywhere_and_nothing_runs_from_an_attribute(evil: str) -> None:
    found = Read(evil)
    loading = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "background", "formaction"}
    for tag, given in found.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name, value in given.items():
            assert not name.startswith("on"), f"{tag} {name}"
            assert name != "style", "an inline style, which the policy forbids"
            if name in loading:
                assert value.startswith(("#", "data:image/jpeg;base64,")), f"{tag} {name}={value[:40]}"
    assert "url(" not in evil
    assert "@import" not in evil


def test_names_are_text_whatever_they_are(evil: str) -> None:
    found = Read(evil)
    assert [a["alt"][:6] for tag, a in found.elements if tag == "img"] == ["6 rows"]
    assert len(found.text_of("script")) == 2
    assert made.EVIL_CLASS in found.words
    assert "<b>name</b>" in found.words
    assert "\u202e" not in evil
    data = json.loads(found.text_of("script")[0])
    shown = {name.encode().decode("unicode_escape") for name in data["maps"]["0"]["names"]}
    assert shown == set(made.EVIL_NAMES)
    assert data["maps"]["0"]["classes"][0] == made.EVIL_CLASS


def test_data_cannot_end_its_element() -> None:
    text = page.as_data({"name": "</script><!--<b>&\u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"name": "</script><!--<b>&\u2028"}


def test_the_files_of_the_page_have_no_end_of_their_element_inside() -> None:
    assert "</" not in page.asset("report.css") + page.asset("report.js")
    assert "\r" not in page.asset("report.css") + page.asset("report.js")


def test_every_picture_has_words(evil: str) -> None:
    for tag, given in Read(evil).elements:
        if given.get("role") in ("img", "application"):
            assert given["aria-label"].strip()
        if tag == "img":
            assert given["alt"].strip()


def said(*rows: dict[str, Any]) -> list[tuple[str, bool]]:
    table = scores.scores([made_result(row) for row in rows])
    assert table is not None
    return [(one.text, one.warns) for one in table.sentences]


def made_result(row: dict[str, Any]) -> Result:
    return Result(**row)


def test_a_better_baseline_is_said_plainly_and_first() -> None:
    found = said(
        made.row("knn_top1", 37.5),
        made.row("baseline_random_knn_top1", 20.0),
        made.row("baseline_pixels_knn_top1", 45.5),
        {**made.row("baseline_other_knn_top1", 60.0), "protocol": "p; baseline timm:vit, pretrained by timm; kNN"},
    )
    assert found == [
        ("Raw pixels are better than this run in kNN accuracy: 45.5 % against 37.5 %.", True),
        (
            "The other encoder (timm:vit, pretrained by timm) is better than this run in kNN accuracy: "
            "60.0 % against 37.5 %.",
            True,
        ),
        ("kNN accuracy is 37.5 %, above untrained 20.0 %.", False),
    ]


def test_a_difference_of_few_images_is_called_level() -> None:
    [(text, warns)] = said(made.row("knn_top1", 40.0, n=100), made.row("baseline_random_knn_top1", 38.0, n=100))
    assert "level with this run" in text
    assert warns


def test_every_baseline_is_a_column_and_the_best_of_a_row_is_marked() -> None:
    rows = [
        *("knn_top1", "knn_top1_k200", "alignment", "effective_rank"),
        *("baseline_other_knn_top1_k200", "baseline_init_alignment", "baseline_other_effective_rank"),
    ]
    table = scores.scores([made_result(made.row(name, 10.0 + at)) for at, name in enumerate(rows)])
    assert table is not None
    assert table.columns == ["this run", "other encoder", "starting weights"]
    by_name = {row.name: row for row in table.rows}
    assert "knn_top1" not in by_name  # nothing stands beside it
    assert [cell.text for cell in by_name["knn_top1_k200"].cells] == ["11.00", "14.00", "–"]
    assert [cell.best for cell in by_name["knn_top1_k200"].cells] == [False, True, False]
    # a collapsed encoder has the best alignment there is, noise the highest rank
    assert not any(cell.best for name in ("alignment", "effective_rank") for cell in by_name[name].cells)


def test_a_failed_run_gives_a_page_of_what_there_is(tmp_path: Path) -> None:
    log = [made.line(0), made.line(50, loss=None, skipped=True)]
    path = made.run(
        tmp_path / "a", log=log, results=None, pictures=False, state="failed", message="step 50: loss <nan>"
    )
    words = Read(report(path).read_text()).words
    assert "Diverged:" in words
    assert "The run failed before its end: step 50: loss <nan>" in words
    assert "No scores" in words
    assert "No views, neighbours or map" in words


def test_a_run_without_a_step_gives_a_page_too(tmp_path: Path) -> None:
    path = made.run(tmp_path / "a", log=[], results=None, pictures=False, state="running")
    words = Read(report(path).read_text()).words
    assert "Too early to tell: no measurement yet" in words
    assert "Nothing was logged" in words


@pytest.mark.parametrize("damage", ["{", '{"format": 99}', '{"format": 1}', "[]"])
def test_a_damaged_gallery_and_damaged_results_are_left_out(tmp_path: Path, damage: str) -> None:
    path = made.run(tmp_path / "a", pictures=True)
    (path / "gallery" / "gallery.json").write_text(damage)
    RunDir(path).results.write_text(damage)
    words = Read(report(path).read_text()).words
    assert "No scores" in words
    assert "No views" in words


def test_a_collapsed_run_is_told_with_cause_and_next_command(tmp_path: Path) -> None:
    flat = {"std_ratio": 0.01, "rank_z": 1.0, "rank_h": 2.0}
    log = [made.line(0), made.line(300, **flat)]
    path = made.run(tmp_path / "a", "method.target=shared", log=log, results=None, pictures=False)
    words = Read(report(path).read_text()).words
    assert "Collapsed: no stop-gradient: gradient flows into both views." in words
    assert "Cause: method." in words
    assert "--set method.target=stop_gradient" in words


def test_runs_side_by_side_share_charts_and_show_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a = made.run(tmp_path / "x" / "run", "optim.base_lr=0.03")
    b = made.run(tmp_path / "y" / "run", "optim.base_lr=0.5", results=None, pictures=False, state="running")
    target = report([a, b])
    assert target == Path("report.html")
    text = target.read_text()
    found = Read(text)
    data = json.loads(found.text_of("script")[0])
    assert [line["name"] for line in data["charts"]["loss"]] == [str(a), str(b)]
    assert set(data["maps"]) == {"0"}
    assert "optim.base_lr" in found.words
    assert "0.03" in found.words
    assert "2 runs side by side" in found.words
    assert text.index('class="verdict good"') < text.index('class="verdict', text.index('class="verdict good"') + 9)


def test_scores_of_different_images_are_not_compared(tmp_path: Path) -> None:
    other = tuple({**row, "protocol": "stopgrad-eval-1; data b, ffff; 9 training images"} for row in made.RESULTS)
    a = made.run(tmp_path / "a", pictures=False)
    b = made.run(tmp_path / "b", results=other, pictures=False)
    assert "do not compare the numbers" in report([a, b], tmp_path / "r.html").read_text()
    c = made.run(tmp_path / "c", pictures=False)
    assert "do not compare the numbers" not in report([a, c], tmp_path / "r.html").read_text()


def test_a_full_page_leaves_out_later_galleries_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "PICTURES", 10)
    a, b = (made.run(tmp_path / name) for name in "ab")
    text = report([a, b], tmp_path / "r.html").read_text()
    assert "This page is full" in text
    assert text.count("data:image/jpeg") == 2


def test_synthetic_images_are_called_so(tmp_path: Path) -> None:
    path = made.run(tmp_path / "a", "data.source=scenes-v1", pictures=False)
    assert "Synthetic data." in report(path).read_text()
    path = made.run(tmp_path / "b", pictures=False)
    assert "Synthetic data." not in report(path).read_text()


def test_the_cost_is_counted_from_the_log(tmp_path: Path) -> None:
    path = made.run(tmp_path / "a", "loop.batch_size=100", log=[made.line(0), made.line(300)], pictures=False)
    words = " ".join(Read(report(path).read_text()).words.split())
    assert "30,000 (300 steps, 7.5 epochs)" in words
    assert "60 s" in words  # 30,000 images at 500 a second
    assert "500 images/s" in words
    assert "1,234 MB" in words


def test_mistakes_say_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingInputError, match="no run there"):
        report(tmp_path)
    with pytest.raises(ConfigError, match="no run named"):
        report([])
    path = made.run(tmp_path / "a", pictures=False)
    with pytest.raises(ConfigError, match="is a folder"):
        report(path, tmp_path)
    before = (path / "recipe.yaml").read_bytes()
    with pytest.raises(ConfigError, match=r"must end in \.html, so that no other file is overwritten"):
        report(path, path / "recipe.yaml")
    assert (path / "recipe.yaml").read_bytes() == before
    with pytest.raises(StorageError, match="can't be written"):
        report(path, path / "recipe.yaml" / "report.html")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ConfigError, match=r"pip install 'stopgrad\[report\]'"):
        report(path)


def test_runs_of_one_name_are_told_apart() -> None:
    assert names([Path("runs/a"), Path("runs/b")]) == ["a", "b"]
    assert names([Path("x/a"), Path("y/a")]) == ["x/a", "y/a"]


def test_a_run_named_twice_is_shown_once(tmp_path: Path) -> None:
    a, b = (made.run(tmp_path / name, pictures=False) for name in "ab")
    text = report([a, b, tmp_path / "x" / ".." / "a"], tmp_path / "r.html").read_text()
    assert "2 runs side by side" in text
    assert text.index("<bdi>a</bdi>") < text.index("<bdi>b</bdi>")


@pytest.mark.parametrize(
    "change",
    [{"name": 5}, {"value": [1]}, {"value": float("nan")}, {"n": "x"}, {"protocol": None}, {"n": True}, {"more": 1}],
)
def test_results_that_are_no_results_are_none(change: dict[str, Any], tmp_path: Path) -> None:
    assert read_results(tmp_path / "none.json") == []
    results = tmp_path / "results.json"
    results.write_text(json.dumps([made.row("knn_top1", 1.0)]))
    assert len(read_results(results)) == 1
    results.write_text(json.dumps([made.row("knn_top1", 1.0), {**made.row("linear_top1", 1.0), **change}]))
    assert read_results(results) == []
    results.write_text("[" * 100_000)
    assert read_results(results) == []


def test_a_stranger_s_gallery_can_not_name_other_files_or_values_that_are_no_numbers(tmp_path: Path) -> None:
    path = made.run(tmp_path / "a")
    secret = tmp_path / "secret.jpg"
    secret.write_bytes((path / "gallery" / "views.jpg").read_bytes() + b"secret")
    index = json.loads((path / "gallery" / "gallery.json").read_text())
    for part in ("thumbs", "views"):
        index[part]["file"] = str(secret)
    (path / "gallery" / "gallery.json").write_text(json.dumps(index))
    found = read_gallery(path / "gallery")
    assert found is not None
    assert found.views == as_url((path / "gallery" / "views.jpg").read_bytes())
    for part, value in (("facts", [1]), ("map", {**index["map"], "points": [[float("nan"), 1.0]] * 9}), ("images", 5)):
        (path / "gallery" / "gallery.json").write_text(json.dumps({**index, part: value}))
        assert "No views" in report(path).read_text()


def test_a_source_can_not_turn_the_text_around_it(tmp_path: Path) -> None:
    a = made.run(tmp_path / "a", 'data.source="photos\\u202egnp"', pictures=False)
    b = made.run(tmp_path / "b", pictures=False)
    text = report([a, b], tmp_path / "r.html").read_text()
    assert "\u202e" not in text
    assert "\\u202egnp" in text
