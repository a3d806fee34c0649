"""Addresses of users and keys, under /api/."""

from django.urls import path

from users.key_views import KeyDetailView, KeyListView, KeyRotateView
from users.views import LogInView, MeView, RegisterView, UserDetailView, UserListView

urlpatterns = [
    path("user/create", RegisterView.as_view(), name="user-create"),
    path("user/auth", LogInView.as_view(), name="user-auth"),
    path("user/me", MeView.as_view(), name="user-me"),
    path("users", UserListView.as_view(), name="user-list"),
    path("users/<int:pk>", UserDetailView.as_view(), name="user-detail"),
    path("keys", KeyListView.as_view(), name="key-list"),
    path("keys/<int:pk>", KeyDetailView.as_view(), name="key-detail"),
    path("keys/<int:pk>/rotate", KeyRotateView.as_view(), name="key-rotate"),
]
