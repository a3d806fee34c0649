from django.apps import AppConfig


class BalancesConfig(AppConfig):
    name = "balances"

    def ready(self) -> None:
        from balances import signals  # noqa: F401  (connects its receivers)
