"""A comparison: what is trained in which order, what is kept, what is refused, and what the tables say."""

import json
import os
import signal
from pathlib import Path

import pytest

from stopgrad.assemble import api
from stopgrad.contracts import ConfigError, DataError, InterruptedRunError, LockedError, StorageError
from stopgrad.rundir import RunDir
from stopgrad.study import child
from stopgrad.study import compare as comparing
from stopgrad.study.compare import compare
from stopgrad.study.plan import Plan
from stopgrad.study.process import Said
from stopgrad.training.progress import Progress
from tests.study.fakes import Trainer, stored, two_methods
from tests.training.small_run import SETTINGS, STEPS

QUIET = Progress(quiet=True)
BOTH = ("simsiam", "second")
LIMIT = "data.limit=200"  # else every test would render all scenes


@pytest.fixture(autouse=True)
def _two_methods(monkeypatch: pytest.MonkeyPatch) -> None:
    two_methods(monkeypatch)


def asked(*, methods: tuple[str, ...] = BOTH, seeds: int = 2, **rest: object) -> Plan:
    return Plan(**{"epochs": 1, "methods": methods, "seeds": seeds, "settings": (LIMIT,), **rest})  # type: ignore[arg-type]


def test_every_method_is_trained_once_before_any_is_trained_twice(tmp_path: Path) -> None:
    train = Trainer()
    found = compare(asked(), tmp_path / "c", progress=QUIET, train=train)
    assert train.names == ["simsiam-0", "second-0", "simsiam-1", "second-1"]
    assert found.table.rows[0][:6] == ["simsiam", "2 healthy", "41.0 ± 1.4", "25.0", "27.0", "51.0 ± 1.4"]


def test_the_tables_are_written_after_every_run(tmp_path: Path) -> None:
    out, seen = tmp_path / "c", []

    class Looking(Trainer):
        def __call__(self, out: Path, name: str, recipe: Path, seed: int, minutes: float) -> Said:
            text = (out / "compare.md").read_text()
            seen.append((text.count("1 healthy, 1 to come"), "table is not complete" in text))
            assert recipe == out / "recipes" / f"{name[:-2]}.yaml"
            assert minutes == 0.0
            return super().__call__(out, name, recipe, seed, minutes)

    compare(asked(), out, progress=QUIET, train=Looking())
    assert seen == [(0, True), (1, True), (2, True), (1, True)]
    text = (out / "compare.md").read_text()
    assert "not complete" not in text
    for told in (
        "# Methods on scenes-v1",
        "4 of 4 runs are finished",
        "(synthetic), 200 training and 40 test images",
        "Budget: 1 epochs a run. Views: equal, every method has the two views of simsiam/scenes",
        "Labels were used for kNN and the linear probe alone",
        "core",
        ", torch 2",
        "Seeds: 2 a method",
        "Protocol: stopgrad-eval-1",
    ):
        assert told in text
    assert "compare with each other alone" not in text  # that is said of minutes
    found = stored(out)
    scores = found["rows"]["second"]["scores"]["knn_top1"]  # type: ignore[index]
    assert scores == {"mean": 41.0, "std": pytest.approx(2**0.5), "n": 2}
    assert [run["path"] for run in found["rows"]["second"]["runs"]] == ["second-0", "second-1"]  # type: ignore[index]


def test_minutes_are_handed_on_and_bound_to_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    class Looking(Trainer):
        def __call__(self, out: Path, name: str, recipe: Path, seed: int, minutes: float) -> Said:
            given.append(minutes)
            return super().__call__(out, name, recipe, seed, minutes)

    plan = asked(epochs=None, minutes=1.5, seeds=1)
    compare(plan, tmp_path / "c", progress=QUIET, train=Looking())
    assert given == [1.5, 1.5]
    text = (tmp_path / "c" / "compare.md").read_text()
    assert "Budget: 1.5 minutes of training a run." in text
    assert "Minutes are of this machine: these numbers compare with each other alone." in text
    monkeypatch.setattr(comparing, "machine", lambda: "another machine")
    with pytest.raises(ConfigError, match=r"machine is .* there, another machine here"):
        compare(plan, tmp_path / "c", progress=QUIET, train=Trainer())


def test_epochs_may_go_on_elsewhere_and_both_machines_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare(asked(seeds=1), tmp_path / "c", progress=QUIET, train=Trainer())
    monkeypatch.setattr(comparing, "machine", lambda: "another machine")
    found = compare(asked(), tmp_path / "c", progress=QUIET, train=Trainer())
    assert len(found.machines) == 2
    assert "; another machine." in (tmp_path / "c" / "compare.md").read_text()


