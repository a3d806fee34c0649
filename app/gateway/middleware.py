"""Middleware of the control plane."""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse

API_PREFIX = "/api/"
ADMIN_PREFIX = "/admin/"


class TrailingSlash:
    """Lets every address under /api/ work with and without a trailing slash, for every method.

    The patterns there are written without one. Django's own answer, a redirect, would lose a POST's body.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        path = request.path_info
        if path.startswith(API_PREFIX) and path.endswith("/"):
            request.path_info = path.rstrip("/")
        return self._get_response(request)


class BrowserPolicy:
    """Tells browsers what a page may load, so that text from a caller never runs as a script.

    And that nobody else's page may load what is here, and that nothing of it is kept: an answer may show a
    secret, and all of them speak of people.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self._get_response(request)
        of_admin = request.path_info.startswith(ADMIN_PREFIX)
        response["Content-Security-Policy"] = (
            settings.ADMIN_CONTENT_SECURITY_POLICY if of_admin else settings.CONTENT_SECURITY_POLICY
        )
        response["Cross-Origin-Resource-Policy"] = "same-origin"
        # Static files, which are nobody's, say themselves how long they may be kept.
        response.setdefault("Cache-Control", "no-store")
        return response
