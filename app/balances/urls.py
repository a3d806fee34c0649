"""Addresses of balances, usage and rates, under /api/."""

from django.urls import path

from balances.rate_views import RateDetailView, RateListView
from balances.views import BalanceView, EntriesView, GrantView, OwnBalanceView, OwnEntriesView, UsageView

urlpatterns = [
    path("balance", OwnBalanceView.as_view(), name="balance"),
    path("balance/entries", OwnEntriesView.as_view(), name="balance-entries"),
    path("balance/<int:user_id>", BalanceView.as_view(), name="user-balance"),
    path("balance/<int:user_id>/grant", GrantView.as_view(), name="user-balance-grant"),
    path("balance/<int:user_id>/entries", EntriesView.as_view(), name="user-balance-entries"),
    path("usage", UsageView.as_view(), name="usage"),
    path("rates", RateListView.as_view(), name="rate-list"),
    path("rates/<int:pk>", RateDetailView.as_view(), name="rate-detail"),
]
