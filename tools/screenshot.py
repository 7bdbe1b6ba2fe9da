"""Screenshots of a report, as a reader has it: `python tools/screenshot.py runs/demo/report.html -o docs/report.png`.

Needs playwright (extra dev) and Debian's chromium. One picture at the given width; with --all a folder of them: wide
and narrow, light and dark, and the print as PDF.
"""

from __future__ import annotations

import argparse
import io
import shutil
from pathlib import Path
from typing import Any

from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("report", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help="a .png; with --all a folder")
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--height", type=int, default=0, help="of the page's top part that is kept; 0: all of it")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--all", action="store_true")
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if given.all:
            given.output.mkdir(parents=True, exist_ok=True)
            for width in (1280, 390):
                for dark in (False, True):
                    name = f"{width}-{'dark' if dark else 'light'}.png"
                    (given.output / name).write_bytes(small(picture(browser, given.report, width, 0, dark)))
            page = browser.new_page()
            page.goto(given.report.resolve().as_uri())
            page.pdf(path=given.output / "print.pdf", format="A4", margin=dict.fromkeys(("top", "bottom"), "14mm"))
        else:
            taken = picture(browser, given.report, given.width, given.height, given.dark)
            given.output.write_bytes(small(taken))
        browser.close()


def picture(browser: Any, report: Path, width: int, height: int, dark: bool) -> bytes:
    """A PNG of the whole page, or of its upper `height` pixels, with a place of the map chosen."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    page.goto(report.resolve().as_uri())
    for each in page.locator("svg.map").all():
        each.scroll_into_view_if_needed()
        each.focus()
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Enter")
        each.evaluate("node => node.blur()")
    page.evaluate("scrollTo(0, 0)")
    clip = {"x": 0, "y": 0, "width": width, "height": height} if height else None
    taken: bytes = page.screenshot(full_page=True, clip=clip)
    page.close()
    return taken


def small(png: bytes) -> bytes:
    """The same picture in 128 colours where it would be large: a few hundred KB fit into a repository."""
    if len(png) < 250_000:
        return png
    out = io.BytesIO()
    Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


if __name__ == "__main__":
    main()
