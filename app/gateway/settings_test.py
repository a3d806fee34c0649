"""The settings under test: nothing of the developer's own `.env` or shell, apart from `DATABASE_URL`."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

_OF_THE_OPERATOR = (
    "OPENAI_API_KEY OPENAI_ORGANIZATION OPENAI_PROJECT OPENAI_BASE_URL SECRET_KEY DEBUG ALLOWED_HOSTS HOST "
    "PORT WEB_CONCURRENCY OPEN_REGISTRATION DJANGO_SUPERUSER_EMAIL DJANGO_SUPERUSER_PASSWORD "
    "CSRF_TRUSTED_ORIGINS BEHIND_TLS_PROXY STATIC_ROOT REQUESTS_PER_MINUTE TOKENS_PER_MINUTE PARALLEL_CALLS"
)
for _name in _OF_THE_OPERATOR.split():
    os.environ.pop(_name, None)
# In the environment, so that servers which tests start as processes are cut off likewise.
os.environ["ENV_FILE"] = os.devnull
os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix="tollgate-test-")
atexit.register(shutil.rmtree, os.environ["DATA_DIR"], ignore_errors=True)

from gateway.settings import *  # noqa: E402, F403
from gateway.settings import DATA_DIR, DATABASES  # noqa: E402

# A file, as in service: a database in memory has neither WAL nor locks between connections.
DATABASES["default"]["TEST"] = (
    {"NAME": str(Path(DATA_DIR) / "test.sqlite3")}
    if DATABASES["default"]["ENGINE"].endswith("sqlite3")
    else {}
)
# The real one takes a third of a second for each password, on purpose.
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