def test_what_is_finished_is_kept_and_the_rest_is_trained(tmp_path: Path) -> None:
    out = tmp_path / "c"
    with pytest.raises(InterruptedRunError, match=r"go on with: stopgrad compare --data scenes-v1 --seeds 2") as ended:
        compare(asked(), out, progress=QUIET, train=Trainer(interrupt="simsiam-1"))
    assert ended.value.exit_code == 130
    assert stored(out)["caption"][0] == "2 of 4 runs are finished. The table is not complete."  # type: ignore[index]
    again = Trainer()
    compare(asked(), out, progress=QUIET, train=again)
    assert again.names == ["simsiam-1", "second-1"]
    last = Trainer()
    compare(asked(), out, progress=QUIET, train=last)
    assert last.names == []


def test_more_seeds_and_methods_join_what_is_there(tmp_path: Path) -> None:
    out = tmp_path / "c"
    compare(asked(methods=("simsiam",), seeds=1), out, progress=QUIET, train=Trainer())
    more = Trainer()
    found = compare(asked(methods=("second",)), out, progress=QUIET, train=more)
    assert more.names == ["second-0", "second-1"]
    assert [row[:2] for row in found.table.rows] == [["simsiam", "1 healthy, 1 to come"], ["second", "2 healthy"]]


def test_a_run_that_was_stopped_half_way_goes_on_from_there(tmp_path: Path) -> None:
    """Really trained: seed 0 to its end, seed 1 to step 20, where a signal comes."""
    plan = Plan(epochs=8, methods=("simsiam",), seeds=2, settings=tuple(s for s in SETTINGS if "epochs" not in s))

    class Signal(Progress):
        def step(self, clock: object, fields: object) -> None:
            if clock.step >= 20:  # type: ignore[attr-defined]
                os.kill(os.getpid(), signal.SIGINT)

    def until_the_signal(out: Path, name: str, recipe: Path, seed: int, minutes: float) -> Said:
        if seed == 0:
            return child.carry_out(out, name, recipe, seed, minutes)
        with pytest.raises(InterruptedRunError):
            api.train(recipe, out=out, name=name, seed=seed, progress=Signal(quiet=True))
        raise KeyboardInterrupt

    out = tmp_path / "c"
    with pytest.raises(InterruptedRunError):
        compare(plan, out, progress=QUIET, train=until_the_signal)
    half = RunDir(out / "simsiam-1").read_log()
    assert half[-1]["step"] == 20
    first = (out / "simsiam-0" / "results.json").stat().st_mtime_ns

    names = []

    def go_on(out: Path, name: str, recipe: Path, seed: int, minutes: float) -> Said:
        names.append(name)
        return child.carry_out(out, name, recipe, seed, minutes)

    found = compare(plan, out, progress=QUIET, train=go_on)
    assert names == ["simsiam-1"]
    whole = RunDir(out / "simsiam-1").read_log()
    assert whole[: len(half)] == half
    assert whole[-1]["step"] == STEPS
    assert (out / "simsiam-0" / "results.json").stat().st_mtime_ns == first
    assert found.finished == 2
    assert {run.values["epochs"] for run in found.rows["simsiam"]} == {8.0}
    assert all(run.values["minutes"] > 0 and run.values["peak_memory_mb"] > 0 for run in found.rows["simsiam"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 2}, "epochs is 1 there, 2 here"),
        ({"epochs": None, "minutes": 2.0}, "minutes is not set there, 2.0 here"),
        ({"views": "own"}, "views is equal there, own here"),
        ({"settings": (LIMIT, "optim.base_lr=0.1")}, r"set is \['data.limit=200'\] there"),
        ({"data": "cifar10"}, "data is scenes-v1 there, cifar10 here"),
        ({"recipe": "imagenet", "data": "scenes-v1"}, "recipe is scenes there, imagenet here"),
    ],
)
def test_a_folder_with_another_comparison_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    out = tmp_path / "c"
    compare(asked(methods=("simsiam",), seeds=1), out, progress=QUIET, train=Trainer())
    before = (out / "compare.json").read_bytes()
    with pytest.raises(ConfigError, match=message) as refused:
        compare(asked(methods=("simsiam",), seeds=1, **change), out, progress=QUIET, train=Trainer())
    assert "choose another --out" in str(refused.value)
    assert "--epochs 1" in str(refused.value)  # what goes on with the one that is there
    assert (out / "compare.json").read_bytes() == before


def test_a_preset_that_has_changed_since_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "c"
    compare(asked(seeds=1), out, progress=QUIET, train=Trainer())
    recipe = out / "recipes" / "second.yaml"
    recipe.write_text(recipe.read_text().replace("base_lr: 0.96", "base_lr: 0.5"))
    with pytest.raises(ConfigError, match=r"second: optim.base_lr is 0.5 there, 0.96 here"):
        compare(asked(), out, progress=QUIET, train=Trainer())


