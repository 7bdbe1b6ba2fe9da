"""A run on sentences, whole: train, resume, eval, embed, neighbours, export, check, views, report."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import stopgrad
from stopgrad import cli
from stopgrad.assemble import api
from stopgrad.contracts import ConfigError
from stopgrad.methods import METHODS
from stopgrad.recipe.text import load
from stopgrad.recipes import PRESETS, RECIPES, recipe_named
from stopgrad.recipes.texts import texts
from stopgrad.rundir import RunDir
from stopgrad.views.text_config import TextViewsConfig

EVIL = "<img src=x onerror=alert(1)> a striped ball \x1b[31m"
COLOURS, THINGS = ("red", "green", "blue", "yellow"), ("ball", "cube", "ring", "star")
SMALL = (
    "backbone.width=16",
    "method.projector.hidden=32",
    "method.projector.dim=16",
    "loop.batch_size=32",
    "loop.view_threads=1",
    "eval.random_seeds=1",
    "eval.linear=none",
    "watch.every_steps=2",
    "views.length=12",
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STOPGRAD_CACHE", str(tmp_path_factory.getbasetemp() / "text-cache"))


@pytest.fixture(scope="module")
def captions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "captions.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "caption", "label", "colour"])
        for i in range(240):
            colour, thing = COLOURS[i % 4], THINGS[i // 4 % 4]
            text = f"a small {colour} striped {thing} before number {i}"
            writer.writerow([f"{i}.jpg", EVIL if i == 7 else "" if i == 9 else text, thing, colour])
    return path


def run(*words: object) -> int:
    return cli.run([str(word) for word in words], debug=False)


def sets(*settings: str) -> list[str]:
    return [word for setting in (*SMALL, *settings) for word in ("--set", setting)]


@pytest.fixture(scope="module")
def trained(captions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOPGRAD_CACHE", str(tmp_path_factory.getbasetemp() / "text-cache"))
        code = run("train", "simclr", "--data", captions, "--epochs", 2, "--out", out, "--name", "text", *sets())
    assert code == 0
    return out / "text"


def test_a_table_is_taken_for_texts_and_the_run_is_whole(trained: Path) -> None:
    recipe = load(trained / "recipe.yaml")
    assert recipe.views.kind == recipe.data.kind == "text"  # type: ignore[union-attr]
    assert recipe.backbone.name == "text_transformer"
    assert isinstance(recipe.views, TextViewsConfig)
    assert {"red", "ball", "before"} <= set(recipe.views.words)
    names = {row["name"] for row in json.loads((trained / "results.json").read_text())}
    assert {"knn_top1", "baseline_random_knn_top1", "baseline_words_knn_top1"} <= names
    bad = (trained / "bad_files.csv").read_text()
    assert "captions.csv:11,no text in this row" in bad
    assert (trained / "encoder.safetensors").is_file()


def test_the_report_shows_the_texts_and_runs_none_of_them(trained: Path) -> None:
    page = (trained / "report.html").read_text()
    assert "a small red striped" in page
    assert "onerror=alert(1)>" not in page.replace("&gt;", "")
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert "words" in page


def test_a_resumed_run_has_the_same_bits(trained: Path, captions: Path, tmp_path: Path) -> None:
    """Stopped after the first epoch; then the words stand in its recipe, and nothing is looked for again."""
    options = api.Options(data=str(captions), epochs=2, settings=SMALL)
    whole = torch.nn.Module.state_dict(stopgrad.load(trained).backbone)
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    for part in ("encoder.safetensors", "results.json", "status.json"):
        (copy / part).unlink()
    shutil.rmtree(copy / "checkpoints")
    (copy / "log.jsonl").unlink()
    assert run("train", copy, "--resume") == 0
    again = stopgrad.load(copy).backbone.state_dict()
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    fresh = api.train("simclr", out=tmp_path, name="fresh", options=options)
    other = stopgrad.load(fresh.path).backbone.state_dict()
    assert all(torch.equal(whole[name], other[name]) for name in whole)


def test_eval_embed_and_neighbours(
    trained: Path, captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("eval", trained, "--set", "eval.random_seeds=1", "--set", "eval.linear=none") == 0
    assert "words" in capsys.readouterr().out
    file = trained / "encoder.safetensors"
    short = ("--set", "eval.random_seeds=0", "--set", "eval.linear=none")
    assert run("eval", file, "--data", captions, *short) == 0
    assert run("embed", trained, "--data", captions, "-o", tmp_path / "f.npz") == 0
    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].shape == (239, 16)
    capsys.readouterr()
    query = "a small red striped ball before number 0"
    assert run("neighbours", file, "--data", captions, "--query", query, "-k", 3, "-o", tmp_path / "n.png") == 0
    out = capsys.readouterr().out
    first = out.splitlines()[1]
    assert query in first
    assert re.search(r"1\s+1\.0000", first)
    assert (tmp_path / "n.png").is_file()
    assert run("neighbours", file, "--data", captions, "--query", EVIL, "-k", 2) == 0
    out = capsys.readouterr().out
    assert "onerror" in out
    assert "\x1b" not in out
    assert run("neighbours", file, "--data", captions, "--query", "  ") == 65


@pytest.mark.parametrize(
    ("backbone", "suffix"),
    [
        ("text_transformer", ".onnx"),
        ("text_gru", ".onnx"),
        ("text_transformer", ".safetensors"),
        ("text_transformer", ".pt2"),
    ],
)
def test_export_is_checked_on_texts(
    trained: Path, tmp_path: Path, backbone: str, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from stopgrad.encoder import save_encoder
    from stopgrad.nn.backbones import build_backbone
    from stopgrad.nn.config import BackboneConfig

    encoder = stopgrad.load(trained)
    config = BackboneConfig(name=backbone, width=16, pool="end")
    kinds = encoder.backbone.embedding.num_embeddings  # type: ignore[union-attr]
    model = build_backbone(config, kinds, 12, 0)  # type: ignore[arg-type]
    save_encoder(tmp_path / "encoder.safetensors", model, config, encoder.preprocess)
    assert run("export", tmp_path / "encoder.safetensors", "-o", tmp_path / f"out{suffix}") == 0
    said = capsys.readouterr().out
    assert "Checked: " in said
    if suffix != ".safetensors":
        assert "texts of the captions of the embedded scenes" in said
        assert "tokens: int64 [B, 12], ids of the tokenizer" in said
        assert f"0 to {kinds - 1}, 0 fills up" in said


def test_check_says_what_it_found(captions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", captions, "--method", "simclr", "--no-time", *sets()) == 0
    out = capsys.readouterr().out
    assert "Texts" in out
    assert "of the training tokens are unknown" in out
    assert "colour" in out
    assert "stopgrad views simclr --data" in out
    assert run("check", captions.parent, "--method", "simclr", "--view", "text", "--no-time", *sets()) == 0
    assert f"stopgrad train simclr --data {captions.parent} --view text --set" in capsys.readouterr().out


def test_views_are_printed_and_drawn(captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "v.png"
    assert run("views", "simclr", "--data", captions, "-o", picture, "--images", 300, *sets()) == 2
    capsys.readouterr()
    assert run("views", "simclr", "--data", captions, "-o", picture, "--images", 8, *sets("views.dropout=0.5")) == 0
    both = capsys.readouterr()
    said = both.out + both.err
    assert "2 views of 12 tokens" in said
    assert "epoch 3, view 2: " in said
    assert "[UNK]" in said
    assert picture.stat().st_size > 1000
    hostile = tmp_path / "lines.txt"
    hostile.write_text("".join(f"\x1b[31m a red ball number {i}\n" for i in range(12)))
    assert run("views", "simclr", "--view", "text", "--data", hostile, "-o", picture, *sets("loop.batch_size=4")) == 0
    both = capsys.readouterr()
    assert "a red ball number" in both.out + both.err
    assert "\x1b" not in both.out + both.err


# --- recipes ----------------------------------------------------------------------------------------------------------


def test_every_method_that_compares_views_has_a_preset_for_text() -> None:
    with_text = {name.partition("/")[0] for name in RECIPES if name.endswith("/text")}
    assert with_text == {name for name in METHODS if "text" in PRESETS[name]}
    assert {"simclr", "simsiam", "byol", "moco_v2", "moco_v3", "barlow_twins", "vicreg", "swav", "dino"} <= with_text
    assert "cpc" in with_text
    assert not {"cmc", "clip"} & with_text
    for name in with_text:
        recipe = recipe_named(f"{name}/text")
        assert recipe.views.kind == "text"
        assert recipe.method.name == name
        assert "first guess" in (RECIPES[f"{name}/text"].__doc__ or "").lower()


def test_what_follows_from_the_texts(captions: Path, tmp_path: Path) -> None:
    options = api.Options(data=str(captions))
    recipe, why = api.choose("simclr", options)
    steps = -(-2000 // (171 // recipe.loop.batch_size))
    assert recipe.loop.epochs == min(100, steps)
    assert any(line.startswith("loop.epochs") for line in why)
    assert recipe.data.source == str(captions)
    (tmp_path / "lines.txt").write_text("\n".join(f"a red ball number {i}" for i in range(50)))
    listed = api.Options(data=str(tmp_path / "lines.txt"), view="text")
    assert api.choose("simsiam", listed)[0].views.kind == "text"
    assert api.choose("byol", api.Options(view="text"))[0].data.source == "scenes-v1"
    assert api.choose("byol/text", api.Options(backbone="text_gru"))[0].backbone.width == 128


def test_what_does_not_go_with_text(captions: Path) -> None:
    for what, options, said in (
        ("simclr", api.Options(data=str(captions), backbone="resnet18"), "--backbone resnet18 is none of text"),
        ("simclr", api.Options(data="scenes", backbone="hf:/nowhere"), "the recipe images; add --view text"),
        ("simclr/scenes", api.Options(view="text"), "--view text: this recipe reads samples of kind image"),
        ("simclr/text", api.Options(view="image"), "--view image: this recipe reads samples of kind text"),
        ("simclr/text", api.Options(image_size=64), "is for images"),
        ("simclr/text", api.Options(settings=("views.views=1",)), "compares 2 views, got 1"),
        ("simclr/text", api.Options(settings=("backbone.name=tiny", "backbone.width=8")), "reads no text"),
        ("simclr/scenes", api.Options(settings=("backbone.name=text_gru",)), "reads text, and the samples are of kind"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            api.choose(what, options)
    with pytest.raises(ConfigError, match="nobody reads no texts"):
        texts("nobody", "", {}, {})


def test_weights_to_begin_from_bring_their_words(trained: Path, captions: Path, tmp_path: Path) -> None:
    small = tuple(setting for setting in SMALL if not setting.startswith(("backbone", "views")))
    options = api.Options(data=str(captions), init=str(trained), epochs=1, settings=small)
    done = api.train("simclr", out=tmp_path, name="more", options=options)
    views = load(RunDir(done.path).recipe).views
    assert isinstance(views, TextViewsConfig)
    before = load(trained / "recipe.yaml").views
    assert isinstance(before, TextViewsConfig)
    assert (views.words, views.length) == (before.words, before.length)
    assert any(row.name == "baseline_init_knn_top1" for row in done.results)


def test_a_hugging_face_encoder_is_trained_kept_and_read_without_its_folder(
    captions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")
    from stopgrad.views.tokens import tokenizer_of

    folder = tmp_path / "bert"
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer_of([*COLOURS, *THINGS, "a", "small", "striped", "before"]))
    settings = tuple(setting for setting in SMALL if not setting.startswith("backbone"))
    options = api.Options(data=str(captions), backbone=f"hf:{folder}", epochs=1, settings=settings)
    done = api.train("simclr", out=tmp_path, name="hf", options=options)
    assert any(row.name == "baseline_init_knn_top1" for row in done.results)
    shutil.rmtree(folder)
    encoder = stopgrad.load(done.path)
    assert encoder.dim == 16
    assert stopgrad.embed(encoder, str(captions)).features.shape == (239, 16)
    assert run("export", done.path, "-o", tmp_path / "hf.safetensors") == 0
    assert "equal by checksum" in capsys.readouterr().out
