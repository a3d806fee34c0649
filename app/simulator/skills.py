"""/v1/skills and their versions, each a bundle of files."""

from __future__ import annotations

import io
import re
import zipfile
from typing import Any

from simulator import errors, resources
from simulator.blobs import Blob
from simulator.exchange import Exchange
from simulator.kinds import SKILL, SKILL_VERSION
from simulator.store import Thing

FRONT_LINE = re.compile(r"^(name|description):\s*(.+?)\s*$", re.MULTILINE)


def bundle_of(exchange: Exchange) -> tuple[dict[str, str], Blob]:
    """Name and description from SKILL.md, and all files as a zip.

    Raises:
        ApiError: there is no SKILL.md.
    """
    parts = exchange.form.files.get("files", []) if exchange.form is not None else []
    if not parts:
        raise errors.missing("files")
    packed = io.BytesIO()
    if len(parts) == 1 and parts[0].filename.endswith(".zip"):
        packed.write(parts[0].blob.read())
    else:
        with zipfile.ZipFile(packed, "w") as archive:
            for part in parts:
                archive.writestr(part.filename, part.blob.read())
    try:
        with zipfile.ZipFile(packed) as archive:
            name = next(one for one in archive.namelist() if one.rpartition("/")[2] == "SKILL.md")
            front = archive.read(name).decode("utf-8", "replace")
    except (zipfile.BadZipFile, StopIteration):
        raise errors.ApiError(400, "A skill needs a SKILL.md.", param="files") from None
    found: dict[str, str] = dict(FRONT_LINE.findall(front))
    return {"name": found.get("name", ""), "description": found.get("description", "")}, Blob(
        packed.getvalue()
    )


def add_version(exchange: Exchange, skill: Thing, described: dict[str, str], blob: Blob) -> Thing:
    """A version is found by its number, though it has an id."""
    number = str(int(skill.hidden.get("versions", 0)) + 1)
    skill.hidden["versions"] = number
    fields: dict[str, Any] = {**described, "skill_id": skill.id, "version": number}
    version = exchange.world.store.add(SKILL_VERSION, fields, id=number, parent=skill.id)
    version.document["id"] = SKILL_VERSION.new_id()
    version.hidden["blob"] = blob
    skill.document["latest_version"] = number
    return version


async def create(exchange: Exchange) -> None:
    """POST /v1/skills"""
    described, blob = bundle_of(exchange)
    skill = exchange.world.store.add(SKILL, {**described, "default_version": "1", "latest_version": "1"})
    add_version(exchange, skill, described, blob)
    exchange.call.object_id = skill.id
    await exchange.send_object(skill.document)


async def create_version(exchange: Exchange, skill_id: str) -> None:
    """POST /v1/skills/{skill_id}/versions"""
    skill = exchange.world.store.get(SKILL, skill_id)
    version = add_version(exchange, skill, *bundle_of(exchange))
    if exchange.fields().get("default") == "true":
        skill.document["default_version"] = version.id
    await exchange.send_object(version.document)


async def delete_version(exchange: Exchange, *ids: str) -> None:
    """DELETE /v1/skills/{skill_id}/versions/{version}"""
    version = resources.resolve(exchange, (SKILL, SKILL_VERSION), ids)
    exchange.world.store.remove(version)
    deleted = {"id": version.document["id"], "object": "skill.version.deleted", "deleted": True}
    await exchange.send_object({**deleted, "version": version.id})


async def content(exchange: Exchange, *ids: str) -> None:
    """GET /v1/skills/{skill_id}/content and /v1/skills/{skill_id}/versions/{version}/content"""
    skill = exchange.world.store.get(SKILL, ids[0])
    number = ids[1] if len(ids) > 1 else skill.document["default_version"]
    version = exchange.world.store.get(SKILL_VERSION, number, skill.id)
    await exchange.send_blob(b"application/zip", version.hidden["blob"])


ROUTES = (
    ("POST", "skills", create),
    ("GET", "skills/{}/content", content),
    ("POST", "skills/{}/versions", create_version),
    ("DELETE", "skills/{}/versions/{}", delete_version),
    ("GET", "skills/{}/versions/{}/content", content),
)
RESOURCES = (
    resources.Resource("skills", (SKILL,), "list get update delete"),
    resources.Resource("skills/{}/versions", (SKILL, SKILL_VERSION), "list get"),
)
