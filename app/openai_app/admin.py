"""Objects at OpenAI in the admin: shared with all, handed over to someone, or claimed for someone."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest

from common.admin import ModelAdmin
from openai_app.models import UpstreamObject


@admin.register(UpstreamObject)
class UpstreamObjectAdmin(ModelAdmin[UpstreamObject]):
    """Adding a row gives an object that was made outside of the gateway to a user, or to all.

    What is part of something, such as a thread's message, goes with that, whosever its own row is. Deleting
    one only makes the gateway forget it: at OpenAI nothing is deleted.
    """

    list_display = ("object_id", "kind", "owner", "is_shared", "created_at")
    list_filter = ("kind", "is_shared")
    list_select_related = ("owner",)
    search_fields = ("object_id__exact", "owner__email__exact")
    search_help_text = "An object's id, or its owner's e-mail address"
    autocomplete_fields = ("owner",)
    fields = ("object_id", "kind", "parent_id", "owner", "is_shared", "created_at")
    readonly_fields = ("created_at",)
    actions = ("share", "stop_sharing", "delete_selected")

    def get_readonly_fields(self, request: HttpRequest, obj: UpstreamObject | None = None) -> tuple[str, ...]:
        """Which object it is stays as it is; whose it is may change."""
        return ("created_at",) if obj is None else ("object_id", "kind", "parent_id", "created_at")

    @admin.action(description="Share with all users")
    def share(self, request: HttpRequest, objects: QuerySet[UpstreamObject]) -> None:
        self.message_user(request, f"{objects.update(is_shared=True)} shared.")

    @admin.action(description="Stop sharing")
    def stop_sharing(self, request: HttpRequest, objects: QuerySet[UpstreamObject]) -> None:
        self.message_user(request, f"{objects.update(is_shared=False)} no longer shared.")
