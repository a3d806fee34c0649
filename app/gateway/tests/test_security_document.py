"""docs/security.md names the tests that prove it, and they exist."""

import re
from pathlib import Path

from django.conf import settings

DOCUMENT = (settings.ROOT / "docs" / "security.md").read_text(encoding="utf-8")
FILES: list[Path] = sorted((settings.ROOT / "app").rglob("test_*.py"))


def test_every_test_that_is_named_exists() -> None:
    written = set(
        re.findall(r"def (test_\w+)\(", "\n".join(path.read_text(encoding="utf-8") for path in FILES))
    )
    files = {path.name for path in FILES}
    named = set(re.findall(r"`(test_\w+(?:\.py)?)`", DOCUMENT))
    assert len(named) > 60
    assert named - written - files == set()


def test_every_threat_has_a_test() -> None:
    rows = [
        line for line in DOCUMENT.splitlines() if line.startswith("| ") and not line.startswith("| attack")
    ]
    assert len(rows) > 30
    for row in rows:
        attack, against, proof = (cell.strip() for cell in row.strip("|").split("|"))
        assert attack
        assert against
        assert "`test_" in proof, row
