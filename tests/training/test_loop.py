"""The loop: what a run leaves, what it refuses, what it survives."""

import dataclasses
import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from stopgrad.assemble import api, build
from stopgrad.contracts import (
    CheckpointError,
    Clock,
    ConfigError,
    DataError,
    InterruptedRunError,
    MissingInputError,
    Output,
    TrainingStoppedError,
    Views,
)
from stopgrad.method import Method
from stopgrad.recipe import Recipe
from stopgrad.recipe.text import load as load_recipe
from stopgrad.rundir import MEASURED_FIELDS, RunDir
from stopgrad.siamese.family import Siamese
from stopgrad.training import checkpoint, feed, signals
from stopgrad.training.loop import Job, first_layer, micro_batches, one_step
from stopgrad.training.watch import Watch
from tests.training.small_run import STEPS, go_on, start


def test_a_run_leaves_every_file_it_promises_and_says_what_it_is(tmp_path: Path) -> None:
    finished = start(tmp_path, "a")
    run = RunDir(tmp_path / "a")
    left = {path.name for path in run.path.iterdir()}
    assert left == {
        "recipe.yaml", "log.jsonl", "status.json", "checkpoints", "encoder.safetensors", "results.json", "lock",
        "gallery", "report.html",
    }  # fmt: skip
    assert run.state()["state"] == "finished"
    rows = {row["name"]: row for row in json.loads(run.results.read_text())}
    needed = {"verdict", "std_ratio", "effective_rank", "alignment", "uniformity", "retrieval_at_1"}
    needed |= {"images_per_second", "peak_memory_mb", "knn_top1", "baseline_random_knn_top1"}
    assert needed | {"baseline_pixels_knn_top1"} <= rows.keys()
    assert all(set(row) == {"name", "value", "n", "split", "seed", "protocol"} for row in rows.values())
    assert "synthetic" in rows["knn_top1"]["protocol"]
    assert finished.trained
    log = run.read_log()
    assert log[0]["step"] == 0
    assert log[-1]["step"] == STEPS
    assert all(math.isfinite(line["loss"]) for line in log[1:])


def test_the_recipe_it_leaves_runs_again_to_the_same_bits(tmp_path: Path) -> None:
    first = start(tmp_path, "a", "loop.epochs=1")
    again = api.train(first.path / "recipe.yaml", out=tmp_path, name="b")
    assert (first.path / "encoder.safetensors").read_bytes() == (again.path / "encoder.safetensors").read_bytes()


def test_the_number_of_view_threads_changes_no_bit(tmp_path: Path) -> None:
    one = start(tmp_path, "a", "loop.epochs=1", "loop.view_threads=1", "loop.prefetch=1")
    three = start(tmp_path, "b", "loop.epochs=1", "loop.view_threads=3", "loop.prefetch=4")
    assert (one.path / "encoder.safetensors").read_bytes() == (three.path / "encoder.safetensors").read_bytes()


def test_a_finished_run_is_left_alone_and_a_taken_name_is_refused(tmp_path: Path) -> None:
    finished = start(tmp_path, "a", "loop.epochs=1")
    before = (finished.path / "log.jsonl").read_bytes()
    again = go_on(finished.path)
    assert not again.trained
    assert [row.as_dict() for row in again.results] == [row.as_dict() for row in finished.results]
    assert (finished.path / "log.jsonl").read_bytes() == before
    with pytest.raises(ConfigError, match=r"already holds a run.*--resume"):
        start(tmp_path, "a")


def test_resume_starts_at_step_0_where_there_is_no_checkpoint_yet(tmp_path: Path) -> None:
    whole = start(tmp_path, "a", "loop.epochs=1")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "recipe.yaml").write_bytes((whole.path / "recipe.yaml").read_bytes())
    resumed = go_on(tmp_path / "b")
    assert (whole.path / "encoder.safetensors").read_bytes() == (resumed.path / "encoder.safetensors").read_bytes()


def test_resume_of_nothing_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no run to resume.*stopgrad train METHOD"):
        go_on(tmp_path)


def test_a_changed_recipe_is_refused_with_old_and_new(tmp_path: Path) -> None:
    path = start(tmp_path, "a", "loop.epochs=1").path
    RunDir(path).set_status("interrupted")
    text = (path / "recipe.yaml").read_text()
    (path / "recipe.yaml").write_text(text.replace("base_lr: 0.96", "base_lr: 0.5"))
    with pytest.raises(CheckpointError, match=r"optim\.base_lr was 0\.96, is 0\.5"):
        go_on(path)


