"""Whose each object at OpenAI is. All users share one account there; only these rows tell them apart."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from openai_app.owned.objects import KINDS


def kinds() -> list[tuple[str, str]]:
    return [(kind, kind.replace("_", " ")) for kind in KINDS]


class UpstreamObject(models.Model):
    """One object that a call left with OpenAI: a file, an assistant, a stored response, …"""

    object_id = models.CharField("id", max_length=255, unique=True)
    kind = models.CharField(max_length=40, choices=kinds)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    is_shared = models.BooleanField(
        "shared", default=False, help_text="All users may read and use it; only its owner may change it."
    )
    parent_id = models.CharField(  # noqa: DJ001 - most have none, and need no text in the index
        "part of",
        max_length=255,
        null=True,
        blank=True,
        help_text="The id of what it belongs to: whoever has that, or may read it, has or reads this.",
    )
    #: The object as it was last seen, from which lists are answered; empty when it must be read again.
    data = models.JSONField(default=dict, editable=False)
    created_at = models.DateTimeField("recorded", default=timezone.now, editable=False)

    class Meta:
        verbose_name = "object at OpenAI"
        verbose_name_plural = "objects at OpenAI"
        ordering = ("-id",)
        indexes = (
            models.Index(fields=("owner", "kind", "id"), name="object_by_owner"),
            models.Index(fields=("parent_id",), name="object_by_parent"),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.object_id}"


class Lease(models.Model):
    """What only one process over all hosts may do at a time, and until when one may."""

    name = models.CharField(max_length=40, primary_key=True)
    holder = models.CharField(max_length=32)
    until = models.DateTimeField()

    def __str__(self) -> str:
        return self.name


class IdempotentCall(models.Model):
    """A call that came with an `Idempotency-Key`: under way, or finished with an answer to be replayed."""

    #: The digest of the API key's id and the header's value.
    id = models.CharField(max_length=64, primary_key=True)
    #: The digest of what was asked for; another request with the same header is refused.
    asked = models.CharField(max_length=64)
    #: The id of the call that runs or ran, which is that of its hold.
    request_id = models.UUIDField()
    #: The process that serves it: with its lease (`balances.Worker`) ends its claim.
    worker_id = models.UUIDField()
    #: The answer's status; empty while the call is under way.
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=list)
    #: Empty once the call is finished: the answer was too large to be kept.
    body = models.BinaryField(null=True)
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    def __str__(self) -> str:
        return self.request_id.hex
