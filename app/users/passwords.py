"""The longest password: the same wherever one is set, so that what can be set can be logged in with."""

from typing import Final

from django.core.exceptions import ValidationError

# No password manager makes longer ones, and each try is hashed whole.
LONGEST_PASSWORD: Final = 4096


class MaximumLengthValidator:
    """One of Django's `AUTH_PASSWORD_VALIDATORS`."""

    def validate(self, password: str, user: object = None) -> None:
        if len(password) > LONGEST_PASSWORD:
            raise ValidationError(f"This password is longer than {LONGEST_PASSWORD} characters.")

    def get_help_text(self) -> str:
        return f"Your password may have {LONGEST_PASSWORD} characters at most."
