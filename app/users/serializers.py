"""Users and keys as the API shows and takes them."""

from typing import Any

from django.contrib.auth import password_validation, update_session_auth_hash
from django.core.exceptions import ValidationError as DjangoValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from common.drf import StrictIntegerField
from users import limits
from users.models import ApiKey, User, normalise_email
from users.passwords import LONGEST_PASSWORD
from users.permissions import require_log_in, user_of

EMAIL_TAKEN = "There is a user with this e-mail address."
# A page of patterns is a mistake, and each is tried at each call.
MOST_PATTERNS = 100


class EmailField(serializers.EmailField):
    """Lower-cased before it is compared with those that exist."""

    def to_internal_value(self, data: Any) -> str:
        return normalise_email(super().to_internal_value(data))


@extend_schema_field({"type": "integer", "minimum": 1, "maximum": limits.MOST, "nullable": True})
class LimitField(StrictIntegerField):
    """A limit, or null."""

    def to_internal_value(self, data: Any) -> int:
        limit = super().to_internal_value(data)
        if not 1 <= limit <= limits.MOST:
            raise serializers.ValidationError(f"A limit is between 1 and {limits.MOST}, or null for none.")
        return limit


class LimitsSerializer(serializers.Serializer[Any]):
    """Limits of a user or a key, each for itself; null: no limit of its own."""

    requests_per_minute = LimitField(
        required=False, allow_null=True, help_text="Calls under `/v1` in a minute; so many may come at once."
    )
    tokens_per_minute = LimitField(
        required=False, allow_null=True, help_text="Input and output in a minute; so many may come at once."
    )
    parallel_calls = LimitField(required=False, allow_null=True, help_text="Paid calls at the same time.")


def password_field(**kwargs: Any) -> serializers.CharField:
    """As it is typed, spaces included, and never shown."""
    return serializers.CharField(
        write_only=True,
        trim_whitespace=False,
        max_length=LONGEST_PASSWORD,
        style={"input_type": "password"},
        **kwargs,
    )


class ProfileSerializer(serializers.ModelSerializer[User]):
    """What users may change about themselves. A new password ends their other log-ins."""

    email = EmailField(max_length=254, validators=[UniqueValidator(User.objects.all(), EMAIL_TAKEN)])
    password = password_field(required=False)

    class Meta:
        model = User
        fields: tuple[str, ...] = ("id", "email", "name", "password")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if "password" in attrs:
            # The validators refuse a password that resembles the rest.
            shown = {name: attrs.get(name, getattr(self.instance, name, "")) for name in ("email", "name")}
            try:
                password_validation.validate_password(attrs["password"], User(**shown))
            except DjangoValidationError as error:
                raise serializers.ValidationError({"password": error.messages}) from None
        return attrs

    def create(self, validated_data: dict[str, Any]) -> User:
        try:
            with transaction.atomic():
                return User.objects.create_user(**validated_data)
        except IntegrityError:
            # Somebody else took it after the validator had looked.
            raise serializers.ValidationError({"email": [EMAIL_TAKEN]}) from None

    def update(self, instance: User, validated_data: dict[str, Any]) -> User:
        """Raises PermissionDenied when an issued key would change what one logs in with."""
        request = self.context["request"]
        password = validated_data.pop("password", None)
        if password is not None or validated_data.get("email", instance.email) != instance.email:
            require_log_in(request)
        for name, value in validated_data.items():
            setattr(instance, name, value)
        changed = list(validated_data)
        if password is not None:
            instance.set_password(password)
            instance.kept_log_in = request.auth
            changed.append("password")
        try:
            instance.save(update_fields=changed)
        except IntegrityError:
            raise serializers.ValidationError({"email": [EMAIL_TAKEN]}) from None
        if password is not None and request.auth is None and instance == user_of(request):
            update_session_auth_hash(request._request, instance)
        return instance


class OwnProfileSerializer(ProfileSerializer):
    """One's profile, with the limits that are in force; null: unlimited."""

    requests_per_minute = serializers.IntegerField(read_only=True, allow_null=True)
    tokens_per_minute = serializers.IntegerField(read_only=True, allow_null=True)
    parallel_calls = serializers.IntegerField(read_only=True, allow_null=True)

    class Meta(ProfileSerializer.Meta):
        fields = (*ProfileSerializer.Meta.fields, *limits.NAMES)

    def to_representation(self, instance: User) -> dict[str, Any]:
        return {**super().to_representation(instance), **limits.in_force(instance)}


class RegistrationSerializer(ProfileSerializer):
    password = password_field()


class UserSerializer(LimitsSerializer, ProfileSerializer):
    """A user as an operator sees and changes them. Operators are made in the admin only."""

    class Meta(ProfileSerializer.Meta):
        fields = (
            *("id", "email", "name", "password", "is_active", "is_superuser", "date_joined"),
            *limits.NAMES,
        )
        read_only_fields = ("is_superuser", "date_joined")

    def validate_is_active(self, value: bool) -> bool:
        if not value and self.instance == user_of(self.context["request"]):
            raise serializers.ValidationError("You cannot disable yourself.")
        return value


class CredentialsSerializer(serializers.Serializer[Any]):
    email = EmailField(max_length=254)
    password = password_field()


class TokenSerializer(serializers.Serializer[Any]):
    token = serializers.CharField(help_text="Send it as `Authorization: Bearer …`.")
    expires_at = serializers.DateTimeField()


class KeySerializer(LimitsSerializer, serializers.ModelSerializer[ApiKey]):
    """A key without its secret."""

    kind = serializers.ChoiceField(
        ApiKey.Kind.choices, read_only=True, help_text="`issued`, for calls, or `login`."
    )
    allowed_models = serializers.ListField(
        child=serializers.CharField(max_length=200),
        max_length=MOST_PATTERNS,
        required=False,
        help_text='Models the key may call, such as `["gpt-4o-mini", "gpt-4.1*"]`; empty means all.',
    )

    class Meta:
        model = ApiKey
        fields: tuple[str, ...] = (
            "id",
            "kind",
            "name",
            "prefix",
            "allowed_models",
            *limits.NAMES,
            "created_at",
            "expires_at",
            "revoked_at",
            "last_used_at",
        )
        read_only_fields = ("prefix", "created_at", "revoked_at", "last_used_at")

    def validate_expires_at(self, value: Any) -> Any:
        if value is not None and value <= timezone.now():
            raise serializers.ValidationError("This time has passed.")
        key = self.instance
        if key is not None and key.kind == ApiKey.Kind.LOGIN and value != key.expires_at:
            # Else whoever got hold of one would keep it for ever.
            raise serializers.ValidationError("A login key ends when it was made to; log in anew.")
        return value


class KeyWithSecretSerializer(KeySerializer):
    """A key in the one answer that shows its secret."""

    secret = serializers.SerializerMethodField()

    class Meta(KeySerializer.Meta):
        fields = (*KeySerializer.Meta.fields, "secret")

    def get_secret(self, key: ApiKey) -> str:
        return str(self.context["secret"])


class KeyFilter(serializers.Serializer[Any]):
    """The parameters of a list of keys."""

    kind = serializers.ChoiceField(choices=ApiKey.Kind.choices, required=False)


class UserFilter(serializers.Serializer[Any]):
    """The parameters of a list of users."""

    search = serializers.CharField(required=False, help_text="Part of the e-mail address.")
