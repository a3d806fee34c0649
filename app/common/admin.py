"""What the admin pages of all apps share."""

from typing import TYPE_CHECKING, Any, TypeVar

from django.db.models import Model
from django.http import HttpRequest

if TYPE_CHECKING:
    # unfold has no types; its class is Django's with another look.
    from django.contrib.admin import ModelAdmin
else:
    from unfold.admin import ModelAdmin
from unfold.paginator import InfinitePaginator

__all__ = ("ModelAdmin", "ReadOnlyAdmin")

M = TypeVar("M", bound=Model)


class ReadOnlyAdmin(ModelAdmin[M]):
    """Tables that only the ledger writes, and that may be long: pages of them are not counted."""

    paginator = InfinitePaginator
    show_full_result_count = False
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
