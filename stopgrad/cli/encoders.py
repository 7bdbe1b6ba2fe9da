"""`stopgrad export`, `embed`, `neighbours` and `duplicates`: what a finished encoder is for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from stopgrad.assemble.use import Embedded
    from stopgrad.encoder import Encoder
    from stopgrad.training.progress import Progress

Source = Annotated[str, Parameter(help="where the images are: anything `stopgrad train --data` takes")]
Which = Annotated[str, Parameter(help="a run folder, or an encoder.safetensors")]
SHOWN = 5  # groups printed


def export(
    run: Which,
    /,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="a name in .safetensors, .onnx or .pt2")],
    data: Annotated[str | None, Parameter(help="images to check it on; a run's own by default")] = None,
    tower: Annotated[str, Parameter(help="of a backbone for each sensor, the one of this sensor by itself")] = "",
) -> None:
    """Write the backbone with its preprocessing to a file for use elsewhere, checked before it is said to be there.

    stopgrad export runs/NAME -o encoder.safetensors   stopgrad; timm models: timm
    stopgrad export runs/NAME -o encoder.onnx          onnxruntime and others
    stopgrad export runs/NAME -o encoder.pt2           torch.export
    """
    from stopgrad.assemble import use

    with _progress() as progress:
        done = use.export(run, output, data=data, tower=tower, progress=progress)
    print(f"{done.path}: {done.size / 1e6:.1f} MB, sha256 {done.sha256}")
    print(f"Checked: {done.checked}")
    print("To load it:")
    for line in done.lines:
        print(f"  {line}")


def embed(
    encoder: Which,
    /,
    *,
    data: Source,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="a name in .npz or .parquet")],
) -> None:
    """Write the features of every image: name, split, label where there is one, and a vector each.

    stopgrad embed runs/NAME --data DIR -o features.npz
    """
    from stopgrad.assemble import tables, use

    tables.check_table(output)
    found = _embedded(encoder, data)
    tables.write_features(found, output)
    labelled = f", {len(found.classes)} classes" if found.labels is not None else ", no labels"
    print(f"{output}: {use.counted(len(found), 'image')}, {found.features.shape[1]} features each, float32{labelled}")
    if output.suffix == ".npz":
        print(f"Next: numpy.load({str(output)!r})['features']")
    else:
        print(f"Next: pandas.read_parquet({str(output)!r}), or any other reader of Parquet")


def neighbours(
    encoder: Which,
    /,
    *,
    data: Source,
    query: Annotated[str, Parameter(help="an image file, of these or any other; of an encoder of text, a sentence")],
    count: Annotated[int, Parameter(name=["--count", "-k"], help="how many")] = 10,
    output: Annotated[Path | None, Parameter(name=["--output", "-o"], help="also draw them, to this .png")] = None,
) -> None:
    """Find the images nearest to one, print them and draw them.

    stopgrad neighbours runs/NAME --data DIR --query photo.jpg -o sheet.png
    stopgrad neighbours runs/NAME --data captions.csv --query "a red shoe"
    """
    from stopgrad.assemble import api, tables, use
    from stopgrad.contracts import ConfigError

    if count < 1:
        raise ConfigError(f"-k must be 1 or more, got {count}")
    if output is not None:
        tables.check_output(output, (".png",))
    loaded = api.load(encoder)
    kept = use.kept_as(encoder)
    sample = use.read_query(query, loaded, kept)
    with _progress() as progress:
        opened = use.open_for(loaded, data, progress, kept)
        found = use.neighbours(loaded, opened, sample, count, progress, own=use.name_in(data, Path(query)))
    width = max(len("class"), *(len(one.label) for one in found))
    print(f"{'':>4}  similarity  split  {'class'.ljust(width)}  name")
    for number, one in enumerate(found, 1):
        name = one.name + _words(loaded, one.sample)
        print(f"{number:>4}  {one.similarity:>10.4f}  {one.split:<5}  {one.label.ljust(width)}  {name}")
    if output is not None:
        from stopgrad.eval.picture import draw_neighbours
        from stopgrad.rundir import write_bytes

        captions = [(f"{one.similarity:.3f}  {one.label}".rstrip(), one.name) for one in found]
        query_picture, *pictures = (use.picture(one, loaded) for one in (sample, *(one.sample for one in found)))
        write_bytes(output, draw_neighbours(query_picture, pictures, captions))
        print(f"{output}: the query and its {use.counted(len(found), 'neighbour')}")


def attention(
    encoder: Which,
    /,
    *,
    data: Source,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="the picture: .png, .jpg or .webp")] = Path(
        "attention.png"
    ),
    images: Annotated[int, Parameter(help="rows, 1 to 64")] = 8,
    seed: Annotated[int, Parameter(help="which images")] = 0,
) -> None:
    """Draw where a ViT looks: the attention of its class token in the last block, a column a head.

    stopgrad attention runs/NAME --data DIR -o attention.png
    """
    from stopgrad.assemble.draw_attention import draw_attention

    with _progress() as progress:
        path, rows, heads = draw_attention(encoder, data, output, images=images, seed=seed, progress=progress)
    print(f"{path}: {rows} images, each beside its attention by {heads} head{'s' * (heads != 1)}")


def _words(encoder: Encoder, sample: Any) -> str:
    """What a neighbour says, where it is a text."""
    from stopgrad.cli import printable
    from stopgrad.media import medium_of

    said = " ".join(medium_of(encoder.preprocess).said(sample).split())
    return f"  {printable(said)}" if said else ""


def duplicates(
    encoder: Which,
    /,
    *,
    data: Source,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="a .csv file: group, name, split, similarity")],
    threshold: Annotated[float, Parameter(help="cosine of features from which two images are a pair")] = 0.99,
) -> None:
    """Find images that the encoder can hardly tell apart, in groups.

    stopgrad duplicates runs/NAME --data DIR -o groups.csv
    """
    from stopgrad.assemble import tables, use
    from stopgrad.eval.duplicates import check_threshold

    check_threshold(threshold)
    tables.check_output(output, (".csv",))
    found = _embedded(encoder, data)
    groups = use.duplicates(found, threshold)
    tables.write_groups(found, groups, output)
    images = sum(map(len, groups))
    many = use.counted(len(groups), "group")
    print(f"{output}: {many} of {images:,} images among {len(found):,}, cosine {threshold:g} or above")
    across = sum(len({found.split[at] for at, _ in group}) > 1 for group in groups)
    if across:
        many = use.counted(across, "group")
        print(f"images of both train and test stand in {many}: scores on such a test split flatter")
    largest = max(map(len, groups), default=0)
    if largest > max(10, len(found) // 4):
        print(f"one group holds {largest:,} images the encoder can hardly tell apart; a higher --threshold parts them")
    for number, group in enumerate(groups[:SHOWN], 1):
        shown = ", ".join(f"{found.names[at]} ({value:.3f})" for at, value in group[:4])
        print(f"  {number}: {shown}{', ...' if len(group) > 4 else ''}")


def _embedded(encoder: str, data: str) -> Embedded:
    from stopgrad.assemble import api, use

    with _progress() as progress:
        loaded: Encoder = api.load(encoder)
        return use.embed_data(loaded, use.open_for(loaded, data, progress, use.kept_as(encoder)), progress)


class _progress:
    """A Progress that leaves the terminal's line clean."""

    def __enter__(self) -> Progress:
        from stopgrad.training.progress import Progress

        self.progress = Progress()
        return self.progress

    def __exit__(self, *_: object) -> None:
        self.progress.close()
