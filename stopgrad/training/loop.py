"""The loop: views in, loss, backward, one optimiser step, a line in the log, a checkpoint between steps.

One loop for one process and for many (stopgrad.dist is the identity on one). A step whose loss or gradient is not
finite is skipped by all processes together, and batch norm's statistics are put back as they were before it.
"""

from __future__ import annotations

import contextlib
import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stopgrad import dist
from stopgrad.contracts import Clock, InterruptedRunError, OutOfMemoryError, TrainingStoppedError, Views
from stopgrad.losses.geometry import std_ratio
from stopgrad.method import Method
from stopgrad.nn.batch_norm import statistics
from stopgrad.optim.config import OptimConfig
from stopgrad.optim.groups import clip, set_rates
from stopgrad.rundir import RunDir
from stopgrad.training import cached, checkpoint, not_finite, out_of_memory, signals
from stopgrad.training.config import LoopConfig
from stopgrad.training.feed import Feed
from stopgrad.training.progress import Progress


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that the loop works with, built by `assemble`."""

    method: Method
    parallel: torch.nn.Module  # the method, or the method inside DDP
    optimiser: torch.optim.Optimizer
    views_at: Callable[[int], Views]  # the views of this process for a step, on the device
    steps_per_epoch: int
    seed: int
    device: torch.device
    bf16: bool
    loop: LoopConfig
    optim: OptimConfig
    run: RunDir
    identity: checkpoint.Identity
    # loss and logs in, asked for when something is due; fields for the log out
    watch: Callable[[Clock, Callable[[], Mapping[str, float | None]]], dict[str, Any]]
    write: Callable[[Mapping[str, Any]], None]  # TensorBoard, W&B
    progress: Progress
    resume_command: str

    @property
    def total_steps(self) -> int:
        return self.loop.epochs * self.steps_per_epoch

    def clock(self, step: int) -> Clock:
        return Clock(step, self.total_steps, self.steps_per_epoch, self.seed)


@dataclass
class Pace:
    """Seconds of this session and speed since the last log line; wall time, so never part of what is compared."""

    begin: float = field(default_factory=time.monotonic)
    last: float = field(default_factory=time.monotonic)

    def lap(self, images: int) -> dict[str, float]:
        now = time.monotonic()
        rate = images / max(1e-9, now - self.last)
        self.last = now
        return {"images_per_second": round(rate, 1), "seconds": round(now - self.begin, 3)}


def fit(job: Job) -> None:
    """Train from the newest checkpoint, or from step 0, to the end.

    Raises InterruptedRunError after a signal (state saved), TrainingStoppedError when too many steps in a row are not
    finite or the watch asks to stop, CheckpointError when the folder's state can't be used.
    """
    start, since = 0, dict[str, float]()
    state = checkpoint.load_newest(job.run, job.progress.say)
    if state is not None:
        checkpoint.check_identity(state["identity"], job.identity, job.run)
        start, since = checkpoint.restore(state, job.method, job.optimiser, job.run), state["since"]
        job.progress.say(f"resumed at step {start} of {job.total_steps}")
        if state["torch"] != str(torch.__version__):
            job.progress.say(f"torch was {state['torch']}, is {torch.__version__}: the same bits are not promised now")
    else:
        job.run.cut_log(0)
    with signals.watched() as asked, Feed(job.views_at, start, job.total_steps, job.loop.prefetch) as feed:
        _steps(job, start, feed, asked, Keeper(job, since))


def _steps(job: Job, start: int, feed: Feed, asked: signals.Asked, keeper: Keeper) -> None:
    pace = Pace()
    job.method.train()
    logged = start
    if start == 0:
        _log(job, start - 1, job.watch(job.clock(0), dict))
    for step, views in feed:
        clock = job.clock(step)
        rate = set_rates(job.optimiser, job.optim, job.loop.batch_size, clock)
        done = one_step(job, views, clock)
        keeper.skipped = 0 if done.finite else keeper.skipped + 1
        keeper.steepest = max(keeper.steepest, done.first_layer)
        wrong: dict[str, Any] = {}
        if not done.finite:
            found = _refused(job, step, keeper.skipped, rate, done, views)
            wrong = {"skipped": True, **({"where": found} if found else {})}
        last = step + 1 == job.total_steps
        watched = job.watch(job.clock(step + 1), done.numbers)
        if watched or last or (step + 1) % job.loop.log_every_steps == 0 or not done.finite:
            speed = pace.lap((step + 1 - logged) * job.loop.batch_size)
            logged = step + 1
            speed["wait_share"] = round(feed.waited / max(1e-9, time.monotonic() - pace.begin), 4)
            spread = _number(std_ratio(done.embedding))
            steep = {"gradient_norm": _number(done.gradient_norm), "gradient_first_layer": _number(keeper.steepest)}
            fields = {**done.numbers(), "lr": rate, "std_ratio_batch": spread, **steep, **watched, **speed}
            keeper.steepest = 0.0
            _log(job, step, {**fields, **wrong})
            job.progress.step(job.clock(step + 1), fields)
        if not done.finite and job.loop.on_nan == "rollback":
            keeper.roll_back(step + 1)
        keeper.after(step + 1)
        if dist.any_of(bool(asked.exit_code)):
            _stop(job, keeper, step + 1, asked)
        if "stop" in watched:
            keeper.save(step + 1)
            raise TrainingStoppedError(str(watched["stop"]))
    keeper.save(job.total_steps)
    if dist.any_of(bool(asked.exit_code)):  # during the last save
        _stop(job, keeper, job.total_steps, asked)


def _stop(job: Job, keeper: Keeper, step: int, asked: signals.Asked) -> None:
    keeper.save(step)
    raise InterruptedRunError(
        f"stopped at step {step} of {job.total_steps}, state saved; go on with: {job.resume_command}",
        asked.exit_code or signals.TERMINATED,
    )


@dataclass(frozen=True)
class Done:
    """What one step came to."""

    loss: float
    gradient_norm: float
    first_layer: float  # length of the gradient of the first layer that is trained
    finite: bool
    logs: dict[str, Tensor]
    embedding: Tensor  # of the last micro-batch

    def numbers(self) -> dict[str, float | None]:
        """Loss and the method's logs; on a GPU they are waited for, so only where they are written."""
        return {"loss": _number(self.loss), **{name: _number(float(value)) for name, value in self.logs.items()}}


