#!/usr/bin/env python
"""Command line of the gateway: `manage.py serve`, `migrate`, `audit`, `simulate`, …"""

import os
import sys


def main() -> None:
    """Run the command named on the command line under the project's settings."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gateway.settings")
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        execute_from_command_line(sys.argv)
    except ImproperlyConfigured as error:
        # A mistake in the environment: its message says all there is to know.
        sys.exit(f"manage.py: {error}")


if __name__ == "__main__":
    main()
