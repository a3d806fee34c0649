"""The ledger's tables. Amounts are integers, in credits; see `ledger` for the rules that change them.

The model is the two-phase transfer of TigerBeetle (docs, "Two-Phase Transfers"): a hold reserves, and
is then posted with the true amount or voided, once; entries are never changed, a correction is a new one.
"""

import uuid
from typing import Any

from django.conf import settings
from django.core.validators import RegexValidator
from django.db import models
from django.utils import timezone

from balances import units

# Below 2^53, so that a balance survives JSON readers that keep numbers as doubles.
MAX_BALANCE_CREDITS = 2**53 - 1
# A rate is stored in millionths of a credit, so that prices below one credit stay integers.
MICRO = 1_000_000
validate_model_pattern = RegexValidator(
    r"^([^*]+\*?|\*)\Z", 'A model\'s name is needed, or a beginning of one with "*" at its end.'
)


class Account(models.Model):
    """One user's credits: `balance` is the sum of the entries, `held` that of the open holds."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, on_delete=models.PROTECT, primary_key=True, related_name="account"
    )
    balance = models.BigIntegerField(default=0, help_text="Credits; the sum of the account's entries.")
    held = models.BigIntegerField(default=0, help_text="Credits reserved by calls under way.")
    relaxed = models.BooleanField(
        default=False,
        help_text="Only the input is checked before a call: the balance may end below zero by one call.",
    )

    class Meta:
        constraints = (models.CheckConstraint(condition=models.Q(held__gte=0), name="held_not_negative"),)

    def __str__(self) -> str:
        return f"account of {self.user}"

    @property
    def available(self) -> int:
        return self.balance - self.held


class Worker(models.Model):
    """A serving process. While its lease runs, its holds are its own; afterwards the sweeper's."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    started_at = models.DateTimeField(default=timezone.now)
    lease_until = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return str(self.id)


class Hold(models.Model):
    """Credits reserved for one call; its id is the call's request id."""

    class State(models.TextChoices):
        OPEN = "open"
        POSTED = "posted"
        VOIDED = "voided"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="holds")
    key = models.ForeignKey("users.ApiKey", on_delete=models.SET_NULL, null=True, related_name="+")
    worker = models.ForeignKey(
        Worker, on_delete=models.PROTECT, null=True, related_name="holds", db_constraint=False
    )
    state = models.CharField(max_length=6, choices=State.choices, default=State.OPEN)
    operation = models.CharField(max_length=100)
    model = models.CharField(max_length=200, blank=True)
    amount = models.BigIntegerField(help_text="Credits reserved.")
    counted = models.JSONField(
        default=dict, help_text="Units known to be spent so far; what a sweeper posts."
    )
    awaits = models.CharField(
        max_length=300,
        blank=True,
        help_text="What it stays open for, where the call's work goes on after its answer; never swept.",
    )
    reason = models.CharField(max_length=300, blank=True, help_text="Why it ended as it did.")
    created_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True)
    tokens = models.BigIntegerField(
        null=True, editable=False, help_text="Taken from the caller's tokens a minute; empty without a limit."
    )
    tokens_until = models.BigIntegerField(
        null=True, editable=False, help_text="When the last of them has drained: microseconds since 1970."
    )

    class Meta:
        ordering = ("-created_at",)
        constraints = (models.CheckConstraint(condition=models.Q(amount__gte=0), name="hold_not_negative"),)
        indexes = (
            models.Index(fields=("account",), name="open_hold_by_account", condition=models.Q(state="open")),
            models.Index(fields=("worker",), name="open_hold_by_worker", condition=models.Q(state="open")),
            models.Index(fields=("awaits",), name="open_hold_by_awaits", condition=models.Q(state="open")),
        )

    def __str__(self) -> str:
        return f"{self.state} hold of {self.amount}"


class Level(models.Model):
    """How full the buckets of a user or a key with limits were; see `limits`.

    Made with the first limited call, and only changed under the lock of the account.
    """

    owner = models.CharField(max_length=30, primary_key=True, help_text='"user:7" or "key:7".')
    requests = models.BigIntegerField()
    tokens = models.BigIntegerField()
    at = models.BigIntegerField(help_text="Microseconds since 1970, by the database's clock.")

    def __str__(self) -> str:
        return self.owner


class Entry(models.Model):
    """One change of one balance, never altered afterwards."""

    class Kind(models.TextChoices):
        GRANT = "grant"
        SET = "set"
        CHARGE = "charge"
        CORRECTION = "correction"
        REFUND = "refund"

    id = models.BigAutoField(primary_key=True)
    account = models.ForeignKey(Account, on_delete=models.PROTECT, related_name="entries")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    amount = models.BigIntegerField(help_text="Credits, signed: a charge is negative.")
    balance_after = models.BigIntegerField(help_text="The account's balance once this entry is in.")
    hold = models.ForeignKey(Hold, on_delete=models.PROTECT, null=True, related_name="entries")
    key = models.ForeignKey(
        "users.ApiKey", on_delete=models.SET_NULL, null=True, related_name="+", db_constraint=False
    )
    by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        on_delete=models.PROTECT,
        null=True,
        related_name="+",
        help_text="Who changed the balance; empty where a call did.",
    )
    operation = models.CharField(max_length=100, blank=True)
    model = models.CharField(max_length=200, blank=True)
    units = models.JSONField(default=dict, help_text="What was used, by class.")
    details = models.JSONField(
        default=dict, help_text="What the upstream said besides, such as calls of tools."
    )
    rate = models.JSONField(default=dict, help_text="Millionths of a credit a unit, as applied.")
    reason = models.CharField(max_length=300)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name_plural = "entries"
        ordering = ("-id",)
        constraints = (
            # A hold is charged once, whatever is retried or replayed.
            models.UniqueConstraint(
                fields=("hold",), condition=models.Q(kind="charge"), name="one_charge_a_hold"
            ),
        )
        indexes = (models.Index(fields=("account", "-id"), name="entry_by_account"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.amount:+d}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("An entry is never changed; write a correction.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError("An entry is never deleted; write a correction.")


class Rate(models.Model):
    """Credits a unit for a model. The longest pattern that fits a model's name decides, unit by unit.

    A unit that no rate prices costs its default: see `rates.DEFAULT_MICRO_CREDITS`. Reasoning is output, and
    costs as much where only that is priced.
    """

    model = models.CharField(
        max_length=200,
        validators=[validate_model_pattern],
        help_text='A model\'s name, or a beginning of one with "*", such as "gpt-4o*".',
    )
    unit = models.CharField(max_length=20, choices=[(unit, unit.replace("_", " ")) for unit in units.UNITS])
    credits_per_unit = models.DecimalField(
        max_digits=15,
        decimal_places=6,
        help_text="Credits for one token, image, second, character or request.",
    )

    class Meta:
        ordering = ("model", "unit")
        constraints = (
            models.UniqueConstraint(fields=("model", "unit"), name="one_rate_a_unit"),
            models.CheckConstraint(condition=models.Q(credits_per_unit__gte=0), name="rate_not_negative"),
        )

    def __str__(self) -> str:
        return f"{self.model}: {self.credits_per_unit} a {self.unit}"

    #: Millionths of a credit a unit, the integer that prices are computed with.
    @property
    def micro_credits(self) -> int:
        return int(self.credits_per_unit * MICRO)