def one_step(job: Job, views: Views, clock: Clock) -> Done:
    """Forward and backward over the micro-batches, then the optimiser; or nothing at all if a number is not finite.

    Raises OutOfMemoryError with what fits where memory does not hold it.
    """
    try:
        return _one_step(job, views, clock)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory.is_it(error):
            raise
        traceback.clear_frames(error.__traceback__)  # they hold what the step had come to
    size, parts = job.loop.batch_size, job.loop.accumulate
    raise OutOfMemoryError(out_of_memory.told(job.method, job.optimiser, views, clock, size, parts, job.bf16))


def _one_step(job: Job, views: Views, clock: Clock) -> Done:
    buffers = statistics(job.method)
    kept = [buffer.clone() for buffer in buffers]
    job.optimiser.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=job.device)
    parts = micro_batches(views, job.loop.accumulate)
    if len(parts) > 1 and job.method.compares_images:
        out = cached.backward(job.method, parts, views, clock, job.bf16)
        loss, parts = out.loss.detach(), []
    for i, part in enumerate(parts):
        final = i == len(parts) - 1
        last_or_alone = final or job.parallel is job.method
        with contextlib.nullcontext() if last_or_alone else job.parallel.no_sync():  # type: ignore[operator]
            with torch.autocast(job.device.type, dtype=torch.bfloat16, enabled=job.bf16):
                out = job.parallel(part, clock)
            (out.loss / len(parts)).backward()
        loss += out.loss.detach() / len(parts)
    loss = dist.mean(loss)
    job.method.before_step(clock)
    parameters = [p for p in job.method.parameters() if p.grad is not None]
    first = first_layer(job.method)  # before it is shortened
    norm = clip(parameters, job.optim)
    # the one time a step that a GPU is waited for
    total, length, steep = torch.stack([loss, norm.to(loss), first.to(loss)]).tolist()
    finite = not dist.any_of(not (math.isfinite(total) and math.isfinite(length)))
    if finite:
        job.optimiser.step()
        job.method.after_step(clock)
    else:
        job.method.discard()
        with torch.no_grad():
            for buffer, value in zip(buffers, kept):
                buffer.copy_(value)
    return Done(total, length, steep, finite, dict(out.logs), out.embedding[: len(views.index) // job.loop.accumulate])


def first_layer(model: nn.Module) -> Tensor:
    """Length of the gradient of the first layer that is trained, where a ViT's spikes begin (MoCo v3,
    arXiv:2104.02057, section 4); 0 where none has one."""
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim > 1 and weight.grad is not None:
            found: Tensor = weight.grad.norm()
            return found
    return torch.zeros(())


def micro_batches(views: Views, count: int) -> list[Views]:
    """The batch in `count` equal parts, in order."""
    if count == 1:
        return [views]
    crops = [crop.chunk(count) for crop in views.crops]
    return [Views(tuple(part), index) for *part, index in zip(*crops, views.index.chunk(count))]


class Keeper:
    """Saves the state every so many steps and minutes. Rank 0 writes; parameters are equal on all."""

    def __init__(self, job: Job, since: Mapping[str, float]) -> None:
        self.job = job
        # State like any other: the largest gradient of the first layer since the last log line, and how many steps in a
        # row have not been taken.
        self.steepest = float(since.get("steepest", 0.0))
        self.skipped = int(since.get("skipped", 0))
        self.saved_at = time.monotonic()
        self.saved_step = -1

    def after(self, step: int) -> None:
        loop = self.job.loop
        by_step = loop.checkpoint_every_steps and step % loop.checkpoint_every_steps == 0
        waited = time.monotonic() - self.saved_at
        by_time = loop.checkpoint_every_minutes and waited > 60 * loop.checkpoint_every_minutes
        if by_step or dist.any_of(bool(by_time)):
            self.save(step)

    def save(self, step: int) -> None:
        job = self.job
        lost = not_finite.ruined(job.method)
        if dist.any_of(bool(lost)):
            raise TrainingStoppedError(
                f"step {step}: {lost or 'what another process holds'} is not finite, and is not saved; the state "
                "before it is kept. Lower optim.base_lr, or start anew with loop.precision=float32"
            )
        if step != self.saved_step and dist.rank() == 0:
            since = {"steepest": self.steepest, "skipped": self.skipped}
            data = checkpoint.pack(job.method, job.optimiser, step, job.run.settle_log(), job.identity, since)
            job.run.save_checkpoint(step, data, job.loop.keep_checkpoints)
        self.saved_at, self.saved_step = time.monotonic(), step
        dist.barrier()

    def roll_back(self, step: int) -> None:
        """Weights, optimiser and memories of the last saved state; the run goes on with `step`, whose state this is
        from now on. Where nothing was saved yet, the step is only left out."""
        job = self.job
        state = checkpoint.load_newest(job.run, job.progress.say)
        if state is None:
            job.progress.say("no state is saved yet: the step is left out, nothing is rolled back")
            return
        checkpoint.put_back(state, job.method, job.optimiser, job.run)
        job.progress.say(f"rolled back to the weights of step {state['step']}; the run goes on with step {step}")
        self.save(step)


def _log(job: Job, step: int, fields: Mapping[str, Any]) -> None:
    """`step` in the log counts finished steps: 0 is before the first."""
    if fields and dist.rank() == 0:
        line = {"step": step + 1, "epoch": round((step + 1) / job.steps_per_epoch, 4), **fields}
        line.pop("stop", None)
        job.run.append_log(line)
        job.write(line)


def _number(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None


def _refused(job: Job, step: int, skipped: int, rate: float, done: Done, views: Views) -> str:
    """A step that was not finite: where it began, in words; and what loop.on_nan wants of it."""
    found = ""
    if skipped == 1 or skipped > job.loop.skip_limit:
        parts = micro_batches(views, job.loop.accumulate)
        found = not_finite.where(job.method, parts, job.clock(step), job.bf16)
        job.progress.say(f"step {step}: not finite and not taken; {found}")
    if skipped > job.loop.skip_limit or job.loop.on_nan == "stop":
        often = f" {skipped} steps in a row" if skipped > 1 else ""
        raise TrainingStoppedError(
            f"step {step}: loss {done.loss} and gradient norm {done.gradient_norm} at learning rate {rate:.4g}, not "
            f"finite{often}; nothing of it reached the weights. {found[:1].upper()}{found[1:]}"
        )
    return found
