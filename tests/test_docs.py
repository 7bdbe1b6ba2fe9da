"""Links between the documents lead somewhere, and headings they name are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")


def prose(document: Path) -> str:
    """Without fenced blocks: what they hold is no link."""
    return re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(document: Path) -> set[str]:
    """What a reader of Markdown makes of the headings: small letters, blanks to hyphens, no punctuation."""
    headings = re.findall(r"^#+\s+(.+)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for found in LINK.finditer(prose(document)):
        target = found.group(1) or found.group(2)
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        path, _, anchor = target.partition("#")
        place = (document.parent / path) if path else document
        assert place.exists(), f"{document.name}: {target} is not there"
        assert not anchor or anchor in anchors(place), f"{document.name}: no heading {target}"


def test_every_document_can_be_reached_from_the_readme() -> None:
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        document = todo.pop()
        seen.add(document)
        for found in LINK.finditer(prose(document)):
            path = (document.parent / (found.group(1) or found.group(2)).partition("#")[0]).resolve()
            found_here = sorted(path.glob("*.md")) if path.is_dir() else [path]
            todo += [one for one in found_here if one.suffix == ".md" and one.exists() and one not in seen]
    assert set(DOCUMENTS) <= seen
