"""Accounts, the ledger and the rates in the admin."""

import uuid
from typing import Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from unfold.widgets import UnfoldAdminBigIntegerFieldWidget, UnfoldAdminTextInputWidget

from balances import ledger
from balances.models import MAX_BALANCE_CREDITS, Account, Entry, Hold, Rate, Worker
from common.admin import ModelAdmin, ReadOnlyAdmin
from users.models import normalise_email


class AccountForm(forms.ModelForm[Account]):
    set_balance_to = forms.IntegerField(
        required=False,
        min_value=0,
        max_value=MAX_BALANCE_CREDITS,
        widget=UnfoldAdminBigIntegerFieldWidget,
        help_text="Credits that the balance becomes, as an entry of its history. Empty leaves it.",
    )
    reason = forms.CharField(
        required=False,
        max_length=300,
        widget=UnfoldAdminTextInputWidget,
        help_text="Why the balance is set; its owner sees it.",
    )

    class Meta:
        model = Account
        fields = ("relaxed",)

    def clean(self) -> None:
        super().clean()
        if self.cleaned_data.get("set_balance_to") is not None and not self.cleaned_data.get("reason"):
            self.add_error("reason", "A balance is set for a reason.")


@admin.register(Account)
class AccountAdmin(ModelAdmin[Account]):
    """A balance is set through the ledger; nothing else here changes one."""

    form = AccountForm
    list_display = ("user", "balance", "held", "available", "relaxed")
    list_filter = ("relaxed",)
    list_select_related = ("user",)
    search_fields = ("user__email",)
    ordering = ("-pk",)
    actions = None
    readonly_fields = ("user", "balance", "held", "available", "history")
    fields = ("user", "balance", "held", "available", "history", "set_balance_to", "reason", "relaxed")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Account | None = None) -> bool:
        return False

    @admin.display(description="history")
    def history(self, account: Account) -> str:
        entries = reverse("admin:balances_entry_changelist")
        return format_html(
            '<a class="text-primary-600 dark:text-primary-500" href="{}?{}">entries</a>',
            entries,
            urlencode({"q": account.user.email}),
        )

    def save_model(self, request: HttpRequest, obj: Account, form: Any, change: bool) -> None:
        # Not the whole row: the balance that the form was loaded with may be an old one.
        obj.save(update_fields=["relaxed"])
        to_credits = form.cleaned_data["set_balance_to"]
        if to_credits is not None:
            ledger.set_balance(
                user_id=obj.pk,
                to_credits=to_credits,
                by_id=request.user.pk,
                reason=form.cleaned_data["reason"],
            )


SEARCHED = "A whole e-mail address, or a request id."


def _search(queryset: QuerySet[Any], term: str, by_request: str) -> QuerySet[Any]:
    """What an index finds, however long the history is."""
    if not term:
        return queryset
    try:
        return queryset.filter(**{by_request: uuid.UUID(term)})
    except ValueError:
        return queryset.filter(account__user__email=normalise_email(term))


@admin.register(Entry)
class EntryAdmin(ReadOnlyAdmin[Entry]):
    list_display = ("id", "created_at", "user", "kind", "amount", "balance_after", "model", "reason", "by")
    list_filter = ("kind", "created_at")
    list_select_related = ("account__user", "by")
    search_fields = ("hold",)
    search_help_text = SEARCHED
    ordering = ("-id",)

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        return _search(queryset, search_term, by_request="hold"), False

    @admin.display(description="user")
    def user(self, entry: Entry) -> str:
        return str(entry.account.user)


class HoldStateFilter(admin.SimpleListFilter):
    """Open holds unless others are asked for: these few are what an operator looks for."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("posted", "Posted"), ("voided", "Voided"), ("all", "All")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Hold]) -> QuerySet[Hold]:
        state = self.value() or Hold.State.OPEN
        return queryset if state == "all" else queryset.filter(state=state)

    def choices(self, changelist: Any) -> Any:
        default, *others = super().choices(changelist)
        yield {**default, "display": "Open"}
        yield from others


@admin.register(Hold)
class HoldAdmin(ReadOnlyAdmin[Hold]):
    list_display = ("id", "created_at", "user", "state", "amount", "operation", "model", "ended_at", "reason")
    list_filter = (HoldStateFilter,)
    list_select_related = ("account__user",)
    search_fields = ("id",)
    search_help_text = SEARCHED

    def get_search_results(self, request: Any, queryset: Any, search_term: str) -> tuple[Any, bool]:
        return _search(queryset, search_term, by_request="id"), False

    @admin.display(description="user")
    def user(self, hold: Hold) -> str:
        return str(hold.account.user)


@admin.register(Rate)
class RateAdmin(ModelAdmin[Rate]):
    list_display = ("model", "unit", "credits")
    list_filter = ("unit",)
    search_fields = ("model",)

    @admin.display(description="credits per unit", ordering="credits_per_unit")
    def credits(self, rate: Rate) -> str:
        """Without the zeros that fill up six decimals."""
        return f"{rate.credits_per_unit.normalize():f}"


@admin.register(Worker)
class WorkerAdmin(ReadOnlyAdmin[Worker]):
    list_display = ("id", "started_at", "lease_until")
    ordering = ("-lease_until",)
