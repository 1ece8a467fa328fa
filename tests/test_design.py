"""Every design decision is listed, has all its parts, and links to pages and tests that exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECORDS = sorted((ROOT / "docs" / "design").glob("0*.md"))
HEADINGS = ["Context", "Decision", "Evidence", "Consequences", "Alternatives"]
PAGES = [
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "tests/README.md")),
]


def test_every_record_is_listed_once_and_numbered_without_a_gap() -> None:
    index = (ROOT / "docs" / "design" / "README.md").read_text()
    assert re.findall(r"\]\((0\d+-[a-z-]+\.md)\)", index) == [record.name for record in RECORDS]
    numbers = [int(record.name[:4]) for record in RECORDS]
    assert numbers == list(range(1, len(RECORDS) + 1))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.stem)
def test_a_record_has_its_number_in_its_title_and_all_five_parts(record: Path) -> None:
    text = record.read_text()
    assert text.startswith(f"# {record.name[:4]}: ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS


def test_every_page_of_docs_is_in_its_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text()
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+)", index)}
    pages = {page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "design"}
    assert pages - {ROOT / "docs" / "README.md"} - linked == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"(?<!!)\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), target
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(page: Path) -> None:
    for name in re.findall(r"tests/test_\w+\.py", page.read_text()):
        assert (ROOT / name).exists(), name


def anchors(page: Path) -> set[str]:
    """Those of its headings, as they are made where it is shown."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {
        re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings
    }
