"""A study goes from its records: what is missing is trained, what two studies share once; and its page is complete."""

import csv
import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from stopgrad.assemble import api
from stopgrad.cli.app import app
from stopgrad.contracts import ConfigError, InterruptedRunError
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import override
from stopgrad.recipe.typed import plain
from stopgrad.recipes import recipe_named
from stopgrad.rundir import RunDir
from stopgrad.study.child import carry_out
from stopgrad.study.lab import records
from stopgrad.study.lab.claims import Higher
from stopgrad.study.lab.conduct import (
    Asked,
    again_of,
    command_of,
    compose,
    conduct,
    gather,
    missing,
    study_named,
)
from stopgrad.study.lab.definition import SCALES, Case, Study
from stopgrad.study.lab.page import write_index, write_page
from stopgrad.study.lab.records import Record
from stopgrad.study.papers import STUDIES
from stopgrad.study.process import Said
from stopgrad.training.progress import Progress

QUIET = Progress(quiet=True)
DRY = (  # a handful of steps a run
    "backbone.width=8",
    "loop.epochs=1",
    "loop.batch_size=16",
    "data.limit=64",
    "loop.threads=1",
    "loop.view_threads=1",
    "watch.every_steps=2",
    "watch.images=16",
    "watch.knn_every_steps=100",
    "watch.knn_bank=20",
    "eval={random_seeds: 1, k: [3], retrieval_images: 8, linear: none}",
)


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where runs and pages of all studies go."""
    return tmp_path_factory.mktemp("laboratory")


def dry(name: str, folder: Path, trained: list[str] | None = None) -> Path:
    """The study's page, each run a handful of steps in this process."""

    def train(out: Path, run: str, recipe: Path, seed: int, minutes: float) -> Said:
        if trained is not None:
            trained.append(run)
        return carry_out(out, run, recipe, seed, minutes)

    narrow = DRY if name != "moco_v3/patches" else DRY[1:]  # whose ViT has the width it has
    asked = Asked(study=STUDIES[name], settings=narrow, seeds=1)
    return conduct(asked, write_page, out=folder / "runs", pages=folder / "pages", train=train, progress=QUIET)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", STUDIES)
def test_every_case_of_every_study_is_a_recipe(name: str, scale: str) -> None:
    asked = Asked(study=STUDIES[name], scale=scale)  # type: ignore[arg-type]
    rows = compose(asked)
    assert [row.why for row in rows if row.recipe is None] == []
    named = [records.run_name(row.with_seed(0)) for row in rows]
    assert len(set(named)) == len(named), "two cases of a study are the same recipe"


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_in_a_handful_of_steps_has_a_complete_page(name: str, laboratory: Path) -> None:
    page, study = dry(name, laboratory), STUDIES[name]
    text = page.read_text()
    assert "not run" not in text
    assert "can't be run" not in text
    for heading in (study.title, "## Claims", "## Curves", "## Recipes", "## Cost"):
        assert heading in text
    with page.with_suffix(".csv").open() as file:
        head, *rows = csv.reader(file)
    cases = [case.name for case in study.cases if "tiny" in case.scales]
    assert [row[0] for row in rows] == cases
    assert head[:2] == ["case", "paper"]
    assert all(len(row) == len(head) for row in rows)
    assert text.count("stopgrad train ") >= len(cases)
    assert page.with_suffix(".tex").read_text().count(r"\\") == len(cases) + 1
    drawing = page.with_suffix(".svg").read_text()
    assert drawing.count("<path") > len(cases)
    assert drawing.count("<g ") == len(study.curves)


def test_what_is_recorded_is_not_trained_again_and_shared_runs_are_made_once(tmp_path: Path) -> None:
    trained: list[str] = []
    dry("simsiam/similarity", tmp_path, trained)
    assert len(trained) == 2
    dry("simsiam/samples", tmp_path, trained)  # its first case is the other's
    assert len(trained) == 4
    page = dry("simsiam/samples", tmp_path, trained)
    assert len(trained) == 4
    name = trained[-1]
    (tmp_path / "pages" / "records" / f"{name}.json").unlink()
    before = page.read_text()
    assert dry("simsiam/samples", tmp_path, trained).read_text() == before  # from the run, which is there
    assert len(trained) == 4


