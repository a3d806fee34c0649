"""What is written for people holds: commands are run, and every variable is explained."""

import re
import subprocess
from decimal import Decimal
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.conf import settings

from balances.models import MICRO
from balances.rates import DEFAULT_MICRO_CREDITS
from gateway.tests.running import database, running
from gateway.tests.test_serve import paste

README = (settings.ROOT / "README.md").read_text(encoding="utf-8")
VARIABLE = r"[A-Z][A-Z_]+"


def read() -> set[str]:
    """The variables that the settings read."""
    source = (settings.ROOT / "app" / "gateway" / "settings.py").read_text(encoding="utf-8")
    return set(re.findall(rf'ENV\.\w+\("({VARIABLE})"', source))


def compose() -> dict[str, Any]:
    document = yaml.safe_load((settings.ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def test_the_example_file_explains_exactly_the_variables_that_are_read() -> None:
    text = (settings.ROOT / ".env.example").read_text(encoding="utf-8")
    assert set(re.findall(rf"^({VARIABLE})=", text, re.MULTILINE)) == read()


def test_the_readme_lists_exactly_the_variables_that_are_read() -> None:
    table = README.partition("## Configuration")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("| `")]
    assert set(re.findall(rf"`({VARIABLE})`", " ".join(rows))) == read()


def test_compose_hands_on_every_variable_that_is_not_the_images_own() -> None:
    of_the_image = {"DATA_DIR", "HOST", "PORT", "STATIC_ROOT"}
    of_the_way_out = {"HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"}
    handed_on = set(compose()["services"]["gateway"]["environment"])
    assert handed_on == read() - of_the_image | of_the_way_out


def test_the_table_of_rates_is_what_the_gateway_comes_with() -> None:
    text = (settings.ROOT / "docs" / "rates.md").read_text(encoding="utf-8")
    rows = [
        [cell.strip(" `") for cell in row.split("|")[1:4]]
        for row in re.findall(r"^\| .+", text, re.MULTILINE)
    ]
    written = {(row[0], row[1]): Decimal(row[2].replace(",", "")) for row in rows if row[2] != "credits"}
    seeded = import_module("openai_app.migrations.0002_default_rates")
    rates = {(model, unit): Decimal(dollars) * 100_000 for model, unit, dollars in seeded.DOLLARS}
    rates |= {(model, unit): Decimal(credits) for model, unit, credits in seeded.CREDITS}
    rates |= {("any other", unit): Decimal(micro) / MICRO for unit, micro in DEFAULT_MICRO_CREDITS.items()}
    assert written == rates


def test_compose_waits_for_its_database_and_keeps_data_in_volumes() -> None:
    document = compose()
    gateway, database_service = document["services"]["gateway"], document["services"]["database"]
    assert gateway["depends_on"]["database"]["condition"] == "service_healthy"
    for service in (gateway, database_service):
        for volume in service["volumes"]:
            assert volume.partition(":")[0] in document["volumes"]


def test_the_make_targets_that_the_readme_names_exist() -> None:
    targets = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"run", "test", "check", "bench"} <= targets
    for target in targets:
        subprocess.run(["make", "-n", target], cwd=settings.ROOT, check=True, capture_output=True)


def test_every_requirement_is_pinned_to_an_exact_version() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (settings.ROOT / name).read_text(encoding="utf-8").splitlines():
            if line and not line.startswith(("#", "-r ")):
                assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*(; .+)?", line), line


@pytest.mark.xdist_group("serve")
def test_the_readmes_first_call_works_word_for_word(tmp_path: Path) -> None:
    (script,) = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    with database() as variables, running(tmp_path / "data", **variables) as gateway:
        password = re.search(r"shown this once: (\S+)", gateway.printed)
        assert password
        script = script.replace("http://127.0.0.1:8000", gateway.url)
        script = script.replace("the-password-that-was-printed", password[1])
        user, given, answer, balance = paste([script])
    assert user["email"] == "alice@example.org"
    assert given["balance"] == 30
    assert answer["object"] == "chat.completion"
    assert 0 < answer["usage"]["total_tokens"] <= 30
    assert balance == {
        "user": given["user"],
        "balance": 30 - answer["usage"]["total_tokens"],
        "held": 0,
        "available": 30 - answer["usage"]["total_tokens"],
    }
