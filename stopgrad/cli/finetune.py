"""`stopgrad finetune` and `stopgrad distill`: few labels, and none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from stopgrad.assemble.api import Options
    from stopgrad.assemble.train import Finished

Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", consume_multiple=True, negative="", help="any setting, as a.b=c; may be repeated"),
]
Data = Annotated[str | None, Parameter(help="images, as train takes them; the run's own by default")]
Minutes = Annotated[float | None, Parameter(help="train about this long: becomes a number of epochs")]
Out = Annotated[Path, Parameter(help="where run folders go")]
Resume = Annotated[bool, Parameter(negative="", help="go on with a run that was stopped or killed")]
RUNS = Path("runs")


def finetune(
    run: Annotated[
        str | None, Parameter(help="a finished run of any method, or with --resume one that was begun")
    ] = None,
    /,
    *,
    labels: Annotated[str | None, Parameter(help="1%, 10%, ..., or a number of each class: 5-per-class")] = None,
    data: Data = None,
    from_projector_layer: Annotated[
        int | None, Parameter(help="layers of the projector that are kept; 1 of simclr_v2's by default, else 0")
    ] = None,
    from_scratch: Annotated[
        bool, Parameter(negative="", help="the supervised baseline: random weights, RUN's images and backbone")
    ] = False,
    backbone: Annotated[str | None, Parameter(help="with --from-scratch: tiny, or any timm model")] = None,
    epochs: int | None = None,
    minutes: Minutes = None,
    batch_size: int | None = None,
    image_size: Annotated[int | None, Parameter(help="side of a view, pixels")] = None,
    seed: Annotated[int | None, Parameter(help="also says which images' labels are known")] = None,
    out: Out = RUNS,
    name: Annotated[str, Parameter(help="the run's folder inside --out; default finetune-DATA")] = "",
    resume: Resume = False,
    settings: Settings = (),
) -> None:
    """Learn classes from a few labels: a classifier on a run's backbone, and both are trained.

    stopgrad finetune runs/NAME --labels 1%
    stopgrad finetune runs/NAME --data DIR --labels 10-per-class --minutes 2
    stopgrad finetune --from-scratch --data DIR --labels 10%      the supervised baseline
    """
    from stopgrad.assemble.api import Options
    from stopgrad.contracts import ConfigError

    options = Options(
        data=data,
        backbone=backbone,
        epochs=epochs,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        settings=settings,
    )
    if resume:
        others = (
            labels,
            from_projector_layer,
            minutes,
            from_scratch or None,
            name or None,
            None if out == RUNS else out,
        )
        _resume("finetune", run, options, others)
        return
    if labels is None:
        raise ConfigError("finetune: how many labels? Add --labels 1%, or --labels 5-per-class")
    from stopgrad.assemble import finetune as assembled

    _print(
        assembled.finetune(
            run,
            labels,
            from_projector_layer=from_projector_layer,
            from_scratch=from_scratch,
            options=options,
            where=assembled.Where(out=out, name=name, minutes=minutes),
        )
    )


def distill(
    teacher: Annotated[str, Parameter(help="a finished run of finetune, or with --resume a distillation")],
    /,
    *,
    data: Data = None,
    backbone: Annotated[str | None, Parameter(help="the student: tiny, or any timm model; the teacher's")] = None,
    init: Annotated[
        str | None, Parameter(help="weights the student begins from: encoder.safetensors, a run, timm:NAME")
    ] = None,
    temperature: Annotated[
        float | None, Parameter(help="of both softmaxes; 0.1 for the teacher's backbone, 1 for another")
    ] = None,
    labels: Annotated[str | None, Parameter(help="labels that are learnt besides: 10%, 5-per-class")] = None,
    alpha: Annotated[float | None, Parameter(help="share of the distillation in the loss beside labels")] = None,
    epochs: int | None = None,
    minutes: Minutes = None,
    batch_size: int | None = None,
    seed: int | None = None,
    out: Out = RUNS,
    name: Annotated[str, Parameter(help="the run's folder inside --out; default distill-DATA")] = "",
    resume: Resume = False,
    settings: Settings = (),
) -> None:
    """Train a student on what a fine-tuned run says of images that need no labels.

    stopgrad distill runs/finetune-NAME --data DIR
    stopgrad distill runs/finetune-NAME --backbone resnet18 --minutes 10
    """
    from stopgrad.assemble.api import Options

    options = Options(
        data=data, backbone=backbone, init=init, epochs=epochs, batch_size=batch_size, seed=seed, settings=settings
    )
    if resume:
        others = (temperature, labels, alpha, minutes, name or None, None if out == RUNS else out)
        _resume("distill", teacher, options, others)
        return
    from stopgrad.assemble import finetune as assembled

    _print(
        assembled.distill(
            teacher,
            temperature=temperature,
            labels=labels or "",
            alpha=1.0 if alpha is None else alpha,
            options=options,
            where=assembled.Where(out=out, name=name, minutes=minutes),
        )
    )


def _resume(command: str, run: str | None, options: Options, others: tuple[object, ...]) -> None:
    from stopgrad.assemble import api
    from stopgrad.contracts import ConfigError

    if run is None:
        raise ConfigError(f"--resume: name the run that goes on, such as runs/{command}-NAME")
    if options != api.Options() or any(other is not None for other in others):
        raise ConfigError(f"--resume continues {run} as it was; leave out the other options")
    _print(api.resume(run))


def _print(finished: Finished) -> None:
    from stopgrad.cli.show import print_finished
    from stopgrad.processes import is_first

    if is_first():
        print_finished(finished)
