"""The study of few labels: what is trained and in which order, what goes on, the table, the chart and its page."""

import html
import html.parser
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from stopgrad.contracts import ConfigError, DataError, InterruptedRunError, StorageError
from stopgrad.data import Data
from stopgrad.recipe.text import dump, override
from stopgrad.recipe.text import load as load_recipe
from stopgrad.reporting.label_chart import Measured, label_chart
from stopgrad.rundir import RunDir, as_json
from stopgrad.study import fewlabels as study
from stopgrad.study.few_table import SCORE, run_name
from stopgrad.study.fewlabels import FewPlan, fewlabels
from stopgrad.study.process import Said
from tests.assemble.few import QUIET, place
from tests.reporting import made

GAIN = {"supervised": 0.0, "finetuned": 20.0, "distilled": 25.0}


@pytest.fixture(name="place")
def _place() -> Path:
    return place()


class Trainer:
    """Instead of a process: makes the run at once, or ends as it was told."""

    def __init__(self, place: Path, fails: dict[str, Said] | None = None, interrupt: str = "") -> None:
        self.place, self.fails, self.interrupt = place, fails or {}, interrupt
        self.names: list[str] = []
        self.minutes: set[float] = set()

    def __call__(self, out: Path, name: str, recipe: Path, seed: int, minutes: float) -> Said:
        if name == self.interrupt:
            raise KeyboardInterrupt
        self.names.append(name)
        self.minutes.add(minutes)
        run = RunDir(out / name)
        if name in self.fails:
            code, why = self.fails[name]
            run.set_status("failed", message=why, exit_code=code)
            run.log.write_text("")
            return code, why
        way = name.partition("-")[0]
        rows = (
            made.row("verdict", "healthy"),
            made.row(SCORE, 40.0 + GAIN[way] + 2 * seed + (10 if "100pct" in name else 0)),
            made.row("baseline_chance_classifier_top1", 33.3),
            made.row("knn_top1", 50.0),
        )
        (out / name).mkdir(exist_ok=True)
        run.recipe.write_text(dump(load_recipe(recipe)))
        run.append_log(made.line(0))
        run.results.write_bytes(as_json(list(rows)))
        if way == "finetuned":  # as a teacher it is read
            for file in ("encoder.safetensors", "classifier.safetensors"):
                (out / name / file).write_bytes((self.place / "tuned" / file).read_bytes())
        run.set_status("finished")
        return 0, ""


def probe(run: Path, data: Data, amount: str, seed: int) -> float:
    return 45.0 + seed


def plan(place: Path, **changes: Any) -> FewPlan:
    return FewPlan(**{"runs": (str(place / "pre"),), "labels": ("10%", "100%"), "seeds": 2, "epochs": 3, **changes})


def stored(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "fewlabels.json").read_text())
    return found


def test_all_four_are_measured_at_each_amount_and_told(place: Path, tmp_path: Path) -> None:
    train = Trainer(place)
    found = fewlabels(plan(place), tmp_path / "f", progress=QUIET, train=train, probe=probe)
    assert train.names == [
        run_name(way, amount, seed)
        for seed in range(2)
        for amount in ("10%", "100%")
        for way in ("supervised", "finetuned", "distilled")
    ]
    assert train.minutes == {0.0}
    assert found.table.head == ["accuracy %", "10% (10 images)", "100% (96 images)"]
    assert found.table.rows == [
        ["supervised from scratch", "41.0 ± 1.4", "51.0 ± 1.4"],
        ["linear probe, frozen features", "45.5 ± 0.7", "45.5 ± 0.7"],
        ["fine-tuned", "61.0 ± 1.4", "71.0 ± 1.4"],
        ["fine-tuned, then distilled", "66.0 ± 1.4", "76.0 ± 1.4"],
    ]
    text = (tmp_path / "f" / "fewlabels.md").read_text()
    for told in (
        "# Few labels on photos",
        "| fine-tuned | 61.0 ± 1.4 | 71.0 ± 1.4 |",
        "12 of 12 runs are finished.",
        "96 training and 24 test images",
        "Always the commonest class is right in 33.3 %.",
        "Budget: 3 epochs a run",
        "One run for all seeds, which then do not vary the pre-training.",
        "begins from the pre-trained weights",
        "Seeds: 2",
    ):
        assert told in text
    kept = stored(tmp_path / "f")
    assert kept["cells"]["distilled"]["100%"]["accuracy"] == {"mean": 76.0, "std": pytest.approx(2**0.5), "n": 2}
    assert kept["probes"][run_name("linear", "10%", 1)] == 46.0


