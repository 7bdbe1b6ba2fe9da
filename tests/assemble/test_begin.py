"""Beginning from weights, and standing beside another encoder."""

import dataclasses
import io
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from stopgrad.assemble import api, begin
from stopgrad.assemble.train import Finished, asked_beside
from stopgrad.cli.show import print_scores
from stopgrad.contracts import CheckpointError, ConfigError, MissingInputError, Preprocess
from stopgrad.encoder import load_encoder, save_encoder
from stopgrad.nn import backbones
from stopgrad.nn.backbones import build_backbone, pretrained
from stopgrad.nn.config import BackboneConfig
from stopgrad.recipe.text import load as load_recipe
from stopgrad.recipes.fitted import of_length
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress
from tests.training.small_run import SETTINGS

SHORT = ("loop.epochs=2", "watch={every_steps: 6, images: 20, knn_every_steps: 100, knn_bank: 60}")
OURS = tuple(setting for setting in SETTINGS if not setting.startswith("backbone"))


def encoder_file(path: Path, name: str = "tiny", size: int = 32, seed: int = 5) -> Path:
    config = BackboneConfig(name=name, width=8) if name == "tiny" else BackboneConfig(name=name)
    preprocess = Preprocess(image_size=size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    save_encoder(path, build_backbone(config, 3, size, seed), config, preprocess)
    return path


def start(out: Path, name: str, **changes: Any) -> Finished:
    settings = (*OURS, *SHORT, *changes.pop("settings", ()))
    return api.train("simsiam", out=out, name=name, progress=Progress(quiet=True), settings=settings, **changes)


def test_a_run_begins_from_the_weights_and_shows_before_and_after(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init = encoder_file(tmp_path / "encoder.safetensors")
    finished = start(tmp_path, "a", init=str(init), baseline=str(init))
    recipe = load_recipe(finished.path / "recipe.yaml")
    assert recipe.backbone == BackboneConfig(width=8, init=str(init))
    assert recipe.views.mean == (0.4, 0.5, 0.6)
    found = {row.name: row.value for row in finished.results}
    assert {"baseline_init_knn_top1", "baseline_other_knn_top1"} <= found.keys()
    for name in ("knn_top1", "effective_rank", "alignment"):  # the same file is both
        assert found[f"baseline_init_{name}"] == found[f"baseline_other_{name}"]
    assert found["baseline_init_effective_rank"] != found["effective_rank"]
    # what evaluating the file by itself says is what stands as before
    alone = api.evaluate(
        init,
        data="scenes",
        settings=[s for s in SETTINGS if s.startswith(("data", "eval"))],
        progress=Progress(quiet=True),
    )
    assert {row.name: row.value for row in alone}["effective_rank"] == pytest.approx(
        found["baseline_init_effective_rank"], rel=1e-4
    )
    print_scores(finished.results)
    said = capsys.readouterr().out
    assert all(word in said.splitlines()[1] for word in ("this run", "random", "pixels", "start", "other"))
    # the saved recipe runs again as it is, to the bit
    again = api.train(finished.path / "recipe.yaml", out=tmp_path, name="b", progress=Progress(quiet=True))
    assert (again.path / "encoder.safetensors").read_bytes() == (finished.path / "encoder.safetensors").read_bytes()
    assert load_recipe(again.path / "recipe.yaml") == recipe


def test_training_starts_at_the_weights_and_resuming_needs_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = encoder_file(tmp_path / "encoder.safetensors")
    whole = start(tmp_path, "whole", init=str(init))
    kept = load_encoder(whole.path / "init.safetensors")
    weights = load_encoder(init)
    assert all(torch.equal(a, b) for a, b in zip(kept.backbone.parameters(), weights.backbone.parameters()))
    assert not torch.equal(
        next(load_encoder(whole.path / "encoder.safetensors").backbone.parameters()),
        next(weights.backbone.parameters()),
    )
    monkeypatch.setattr("stopgrad.assemble.towers.save_encoder", _fail)
    with pytest.raises(RuntimeError, match="on purpose"):
        start(tmp_path, "again", init=str(init))
    monkeypatch.undo()
    init.unlink()
    resumed = api.resume(tmp_path / "again", progress=Progress(quiet=True))
    assert (resumed.path / "encoder.safetensors").read_bytes() == (whole.path / "encoder.safetensors").read_bytes()


def _fail(*_: object) -> None:
    raise RuntimeError("on purpose")


def test_rates_are_lowered_unless_the_user_says_and_every_change_has_its_reason(tmp_path: Path) -> None:
    init = str(encoder_file(tmp_path / "encoder.safetensors"))
    usual = api.compose("simsiam/scenes", api.Options(epochs=40))
    recipe, why = api.choose("simsiam/scenes", api.Options(init=init, epochs=40))
    assert recipe.optim.base_lr == pytest.approx(0.1 * usual.optim.base_lr)
    assert recipe.optim.warmup_epochs == 4
    assert recipe.backbone.width == 8
    assert any("a tenth of the recipe's" in line for line in why)
    assert any("warmup_epochs=4" in line for line in why)
    asked = ("optim.base_lr=0.3", "optim.warmup_epochs=0")
    told, why = api.choose("simsiam/scenes", api.Options(init=init, epochs=40, settings=asked))
    assert (told.optim.base_lr, told.optim.warmup_epochs) == (0.3, 0)
    assert not any("tenth" in line or "warmup" in line for line in why)
    assert of_length(recipe, 1)[0].optim.warmup_epochs == 0.1
    assert of_length(usual, 1)[0].optim == usual.optim


def test_the_size_of_the_weights_is_taken_and_another_may_be_asked_for(tmp_path: Path) -> None:
    init = str(encoder_file(tmp_path / "encoder.safetensors", size=48))
    assert api.compose("simsiam/scenes", api.Options(init=init)).views.image_size == 48
    assert api.compose("simsiam/scenes", api.Options(init=init, image_size=64)).views.image_size == 64


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"backbone": "resnet18"}, ConfigError, "holds a tiny, but the backbone asked for is resnet18"),
        ({"settings": ("backbone.name=resnet18",)}, ConfigError, "asked for is resnet18"),
        ({"settings": ("data.channels=1",)}, ConfigError, "3 channels, data.channels is 1"),
        ({"init": "none.safetensors"}, MissingInputError, "no such encoder"),
        ({"init": "weights.pth"}, ConfigError, "needs an encoder.safetensors"),
        ({"init": "timm:"}, ConfigError, "timm:resnet18"),
    ],
)
def test_a_contradiction_is_named_before_anything_runs(
    options: dict[str, Any], error: type[Exception], said: str, tmp_path: Path
) -> None:
    init = str(encoder_file(tmp_path / "encoder.safetensors"))
    with pytest.raises(error, match=said):
        api.compose("simsiam/scenes", api.Options(**{"init": init, **options}))


