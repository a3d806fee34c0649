"""Who calls the control plane: the owner of the key in `Authorization`, or of the browser's session."""

from typing import Any

from django.db.models import Q
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from users.models import LAST_USED_GRAIN, ApiKey, User, digest_of

# OpenAI's clients send the first, the usual clients of Django REST framework the second.
SCHEMES = ("bearer", "token")


def secret_in(authorization: str) -> str | None:
    """The secret in an `Authorization` header: `Bearer …` or `Token …`; None when it is neither."""
    scheme, _, secret = authorization.strip().partition(" ")
    return secret.strip() if scheme.lower() in SCHEMES else None


class KeyAuthentication(BaseAuthentication):
    """`request.user` is the key's owner and `request.auth` the key."""

    def authenticate(self, request: Request) -> tuple[User, ApiKey] | None:
        secret = secret_in(get_authorization_header(request).decode("latin-1"))
        if secret is None:
            return None
        now = timezone.now()
        key = ApiKey.objects.select_related("user").filter(digest=digest_of(secret)).first()
        if key is None:
            raise AuthenticationFailed("Incorrect API key provided.", "invalid_api_key")
        if key.revoked_at is not None:
            raise AuthenticationFailed("This API key has been revoked.", "invalid_api_key")
        if not key.is_valid_at(now):
            raise AuthenticationFailed("This API key has expired.", "invalid_api_key")
        if not key.user.is_active:
            raise AuthenticationFailed("This user has been disabled.")
        if key.last_used_at is None or now - key.last_used_at > LAST_USED_GRAIN:
            long_ago = Q(last_used_at=None) | Q(last_used_at__lt=now - LAST_USED_GRAIN)
            ApiKey.objects.filter(long_ago, pk=key.pk).update(last_used_at=now)
        return key.user, key

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class KeyScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    """How the OpenAPI description names `KeyAuthentication`; importing it registers it."""

    target_class = KeyAuthentication
    name = "API key"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {
            "type": "http",
            "scheme": "bearer",
            "description": "A key from `/api/user/auth` or `/api/keys`. The scheme `Token` works as well.",
        }