def test_a_setting_that_came_later_counts_as_its_default() -> None:
    run, identity = RunDir(Path("runs/a")), checkpoint.Identity({"old": 1, "new": 0.5}, {"old": 1, "new": 0.5})
    checkpoint.check_identity({"old": 1}, identity, run)
    with pytest.raises(CheckpointError, match=r"new was 0.5, is 0.7"):
        checkpoint.check_identity({"old": 1}, checkpoint.Identity({"old": 1, "new": 0.7}, {"new": 0.5}), run)
    with pytest.raises(CheckpointError, match=r"old was None, is 1"):
        checkpoint.check_identity({}, checkpoint.Identity({"old": 1}), run)


def test_a_run_knows_every_setting_down_to_a_crop_s_and_a_head_s(tmp_path: Path) -> None:
    path = start(tmp_path, "a", "loop.epochs=1").path
    RunDir(path).set_status("interrupted")
    text = (path / "recipe.yaml").read_text()
    for old, new, said in (
        ("  grayscale: 0.2", "  grayscale: 0.3", r"views\.crops\.0\.grayscale was 0\.2, is 0\.3"),
        ("    dim: ", "    dim: 1", r"method\.projector\.dim was \d+, is 1\d+"),
    ):
        assert old in text
        (path / "recipe.yaml").write_text(text.replace(old, new, 1))
        with pytest.raises(CheckpointError, match=said):
            go_on(path)
    two = yaml.safe_load(text)
    two["views"]["crops"].append(two["views"]["crops"][0])
    (path / "recipe.yaml").write_text(yaml.safe_dump(two))
    with pytest.raises(CheckpointError, match=r"views\.crops\.count was 2, is 3"):
        go_on(path)


def test_what_changes_no_bit_may_be_changed_before_a_resume(tmp_path: Path) -> None:
    path = start(tmp_path, "a", "loop.epochs=1").path
    RunDir(path).set_status("interrupted")
    text = (path / "recipe.yaml").read_text()
    (path / "recipe.yaml").write_text(text.replace("view_threads: 1", "view_threads: 2"))
    assert go_on(path).trained


def test_ctrl_c_saves_says_how_to_go_on_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = start(tmp_path, "whole")
    real = RunDir.append_log

    def interrupt(self: RunDir, line: dict[str, Any]) -> None:
        real(self, line)
        if line["step"] == 15:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(RunDir, "append_log", interrupt)
    with pytest.raises(InterruptedRunError, match=r"stopped at step 15 of 48.*--resume") as caught:
        start(tmp_path, "a", "loop.checkpoint_every_steps=0")
    assert caught.value.exit_code == 130
    assert RunDir(tmp_path / "a").state()["state"] == "interrupted"
    monkeypatch.undo()
    resumed = go_on(tmp_path / "a")
    assert (whole.path / "encoder.safetensors").read_bytes() == (resumed.path / "encoder.safetensors").read_bytes()


def test_a_run_stopped_between_two_log_lines_logs_what_one_never_stopped_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start(tmp_path, "whole", "loop.epochs=3")
    real = Siamese.after_step

    def interrupt(self: Siamese, clock: Clock) -> None:
        real(self, clock)
        if clock.step == 11:  # steepest are the first steps of an interval, which the resumed run never sees
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Siamese, "after_step", interrupt)
    with pytest.raises(InterruptedRunError, match="stopped at step 12 of 18"):
        start(tmp_path, "a", "loop.epochs=3")
    monkeypatch.undo()
    go_on(tmp_path / "a")
    logs = [
        [{k: v for k, v in line.items() if k not in MEASURED_FIELDS} for line in RunDir(tmp_path / name).read_log()]
        for name in ("whole", "a")
    ]
    assert logs[0] == logs[1]
    assert all(line["gradient_first_layer"] > 0 for line in logs[0][1:])


def test_a_feed_whose_thread_is_gone_is_an_error_and_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "LOOK", 0.01)
    monkeypatch.setattr(feed.Feed, "_work", lambda self: None)
    with (
        feed.Feed(lambda step: Views((), torch.zeros(0)), 3, 9, 2) as views,
        pytest.raises(DataError, match="step 3: the thread that makes views is gone"),
    ):
        next(iter(views))


def test_too_few_images_for_one_batch_name_the_largest_that_fits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="180"):
        start(tmp_path, "a", "loop.batch_size=200")
    assert RunDir(tmp_path / "a").state()["state"] == "failed"


def small_recipe() -> Recipe:
    options = api.Options(settings=("data.limit=200", "backbone.width=8", "loop.batch_size=30", "loop.threads=1"))
    return api.compose("simsiam", options)


def job(tmp_path: Path, **loop: Any) -> Job:
    """A job on the small run's data, without starting it."""
    recipe = small_recipe()
    recipe = dataclasses.replace(recipe, loop=dataclasses.replace(recipe.loop, precision="float32", **loop))
    from stopgrad.assemble.train import open_source
    from stopgrad.training.progress import Progress

    quiet, run = Progress(quiet=True), RunDir(tmp_path)
    data = open_source(run, recipe, quiet)
    built = build.build_job(recipe, data, run, torch.device("cpu"), quiet, lambda line: None)
    return built.job


