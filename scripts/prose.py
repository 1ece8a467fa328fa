"""Refuse riddling phrases in comments, docstrings and pages: `scripts/prose.py [PATH ...]`.

Without arguments it reads CLEAN, which `make check` keeps clean. Each finding is
one line, PATH:LINE: phrase; the exit code is 1 if there is one. A phrase is found across the end of
a line, too. Code is not looked at, neither in Python (strings that are no docstring) nor in a page
(what stands between ``` fences).
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

CLEAN = (
    *("migrations", "scripts", "deploy", "docs", "policies", "CHANGELOG.md"),
    *("README.md", "CONTRIBUTING.md", "Makefile", "Dockerfile", "docker-compose.yml"),
    *("pyproject.toml", ".pre-commit-config.yaml"),
    *("src", "tests", "benchmarks"),
)
"""Places where no finding is left: all that people read."""

PHRASES = (
    r"so many (?:seconds|times|of|rows|chunks|requests)\b",
    r"in vain\b",
    r"as far as (?:any|there)",
    r"what there is\b",
    r"of such a kind\b",
    r"nobody learns\b",
    r"plays no part\b",
    r"than come\b",
    r"goes by it\b",
)
"""Each made a reader guess: a noun, a unit or the one who acts is missing."""

RIDDLE = re.compile(r"\b(?:" + "|".join(PHRASES).replace(" ", r"\s+") + ")", re.IGNORECASE)

HASHED = {".toml", ".yaml", ".yml", ".mako"}
"""Kinds of files whose comments begin with #; so do those without a suffix."""


class Finding(NamedTuple):
    path: Path
    line: int
    phrase: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase}"


class Passage(NamedTuple):
    """Text that is to be read by people, and the number of its first line."""

    line: int
    text: str


def findings(path: Path) -> list[Finding]:
    """Of one file, in the order of its lines."""
    text = path.read_text()
    found = [
        Finding(path, passage.line + passage.text.count("\n", 0, match.start()), _plain(match[0]))
        for passage in passages(path, text)
        for match in RIDDLE.finditer(passage.text)
    ]
    return sorted(found)


def passages(path: Path, text: str) -> Iterator[Passage]:
    if path.suffix == ".py":
        yield from _comments(text)
        yield from _docstrings(text)
    elif path.suffix == ".md":
        yield Passage(1, _without_code(text))
    elif path.suffix in HASHED or not path.suffix:
        yield from _joined(_hashed(text))


def files(places: Iterable[Path]) -> Iterator[Path]:
    """Files that hold text for people: these, and those in these folders."""
    for place in places:
        inside = sorted(place.rglob("*")) if place.is_dir() else [place]
        for path in inside:
            if path.is_file() and (path.suffix in {".py", ".md", *HASHED} or path == place):
                yield path


def _comments(text: str) -> Iterator[Passage]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    yield from _joined(
        (token.start[0], token.string.lstrip("# "))
        for token in tokens
        if token.type == tokenize.COMMENT
    )


def _docstrings(text: str) -> Iterator[Passage]:
    """Strings that stand alone: docstrings, and those below a constant."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            value = node.value.value
            if isinstance(value, str):
                yield Passage(node.lineno, value)


def _hashed(text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        _, mark, comment = line.partition("#")
        if mark:
            yield number, comment.lstrip("# ")


def _joined(lines: Iterable[tuple[int, str]]) -> Iterator[Passage]:
    """Comments on consecutive lines are one passage."""
    first, previous, texts = 0, -1, list[str]()
    for number, line in lines:
        if number != previous + 1:
            if texts:
                yield Passage(first, "\n".join(texts))
            first, texts = number, []
        texts.append(line)
        previous = number
    if texts:
        yield Passage(first, "\n".join(texts))


def _without_code(page: str) -> str:
    """The page with as many lines, those of its code blocks empty."""
    lines, inside = [], False
    for line in page.splitlines():
        fence = line.lstrip().startswith("```")
        lines.append("" if inside or fence else line)
        inside ^= fence
    return "\n".join(lines)


def _plain(phrase: str) -> str:
    return " ".join(phrase.split()).lower()


def main(arguments: list[str]) -> int:
    paths = dict.fromkeys(files(Path(name) for name in arguments or CLEAN))
    found = [one for path in paths for one in findings(path)]
    for one in found:
        print(one)
    if found:
        print(f"{len(found)} riddling phrases: name who acts, on what, and in which unit")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