def test_a_run_that_ends_itself_is_a_row_and_a_crash_is_tried_again(tmp_path: Path) -> None:
    study = replace(STUDIES["simsiam/similarity"], claims=())
    asked = Asked(study=study, settings=DRY, seeds=1)
    folders = {"out": tmp_path / "runs", "pages": tmp_path / "pages"}

    def breaks(out: Path, run: str, recipe: Path, seed: int, minutes: float) -> Said:
        return 1, "its process ended with code 1"

    conduct(asked, write_page, **folders, train=breaks, progress=QUIET)
    assert len(missing(asked, compose(asked), tmp_path / "pages")) == 2

    def diverges(out: Path, run: str, recipe: Path, seed: int, minutes: float) -> Said:
        RunDir(out / run).path.mkdir(parents=True)
        RunDir(out / run).recipe.write_text(recipe.read_text())
        RunDir(out / run).set_status("failed", message="the loss is not finite", exit_code=65)
        return 65, "the loss is not finite"

    text = conduct(asked, write_page, **folders, train=diverges, progress=QUIET).read_text()
    assert missing(asked, compose(asked), tmp_path / "pages") == []
    assert "Runs that ended themselves" in text
    assert "the loss is not finite" in text


def test_a_page_says_what_was_not_run(tmp_path: Path) -> None:
    asked = Asked(study=STUDIES["simsiam/batch-norm"])
    rows = compose(asked)
    text = write_page(gather(asked, rows, tmp_path), tmp_path).read_text()
    assert "0 of 12 runs are finished; a row that was not run says so." in text
    assert "| default | 68.1 | not run | 0 |" in text
    assert "| – not run | without any it learns slowly" in text
    assert "## Curves" not in text


def test_a_recipe_s_digest_knows_every_setting_but_the_seed() -> None:
    rows = {row.case.name: row for row in compose(Asked(study=STUDIES["simsiam/dimension"]))}
    names = {name: records.run_name(row.with_seed(0)) for name, row in rows.items()}
    assert len(set(names.values())) == len(rows)
    other = records.run_name(rows["512"].with_seed(1))
    assert other == names["512"].rpartition("-")[0] + "-1"


def a_recipe(settings: tuple[str, ...] = (), seed: int = 0) -> Recipe:
    return replace(override(recipe_named("simsiam/scenes"), settings), seed=seed)


def a_record(recipe: Recipe) -> Record:
    return Record(
        name=records.run_name(recipe),
        seed=recipe.seed,
        recipe=plain(recipe),
        verdict="healthy",
        values={"knn_top1": 5.0},
        curves={"loss": [[0, 1.5]]},
    )


def test_a_record_comes_back_as_it_was_and_another_s_is_an_error(tmp_path: Path) -> None:
    recipe = a_recipe()
    record = a_record(recipe)
    records.write(tmp_path, record)
    assert records.read(tmp_path, recipe) == record
    assert records.read(tmp_path, a_recipe(seed=1)) is None
    file = tmp_path / f"{record.name}.json"
    good = json.loads(file.read_text())
    for bad in ("{", "[]", json.dumps({**good, "format": 9}), json.dumps({**good, "values": {"x": "y"}})):
        file.write_text(bad)
        with pytest.raises(ConfigError, match=rf"{record.name}.json can't be read as a record .*; delete it"):
            records.read(tmp_path, recipe)


def test_a_record_outlives_new_settings_and_not_changed_defaults(tmp_path: Path) -> None:
    recipe = a_recipe()
    older = plain(recipe)
    del older["watch"]["gradients"], older["method"]["lag"]  # as if they had come later
    records.write(tmp_path, replace(a_record(recipe), recipe=older))
    assert records.read(tmp_path, recipe) is not None
    for settings in (("watch.gradients=true",), ("method.target=lagged", "method.lag=3")):
        assert records.read(tmp_path, a_recipe(settings)) is None
    changed = plain(recipe)
    changed["method"]["predictor_hidden"] += 1  # as if the default had been another
    records.write(tmp_path, replace(a_record(recipe), recipe=changed))
    assert records.read(tmp_path, recipe) is None
    gone = {**older, "method": {**older["method"], "no_longer": 1}}
    records.write(tmp_path, replace(a_record(recipe), recipe=gone))
    assert records.read(tmp_path, recipe) is None