@pytest.mark.parametrize("content", [b"", b"x" * 100, safetensors.torch.save({"x": torch.zeros(1)})])
def test_a_file_that_is_no_encoder_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="no encoder of stopgrad"):
        begin.read_start(str(path))


def test_weights_that_do_not_fit_say_which_size_would(tmp_path: Path) -> None:
    init = str(encoder_file(tmp_path / "vit.safetensors", "vit_tiny_patch16_224", size=32))
    recipe = api.compose("simsiam/scenes", api.Options(init=init, image_size=64))
    backbone = build_backbone(recipe.backbone, 3, 64, 0)
    with pytest.raises(CheckpointError, match=r"--image-size 32"):
        begin.load_start(backbone, recipe, RunDir(tmp_path), Preprocess(image_size=64))


def offline(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> list[dict[str, Any]]:
    """timm whose pretrained weights are those of seed 7, or can't be had."""
    real, calls = timm.create_model, []

    def create(name: str, *, pretrained: bool = False, **rest: Any) -> Any:
        calls.append({"name": name, "pretrained": pretrained, **rest})
        if pretrained and error is not None:
            raise error
        torch.manual_seed(7) if pretrained else None
        return real(name, pretrained=False, **rest)

    monkeypatch.setattr(timm, "create_model", create)
    return calls


def test_timm_weights_are_the_start_with_their_own_statistics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = offline(monkeypatch, None)
    recipe, why = api.choose("simsiam/scenes", api.Options(init="timm:resnet18.a1_in1k"))
    assert recipe.backbone == BackboneConfig(name="resnet18", stem="standard", init="timm:resnet18.a1_in1k")
    assert recipe.views.mean == pytest.approx((0.485, 0.456, 0.406))
    assert any("those the weights were trained with" in line for line in why)
    gray = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, channels=1))
    backbone = build_backbone(gray.backbone, 1, 32, 0)

    preprocess = Preprocess(image_size=32, channels=1, mean=(0.5,), std=(0.2,))
    begin.load_start(backbone, gray, RunDir(tmp_path), preprocess)
    assert {"name": "resnet18.a1_in1k", "pretrained": True, "num_classes": 0, "in_chans": 1}.items() <= next(
        call for call in calls if call["pretrained"]
    ).items()
    expected = pretrained("resnet18.a1_in1k", 1, 32)
    assert all(torch.equal(a, b) for a, b in zip(backbone.parameters(), expected.parameters()))


