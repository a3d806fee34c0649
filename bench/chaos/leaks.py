"""Looks for secrets in everything that a run left behind: logs, databases, spools, command lines."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

# The gateway's own keys: `users.models.new_secret`. There are thousands of them; whatever looks like one is
# looked up. A key may stand right behind letters of something else, so each place where one begins counts.
_KEY = re.compile(rb"(?=(sk-tg-[A-Za-z0-9_-]{43}))")


def find_leaks(
    files: Iterable[Path], titles: Iterable[bytes], secrets: Mapping[str, Iterable[str]]
) -> list[str]:
    """A line for each secret in a file or in a command line; `secrets` are by what they are.

    It is found wherever it stands, within a longer word too, and not repeated in the answer.
    """
    names = {secret.encode(): name for name, some in secrets.items() for secret in some}
    others = [secret for secret in names if not _KEY.match(secret)]
    places = [(str(path), path.read_bytes()) for path in files if path.is_file()]
    places += [("a command line", title) for title in titles]
    found = []
    for place, content in places:
        leaked = names.keys() & set(_KEY.findall(content))
        leaked |= {secret for secret in others if secret in content}
        found += [f"{name} stands in {place}" for name in sorted({names[secret] for secret in leaked})]
    return found


def process_titles(pids: Iterable[int]) -> list[bytes]:
    """What `ps` shows of processes: their command lines. Those that have ended are left out."""
    shown = []
    for pid in pids:
        try:
            shown.append(Path(f"/proc/{pid}/cmdline").read_bytes())
        except FileNotFoundError:
            continue
    return shown