def test_a_run_of_other_defaults_is_not_taken_for_this_one(tmp_path: Path) -> None:
    dry("simsiam/similarity", tmp_path)
    for record in (tmp_path / "pages" / "records").iterdir():
        record.unlink()
    file = next(file for file in (tmp_path / "runs" / "recipes").iterdir() if "cross_entropy" in file.read_text())
    file.write_text(file.read_text().replace("flip: 0.5", "flip: 0.25"))
    with pytest.raises(ConfigError, match=r"is of a version with other defaults .* delete it, or use another --out"):
        dry("simsiam/similarity", tmp_path)


def test_a_mistake_in_a_study_is_an_error_when_it_is_written() -> None:
    case = Case(name="a")
    claim = Higher(words="", of="a", than="b")
    same = {"title": "", "question": "", "source": "", "measured": "", "method": "simsiam", "claims": ()}
    with pytest.raises(ConfigError, match="claims speak of 'b'"):
        Study(name="x/y", cases=(case,), **{**same, "claims": (claim,)})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="two cases have one name"):
        Study(name="x/y", cases=(case, case), **same)  # type: ignore[arg-type]


def test_a_name_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"no study 'simsiam/stopgradient'; did you mean 'simsiam/stop-gradient'"):
        study_named("simsiam/stopgradient", STUDIES)
    with pytest.raises(ConfigError, match="--scale must be one of tiny, small, paper, got 'huge'"):
        Asked(study=STUDIES["byol/grid"], scale="huge")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="--seeds must be 1 or more"):
        Asked(study=STUDIES["byol/grid"], seeds=-1)


def test_the_index_says_how_far_each_study_is(tmp_path: Path) -> None:
    dry("simsiam/similarity", tmp_path)
    asked = [Asked(study=STUDIES[name], settings=DRY, seeds=1) for name in ("simsiam/similarity", "byol/momentum")]
    text = write_index([gather(one, compose(one), tmp_path / "pages") for one in asked], tmp_path / "pages").read_text()
    assert (
        "| [simsiam/similarity](simsiam-similarity.md) | Is cosine what keeps SimSiam from collapsing? | 2 of 2 |"
        in text
    )
    assert "| byol/momentum | How slowly must BYOL's target follow? | 0 of 5 | 3 not run |" in text


def test_stopped_it_says_what_to_type(tmp_path: Path) -> None:
    asked = Asked(study=STUDIES["simsiam/similarity"], settings=DRY[:2], seeds=2, data="a folder")

    def stops(*_: object) -> Said:
        raise KeyboardInterrupt

    message = r"stopgrad study simsiam/similarity --seeds 2 --out .* --set backbone.width=8 loop.epochs=1$"
    with pytest.raises(InterruptedRunError, match=message):
        conduct(replace(asked, data=None), write_page, out=tmp_path / "runs", train=stops, progress=QUIET)
    said = again_of(asked)
    assert said == "stopgrad study simsiam/similarity --data 'a folder' --seeds 2 --set backbone.width=8 loop.epochs=1"


@pytest.mark.parametrize("name", STUDIES)
def test_the_command_of_a_case_trains_its_recipe(name: str) -> None:
    asked = Asked(study=STUDIES[name])
    for row in compose(asked):
        words = shlex.split(command_of(asked, row.case))
        epochs = 8 * row.case.epochs
        assert words[:2] + words[3:5] == ["stopgrad", "train", "--epochs", f"{epochs:g}"]
        settings = words[6:] if len(words) > 5 else []
        assert api.compose(words[2], api.Options(epochs=int(epochs), settings=settings)) == row.recipe


def test_local_crops_are_half_the_side_of_a_small_part_and_a_case_has_its_share_of_epochs() -> None:
    rows = {row.case.name: row.recipe for row in compose(Asked(study=STUDIES["swav/multi-crop"]))}
    off, on = rows["byol, 2 crops"], rows["byol, 2 + 4"]
    assert off is not None
    assert on is not None
    assert (off.loop.epochs, on.loop.epochs) == (9, 6)
    assert off.views.sides == (32, 32)
    assert on.views.sides == (32, 32, 16, 16, 16, 16)
    _, views = on.of_images("a test")
    assert [crop.scale for crop in views.crops] == [(0.25, 1.0)] * 2 + [(0.05, 0.25)] * 4
    assert 9 * sum(side**2 for side in off.views.sides) == 6 * sum(side**2 for side in on.views.sides)


def test_the_list_names_every_study(capsys: pytest.CaptureFixture[str]) -> None:
    app(["study", "list"], result_action="return_value")
    said = capsys.readouterr().out
    assert all(name in said for name in STUDIES)
    assert "SimSiam, arXiv:2011.10566, figure 2" in said