def test_recipes_are_those_of_the_stages(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "f"
    fewlabels(plan(place, labels=("10%",), seeds=1, from_projector_layer=1, settings=("optim.base_lr=0.3",)),
              out, progress=QUIET, train=Trainer(place), probe=probe)  # fmt: skip
    scratch, tuned, student = (
        load_recipe(out / "recipes" / f"{run_name(way, '10%', 0)}.yaml")
        for way in ("supervised", "finetuned", "distilled")
    )
    assert (scratch.backbone.init, len(scratch.backbone.kept)) == ("", 0)
    assert (tuned.backbone.init, len(tuned.backbone.kept)) == (str(place / "pre" / "encoder.safetensors"), 1)
    assert student.method.teacher == str((out / "finetuned-10pct-0").absolute())  # type: ignore[attr-defined]
    assert student.backbone.init == str(place / "pre" / "encoder.safetensors")
    assert {one.optim.base_lr for one in (scratch, tuned, student)} == {0.3}
    assert {one.loop.epochs for one in (scratch, tuned, student)} == {3}
    assert {one.data for one in (scratch, tuned, student)} == {tuned.data}
    plain = tmp_path / "g"
    fewlabels(plan(place, labels=("10%",), seeds=1, student="scratch"), plain, progress=QUIET, train=Trainer(place),
              probe=probe)  # fmt: skip
    assert load_recipe(plain / "recipes" / "distilled-10pct-0.yaml").backbone.init == ""


def test_what_is_finished_is_kept_and_the_rest_is_trained(place: Path, tmp_path: Path) -> None:
    out, asked = tmp_path / "f", plan(place, labels=("10%",))
    with pytest.raises(
        InterruptedRunError, match=r"go on with: stopgrad fewlabels .*pre --labels 10% --seeds 2"
    ) as ended:
        fewlabels(asked, out, progress=QUIET, train=Trainer(place, interrupt="finetuned-10pct-1"), probe=probe)
    assert ended.value.exit_code == 130
    assert "4 of 6 runs are finished. The table is not complete." in stored(out)["caption"][0]
    again = Trainer(place)

    def never(*_: object) -> float:
        raise AssertionError("probed twice")

    fewlabels(asked, out, progress=QUIET, train=again, probe=never)
    assert again.names == ["finetuned-10pct-1", "distilled-10pct-1"]
    more = Trainer(place)
    found = fewlabels(plan(place, labels=("4%",), seeds=1), out, progress=QUIET, train=more, probe=probe)
    assert len(more.names) == 3
    assert found.amounts == ["4%", "10%"]  # by number, with what was there
    assert found.table.rows[2][1:] == ["60.0 (1 of 2)", "61.0 ± 1.4"]
    assert len(found.chart.x_ticks) == 2  # type: ignore[union-attr]


def test_a_run_that_fails_is_told_and_its_student_is_not_tried(place: Path, tmp_path: Path) -> None:
    train = Trainer(place, {"finetuned-10pct-0": (65, "step 7: loss nan | not finite")})
    found = fewlabels(plan(place, seeds=1), tmp_path / "f", progress=QUIET, train=train, probe=probe)
    assert "distilled-10pct-0" not in train.names
    assert found.table.rows[2] == ["fine-tuned", "–", "70.0"]
    text = (tmp_path / "f" / "fewlabels.md").read_text()
    assert r"- finetuned-10pct-0: failed: step 7: loss nan \| not finite" in text
    assert "- distilled-10pct-0: failed: its teacher did not finish" in text
    assert "4 of 6 runs are finished, 2 failed." in text


def test_where_nothing_is_finished_the_reason_is_the_error_and_a_full_disk_ends_it(place: Path, tmp_path: Path) -> None:
    fails = {f"{way}-10pct-0": (65, "loss is not finite") for way in ("supervised", "finetuned")}
    with pytest.raises(DataError, match="no run was finished; supervised-10pct-0: failed: loss is not finite"):
        fewlabels(plan(place, labels=("10%",), seeds=1), tmp_path / "f", progress=QUIET,
                  train=Trainer(place, fails), probe=probe)  # fmt: skip
    full = Trainer(place, {"finetuned-10pct-0": (74, "disk full")})
    with pytest.raises(StorageError, match="disk full"):
        fewlabels(plan(place, seeds=1), tmp_path / "g", progress=QUIET, train=full, probe=probe)
    assert full.names == ["supervised-10pct-0", "finetuned-10pct-0"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 4}, "epochs is 3 there, 4 here"),
        ({"epochs": None, "minutes": 1.5}, "minutes is not set there, 1.5 here"),
        ({"student": "scratch"}, "student is run there, scratch here"),
        ({"settings": ("optim.base_lr=1",)}, r"set is not set there, \['optim.base_lr=1'\] here"),
        ({"from_projector_layer": 1}, "from_projector_layer is not set there, 1 here"),
    ],
)
def test_a_folder_with_another_study_is_refused(
    place: Path, tmp_path_factory: pytest.TempPathFactory, change: dict[str, Any], said: str
) -> None:
    out = tmp_path_factory.mktemp("other") / "f"
    fewlabels(plan(place, seeds=1, labels=("10%",)), out, progress=QUIET, train=Trainer(place), probe=probe)
    before = (out / "fewlabels.json").read_bytes()
    with pytest.raises(ConfigError, match=said) as refused:
        fewlabels(
            plan(place, seeds=1, labels=("10%",), **change), out, progress=QUIET, train=Trainer(place), probe=probe
        )
    assert "--epochs 3" in str(refused.value)
    assert (out / "fewlabels.json").read_bytes() == before


