"""Every user has an account from the start."""

from typing import Any

from django.db.models.signals import post_save
from django.dispatch import receiver

from balances.models import Account
from users.models import User


@receiver(post_save, sender=User)
def open_account(instance: User, created: bool, raw: bool, **_: Any) -> None:
    if created and not raw:
        Account.objects.create(user=instance)
