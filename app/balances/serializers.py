"""Balances, their history and the rates, as the API shows and takes them."""

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from balances import selectors, units
from balances.models import MAX_BALANCE_CREDITS, Account, Entry, Rate
from common.drf import StrictIntegerField

# Entry.reason's length.
LONGEST_REASON = 300


class BalanceSerializer(serializers.ModelSerializer[Account]):
    """An account, in credits: `available` is `balance` less what calls under way have `held`."""

    user = serializers.IntegerField(source="user_id", read_only=True)
    available = serializers.IntegerField(read_only=True)

    class Meta:
        model = Account
        fields = ("user", "balance", "held", "available")
        read_only_fields = ("balance", "held")


@extend_schema_field({"type": "integer", "minimum": 0, "maximum": MAX_BALANCE_CREDITS})
class BalanceField(StrictIntegerField):
    """The ledger refuses what is out of bounds."""


@extend_schema_field({"type": "integer", "minimum": -MAX_BALANCE_CREDITS, "maximum": MAX_BALANCE_CREDITS})
class AmountField(StrictIntegerField):
    pass


class SetBalanceSerializer(serializers.Serializer[Any]):
    balance = BalanceField(help_text="Credits that the balance becomes.")
    reason = serializers.CharField(required=False, max_length=LONGEST_REASON, default="Set by an operator")


class GrantSerializer(serializers.Serializer[Any]):
    amount = AmountField(help_text="Credits to add; negative to take away.")
    reason = serializers.CharField(max_length=LONGEST_REASON)

    def validate_amount(self, value: int) -> int:
        if value == 0:
            raise serializers.ValidationError("Nothing would change.")
        return value


class EntrySerializer(serializers.ModelSerializer[Entry]):
    """One change of a balance. A charge carries what was used and the rate, in millionths of a credit."""

    user = serializers.IntegerField(source="account_id", read_only=True)
    request_id = serializers.UUIDField(source="hold_id", read_only=True, allow_null=True)
    key = serializers.IntegerField(source="key_id", read_only=True, allow_null=True)
    by = serializers.IntegerField(source="by_id", read_only=True, allow_null=True)
    units = serializers.DictField(child=serializers.IntegerField(), read_only=True)
    details = serializers.DictField(child=serializers.IntegerField(), read_only=True)
    rate = serializers.DictField(child=serializers.IntegerField(), read_only=True)

    class Meta:
        model = Entry
        fields = (
            "id",
            "user",
            "kind",
            "amount",
            "balance_after",
            "reason",
            "by",
            "request_id",
            "key",
            "operation",
            "model",
            "units",
            "details",
            "rate",
            "created_at",
        )
        read_only_fields = fields


class RateSerializer(serializers.ModelSerializer[Rate]):
    unit = serializers.ChoiceField(
        choices=units.UNITS,
        # The framework's own words repeat what was sent, which need not be text that can be sent back.
        error_messages={"invalid_choice": f"One of these is needed: {', '.join(units.UNITS)}."},
    )
    credits_per_unit = serializers.DecimalField(max_digits=15, decimal_places=6, min_value=0)

    class Meta:
        model = Rate
        fields = ("id", "model", "unit", "credits_per_unit")


class PeriodFilter(serializers.Serializer[Any]):
    """Whose history, and from when to when."""

    user = serializers.CharField(
        required=False, help_text='A user\'s id, or "all": for operators. Without it, your own.'
    )
    since = serializers.DateTimeField(required=False, help_text="From this time on.")
    until = serializers.DateTimeField(required=False, help_text="Before this time.")

    def validate_user(self, value: str) -> int | None:
        """The id; None for all users."""
        if value == selectors.ALL_USERS:
            return None
        if not (value.isascii() and value.isdecimal() and len(value) < 19):
            raise serializers.ValidationError('A user\'s id or "all" is needed.')
        return int(value)


class EntryFilter(PeriodFilter):
    kind = serializers.ChoiceField(choices=Entry.Kind.choices, required=False)


class UsageFilter(PeriodFilter):
    by = serializers.CharField(
        default="day,model",
        help_text=f"What to add up by, separated by commas: {', '.join(selectors.USAGE_BY)}.",
    )

    def validate_by(self, value: str) -> list[str]:
        names = list(dict.fromkeys(name.strip() for name in value.split(",")))
        if unknown := [name for name in names if name not in selectors.USAGE_BY]:
            raise serializers.ValidationError(f"{unknown[0]!r} is none of {', '.join(selectors.USAGE_BY)}.")
        return names


class UsageSerializer(serializers.Serializer[Any]):
    """One sum; of the first five only those that were asked for with `by`."""

    day = serializers.DateField(required=False, help_text="In UTC.")
    model = serializers.CharField(required=False)
    key = serializers.IntegerField(required=False, allow_null=True)
    operation = serializers.CharField(required=False)
    user = serializers.IntegerField(required=False)
    calls = serializers.IntegerField()
    credits = serializers.IntegerField(help_text="Charged, corrections included.")
    input_tokens = serializers.IntegerField(help_text="Text, cached, audio and image input, as charged.")
    output_tokens = serializers.IntegerField(help_text="Text, reasoning, audio and image output, as charged.")