def test_a_timm_baseline_looks_through_its_own_preprocessing(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, None)
    other = begin.other_beside("timm:resnet18", Preprocess(image_size=32, channels=1))["other"]
    assert other.preprocess.image_size == 224
    assert other.preprocess.mean == pytest.approx((sum((0.485, 0.456, 0.406)) / 3,))
    assert "timm:resnet18" in other.told
    assert begin.other_beside("", Preprocess(image_size=32)) == {}


def test_without_a_network_it_is_said_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    offline(monkeypatch, OSError("no route to host\nand a long trace"))
    with pytest.raises(MissingInputError, match=r"no route to host.*connect to the network once") as caught:
        pretrained("resnet18", 3, 32)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="timm has no such model; did you mean 'resnet18'"):
        pretrained("resnet81", 3, 32)


def test_a_baseline_for_other_channels_names_both(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 channels, the run's have 5"):
        begin.other_beside(str(encoder_file(tmp_path / "e.safetensors")), Preprocess(image_size=32, channels=5))


def test_a_baseline_that_has_gone_does_not_end_a_run_that_has_begun(tmp_path: Path) -> None:
    recipe = api.compose("simsiam/scenes", api.Options(baseline=str(tmp_path / "gone.safetensors")))
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    out = io.StringIO()
    with pytest.raises(MissingInputError, match="no such encoder"):
        asked_beside(run, recipe, Progress(out))
    run.append_log({"step": 0})
    assert asked_beside(run, recipe, Progress(out)) == {}
    assert f"later: stopgrad eval {run.path} --baseline" in out.getvalue()


def test_without_a_network_the_hub_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(urllib.request, "getproxies", dict)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        with backbones._from_cache_where_offline():
            assert not constants.HF_HUB_OFFLINE
    with backbones._from_cache_where_offline():
        assert constants.HF_HUB_OFFLINE  # nobody listens there any more
    assert not constants.HF_HUB_OFFLINE
    monkeypatch.setattr(urllib.request, "getproxies", lambda: {"https": "http://proxy"})
    with backbones._from_cache_where_offline():
        assert not constants.HF_HUB_OFFLINE


def test_weights_to_begin_from_reach_the_momentum_copy_too() -> None:
    import torch

    from stopgrad.assemble.build import build_method

    def start(backbone: torch.nn.Module) -> None:
        with torch.no_grad():
            for parameter in backbone.parameters():
                parameter.fill_(0.5)

    method = build_method(api.compose("byol/scenes", api.Options()), 100, start)
    copies = list(method.target.target_backbone.parameters())  # type: ignore[union-attr, operator]
    assert copies
    assert all(bool((parameter == 0.5).all()) for parameter in copies)
