"""Users and keys in the admin."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from unfold.forms import AdminPasswordChangeForm, AuthenticationForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminTextareaWidget

from common.admin import ModelAdmin
from users import limits
from users.models import ApiKey, User
from users.throttles import LogIns


class LogInForm(AuthenticationForm):  # type: ignore[misc]  # unfold has no types
    """As often as at /api/user/auth, and counted together: this is the same password."""

    def clean(self) -> dict[str, Any]:
        tries = LogIns()
        if not tries.allow_request(self.request, None):
            raise forms.ValidationError("Too many tries; wait a minute.")
        cleaned: dict[str, Any] = super().clean()
        if self.get_user() is not None:
            tries.give_back()
        return cleaned


admin.site.login_form = LogInForm
# Rights here are had by superusers or by nobody: groups would only confuse.
admin.site.unregister(Group)


class NewUserForm(UserCreationForm):  # type: ignore[misc]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields[
            "usable_password"
        ].help_text = "Without a password: a program, whose keys are issued here."

    class Meta:
        model = User
        fields = ("email", "name")


class ChangeUserForm(UserChangeForm):  # type: ignore[misc]
    class Meta:
        model = User
        fields = "__all__"
        labels = {"is_superuser": "Operator"}
        help_texts = {"is_superuser": "Sees and changes everything, here and under /api/."}


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin[User]):  # type: ignore[type-arg]
    """Disable a user rather than delete them: what was paid and used stays on record."""

    form = ChangeUserForm
    add_form = NewUserForm
    change_password_form = AdminPasswordChangeForm
    ordering = ("-id",)
    list_display = ("email", "name", "is_active", "is_superuser", "date_joined")
    list_filter = ("is_active", "is_superuser")
    search_fields = ("email", "name")
    filter_horizontal = ()
    readonly_fields = ("date_joined", "last_login")
    fieldsets = (
        (None, {"fields": ("email", "name", "password")}),
        ("Rights", {"fields": ("is_active", "is_superuser")}),
        (
            "Limits",
            {"fields": limits.NAMES, "description": "Of all keys together. Empty: the gateway's own limit."},
        ),
        ("Times", {"fields": ("date_joined", "last_login")}),
    )
    add_fieldsets = ((None, {"fields": ("email", "name", "usable_password", "password1", "password2")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        """One's own rights are changed by another operator, so that there is always one left."""
        own = ("is_active", "is_superuser") if obj == request.user else ()
        return (*super().get_readonly_fields(request, obj), *own)

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        # Operators and nobody else use the admin: others would find it empty.
        obj.is_staff = obj.is_superuser
        super().save_model(request, obj, form, change)

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False


class LinesField(forms.Field):
    """A list of texts, one a line."""

    widget = UnfoldAdminTextareaWidget

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value

    def to_python(self, value: Any) -> list[str]:
        if isinstance(value, list):
            return value
        return [line.strip() for line in (value or "").splitlines() if line.strip()]


class ApiKeyForm(forms.ModelForm[ApiKey]):
    allowed_models = LinesField(
        required=False,
        initial=list,
        help_text="Models the key may call, one a line, such as gpt-4o-mini or gpt-4.1*; empty means all.",
    )

    class Meta:
        model = ApiKey
        fields = ("user", "name", "expires_at", "allowed_models", *limits.NAMES)


@admin.register(ApiKey)
class ApiKeyAdmin(ModelAdmin[ApiKey]):
    """Issues and revokes keys. A secret is shown once, by the answer to its making: a message to the page
    after that would keep it in a cookie until then."""

    form = ApiKeyForm
    list_display = (
        "name",
        "prefix",
        "user",
        "kind",
        "created_at",
        "expires_at",
        "revoked_at",
        "last_used_at",
    )
    list_filter = ("kind", ("revoked_at", admin.EmptyFieldListFilter))
    list_select_related = ("user",)
    search_fields = ("name", "prefix", "user__email")
    autocomplete_fields = ("user",)
    readonly_fields = ("prefix", "kind", "created_at", "revoked_at", "last_used_at")
    actions = ("revoke",)

    def get_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        given = ("user", "name", "expires_at", "allowed_models", *limits.NAMES)
        return given if obj is None else (*given, *self.readonly_fields)

    def get_readonly_fields(self, request: HttpRequest, obj: ApiKey | None = None) -> Any:
        return self.readonly_fields if obj is None else (*self.readonly_fields, "user")

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: ApiKey, form: Any, change: bool) -> None:
        if change:
            # Not the whole row: a call or a revocation may have written to it meanwhile.
            obj.save(update_fields=["name", "expires_at", "allowed_models", *limits.NAMES])
            return
        obj.renew_secret()
        obj.save()

    def response_add(
        self, request: HttpRequest, obj: ApiKey, post_url_continue: str | None = None
    ) -> HttpResponse:
        # That which it was saved with nobody knows.
        secret = obj.renew_secret()
        obj.save(update_fields=["prefix", "digest"])
        context = {**self.admin_site.each_context(request), "title": "The key is made", "key": obj}
        return TemplateResponse(
            request, "admin/users/apikey/made.html", {**context, "secret": secret, "opts": self.opts}
        )

    @admin.action(description="Revoke the selected keys", permissions=["change"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        for key in queryset:
            key.revoke()
            self.log_change(request, key, "Revoked.")
        self.message_user(request, "The keys are revoked.", messages.SUCCESS)
