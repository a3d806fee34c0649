"""Users, who log in by e-mail, and the API keys they hold."""

import hashlib
import secrets
from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.utils import timezone

from users.limits import MOST

# 32 random bytes: too many to guess, so a plain SHA-256 is enough to store (no salt, no slow hash).
SECRET_BYTES = 32
SECRET_PREFIX = "sk-tg-"  # noqa: S105
# What of a secret may be shown again, so that people can tell their keys apart.
SHOWN_CHARACTERS = len(SECRET_PREFIX) + 6
# "Last used" is for people: writing it once a minute spares an update a call.
LAST_USED_GRAIN = timedelta(minutes=1)


def normalise_email(email: str) -> str:
    return email.strip().lower()


def new_secret() -> str:
    return SECRET_PREFIX + secrets.token_urlsafe(SECRET_BYTES)


def digest_of(secret: str) -> str:
    """The SHA-256 of a secret, 64 hex digits; text that is no UTF-8 still has one."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def validate_patterns(value: Any) -> None:
    """Raises ValidationError unless `value` is a list of model names or patterns such as "gpt-4.1*"."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise ValidationError('Want a list of models, such as ["gpt-4o-mini", "gpt-4.1*"].')


class UserManager(BaseUserManager["User"]):
    """Creates users by e-mail address, which is lower-cased as a whole: nobody has two accounts by case."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A user with `password` hashed; without one the user cannot log in.

        Raises ValueError without an e-mail address, IntegrityError if it is taken.
        """
        if not email:
            raise ValueError("A user needs an e-mail address.")
        user = self.model(email=normalise_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, **{**fields, "is_staff": True, "is_superuser": True})

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=normalise_email(username or ""))


def _limit(help_text: str) -> Any:
    return models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1), MaxValueValidator(MOST)], help_text=help_text
    )


class Limited(models.Model):
    """A user or a key with limits of its own. They are counted in `balances`, not here."""

    requests_per_minute = _limit("Calls under /v1 in a minute; so many may come at once.")
    tokens_per_minute = _limit("Tokens in a minute, input and output; so many may come at once.")
    parallel_calls = _limit("Paid calls at the same time.")

    class Meta:
        abstract = True


class User(Limited, AbstractBaseUser, PermissionsMixin):
    """A person or a service that is billed; superusers are the operators.

    A limit that is not set is the gateway's, which the environment names.
    """

    email = models.EmailField("e-mail address", unique=True)
    name = models.CharField(max_length=150, blank=True)
    is_active = models.BooleanField(
        "active", default=True, help_text="A disabled user cannot log in, and none of their keys works."
    )
    is_staff = models.BooleanField("may use the admin", default=False)
    date_joined = models.DateTimeField("created", default=timezone.now, editable=False)

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    #: The login key by which the user sets a new password, and which outlives it.
    kept_log_in: "ApiKey | None" = None

    class Meta:
        ordering = ("id",)

    def __str__(self) -> str:
        return self.email

    def save(self, *args: Any, **kwargs: Any) -> None:
        """A new password ends the log-ins, wherever it is set: the API, the admin, the command line."""
        has_new_password = self._password is not None and not self._state.adding
        with transaction.atomic():
            super().save(*args, **kwargs)
            if has_new_password:
                self._end_log_ins()

    def clean(self) -> None:
        super().clean()
        self.email = normalise_email(self.email)

    def set_unusable_password(self) -> None:
        super().set_unusable_password()
        # Django takes note of new passwords here; to have none is a new one as well.
        self._password = ""

    def _end_log_ins(self) -> None:
        """Revokes the user's login keys. Sessions end by themselves: they are tied to the password's hash."""
        login_keys = self.keys.filter(kind=ApiKey.Kind.LOGIN, revoked_at=None)
        if self.kept_log_in is not None:
            login_keys = login_keys.exclude(pk=self.kept_log_in.pk)
        login_keys.update(revoked_at=timezone.now())


class ApiKey(Limited):
    """A secret by which its user is known; only the secret's digest is stored.

    A login key is what `/api/user/auth` answers, and may manage the user's keys and profile;
    an issued key makes calls and reads, so that a leaked one cannot make others. Limits that are set count
    beside its user's.
    """

    class Kind(models.TextChoices):
        ISSUED = "issued"
        LOGIN = "login"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="keys")
    kind = models.CharField(max_length=6, choices=Kind.choices, default=Kind.ISSUED)
    name = models.CharField(max_length=100)
    prefix = models.CharField("secret begins with", max_length=SHOWN_CHARACTERS, editable=False)
    digest = models.CharField(max_length=64, unique=True, editable=False)
    allowed_models = models.JSONField(
        default=list,
        blank=True,
        validators=[validate_patterns],
        help_text='Models the key may call, such as ["gpt-4o-mini", "gpt-4.1*"]; empty means all.',
    )
    created_at = models.DateTimeField("created", default=timezone.now, editable=False)
    expires_at = models.DateTimeField("expires", null=True, blank=True)
    revoked_at = models.DateTimeField("revoked", null=True, blank=True, editable=False)
    last_used_at = models.DateTimeField("last used", null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "API key"
        ordering = ("-id",)
        indexes = (models.Index(fields=("user", "-id"), name="apikey_by_user"),)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"

    @classmethod
    def issue(
        cls,
        *,
        user: User,
        name: str,
        kind: "ApiKey.Kind" = Kind.ISSUED,
        expires_at: datetime | None = None,
        allowed_models: list[str] | None = None,
        **limits: int | None,
    ) -> tuple["ApiKey", str]:
        """Stores a new key and answers it with its secret, which cannot be read again.

        `limits` are by the names of `users.limits`.
        """
        models_ = allowed_models or []
        key = cls(user=user, kind=kind, name=name, expires_at=expires_at, allowed_models=models_, **limits)
        secret = key.renew_secret()
        key.save()
        return key, secret

    def renew_secret(self) -> str:
        """Gives the key another secret and answers it; the one before is dead once the key is saved."""
        secret = new_secret()
        self.prefix = secret[:SHOWN_CHARACTERS]
        self.digest = digest_of(secret)
        return secret

    def revoke(self) -> None:
        """Ends the key at once; one that has been revoked keeps its time."""
        now = timezone.now()
        if ApiKey.objects.filter(pk=self.pk, revoked_at=None).update(revoked_at=now):
            self.revoked_at = now

    def is_valid_at(self, now: datetime) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)
