"""The ledger's tests set the rates that they are about."""

import pytest

from balances.models import Rate


@pytest.fixture(autouse=True)
def no_rates(db: None) -> None:
    """As if the operator had deleted the rates that come with the gateway."""
    Rate.objects.all().delete()
