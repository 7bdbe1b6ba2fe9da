"""Sounds of a gallery: WAV, cut to what a page holds, of what is shown by itself; and a page that plays them."""

import base64
import io
import json
import shutil
import time
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stopgrad.contracts import DataError
from stopgrad.eval.players import wav, wavs
from stopgrad.reporting.found import read_gallery
from stopgrad.reporting.page import policy
from tests.reporting import made

SOUND = np.random.default_rng(0).integers(-32768, 32768, 4000, np.int16)
RATE = 2000  # 2 seconds of it
CHROMIUM = shutil.which("chromium")


def read(file: bytes) -> tuple[int, int, int, bytes]:
    """Channels, bytes a sample, rate, samples."""
    with wave.open(io.BytesIO(file)) as opened:
        return opened.getnchannels(), opened.getsampwidth(), opened.getframerate(), opened.readframes(1 << 20)


def test_a_file_holds_the_sound_as_it_is() -> None:
    assert read(wavs([(7, (SOUND, 8000))])[7]) == (1, 2, 8000, SOUND.astype("<i2").tobytes())


def test_of_a_long_sound_the_beginning_is_heard() -> None:
    assert read(wav(SOUND, 8000, seconds=0.25))[3] == SOUND[:2000].astype("<i2").tobytes()
    assert len(read(wav(SOUND, 8000, seconds=0.0))[3]) == 2


def test_a_rate_that_no_browser_plays_is_raised() -> None:
    assert read(wav(SOUND[:3], 2000)) == (1, 2, 4000, SOUND[:3].repeat(2).astype("<i2").tobytes())


def test_once_the_room_is_spent_the_others_are_silent() -> None:
    one = len(wav(SOUND, 8000))
    assert list(wavs([(at, (SOUND, 8000)) for at in (9, 3, 5, 1)], room=2 * one + 10)) == [9, 3]


def test_what_is_silent_is_left_out() -> None:
    assert list(wavs([(0, None), (1, (SOUND, 8000)), (2, None)])) == [1]


@pytest.mark.parametrize("wrong", [SOUND.astype(np.float32), SOUND.reshape(2, -1), SOUND.astype(np.int32)])
def test_what_is_no_stored_sound_is_refused(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"needed is int16, \[length\], mono"):
        wav(wrong, 8000)


def with_sounds(run: Path, positions: list[Any]) -> Path:
    """A run whose gallery has a sound at each of these positions."""
    index = json.loads((run / "gallery" / "gallery.json").read_text())
    (run / "gallery" / "gallery.json").write_text(json.dumps({**index, "sounds": positions}))
    (run / "gallery" / "sounds").mkdir()
    for at in positions:
        (run / "gallery" / "sounds" / f"{at}.wav").write_bytes(wav(SOUND, RATE))
    return run


def test_a_gallery_is_read_with_its_sounds(tmp_path: Path) -> None:
    run = with_sounds(made.run(tmp_path / "run"), [0, 3, 4])
    (run / "gallery" / "sounds" / "3.wav").unlink()
    (run / "gallery" / "sounds" / "4.wav").write_bytes(b"<script>")
    found = read_gallery(run / "gallery")
    assert found is not None
    assert list(found.sounds) == [0]
    head, _, text = found.sounds[0].partition(",")
    assert head == "data:audio/wav;base64"
    assert base64.b64decode(text, validate=True) == wav(SOUND, RATE)
    assert found.size > len(found.sounds[0]) + len(found.thumbs)


def test_a_position_that_is_none_spoils_the_gallery(tmp_path: Path) -> None:
    run = made.run(tmp_path / "run")
    index = json.loads((run / "gallery" / "gallery.json").read_text())
    for wrong in (["../../../etc/passwd"], [-1], [True], 5):
        (run / "gallery" / "gallery.json").write_text(json.dumps({**index, "sounds": wrong}))
        assert read_gallery(run / "gallery") is None


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_browser_plays_a_neighbour_and_nothing_from_elsewhere(tmp_path: Path) -> None:
    from stopgrad.assemble.report import report

    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    run = made.run(tmp_path / "run")
    index = json.loads((run / "gallery" / "gallery.json").read_text())
    with_sounds(run, index["examples"])
    (tmp_path / "beside.wav").write_bytes(wav(SOUND, 8000))
    (tmp_path / "other.html").write_text(
        f'<meta http-equiv="Content-Security-Policy" content="{policy("", "")}"><audio src="beside.wav"></audio>'
    )
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        page = browser.new_page()
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(report(run).as_uri())
        buttons = page.locator(".query .play")
        assert buttons.count() == len(index["examples"])
        first, second = buttons.nth(0), buttons.nth(1)
        first.click()
        assert first.inner_text() == "■"
        second.click()
        assert (first.inner_text(), second.inner_text()) == ("▶", "■")
        playwright.expect(second).to_have_text("▶")  # it came to its end
        assert problems == []
        page.goto((tmp_path / "other.html").as_uri())
        deadline = time.monotonic() + 20
        while not page.evaluate("document.querySelector('audio').error !== null") and time.monotonic() < deadline:
            page.wait_for_timeout(50)
        assert page.evaluate("document.querySelector('audio').error !== null")
        browser.close()
