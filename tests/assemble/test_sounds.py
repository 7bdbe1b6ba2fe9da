"""A folder of sounds, from `stopgrad train cpc` to its encoder, as any folder of images."""

import json
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stopgrad.assemble import api, use
from stopgrad.assemble.draw_views import draw_views
from stopgrad.assemble.pictured_views import SIDE
from stopgrad.assemble.preflight import check
from stopgrad.assemble.train import Finished
from stopgrad.contracts import ConfigError, DataError, MissingInputError
from stopgrad.data.sound_probe import holds_sounds
from stopgrad.recipe.text import load as load_recipe
from stopgrad.rundir import RunDir
from stopgrad.training.progress import Progress
from tests.data.sounds import RATE, tone, wav

pytest.importorskip("soundfile")

QUIET = Progress(quiet=True)
SMALL = (
    "backbone.width=16",
    "backbone.context=16",
    "method.steps=2",
    "method.drawn=0",
    "loop.batch_size=8",
    "loop.threads=1",
    "loop.view_threads=1",
    "watch={every_steps: 2, images: 20, knn_every_steps: 100, knn_bank: 20}",
    "eval={random_seeds: 1, k: [3], retrieval_images: 8}",
    "data.pattern=_(?P<speaker>[a-z]+)_",
)


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and test/, a class a pitch, a speaker a loudness: 40 and 12 sounds of 0.2 to 0.3 s, one of them broken."""
    root = tmp_path_factory.mktemp("spoken")
    random = np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 6)):
        for label, hertz in (("low", 220.0), ("high", 880.0)):
            folder = root / part / label
            folder.mkdir(parents=True)
            for i in range(count):
                speaker, peak = (("ann", 0.2), ("bo", 0.6))[i % 2]
                sound = tone(hertz * random.uniform(0.9, 1.1), seconds=random.uniform(0.2, 0.3), peak=peak)
                noisy = sound + 0.02 * random.standard_normal(len(sound))
                (folder / f"{label}_{speaker}_{i}.wav").write_bytes(wav(noisy))
    (root / "train" / "low" / "low_ann_99.wav").write_bytes(b"RIFF but no sound")
    return root


def trained(source: Path, out: Path, name: str = "run", *more: str, epochs: int = 2) -> Finished:
    settings = (*SMALL, *more)
    return api.train("cpc", out=out, name=name, data=str(source), epochs=epochs, progress=QUIET, settings=settings)


@pytest.fixture(scope="module")
def run(spoken: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return trained(spoken, tmp_path_factory.mktemp("runs"))


def test_digits_and_speakers_are_scored_beside_mfcc_and_an_untrained_encoder(run: Finished) -> None:
    found = {row.name: row for row in run.results}
    for kind in ("knn_top1", "linear_top1", "knn_top1_speaker", "linear_top1_speaker"):
        for who in ("", "baseline_random_", "baseline_mfcc_"):
            assert 0 <= found[who + kind].value <= 100  # type: ignore[operator]
    assert "baseline_pixels_knn_top1" not in found
    assert found["baseline_mfcc_linear_top1"].value == 100.0  # two pitches, to anybody who looks at the spectrum
    assert "the middle" in found["knn_top1"].protocol
    assert found["verdict"].value in ("too_early", "healthy", "not_learning", "partly_collapsed", "collapsed")


def test_the_run_folder_is_that_of_any_run(run: Finished) -> None:
    recipe = load_recipe(run.path / "recipe.yaml")
    assert (recipe.data.kind, recipe.views.kind, recipe.backbone.name) == ("audio", "audio", "cpc_audio")
    assert "low_ann_99.wav" in (run.path / "bad_files.csv").read_text()
    gallery = json.loads((run.path / "gallery" / "gallery.json").read_text())
    assert gallery["of"] == {"test": 12, "train": 40}
    heard = {*gallery["examples"], *(j for i in gallery["examples"] for j in gallery["neighbours"]["index"][i])}
    assert heard <= {*gallery["sounds"]}
    for at in gallery["sounds"]:
        with wave.open(str(run.path / "gallery" / "sounds" / f"{at}.wav")) as file:
            assert (file.getframerate(), file.getnchannels()) == (recipe.views.sample_rate, 1)  # type: ignore[union-attr]
            assert 0.2 * 0.9 < file.getnframes() / file.getframerate() < 0.3 * 1.1
    assert (run.path / "encoder.safetensors").exists()


def test_the_same_recipe_gives_the_same_bits_also_when_it_was_stopped(
    run: Finished, spoken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stopgrad.training import loop

    real, steps = loop.one_step, iter(range(100))

    def stopping(*given: object) -> object:
        if next(steps) == 5:
            raise KeyboardInterrupt
        return real(*given)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(loop, "one_step", stopping)
        with pytest.raises(Exception, match="resume"):
            trained(spoken, tmp_path)
    again = api.resume(tmp_path / "run", progress=QUIET)
    assert (again.path / "encoder.safetensors").read_bytes() == (run.path / "encoder.safetensors").read_bytes()


def test_the_encoder_is_exported_and_used_elsewhere(run: Finished, spoken: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    done = use.export(run.path, tmp_path / "voice.onnx", progress=QUIET)
    assert done.difference is not None
    assert done.difference <= 1e-5
    assert any("waveform" in line for line in done.lines)
    found = use.embed(run.path, spoken, progress=QUIET)
    assert found.features.shape == (52, 16)
    encoder = api.load(run.path)
    query = spoken / "test" / "low" / "low_ann_0.wav"
    sample = use.read_query(query, encoder, use.kept_as(run.path))
    opened = use.open_for(encoder, spoken, None, use.kept_as(run.path))
    near = use.neighbours(encoder, opened, sample, 3, own=use.name_in(str(spoken), query))
    assert len(near) == 3
    assert query.name not in [one.name for one in near]
    assert use.picture(sample, encoder).shape == (128, 128, 3)
    inside = use.embed(encoder, [tone(440).astype(np.float32), np.zeros(7, np.int16)])
    assert np.isfinite(inside.features).all()


def test_check_says_what_there_is_and_what_a_run_would_do(spoken: Path) -> None:
    found = check(str(spoken), method="cpc", timed=False, progress=QUIET)
    lines = {title: dict(lines) for title, lines in found.sections}
    assert "40 for training, 12 for the test" in lines["Sounds"]["counted"]
    assert "seconds" in lines["Sizes"]["length"]
    assert found.problem == ""
    assert any("views.sample_rate 8000" in line for _, line in dict(found.sections)["Suggested"])


def test_sounds_are_told_from_images_by_what_is_there(spoken: Path, tmp_path: Path) -> None:
    assert holds_sounds(str(spoken))
    for other in ("scenes-v1", "hf:x", str(tmp_path), str(tmp_path / "nothing")):
        assert not holds_sounds(other)
    with pytest.raises(ConfigError, match="only cpc reads sounds"):
        api.compose("simsiam", api.Options(data=str(spoken)))
    with pytest.raises((DataError, MissingInputError, ConfigError)):
        api.train("cpc/audio_small", out=tmp_path, data=str(tmp_path), progress=QUIET)


def test_a_grouping_is_told_by_name_and_a_missing_one_is_an_error(spoken: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"needs data\.group.*the data has: speaker"):
        trained(spoken, tmp_path, "a", "method.negatives=same_group")
    run = trained(spoken, tmp_path, "b", "method.negatives=same_group", "data.group=speaker", epochs=1)
    losses = [line["loss"] for line in RunDir(run.path).read_log() if "loss" in line]
    assert losses
    assert np.isfinite(losses).all()


def test_views_of_sounds_can_be_looked_at(spoken: Path, tmp_path: Path) -> None:
    options = api.Options(data=str(spoken))
    picture, rows = draw_views("cpc", tmp_path / "views.png", options=options, images=3, epochs=2, progress=QUIET)
    assert rows == 3
    with Image.open(picture) as shown:
        assert shown.size == (3 * (SIDE + 6), 3 * (SIDE + 6))  # as it is, and a window of each epoch


def test_settings_of_images_are_refused(spoken: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is for images"):
        api.compose("cpc", api.Options(data=str(spoken), image_size=64))
    with pytest.raises(ConfigError, match="channels"):
        trained(spoken, tmp_path, "a", "data.channels=1")


def test_the_rate_is_that_of_the_sounds(spoken: Path) -> None:
    recipe, why = api.choose("cpc", api.Options(data=str(spoken)))
    assert recipe.views.sample_rate == RATE  # type: ignore[union-attr]
    assert any("Hz is what most of the sounds have" in line for line in why)
