"""What metering sees of a multipart form.

A form is a dict from field names to values: a text field is a string, a file a `FormFile`. Where a name
comes more than once (``image[]``), its values are in a list, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass

# So much of a file is kept for reading its header.
HEAD_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class FormFile:
    """A file of a form. `size` in bytes; `seconds` where it is known already, else the head is read."""

    name: str
    content_type: str
    size: int
    head: bytes
    seconds: float | None = None
