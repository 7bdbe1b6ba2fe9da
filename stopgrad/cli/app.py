"""The commands and their options. torch is imported by what they call, not here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from stopgrad.cli import compare, encoders, fewlabels, finetune, gradients, images, reports, study
from stopgrad.version import __version__

app = App(
    name="stopgrad",
    help="Learn image representations without labels, and know whether the run is healthy.",
    version=__version__,
    help_format="plaintext",  # keeps the lines of the examples apart
    help_epilogue="Any command takes --debug, which prints the traceback behind an error.",
    suppress_keyboard_interrupt=False,
)

Settings = Annotated[
    tuple[str, ...],
    Parameter(name="--set", consume_multiple=True, negative="", help="any setting, as a.b=c; may be repeated"),
]


@app.command
def train(
    what: Annotated[str, Parameter(help="METHOD[/PRESET], a recipe file, or with --resume a run folder")],
    /,
    *,
    data: Annotated[
        str | None,
        Parameter(
            help="a folder of images, a .zip or .tar[.gz], a .txt of paths, or a set by name (scenes, cifar10, "
            "stl10:/folder, imagenet:/folder, hf:NAME, ...); overrides the preset's"
        ),
    ] = None,
    view: images.View = None,
    backbone: Annotated[
        str | None, Parameter(help="tiny, any timm model; of text: text_transformer, text_gru, hf:/folder")
    ] = None,
    init: Annotated[str | None, Parameter(help="weights to begin from: encoder.safetensors, a run, timm:NAME")] = None,
    baseline: Annotated[str | None, Parameter(help="another encoder to score beside this one; as --init")] = None,
    epochs: int | None = None,
    minutes: Annotated[float | None, Parameter(help="train about this long: becomes a number of epochs")] = None,
    batch_size: int | None = None,
    image_size: Annotated[int | None, Parameter(help="side of a view, pixels")] = None,
    seed: int | None = None,
    out: Annotated[Path, Parameter(help="where run folders go")] = Path("runs"),
    name: Annotated[str, Parameter(help="the run's folder inside --out; default METHOD-DATA")] = "",
    resume: Annotated[bool, Parameter(negative="", help="go on with a run that was stopped or killed")] = False,
    stop_on_collapse: Annotated[bool, Parameter(negative="", help="end the run once the verdict is collapsed")] = False,
    on_nan: Annotated[
        Literal["skip", "stop", "rollback"] | None,
        Parameter(
            help="of a step that is not finite: leave it out, stop, or leave it out and go back to the last state"
        ),
    ] = None,
    processes: Annotated[
        int, Parameter(help="start so many on this machine, which share each batch; one that is killed is begun again")
    ] = 1,
    settings: Settings = (),
) -> None:
    """Pretrain on unlabelled images, evaluate, and say whether the run is healthy.

    stopgrad train simsiam                           the embedded data set
    stopgrad train simsiam --data DIR --minutes 30   your images
    stopgrad train simclr --data captions.csv        your sentences
    stopgrad train runs/NAME --resume                after Ctrl-C or a crash
    """
    from stopgrad.assemble import api
    from stopgrad.cli.show import print_finished
    from stopgrad.contracts import ConfigError
    from stopgrad.processes import is_first

    if processes != 1:
        _start_processes(processes)
    options = api.Options(
        data=data,
        view=view,
        backbone=backbone,
        init=init,
        baseline=baseline,
        epochs=epochs,
        batch_size=batch_size,
        image_size=image_size,
        seed=seed,
        stop_on_collapse=stop_on_collapse,
        settings=(*settings, *([f"loop.on_nan={on_nan}"] if on_nan else [])),
    )
    if resume:
        if options != api.Options() or minutes is not None or name or out != Path("runs"):
            raise ConfigError(f"--resume continues {what} as it was; leave out the other options")
        finished = api.resume(what)
    else:
        finished = api.train(what, out=out, name=name, minutes=minutes, options=options)
    if is_first():
        print_finished(finished)


def _start_processes(count: int) -> None:
    """Runs this command in so many processes, and ends as they do."""
    from stopgrad.cli import WORDS
    from stopgrad.contracts import ConfigError
    from stopgrad.processes import how_many, launch

    if "RANK" in os.environ:
        raise ConfigError(f"--processes={count}: torchrun or SLURM has started {how_many()} already; leave it out")
    words, skip = [], False
    for word in WORDS:
        if not skip and not word.startswith("--processes="):
            words += [word] if word != "--processes" else []
        skip = word == "--processes"
    raise SystemExit(launch(words, count))


@app.command(name="eval")
def evaluate(
    what: Annotated[str, Parameter(help="a run folder, or an encoder.safetensors")],
    /,
    *,
    data: Annotated[str | None, Parameter(help="any source that train takes; a run's own by default")] = None,
    output: Annotated[Path | None, Parameter(help="also write the rows to this JSON file")] = None,
    seed: Annotated[int, Parameter(help="of the second views and of the selection inside the training split")] = 0,
    baseline: Annotated[
        str | None, Parameter(help="another encoder beside it: encoder.safetensors, a run, timm:NAME")
    ] = None,
    settings: Settings = (),
) -> None:
    """Measure what an encoder's features are worth, beside random weights and raw pixels."""
    from stopgrad.assemble import api
    from stopgrad.cli.show import print_scores
    from stopgrad.contracts import ConfigError
    from stopgrad.rundir import as_json, check_place, write_bytes

    if output is not None:
        if output.suffix != ".json" or output.is_dir():
            raise ConfigError(f"--output {str(output)!r} must be a file that ends in .json")
        check_place(output)
    rows = api.evaluate(what, data=data, seed=seed, settings=settings, baseline=baseline)
    print_scores(rows)
    if output is not None:
        write_bytes(output, as_json([row.as_dict() for row in rows]))


@app.command
def diagnose(run: Annotated[Path, Parameter(help="a run folder, finished or not")], /) -> None:
    """Say whether a run is healthy, why, and what to do next. Reads its log; labels are never used."""
    from stopgrad.assemble import api
    from stopgrad.cli.show import print_diagnosis

    print_diagnosis(api.diagnose_run(run))


@app.command
def methods(name: Annotated[str, Parameter(help="a method, to see its settings")] = "", /) -> None:
    """List the methods, or print one's paper and settings."""
    from stopgrad.cli.show import print_methods

    print_methods(name)


@app.command
def recipes(name: Annotated[str, Parameter(help="a preset, to print it as a recipe file")] = "", /) -> None:
    """List the presets, or print one as YAML: `stopgrad recipes simsiam/scenes > my.yaml`."""
    from stopgrad.cli.show import print_recipes

    print_recipes(name)


app.command(finetune.finetune)
app.command(finetune.distill)
app.command(fewlabels.fewlabels)
app.command(compare.compare)
app.command(study.study)
app.command(gradients.gradients)
app.command(reports.report)
app.command(images.check)
app.command(images.views)
app.command(encoders.export)
app.command(encoders.embed)
app.command(encoders.neighbours)
app.command(encoders.duplicates)
app.command(encoders.attention)
