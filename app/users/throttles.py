"""How often strangers may try, counted in the database that all workers share."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address, ip_network

from django.db import connection, transaction
from django.http import HttpRequest
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle, SimpleRateThrottle
from rest_framework.views import APIView

from users.models import normalise_email


class _Exact(SimpleRateThrottle):
    """Counts under a lock: the framework reads, compares and writes, and parallel tries would all pass."""

    # Set once a try has been counted.
    key: str | None = None

    def allow_request(self, request: Request, view: APIView | None) -> bool:
        with self._alone():
            return super().allow_request(request, view)  # type: ignore[arg-type]

    def give_back(self) -> None:
        """Takes the try that was let through out of the count again; others' stay."""
        if self.key is None:
            return
        with self._alone():
            history = self.cache.get(self.key, [])
            if self.now in history:
                history.remove(self.now)
                self.cache.set(self.key, history, self.duration)  # type: ignore[attr-defined]  # untyped

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with transaction.atomic():
            # SQLite's transactions, which begin IMMEDIATE, are the lock themselves.
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"throttle {self.scope}"])
            yield


class _ByAddress(_Exact):
    def get_cache_key(self, request: Request, view: APIView) -> str | None:
        return self.cache_format % {"scope": self.scope, "ident": self.get_ident(request)}

    def get_ident(self, request: Request) -> str:
        """The caller's address; of IPv6 the network of 64 bits, for whoever has one address has them all."""
        ident = str(super().get_ident(request))
        # Some proxies append the port, which is another one with each connection.
        found = re.fullmatch(r"\[([^\]]+)\](?::\d+)?|([\d.]+):\d+", ident)
        try:
            address = ip_address((found[1] or found[2]) if found else ident)
        except ValueError:
            return ident
        if isinstance(address, IPv6Address):
            return str(address.ipv4_mapped or ip_network((address.packed, 64), strict=False))
        return str(address)


class RegistrationsByAddress(_ByAddress):
    """Operators register as many as they like; that somebody has a key of some kind changes nothing."""

    scope = "registration"

    def get_cache_key(self, request: Request, view: APIView) -> str | None:
        return None if request.user.is_superuser else super().get_cache_key(request, view)


class LogInsByAddress(_ByAddress):
    scope = "auth"


class LogInsByAccount(_Exact):
    """Slows down a guess at one account from many addresses.

    Three times what one address may: a single stranger cannot keep the owner out.
    """

    scope = "auth_account"
    rate = "30/min"

    def get_cache_key(self, request: Request, view: APIView) -> str | None:
        # Only the field that is gone by: with another one beside it each try would be somebody else's.
        is_form = isinstance(request, HttpRequest)
        sent, name = (request.POST, "username") if is_form else (request.data, "email")
        email = sent.get(name) if hasattr(sent, "get") else None
        if not isinstance(email, str):
            return None
        # A digest: an address may be long, and holds characters that a cache's key may not.
        ident = hashlib.sha256(normalise_email(email).encode("utf-8", "surrogatepass")).hexdigest()
        return self.cache_format % {"scope": self.scope, "ident": ident}


class LogIns(BaseThrottle):
    """By address, and of what passes there by account: a refused try counts against nobody else's.

    Each is counted before it is made, so that parallel ones do not all pass, and given back if it succeeded:
    many people may log in from one address.
    """

    def __init__(self) -> None:
        self._throttles = (LogInsByAddress(), LogInsByAccount())

    def give_back(self) -> None:
        """For a try that was allowed and has succeeded."""
        for throttle in self._throttles:
            throttle.give_back()

    def allow_request(self, request: Request | HttpRequest, view: APIView | None) -> bool:
        for throttle in self._throttles:
            if not throttle.allow_request(request, view):  # type: ignore[arg-type]
                self._wait_s = throttle.wait()
                return False
        return True

    def wait(self) -> float | None:
        return self._wait_s