def test_a_step_that_is_not_finite_changes_nothing_at_all(tmp_path: Path) -> None:
    one = job(tmp_path)
    one_step(one, one.views_at(0), one.clock(0))
    state = {name: value.clone() for name, value in one.method.state_dict().items()}
    momentum = [value["momentum_buffer"].clone() for value in one.optimiser.state.values()]
    broken = one.views_at(1)
    broken.crops[0][0, 0, 0, 0] = float("nan")
    done = one_step(one, broken, one.clock(1))
    assert not done.finite
    assert all(torch.equal(value, state[name]) for name, value in one.method.state_dict().items())
    after = [value["momentum_buffer"] for value in one.optimiser.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(momentum, after))


def test_a_run_whose_loss_stays_infinite_stops_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stopgrad.siamese.family as family

    real = family.Siamese.forward

    def spoilt(self: family.Siamese, views: Views, clock: Clock) -> Output:
        out = real(self, views, clock)
        return dataclasses.replace(out, loss=out.loss * (float("inf") if clock.step >= 6 else 1.0))

    monkeypatch.setattr(family.Siamese, "forward", spoilt)
    with pytest.raises(TrainingStoppedError, match=r"step 9: loss .*inf.*not finite.*optim\.base_lr"):
        start(tmp_path, "a", "loop.skip_limit=3")
    run = RunDir(tmp_path / "a")
    skipped = [line for line in run.read_log() if line.get("skipped")]
    assert [line["step"] for line in skipped] == [7, 8, 9]
    assert all(line["loss"] is None for line in skipped)
    state = checkpoint.load_newest(run, print)
    assert state is not None
    assert all(bool(torch.isfinite(value).all()) for value in state["method"].values())
    assert api.diagnose_run(run.path).verdict == "diverged"


