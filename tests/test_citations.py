"""What the project cites is part of it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXAMPLES = {"notes/example.md"}
"""Names of documents that a client might store."""


def test_every_document_that_code_and_docs_cite_is_in_the_project() -> None:
    pages = {path.name for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))}
    folders = ("src", "migrations", "docs", "benchmarks", "policies", "deploy")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = {
        str(path.relative_to(ROOT)): path.read_text()
        for path in (*files, *ROOT.glob("*.md"), ROOT / "pyproject.toml", ROOT / "Makefile")
        if path.suffix in (".md", ".py", ".toml", ".yaml", ".yml", ".service", "")
    }
    unknown = [
        (name, cited)
        for name, text in texts.items()
        for cited in re.findall(r"[\w./-]+\.md\b", text)
        if cited not in EXAMPLES and Path(cited).name not in pages
    ]
    assert len(texts) > 50
    assert unknown == []


def test_every_file_and_function_that_the_docs_name_is_in_the_project() -> None:
    """A page names them as `store/search/plan.py`, or `store/search/plan.py`: `choose`."""
    homes = [ROOT, *(ROOT / name for name in ("src", "src/indexd", "docs"))]
    named, missing = 0, []
    for page in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "tests/README.md"):
        for path, function in re.findall(
            r"`((?:[a-z_]+/)+[a-z_]+\.(?:py|sql|yaml))`(?:: `(\w+)`)?", page.read_text()
        ):
            named += 1
            found = next((home / path for home in homes if (home / path).exists()), None)
            if found is None:
                missing.append((page.name, path))
            elif function and not re.search(rf"(def|class) {function}\b", found.read_text()):
                missing.append((page.name, f"{path}: {function}"))
    assert named > 30
    assert missing == []


def test_code_cites_no_specification_that_only_its_first_authors_had() -> None:
    folders = ("src", "migrations")
    cited = [
        path.name
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if re.search(r"\bthe seeds\b|\bseeds:", path.read_text())
    ]
    assert cited == []