def test_minutes_are_handed_on_and_bound_to_the_machine(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, train = plan(place, epochs=None, minutes=1.5, seeds=1, labels=("10%",)), Trainer(place)
    fewlabels(asked, tmp_path / "f", progress=QUIET, train=train, probe=probe)
    assert train.minutes == {1.5}
    assert "Minutes are of this machine" in (tmp_path / "f" / "fewlabels.md").read_text()
    monkeypatch.setattr(study, "machine", lambda: "another machine")
    with pytest.raises(ConfigError, match=r"machine is .* there, another machine here"):
        fewlabels(asked, tmp_path / "f", progress=QUIET, train=train, probe=probe)


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 2}', '{"format": 1, "settings": 3}'])
def test_a_file_that_is_no_study_is_refused(place: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "fewlabels.json").write_text(text)
    with pytest.raises(ConfigError, match="can't be read as a study of few labels"):
        fewlabels(plan(place), tmp_path / "f", progress=QUIET, train=Trainer(place), probe=probe)


def test_runs_are_on_the_same_images(place: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(place / "pre", other)
    recipe = override(load_recipe(other / "recipe.yaml"), ["data.limit=50"])
    (other / "recipe.yaml").write_text(dump(recipe))
    runs = (str(place / "pre"), str(other))
    with pytest.raises(ConfigError, match="name runs on the same images, or add --data SRC"):
        fewlabels(plan(place, runs=runs), tmp_path / "f", progress=QUIET, train=Trainer(place), probe=probe)
    same = (str(place / "pre"), str(place / "pre"))
    assert plan(place, runs=same).run(1) == place / "pre"


def test_more_labels_than_there_are_is_told_before_anything_is_trained(place: Path, tmp_path: Path) -> None:
    train = Trainer(place)
    with pytest.raises(DataError, match="blue has 32"):
        fewlabels(plan(place, labels=("99-per-class",)), tmp_path / "f", progress=QUIET, train=train, probe=probe)
    with pytest.raises(ConfigError, match="the projector has 3 layers"):
        fewlabels(plan(place, from_projector_layer=4), tmp_path / "f", progress=QUIET, train=train, probe=probe)
    assert not train.names
    assert not (tmp_path / "f").exists()


def test_the_probe_is_fitted_on_the_features_of_the_subset_alone(place: Path) -> None:
    from stopgrad.assemble.api import Options
    from stopgrad.assemble.finetune import open_for

    data = open_for(place / "pre", Options(), QUIET)
    features = study.Features()
    found = features(place / "pre", data, "10%", 0)
    train, test = features.known[place / "pre"]
    assert train.shape == (96, 32)
    assert test.shape == (24, 32)
    assert 0 <= found <= 100
    scrambled = train.clone()
    scrambled[study.choose(data.train.labels, data.classes, study.read_amount("10%"), 0, "x")] = 0
    features.known[place / "pre"] = (scrambled, test)
    assert features(place / "pre", data, "10%", 0) == pytest.approx(100 / 3, abs=0.01)  # nothing else was learnt from


# --- chart and page ---------------------------------------------------------------------------------------------------


def chart(chance: float | None = 10.0) -> Any:
    ways = [
        ("from scratch", [Measured(90, "1%", (20.0, 22.0)), Measured(9000, "100%", (90.0,))]),
        (
            "fine-tuned",
            [Measured(9000, "100%", (92.0,)), Measured(90, "1%", (50.0, 60.0)), Measured(900, "10%", (80.0,))],
        ),
        ("nothing yet", []),
    ]
    return label_chart(ways, chance)


def test_the_chart_has_a_line_a_way_over_the_logarithm_of_the_labels() -> None:
    found = chart()
    assert [line.name for line in found.lines] == ["from scratch", "fine-tuned"]
    assert len({line.style for line in found.lines}) == 2
    (few, some, all_) = found.x_ticks
    assert [tick[1:] for tick in found.x_ticks] == [
        ("1%", "90 images"),
        ("10%", "900 images"),
        ("100%", "9,000 images"),
    ]
    assert some[0] - few[0] == pytest.approx(all_[0] - some[0], abs=0.2)  # equal factors, equal steps
    first, second = found.lines
    assert second.marks[0][1] < first.marks[0][1]  # higher is up
    assert [x for x, _ in second.marks] == [few[0], some[0], all_[0]]
    assert first.spreads.count("V") == 1  # a single seed has no spread
    assert "from scratch: 21 % with 1% of the labels, 90 % with 100% of the labels" in found.alt
    assert found.chance is not None
    assert chart(None).chance is None
    low = max(y for y, _ in found.y_ticks)
    assert all(0 <= y <= 400 for line in found.lines for _, y in line.marks)
    assert low <= 400
    assert label_chart([("nothing", [])], 10.0) is None
    one = label_chart([("x", [Measured(90, "1%", (50.0,))])], None)
    assert one is not None
    assert one.lines[0].marks[0][0] == pytest.approx((52 + 720 - 24) / 2, abs=1)  # in the middle


class Reader(html.parser.HTMLParser):
    """Every tag, and what could load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert not [name for name, _ in attrs if name.startswith("on")]


def test_the_page_has_the_chart_and_asks_nothing_of_a_network(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "f"
    found = fewlabels(plan(place, labels=("10%",)), out, progress=QUIET, train=Trainer(place), probe=probe)
    text = (out / "fewlabels.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert "script" not in reader.tags
    assert all(link.startswith("#") for link in reader.links)
    assert text.count('class="line s') == 8  # four on the chart, four in its legend
    assert "61.0 ± 1.4" in text
    assert re.search(r"script-src 'sha256-[^']+'", html.unescape(text))
    assert found.chart is not None
    assert found.chart.alt.replace("&", "&amp;") in text


def test_names_are_text_on_the_page(place: Path, tmp_path: Path) -> None:
    found = fewlabels(plan(place, seeds=1, labels=("10%",)), tmp_path / "f", progress=QUIET, train=Trainer(place),
                      probe=probe)  # fmt: skip
    found.data = {**found.data, "name": "<script>alert(1)</script>", "synthetic": True}
    assert "<script>" not in found.page()
    assert "Synthetic data." in found.page()
    assert "<script>" not in found.markdown()
