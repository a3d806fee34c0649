"""What the views of the control plane share: errors in OpenAI's shape, pages, and their description."""

import logging
import math
import sys
from typing import Any, Final

from django.core.exceptions import DisallowedHost, PermissionDenied, SuspiciousOperation
from django.db import InterfaceError, InternalError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.views import defaults
from rest_framework import exceptions, serializers
from rest_framework.pagination import Cursor, CursorPagination, LimitOffsetPagination
from rest_framework.request import Request
from rest_framework.response import Response

from common.errors import ApiError, BadRequest, NotFound, Unavailable, error_body

log = logging.getLogger(__name__)

API_PREFIX: Final = "/api/"
# A page that can be asked for; more would let one request load a whole history.
MOST_ON_A_PAGE: Final = 500
# The largest id that a database gives has so many.
MOST_DIGITS: Final = 19
_BY_STATUS: Final = {cls.status: cls for cls in ApiError.__subclasses__()}


def exception_handler(exc: Exception, context: dict[str, Any]) -> Response | None:
    """Django REST framework's `EXCEPTION_HANDLER`. None lets an unforeseen error go on to Django's log."""
    match exc:
        case ApiError():
            return Response(exc.as_dict(), exc.status, headers=exc.headers)
        case Http404():
            return exception_handler(exceptions.NotFound(), context)
        case PermissionDenied():
            return exception_handler(exceptions.PermissionDenied(), context)
        case exceptions.APIException():
            return _from_framework(exc)
        case OperationalError() | InterfaceError():
            log.error("database away: %s", exc)
            return exception_handler(Unavailable("The database does not answer; try again."), context)
        case RecursionError():
            return exception_handler(BadRequest("The request is nested too deeply."), context)
        case SuspiciousOperation():
            return exception_handler(BadRequest("The request cannot be understood."), context)
    return None


def _from_framework(exc: exceptions.APIException) -> Response:
    known = _BY_STATUS.get(exc.status_code, BadRequest)
    headers = {}
    if challenge := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = challenge
    if (wait := getattr(exc, "wait", None)) is not None:
        headers["Retry-After"] = str(math.ceil(wait))
    if isinstance(exc, exceptions.ValidationError):
        param, message = _first(exc.detail)
        body = error_body(message, type=known.type, param=param, code=known.code)
        if isinstance(exc.detail, dict):
            body["error"]["fields"] = exc.detail
    else:
        # A code that the view gave is more telling than the status's own.
        code = exc.get_codes()
        given = code if isinstance(code, str) and code != exc.default_code else known.code
        body = error_body(str(exc.detail), type=known.type, code=given)
    return Response(body, exc.status_code, headers=headers)


def _first(detail: Any) -> tuple[str | None, str]:
    """The first field that is wrong, as `name` or `name.0.inner`, and what is wrong with it."""
    names: list[str] = []
    while isinstance(detail, dict | list):
        if isinstance(detail, dict):
            name, detail = next(iter(detail.items()))
            names.append(str(name))
        else:
            detail = next(item for item in detail if item)
    named = [name for name in names if name != "non_field_errors"]
    return ".".join(named) or None, str(detail)


def _is_of_api(request: HttpRequest) -> bool:
    # What was sent as /api/ has lost its slash by now.
    return f"{request.path_info}/".startswith(API_PREFIX)


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's `handler400`, for what is refused before any view is asked: under /api/, the API's error."""
    if not _is_of_api(request):
        return defaults.bad_request(request, exception)
    if isinstance(exception, DisallowedHost):
        return _plain(BadRequest("The gateway does not answer to this host name; see ALLOWED_HOSTS."))
    return _plain(BadRequest("The request cannot be understood."))


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's `handler404`: an address under /api/ that does not exist gets the API's error."""
    if not _is_of_api(request):
        return defaults.page_not_found(request, exception)
    return _plain(NotFound(f"There is no {request.method} {request.path}."))


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's `handler500`, for an error that is a defect of the gateway; it has been logged.

    A database that is away is none: pages say 503, as the API does.
    """
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError | InternalError):
        return _plain(Unavailable("The database does not answer; try again."))
    if not _is_of_api(request):
        return defaults.server_error(request)
    return _plain(ApiError("Something went wrong here; the operator's log says what."))


def _plain(error: ApiError) -> JsonResponse:
    return JsonResponse(error.as_dict(), status=error.status, headers=error.headers)


class Pages(LimitOffsetPagination):
    """`?limit=&offset=`, with the number of all, for lists that people make by hand."""

    default_limit = 50
    max_limit = MOST_ON_A_PAGE


class History(CursorPagination):
    """`?limit=&cursor=`, newest first: a page costs the same however long the history is."""

    ordering = "-id"
    page_size = 50
    page_size_query_param = "limit"
    max_page_size = MOST_ON_A_PAGE

    def decode_cursor(self, request: Request) -> Cursor | None:
        """Raises NotFound for a cursor that this class has not made."""
        cursor = super().decode_cursor(request)
        if cursor is not None and cursor.position is not None:
            position = str(cursor.position)
            if not (position.isascii() and position.isdecimal() and len(position) <= MOST_DIGITS):
                raise exceptions.NotFound(self.invalid_cursor_message)
        return cursor


class StrictIntegerField(serializers.Field[int, Any, int, Any]):
    """A JSON integer; not 30.0, "30" or true. A form, which knows only text, may send digits."""

    default_error_messages = {"invalid": "A whole number is needed."}

    def to_internal_value(self, data: Any) -> int:
        if type(data) is int:
            return data
        from_form = hasattr(getattr(self.parent, "initial_data", None), "getlist")
        # int() itself also takes "1_000", " 1" and digits of other scripts.
        if from_form and isinstance(data, str) and data.removeprefix("-").isdecimal() and data.isascii():
            return int(data[:40])
        self.fail("invalid")

    def to_representation(self, value: int) -> int:
        return value


class ErrorDetailSerializer(serializers.Serializer[Any]):
    message = serializers.CharField()
    type = serializers.CharField()
    param = serializers.CharField(allow_null=True)
    code = serializers.CharField(allow_null=True)


class ErrorSerializer(serializers.Serializer[Any]):
    """Every error, as OpenAI's API reference has it.

    A request that is not valid is also told, in `fields`, what is wrong with each of them.
    """

    error = ErrorDetailSerializer()


def errors(*statuses: int) -> dict[int, type[ErrorSerializer]]:
    """For `extend_schema(responses=…)`: these statuses answer an error."""
    return dict.fromkeys(statuses, ErrorSerializer)
