"""Django's settings, composed from the environment (`.env.example` explains each variable)."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import django_stubs_ext
from django.core.exceptions import ImproperlyConfigured
from django.templatetags.static import static

from gateway.env import Environment, secret_key
from users.limits import MOST

# Makes Django's generic classes subscriptable at run time, as their types are: `ModelAdmin[User]`.
django_stubs_ext.monkeypatch()

ROOT = Path(__file__).resolve().parents[2]
ENV = Environment.load(ROOT)

# --- Where things are kept ------------------------------------------------------------------------------
# The SQLite file, the secret key that was made up, and charges that wait for a database that is away.
DATA_DIR = ENV.path("DATA_DIR", "data") or ROOT / "data"
DATABASES: dict[str, dict[str, Any]] = {
    "default": ENV.database("DATABASE_URL", default=DATA_DIR / "tollgate.sqlite3")
}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    try:
        Path(DATABASES["default"]["NAME"]).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(f"DATABASE_URL: the folder of the SQLite file: {error}") from None
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Counts log-in attempts: in the database, because the workers must share the count. Beyond so many rows some
# are dropped, the counts of addresses under attack among them; the default, 300, is soon reached.
CACHES = {
    "default": {
        "BACKEND": "django.core.cache.backends.db.DatabaseCache",
        "LOCATION": "gateway_cache",
        "OPTIONS": {"MAX_ENTRIES": 100_000},
    },
}

# --- The upstream ---------------------------------------------------------------------------------------
OPENAI_API_KEY = ENV.header("OPENAI_API_KEY")
OPENAI_ORGANIZATION = ENV.header("OPENAI_ORGANIZATION")
OPENAI_PROJECT = ENV.header("OPENAI_PROJECT")
OPENAI_BASE_URL = ENV.http_url("OPENAI_BASE_URL")
# Whether the operator named an upstream at all; `manage.py serve --demo` starts the simulator if not.
UPSTREAM_IS_CONFIGURED = bool(OPENAI_API_KEY or OPENAI_BASE_URL)
OPENAI_BASE_URL = OPENAI_BASE_URL or "https://api.openai.com/v1"

# --- Serving --------------------------------------------------------------------------------------------
DEBUG = ENV.boolean("DEBUG", default=False)
HOST = ENV.text("HOST", "127.0.0.1")
# Port 0 stands for any free port.
PORT = ENV.integer("PORT", default=8000, least=0, most=65535)
WEB_CONCURRENCY = ENV.integer("WEB_CONCURRENCY", default=2, least=1, most=256)
ALLOWED_HOSTS = ENV.words("ALLOWED_HOSTS", default=("localhost", "127.0.0.1", "[::1]", HOST))
CSRF_TRUSTED_ORIGINS = ENV.origins("CSRF_TRUSTED_ORIGINS")
ROOT_URLCONF = "gateway.urls"
# For /admin only: addresses under /api/ have no trailing slash and `TrailingSlash` takes off a caller's.
APPEND_SLASH = True

# --- People ---------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "users.User"
OPEN_REGISTRATION = ENV.boolean("OPEN_REGISTRATION", default=False)
DJANGO_SUPERUSER_EMAIL = ENV.email("DJANGO_SUPERUSER_EMAIL")
DJANGO_SUPERUSER_PASSWORD = ENV.text("DJANGO_SUPERUSER_PASSWORD")
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": validator}
    for validator in (
        "django.contrib.auth.password_validation.UserAttributeSimilarityValidator",
        "django.contrib.auth.password_validation.MinimumLengthValidator",
        "django.contrib.auth.password_validation.CommonPasswordValidator",
        "django.contrib.auth.password_validation.NumericPasswordValidator",
        "users.passwords.MaximumLengthValidator",
    )
]

# --- Limits ---------------------------------------------------------------------------------------------
# Of each user whom the operator has set none of their own; None: unlimited.
REQUESTS_PER_MINUTE = ENV.limit("REQUESTS_PER_MINUTE", most=MOST)
TOKENS_PER_MINUTE = ENV.limit("TOKENS_PER_MINUTE", most=MOST)
PARALLEL_CALLS = ENV.limit("PARALLEL_CALLS", most=MOST)

# --- Security -------------------------------------------------------------------------------------------
# Set when a proxy in front ends TLS, sets X-Forwarded-Proto and appends to X-Forwarded-For.
BEHIND_TLS_PROXY = ENV.boolean("BEHIND_TLS_PROXY", default=False)
if BEHIND_TLS_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
# One that is made up is as good for one host; behind a proxy there may be several, which must have the same.
SECRET_KEY = secret_key(
    ENV.text("SECRET_KEY"), kept_in=DATA_DIR / "secret_key", must_be_given=BEHIND_TLS_PROXY and not DEBUG
)
SECURE_SSL_REDIRECT = BEHIND_TLS_PROXY
SESSION_COOKIE_SECURE = BEHIND_TLS_PROXY
CSRF_COOKIE_SECURE = BEHIND_TLS_PROXY
if BEHIND_TLS_PROXY:
    # Browsers take a cookie of such a name from this very host only, not from one beside it.
    SESSION_COOKIE_NAME = "__Host-sessionid"
    CSRF_COOKIE_NAME = "__Host-csrftoken"
SESSION_ENGINE = "users.sessions"
# A day of work: whoever finds the browser of an operator open should not find the balances open as well.
SESSION_COOKIE_AGE = 12 * 3600
SECURE_HSTS_SECONDS = 365 * 24 * 3600 if BEHIND_TLS_PROXY else 0
# Whether other names below this one have TLS is not for the gateway to say.
SILENCED_SYSTEM_CHECKS = ["security.W005", "security.W021"]
SESSION_COOKIE_HTTPONLY = True
# Where a log-in leads that names no page of this site.
LOGIN_REDIRECT_URL = "admin:index"
# The pages have the token in their forms; no script reads the cookie.
CSRF_COOKIE_HTTPONLY = True
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
# What pages may load: this site's own files, no script that stands in a page. The scripts of the admin and of
# Swagger's page set styles; Swagger's icons are data.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# The admin's scripts (Alpine.js) evaluate the expressions in its templates.
ADMIN_CONTENT_SECURITY_POLICY = CONTENT_SECURITY_POLICY.replace(
    "script-src 'self'", "script-src 'self' 'unsafe-eval'"
)

# --- Django's parts -------------------------------------------------------------------------------------
INSTALLED_APPS = [
    "unfold",  # before the admin, whose templates it replaces
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "users",
    "balances",
    "openai_app",
    "simulator",
    "gateway",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "gateway.middleware.BrowserPolicy",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gateway.middleware.TrailingSlash",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]
LANGUAGE_CODE = "en-gb"
FORMAT_MODULE_PATH = "gateway.formats"
TIME_ZONE = "UTC"
USE_TZ = True

# Set: what was collected there is served under hashed names (Docker). Unset: straight from the packages.
STATIC_ROOT = ENV.path("STATIC_ROOT")
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = STATIC_ROOT is None
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if STATIC_ROOT
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}

# --- The API under /api/ --------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "users.authentication.KeyAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": [
        "rest_framework.parsers.JSONParser",
        "rest_framework.parsers.FormParser",
        "rest_framework.parsers.MultiPartParser",
    ],
    "DEFAULT_PAGINATION_CLASS": "common.drf.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "common.drf.exception_handler",
    # Per address: log-ins that fail, enough for a person who mistypes, too few to guess a password; and
    # registrations where anybody may, enough for a class, too few to fill the database.
    "DEFAULT_THROTTLE_RATES": {"auth": "10/min", "registration": "60/min"},
    # How many proxies may be believed about a caller's address; without one the header is the caller's own.
    "NUM_PROXIES": 1 if BEHIND_TLS_PROXY else 0,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Tollgate",
    "VERSION": "1.0.0",
    "DESCRIPTION": "A metering gateway in front of the OpenAI API: users, keys, balances and the calls.",
    "LICENSE": {"name": "MIT"},
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SCHEMA_PATH_PREFIX": "/api",
    "COMPONENT_SPLIT_REQUEST": True,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "openai_app.schema.add_data_plane",
    ],
    "ENUM_NAME_OVERRIDES": {"KeyKind": "users.models.ApiKey.Kind", "EntryKind": "balances.models.Entry.Kind"},
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    # Some two hundred operations: the families first, and a field to filter them by.
    # A key that was typed in is forgotten with the page: kept, it would lie in the browser in clear.
    "SWAGGER_UI_SETTINGS": {"persistAuthorization": False, "docExpansion": "none", "filter": True},
}
UNFOLD = {
    "SITE_TITLE": "Tollgate",
    "SITE_HEADER": "Tollgate",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("gateway/icon.svg")}
    ],
}


# --- Logs -----------------------------------------------------------------------------------------------
# Plain lines on standard error. Nothing here may print a header, a body or a key.
def _without_host(record: logging.LogRecord) -> bool:
    """For `logging`: says that a host was refused, but not which. A stranger wrote it."""
    record.msg, record.args, record.exc_info = "a Host header named none of ALLOWED_HOSTS", (), None
    return True


LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "filters": {
        # The server logs a call that it cut off at a stop as a defect of the application, with its traceback.
        "no_cancellations": {
            "()": "django.utils.log.CallbackFilter",
            "callback": lambda record: (
                not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
            ),
        },
        "without_host": {"()": "django.utils.log.CallbackFilter", "callback": _without_host},
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "INFO"},
    "loggers": {
        # Django's own set-up for this logger mails and prints a second time.
        "django": {"handlers": ["stderr"], "level": "INFO", "propagate": False},
        # It repeats each refused request, which is the caller's business.
        "django.request": {"level": "ERROR"},
        "django.security.DisallowedHost": {"filters": ["without_host"]},
        "uvicorn.error": {"filters": ["no_cancellations"]},
    },
}
