"""Documents that say "this test proves it" are right: the test exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from django.conf import settings

DOCUMENTS = sorted((settings.ROOT / "docs").glob("*.md"))
LESSONS = settings.ROOT / "docs" / "lessons.md"
# `app/…/test_x.py::test_name` or, for one of its cases, `app/…/test_x.py::test_name[case]`.
NAMED = re.compile(r"`([\w./-]+\.py)::(\w+)(?:\[[^`\]]*\])?`")


@cache
def names_in(path: Path) -> frozenset[str]:
    """The names of the tests in a file; none if there is no such file."""
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(each.name for each in tree.body if isinstance(each, kinds))


def named_in(text: str) -> list[tuple[str, str]]:
    """(path, test) of all tests that a text names."""
    return NAMED.findall(text)


def rows_of_lessons() -> list[str]:
    """The rows of the tables, less their heads."""
    rows = [line for line in LESSONS.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    return [row for row in rows if not row.startswith(("|---", "| what went wrong |"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_test_that_a_document_names_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = named_in(text)
    missing = [f"{path}::{test}" for path, test in named if test not in names_in(settings.ROOT / path)]
    assert missing == []
    assert all(Path(path).parts[0] == "app" and test.startswith("test_") for path, test in named)
    # None is misspelled so that it was not looked for.
    assert text.count(".py::") == len(named)


@pytest.mark.parametrize("row", rows_of_lessons(), ids=lambda row: row[2:60])
def test_every_lesson_has_a_test(row: str) -> None:
    wrong, rule, tests = (cell.strip() for cell in row.strip("|").split(" | "))
    assert wrong
    assert rule
    assert named_in(tests)


def test_the_lessons_are_those_of_five_tables() -> None:
    headings = re.findall(r"^## (.*)$", LESSONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [
        "Money",
        "Streams and clients that go away",
        "Endpoints that cost nothing by mistake",
        "Other people's things",
        "Running it",
    ]
    assert len(rows_of_lessons()) >= 40


def test_every_test_written_for_the_lessons_is_listed() -> None:
    """A file of lessons has no test that the list does not know."""
    listed = {test for _, test in named_in(LESSONS.read_text(encoding="utf-8"))}
    written = {
        test
        for path in (settings.ROOT / "app").rglob("test_lessons_*.py")
        for test in names_in(path)
        if test.startswith("test_")
    }
    assert written - listed == set()
