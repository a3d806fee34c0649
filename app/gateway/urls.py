"""Addresses of the control plane. Under /api/ patterns have no trailing slash: see `TrailingSlash`."""

from threading import Lock

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView
from rest_framework.request import Request
from rest_framework.response import Response


class SchemaView(SpectacularAPIView):
    """The description of both planes, put together by one thread at a time: the library loads its own parts
    while it does so for the first time, and another thread would find half of them."""

    _alone = Lock()

    def _get_schema_response(self, request: Request) -> Response:
        with self._alone:
            response: Response = super()._get_schema_response(request)  # type: ignore[no-untyped-call]
        return response


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="docs")),
    path("admin/", admin.site.urls),
    path("api/schema", SchemaView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/", include("users.urls")),
    path("api/", include("balances.urls")),
]

handler400 = "common.drf.bad_request"
handler404 = "common.drf.page_not_found"
handler500 = "common.drf.server_error"
