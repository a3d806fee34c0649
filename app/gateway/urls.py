"""Addresses of the control plane. Under /api/ patterns have no trailing slash: see `TrailingSlash`."""

from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

urlpatterns = [
    path("", RedirectView.as_view(pattern_name="docs")),
    path("admin/", admin.site.urls),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="docs"),
    path("api/", include("users.urls")),
    path("api/", include("balances.urls")),
]

handler404 = "common.drf.page_not_found"
handler500 = "common.drf.server_error"
