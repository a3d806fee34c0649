"""Who may do what on the control plane."""

from django.conf import settings
from rest_framework.exceptions import PermissionDenied
from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from users.models import ApiKey, User

LOG_IN_FIRST = (
    "A key that was issued for calls may not do this. Log in at /api/user/auth and use the token it answers."
)


def user_of(request: Request) -> User:
    """The caller, of whom a permission has made sure."""
    assert isinstance(request.user, User)
    return request.user


def is_operator(request: Request) -> bool:
    return bool(request.user.is_authenticated and request.user.is_superuser)


def has_logged_in(request: Request) -> bool:
    """Whether the caller came by a session or a login key. An issued key stands in programs and may leak."""
    return not isinstance(request.auth, ApiKey) or request.auth.kind == ApiKey.Kind.LOGIN


def require_log_in(request: Request) -> None:
    """Raises PermissionDenied for an issued key."""
    if not has_logged_in(request):
        raise PermissionDenied(LOG_IN_FIRST, code="login_required")


class IsOperator(BasePermission):
    """Superusers, by whichever key."""

    message = "Only operators may do this."

    def has_permission(self, request: Request, view: APIView) -> bool:
        return is_operator(request)


class MayRegister(BasePermission):
    """Operators, and everybody where the operator opened the registration."""

    message = "Registration is closed: ask the operator for an account."

    def has_permission(self, request: Request, view: APIView) -> bool:
        return settings.OPEN_REGISTRATION or is_operator(request)


class LogInToChange(BasePermission):
    """An issued key may read, and nothing more."""

    message = LOG_IN_FIRST
    code = "login_required"

    def has_permission(self, request: Request, view: APIView) -> bool:
        return request.method in SAFE_METHODS or has_logged_in(request)
