"""Every operation that the gateway offers, one row each; what is not listed is refused.

Routing, metering, ownership and the Swagger page read these rows: adding an endpoint is adding a row.
"""

import re
from collections.abc import Mapping

from common.errors import MethodNotAllowed, NotFound
from openai_app.catalogue import (
    assistants,
    audio,
    batches,
    chat,
    containers,
    conversations,
    evals,
    files,
    fine_tuning,
    images,
    legacy,
    models,
    provenance,
    responses,
    runs,
    sessions,
    skills,
    text,
    threads,
    vector_stores,
    videos,
)
from openai_app.catalogue.operation import Operation

CATALOGUE: tuple[Operation, ...] = (
    *models.OPERATIONS,
    *responses.OPERATIONS,
    *conversations.OPERATIONS,
    *chat.OPERATIONS,
    *text.OPERATIONS,
    *images.OPERATIONS,
    *audio.OPERATIONS,
    *videos.OPERATIONS,
    *files.OPERATIONS,
    *batches.OPERATIONS,
    *fine_tuning.OPERATIONS,
    *evals.OPERATIONS,
    *vector_stores.OPERATIONS,
    *containers.OPERATIONS,
    *skills.OPERATIONS,
    *assistants.OPERATIONS,
    *threads.OPERATIONS,
    *runs.OPERATIONS,
    *sessions.OPERATIONS,
    *provenance.OPERATIONS,
    *legacy.OPERATIONS,
)
_FIXED: dict[str, dict[str, Operation]] = {}
# By the first segment of the path, so that a call is compared with few.
_TEMPLATES: dict[str, list[tuple[re.Pattern[str], Operation]]] = {}
for _operation in CATALOGUE:
    for _path, _pattern in zip(_operation.paths, _operation.patterns, strict=True):
        if "{" in _path:
            _TEMPLATES.setdefault(_path.split("/")[1], []).append((_pattern, _operation))
        else:
            _FIXED.setdefault(_path, {})[_operation.method] = _operation


def match(method: str, path: str) -> tuple[Operation, Mapping[str, str]]:
    """The row for a path below the prefix, and the values of its slots.

    Raises NotFound for a path that is not listed, MethodNotAllowed for one listed with other methods.
    """
    fixed = _FIXED.get(path)
    if fixed is not None and method in fixed:
        return fixed[method], {}
    listed = set()
    for pattern, operation in _TEMPLATES.get(path[1:].partition("/")[0], ()):
        found = pattern.fullmatch(path)
        if found is not None:
            if operation.method == method:
                return operation, found.groupdict()
            listed.add(operation.method)
    if fixed or listed:
        # Where a path is listed by itself, what it would be as an id is of no use to anybody.
        raise MethodNotAllowed(f"Not allowed to {method} on {path}.", allowed=fixed or listed)
    raise NotFound(f"Unknown request URL: {method} {path}. See the list at /api/docs.", code="unknown_url")


__all__ = ["CATALOGUE", "Operation", "match"]