class Plain(Method):
    """A loss without batch norm, so that accumulation is exact."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 32 * 32, 4)

    def forward(self, views: Views, clock: Clock) -> Output:
        z = self.linear(views.crops[0].flatten(1))
        return Output(loss=z.square().mean(), embedding=z.detach())

    def embed(self, crop: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("nobody watches")


def test_accumulated_micro_batches_are_the_whole_batch_where_nothing_depends_on_its_size(tmp_path: Path) -> None:
    weights = []
    for accumulate in (1, 3):
        torch.manual_seed(0)
        method = Plain()
        optimiser = torch.optim.SGD(method.parameters(), lr=0.1)
        one = job(tmp_path, accumulate=accumulate)
        one = dataclasses.replace(one, method=method, parallel=method, optimiser=optimiser)
        one_step(one, one.views_at(0), one.clock(0))
        weights.append(method.linear.weight.detach().clone())
    torch.testing.assert_close(weights[0], weights[1])


def test_micro_batches_are_the_batch_in_order() -> None:
    views = Views((torch.arange(6.0), torch.arange(6.0) + 10), torch.arange(6))
    parts = micro_batches(views, 3)
    assert [part.index.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [part.crops[1].tolist() for part in parts] == [[10, 11], [12, 13], [14, 15]]


def test_clipping_bounds_the_gradient_that_is_applied(tmp_path: Path) -> None:
    one = job(tmp_path)
    one = dataclasses.replace(one, optim=dataclasses.replace(one.optim, clip_norm=1e-3))
    done = one_step(one, one.views_at(0), one.clock(0))
    applied = torch.nn.utils.get_total_norm([p.grad for p in one.method.parameters() if p.grad is not None])
    assert done.gradient_norm > 1e-3
    assert applied.item() == pytest.approx(1e-3, rel=1e-3)


def test_the_first_layer_is_the_first_that_is_trained() -> None:
    net = torch.nn.Sequential(torch.nn.LayerNorm(3), torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    assert float(first_layer(net)) == 0
    net(torch.ones(2, 3)).sum().backward()
    assert torch.equal(first_layer(net), net[1].weight.grad.norm())
    net.zero_grad()
    net[1].requires_grad_(False)
    net(torch.ones(2, 3)).sum().backward()
    assert torch.equal(first_layer(net), net[2].weight.grad.norm())


def test_minutes_become_epochs_that_stand_in_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stopgrad.assemble import minutes

    monkeypatch.setattr(minutes, "step_seconds", lambda recipe, built: 0.05)
    monkeypatch.setattr(Watch, "rehearse", lambda self: None)
    finished = start(tmp_path, "a", minutes=0.02)
    text = (finished.path / "recipe.yaml").read_text()
    assert "0.02 minutes are" in text
    assert load_recipe(finished.path / "recipe.yaml").loop.epochs in (3, 4)  # 1.2 s in epochs of 6 steps
    assert "minutes" not in RunDir(finished.path).state()


def test_an_epoch_longer_than_the_minutes_asked_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stopgrad.assemble import minutes

    monkeypatch.setattr(minutes, "step_seconds", lambda recipe, built: 60.0)
    monkeypatch.setattr(Watch, "rehearse", lambda self: None)
    finished = start(tmp_path, "a", minutes=1.0)
    text = (finished.path / "recipe.yaml").read_text()
    assert "one epoch of 6 steps takes about 6.0 minutes, longer than the 1 asked for" in text
    assert load_recipe(finished.path / "recipe.yaml").loop.epochs == 1


def test_a_step_is_timed_on_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stopgrad.assemble import minutes

    monkeypatch.setattr(minutes, "MEASURED_SECONDS", 0.0)
    one = job(tmp_path)
    before = {name: value.clone() for name, value in one.method.state_dict().items()}
    state = torch.get_rng_state()
    built = SimpleNamespace(job=one)
    assert minutes.step_seconds(small_recipe(), built) > 0  # type: ignore[arg-type]
    assert all(torch.equal(value, before[name]) for name, value in one.method.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_run_that_failed_before_its_first_step_may_be_started_again_under_its_name(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        start(tmp_path, "a", "loop.batch_size=200")
    assert start(tmp_path, "a", "loop.epochs=1").trained


def test_ctrl_c_outside_the_loop_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stopgrad.assemble import train

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "evaluate", interrupted)
    with pytest.raises(InterruptedRunError, match="--resume") as caught:
        start(tmp_path, "a", "loop.epochs=1")
    assert caught.value.exit_code == 130
    monkeypatch.undo()
    assert go_on(tmp_path / "a").trained


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_sigterm_outside_the_loop_says_how_to_go_on_with_its_own_code(
    number: signal.Signals, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stopgrad.assemble import train

    monkeypatch.setattr(train, "evaluate", lambda *_, **__: signal.raise_signal(number))
    with pytest.raises(InterruptedRunError, match="--resume") as caught:
        start(tmp_path, "a", "loop.epochs=1")
    assert caught.value.exit_code == code
    assert RunDir(tmp_path / "a").state()["exit_code"] == code


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 75)])
def test_a_signal_twice_at_once_is_one_wish_and_later_ends_at_once(
    number: signal.Signals, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(signals.os, "_exit", ended.append)
    monkeypatch.setattr(signals, "ONE_WISH", 60.0)  # however slow the machine is just now
    before = signal.getsignal(number)
    with signals.watched() as asked:
        signal.raise_signal(number)
        signal.raise_signal(number)  # the terminal's to the group, and torchrun's to its children
        assert (asked.exit_code, ended) == (code, [])
        asked._since -= 61
        signal.raise_signal(number)
        assert ended == [code]
    assert signal.getsignal(number) is before


def test_speed_is_that_of_all_sessions_not_of_the_last() -> None:
    from stopgrad.reporting.cost import trained

    log = [{"step": 0}, {"step": 10, "images_per_second": 100.0}, {"step": 20, "images_per_second": 50.0}]
    assert trained(log, batch_size=10) == (200, pytest.approx(3))


WITHOUT_EXTRAS = """
import sys
for name in ("cyclopts", "simplejpeg", "plotly", "rich"):
    sys.modules[name] = None
from pathlib import Path
from tests.training.small_run import start
finished = start(Path(sys.argv[1]), "a", "loop.epochs=1", "data.source=" + sys.argv[2])
print(finished.diagnosis.verdict, len(finished.results))
"""


def test_it_trains_and_evaluates_from_python_without_cyclopts_and_simplejpeg(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for i in range(60):
        folder = tmp_path / "images" / ("a", "b")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.jpg")
    command = [sys.executable, "-c", WITHOUT_EXTRAS, str(tmp_path), str(tmp_path / "images")]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("too_early")


def test_tensorboard_gets_the_same_numbers_as_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    finished = start(tmp_path, "a", "loop.epochs=1", "loop.tensorboard=true")
    events = EventAccumulator(str(finished.path / "tensorboard"))
    events.Reload()
    logged = [line["loss"] for line in RunDir(finished.path).read_log() if "loss" in line]
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(logged)


def test_threads_are_not_more_than_cores_unless_somebody_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr(build, "cores", lambda: 2)
    recipe = api.compose("simsiam", api.Options())
    assert build.resolve(recipe, torch.device("cpu")).loop.threads == 2
    asked = api.compose("simsiam", api.Options(settings=("loop.threads=8",)))
    assert build.resolve(asked, torch.device("cpu")).loop.threads == 8
