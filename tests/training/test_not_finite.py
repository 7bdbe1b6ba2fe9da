"""A step that is no number: never taken, told where it began, and what loop.on_nan makes of the run after it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stopgrad.contracts import Clock, Output, TrainingStoppedError, Views
from stopgrad.rundir import RunDir
from stopgrad.siamese.family import Siamese
from stopgrad.training import checkpoint, not_finite
from stopgrad.training.loop import one_step
from tests.training.small_run import go_on, start
from tests.training.test_loop import job

NAN = float("nan")


def spoil_backward(name: str) -> Callable[[Siamese], None]:
    def spoil(method: Siamese) -> None:
        dict(method.named_parameters())[name].register_hook(lambda gradient: gradient * NAN)

    return spoil


def spoil_forward(name: str) -> Callable[[Siamese], None]:
    def spoil(method: Siamese) -> None:
        dict(method.named_modules())[name].register_forward_hook(lambda _, given, out: out * NAN)

    return spoil


def spoil_weight(name: str) -> Callable[[Siamese], None]:
    def spoil(method: Siamese) -> None:
        with torch.no_grad():
            dict(method.named_parameters())[name].view(-1)[0] = NAN

    return spoil


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (spoil_forward("projector.0"), "projector.0 is the first layer whose output is not finite"),
        (spoil_forward("predictor.1"), "predictor.1 is the first layer whose output is not finite"),
        (spoil_backward("projector.0.weight"), "the gradient of projector.0.weight is not finite, the forward is"),
        (spoil_weight("predictor.0.weight"), "the weights of predictor.0.weight are not finite: the step before went"),
    ],
    ids=["forward", "batch norm", "backward", "optimiser"],
)
def test_where_it_began_is_told(spoil: Callable[[Siamese], None], said: str, tmp_path: Path) -> None:
    one = job(tmp_path)
    assert isinstance(one.method, Siamese)
    spoil(one.method)
    views, now = one.views_at(0), one.clock(0)
    before = {name: value.clone() for name, value in one.method.state_dict().items()}
    assert not one_step(one, views, now).finite
    assert not_finite.where(one.method, [views], now, bf16=False).startswith(said)
    for name, value in one.method.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0, equal_nan=True)


def test_a_gradient_that_is_to_be_shortened_still_says_where_it_began(tmp_path: Path) -> None:
    one = job(tmp_path)
    one = dataclasses.replace(one, optim=dataclasses.replace(one.optim, clip_norm=1.0))
    assert isinstance(one.method, Siamese)
    spoil_backward("projector.0.weight")(one.method)
    views, now = one.views_at(0), one.clock(0)
    assert not one_step(one, views, now).finite
    assert "the gradient of projector.0.weight" in not_finite.where(one.method, [views], now, bf16=False)


def test_pixels_and_losses_are_told_apart(tmp_path: Path) -> None:
    one = job(tmp_path)
    views, now = one.views_at(0), one.clock(0)
    broken = Views(tuple(crop.clone() for crop in views.crops), views.index)
    broken.crops[1][0, 0, 0, 0] = NAN
    one_step(one, broken, now)
    assert not_finite.where(one.method, [views, broken], now, False).startswith("view 1 of the batch is not finite")
    one.method.objective.compare = lambda p, t: (p * t).sum() * float("inf")  # type: ignore[union-attr,assignment]
    one_step(one, views, now)
    assert "all layers are finite and the loss is not" in not_finite.where(one.method, [views], now, False)


def spoilt(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """The loss of these steps is no number."""
    real = Siamese.forward

    def forward(self: Siamese, views: Views, clock: Clock) -> Output:
        out = real(self, views, clock)
        return dataclasses.replace(out, loss=out.loss * NAN) if clock.step in steps else out

    monkeypatch.setattr(Siamese, "forward", forward)


def weights(path: Path) -> dict[str, Tensor]:
    state = checkpoint.load_newest(RunDir(path), print)
    assert state is not None
    found: dict[str, Tensor] = state["method"]
    return found


def test_skip_leaves_the_step_out_and_says_where_in_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, 7, 8)
    start(tmp_path, "a", "loop.epochs=2")
    lines = [line for line in RunDir(tmp_path / "a").read_log() if line.get("skipped")]
    assert [line["step"] for line in lines] == [8, 9]
    assert "the loss is not" in lines[0]["where"]
    assert "where" not in lines[1]  # told once a stretch


def test_stop_ends_the_run_at_once_with_the_state_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, 7)
    with pytest.raises(TrainingStoppedError, match=r"step 7: loss nan .* not finite; nothing .* All layers are finite"):
        start(tmp_path, "a", "loop.epochs=2", "loop.on_nan=stop")
    monkeypatch.undo()
    assert all(bool(torch.isfinite(value).all()) for value in weights(tmp_path / "a").values())
    assert go_on(tmp_path / "a").trained


def test_rollback_goes_on_from_the_last_saved_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved after every 5 steps, broken at 7: what is known at 8 is what was known at 5; and it resumes to the bit."""
    start(tmp_path, "whole", "loop.epochs=2", "loop.keep_checkpoints=9")
    spoilt(monkeypatch, 7)
    start(tmp_path, "rolled", "loop.epochs=2", "loop.on_nan=rollback", "loop.keep_checkpoints=9")

    def at(name: str, step: int) -> dict[str, Any]:
        data = next(
            path for path in RunDir(tmp_path / name).checkpoints.iterdir() if path.name == f"step{step:09d}.ckpt"
        )
        loaded: dict[str, Any] = torch.load(data, weights_only=True)
        return loaded

    then, rolled = at("whole", 5), at("rolled", 8)
    for part in ("method", "optimiser"):
        flat = [torch.utils._pytree.tree_leaves(state[part]) for state in (then, rolled)]
        assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(*flat, strict=True))
    assert rolled["step"] == 8
    lines = RunDir(tmp_path / "rolled").read_log()
    assert [line["step"] for line in lines] == sorted(line["step"] for line in lines)
    broken = next(line for line in lines if line.get("skipped"))
    assert len(RunDir(tmp_path / "rolled").log.read_bytes()) > rolled["log_length"] > 0
    assert str(broken["where"]).encode() in RunDir(tmp_path / "rolled").log.read_bytes()[: rolled["log_length"]]
    start(tmp_path, "again", "loop.epochs=2", "loop.on_nan=rollback")
    finals = [torch.utils._pytree.tree_leaves(weights(tmp_path / name)) for name in ("rolled", "again")]
    assert all(torch.equal(a, b) for a, b in zip(*finals, strict=True))


