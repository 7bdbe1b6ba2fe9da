"""The page in headless Chromium: nothing leaves, nothing complains, nothing strange runs, and the map answers."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stopgrad.assemble.report import report
from tests.reporting import made

playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    # playwright leaves its event loop to the garbage collector
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs side by side, names of which try to break out; the second has no gallery."""
    folder = tmp_path_factory.mktemp("runs")
    whole = made.run(folder / "<img src=x onerror=alert(9)>", data=made.evil_data())
    failed = made.run(folder / "b", results=None, pictures=False, state="failed", message="<script>alert(5)</script>")
    return report([whole, failed], folder / "report.html")


class Opened:
    """A page with everything it did that it should not."""

    def __init__(self, browser: Any, file: Path, width: int = 1280, **more: Any) -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 800}, **more)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append("dialog"), dialog.dismiss()))
        self.page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.log('violation', e.violatedDirective))"
        )
        self.page.goto(file.as_uri())


@pytest.fixture
def opened(browser: Any, page_file: Path) -> Iterator[Opened]:
    one = Opened(browser, page_file)
    yield one
    assert one.complaints == []
    assert [url for url in one.requests if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in one.requests) == 1
    one.page.close()


def test_names_from_outside_do_nothing(opened: Opened) -> None:
    opened.page.mouse.wheel(0, 20_000)
    opened.page.wait_for_timeout(100)
    assert opened.page.locator("img").count() == 1
    assert opened.page.locator("script").count() == 2
    assert opened.page.evaluate("[...document.querySelectorAll('*')].every(e => !e.onerror && !e.onload)")
    assert "<img src=x onerror=alert(9)>" in opened.page.locator("main").inner_text()


def test_a_script_that_is_not_the_page_s_own_does_not_run(browser: Any, page_file: Path, tmp_path: Path) -> None:
    planted = tmp_path / "planted.html"
    planted.write_text(page_file.read_text().replace("</main>", "<script>window.planted = 1</script></main>"))
    one = Opened(browser, planted)
    assert one.page.evaluate("window.planted") is None
    assert any("violat" in text for text in one.complaints)
    one.page.close()


def middle_of_a_mark(page: Any) -> tuple[float, float]:
    """Where on the screen the map's fifth image lies."""
    x, y = page.evaluate("JSON.parse(document.getElementById('data').textContent).maps[0].points[4]")
    page.locator("svg.map").scroll_into_view_if_needed()
    box = page.locator("svg.map").bounding_box()
    return box["x"] + x / 620 * box["width"], box["y"] + y / 620 * box["width"]


def test_pointing_at_the_map_shows_an_image_and_a_click_its_neighbours(opened: Opened) -> None:
    page = opened.page
    at = middle_of_a_mark(page)
    page.mouse.move(*at)
    assert page.locator(".picked > svg.thumb").count() == 1
    assert page.locator(".picked li").count() == 0
    name = page.locator(".picked .name").inner_text()
    assert name in [text.replace("\n", "\\n").replace("\u202e", "\\u202e") for text in made.EVIL_NAMES]
    page.mouse.click(*at)
    assert page.locator(".picked li svg.thumb").count() == 8
    assert page.locator(".links path").count() == 8
    page.mouse.move(at[0] + 60, at[1] + 60)
    assert page.locator(".picked .name").inner_text() == name, "what was clicked stays"
    shown = page.locator(".picked > svg.thumb").screenshot()
    assert len(set(shown)) > 50, "a picture and no blank"


def test_the_map_and_the_curves_answer_the_keyboard(opened: Opened) -> None:
    page = opened.page
    page.locator("svg.map").focus()
    page.keyboard.press("ArrowUp")
    first = page.locator(".here").get_attribute("cx"), page.locator(".here").get_attribute("cy")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator(".picked li").count() == 8
    assert first != ("-20", "-20")
    page.locator('svg.chart[data-key="loss"]').focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator('output[data-for="loss"]').inner_text().startswith("step 450:")
    page.keyboard.press("ArrowLeft")
    assert page.locator('output[data-for="loss"]').inner_text().startswith("step 400:")


def test_a_class_can_be_picked_out(opened: Opened) -> None:
    page = opened.page
    page.locator(".classes button").first.click()
    assert page.locator(".classes button").first.inner_text().strip() == made.EVIL_CLASS
    assert page.locator("svg.map.dimmed .mark.chosen").count() == 1
    page.locator(".classes button").first.click()
    assert page.locator("svg.map.dimmed").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 320])
def test_a_narrow_screen_needs_no_sideways_scroll(browser: Any, page_file: Path, width: int, scheme: str) -> None:
    one = Opened(browser, page_file, width, color_scheme=scheme)
    assert one.page.evaluate("document.documentElement.scrollWidth") <= width
    assert one.complaints == []
    one.page.close()


def test_it_prints_with_everything_unfolded(browser: Any, page_file: Path, tmp_path: Path) -> None:
    one = Opened(browser, page_file)
    one.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert one.page.locator("details:not([open])").count() == 0
    one.page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert one.page.locator("details[open]").count() == 0
    pdf = one.page.pdf(path=tmp_path / "report.pdf", format="A4")
    assert pdf.startswith(b"%PDF")
    assert one.complaints == []
    one.page.close()


def test_without_its_script_everything_but_the_map_s_answers_is_there(browser: Any, page_file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(page_file.as_uri())
    assert page.locator(".example svg.thumb").count() > 8
    assert page.locator("svg.chart .line").count() >= 5
    context.close()
