"""Sessions in the database under a digest of their keys, so that who reads the database gets into none."""

import hashlib
from typing import Any

from django.contrib.sessions.backends.db import SessionStore as DatabaseStore
from django.contrib.sessions.models import Session
from django.utils import timezone

# The width of Django's column, and 160 bits of the digest.
SHOWN_DIGITS = 40


class SessionStore(DatabaseStore):
    """Django's, but that a row's key is not the cookie's. Only what Django calls without asyncio."""

    def _get_session_from_db(self) -> Session | None:
        found = Session.objects.filter(
            session_key=stored(self.session_key), expire_date__gt=timezone.now()
        ).first()
        if found is None:
            self._session_key = None
        return found

    def exists(self, session_key: str) -> bool:
        return super().exists(stored(session_key))

    def create_model_instance(self, data: Any) -> Any:
        row = super().create_model_instance(data)
        row.session_key = stored(row.session_key)
        return row

    def delete(self, session_key: str | None = None) -> None:
        key = session_key or self.session_key
        if key is not None:
            super().delete(stored(key))


def stored(session_key: str | None) -> str:
    """What a session is found by in the database."""
    return hashlib.sha256((session_key or "").encode()).hexdigest()[:SHOWN_DIGITS]