def test_rollback_before_anything_is_saved_leaves_the_step_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoilt(monkeypatch, 2)
    settings = ("loop.epochs=1", "loop.checkpoint_every_steps=0")
    start(tmp_path, "rolled", *settings, "loop.on_nan=rollback")
    start(tmp_path, "skipped", *settings)
    finals = [torch.utils._pytree.tree_leaves(weights(tmp_path / name)) for name in ("rolled", "skipped")]
    assert all(torch.equal(a, b) for a, b in zip(*finals, strict=True))


@pytest.mark.parametrize("what", ["weight", "running_var"])
def test_weights_that_are_no_numbers_are_never_saved(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An optimiser's step that goes too far, a batch norm that saw the infinite: found when they would be saved."""
    real = Siamese.after_step

    def after_step(self: Siamese, clock: Clock) -> None:
        real(self, clock)
        if clock.step == 9:
            with torch.no_grad():
                next(v for n, v in self.state_dict(keep_vars=True).items() if n.endswith(what)).fill_(NAN)

    monkeypatch.setattr(Siamese, "after_step", after_step)
    with pytest.raises(TrainingStoppedError, match=rf"step 10: .*{what} is not finite, and is not saved"):
        start(tmp_path, "a", "loop.epochs=3")
    state = checkpoint.load_newest(RunDir(tmp_path / "a"), print)
    assert state is not None
    assert state["step"] == 5
    monkeypatch.undo()
    assert go_on(tmp_path / "a").trained