def test_other_images_under_the_same_name_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "c"
    compare(asked(seeds=1), out, progress=QUIET, train=Trainer())
    found = stored(out)
    found["data"]["fingerprint"] = "0123456789ab"  # type: ignore[index]
    (out / "compare.json").write_text(json.dumps(found))
    with pytest.raises(ConfigError, match=r"data\.fingerprint is 0123456789ab there"):
        compare(asked(), out, progress=QUIET, train=Trainer())


def test_a_method_that_fails_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    out = tmp_path / "c"
    why = "step 7: loss nan | not finite\nseveral steps in a row"
    train = Trainer({"simsiam-0": (65, why), "simsiam-1": (1, "a defect")})
    found = compare(asked(methods=("broken", *BOTH)), out, progress=QUIET, train=train)
    assert train.names == ["simsiam-0", "second-0", "simsiam-1", "second-1"]
    assert [row[1] for row in found.table.rows] == ["2 failed", "2 failed", "2 healthy"]
    text = (out / "compare.md").read_text()
    assert "- broken: seeds 0, 1 failed: broken has no parts\n" in text
    assert r"- simsiam: seed 0 failed: step 7: loss nan \| not finite several steps in a row" in text
    assert "delete its folder to try again" in text
    assert "2 of 6 runs are finished, 4 failed.\n" in text
    assert stored(out)["rows"]["simsiam"]["runs"][0]["why"] == why  # type: ignore[index]
    again = Trainer()  # what ended itself would do it again; anything else may have been mended
    compare(asked(methods=("broken", *BOTH)), out, progress=QUIET, train=again)
    assert again.names == ["simsiam-1"]
    assert "step 7: loss nan" in (out / "compare.md").read_text()


def test_where_no_run_is_finished_the_reason_is_the_error(tmp_path: Path) -> None:
    train = Trainer({"simsiam-0": (65, "loss is not finite")})
    with pytest.raises(DataError, match="no run was finished; simsiam: seed 0 failed: loss is not finite"):
        compare(asked(methods=("simsiam",), seeds=1), tmp_path / "c", progress=QUIET, train=train)
    assert "loss is not finite" in (tmp_path / "c" / "compare.md").read_text()


def test_a_full_disk_ends_the_comparison(tmp_path: Path) -> None:
    train = Trainer({"second-0": (74, "disk full")})
    with pytest.raises(StorageError, match="disk full"):
        compare(asked(), tmp_path / "c", progress=QUIET, train=train)
    assert train.names == ["simsiam-0", "second-0"]
    assert "1 healthy, 1 to come" in (tmp_path / "c" / "compare.md").read_text()


def test_results_that_can_not_be_read_are_a_row_that_says_so(tmp_path: Path) -> None:
    out = tmp_path / "c"
    compare(asked(seeds=1), out, progress=QUIET, train=Trainer())
    (out / "second-0" / "results.json").write_text("[")
    found = compare(asked(seeds=1), out, progress=QUIET, train=Trainer())
    assert found.table.rows[1][1] == "failed"
    assert "no results that can be read" in found.table.notes[0][1]


def test_a_folder_that_is_none_of_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "compare.json").write_text('{"format": 1, "settings"')
    said = {"run": "is a run", "photos": "holds something else", "torn": "can't be read as a comparison"}
    for name, message in said.items():
        with pytest.raises(ConfigError, match=message):
            compare(asked(seeds=1), tmp_path / name, progress=QUIET, train=Trainer())
        assert len(list((tmp_path / name).glob("[!l]*"))) == 1


def test_two_comparisons_do_not_share_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "c"
    with RunDir(out).locked(), pytest.raises(LockedError, match=r"in use by process \d+; .* another --out"):
        compare(asked(seeds=1), out, progress=QUIET, train=Trainer())


def test_a_run_that_somebody_still_saves_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, slept = tmp_path / "c", []
    compare(asked(methods=("simsiam",), seeds=1), out, progress=QUIET, train=Trainer())
    held = RunDir(out / "simsiam-1").locked()
    held.__enter__()

    def let_go(seconds: float) -> None:
        slept.append(seconds)
        held.__exit__(None, None, None)

    monkeypatch.setattr(comparing.time, "sleep", let_go)
    found = compare(asked(methods=("simsiam",)), out, progress=QUIET, train=Trainer())
    assert len(slept) == 1
    assert found.finished == 2


def test_images_that_can_not_be_had_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    from stopgrad.contracts import MissingInputError

    train = Trainer()
    with pytest.raises(MissingInputError, match="no such folder"):
        compare(asked(data=str(tmp_path / "nowhere")), tmp_path / "c", progress=QUIET, train=train)
    assert not train.names
    compare(asked(), tmp_path / "c", progress=QUIET, train=train)  # the folder is nobody's yet
