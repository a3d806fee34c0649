"""Imports between the apps run one way: openai_app → balances → users → common."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

APP = Path(__file__).resolve().parents[2]
# What each app may import, itself aside. The gateway composes them all and is imported by none.
ALLOWED = {
    "common": set(),
    "users": {"common"},
    "balances": {"users", "common"},
    "openai_app": {"balances", "users", "common"},
    "simulator": {"common"},
    "gateway": {"openai_app", "balances", "users", "common", "simulator"},
}
# Balances know nothing of the upstream or of the wire; their /api/ views are Django's.
FOREIGN_TO_BALANCES = {
    "openai",
    "tiktoken",
    "aiohttp",
    "uvicorn",
    "httpx",
    "httpx2",
    "http",
    "asyncio.streams",
}


def imports_of(app: str) -> Iterator[tuple[Path, str]]:
    """Each module that a file of the app imports anywhere in it, tests aside."""
    for path in sorted((APP / app).rglob("*.py")):
        if "tests" in path.relative_to(APP).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield path.relative_to(APP), alias.name
            elif isinstance(node, ast.ImportFrom):
                yield path.relative_to(APP), app if node.level else node.module or ""


def test_every_app_has_its_rule() -> None:
    assert {path.parent.name for path in APP.glob("*/__init__.py")} <= set(ALLOWED)


@pytest.mark.parametrize("app", ALLOWED)
def test_an_app_imports_only_the_apps_below_it(app: str) -> None:
    forbidden = set(ALLOWED) - ALLOWED[app] - {app}
    assert [
        f"{path} imports {module}" for path, module in imports_of(app) if module.split(".")[0] in forbidden
    ] == []


def test_balances_hear_of_neither_the_upstream_nor_its_wire() -> None:
    assert [
        f"{path} imports {module}"
        for path, module in imports_of("balances")
        if module.split(".")[0] in FOREIGN_TO_BALANCES
    ] == []
