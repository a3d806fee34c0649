"""Balances, their history and usage: /api/balance and /api/usage."""

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from balances import ledger, selectors
from balances.models import Account, Entry
from balances.serializers import (
    BalanceSerializer,
    EntryFilter,
    EntrySerializer,
    GrantSerializer,
    PeriodFilter,
    SetBalanceSerializer,
    UsageFilter,
    UsageSerializer,
)
from common.drf import History, Pages, errors
from users.permissions import IsOperator, is_operator, user_of

BALANCE_EXAMPLE = OpenApiExample(
    "A balance", {"user": 2, "balance": 30, "held": 0, "available": 30}, response_only=True
)
ENTRY_EXAMPLE = OpenApiExample(
    "A charge",
    {
        "id": 41,
        "user": 2,
        "kind": "charge",
        "amount": -19,
        "balance_after": 11,
        "reason": "completed",
        "by": None,
        "request_id": "0b0a4c5e-4f5e-4f7c-9d2f-0a8f5f0c9a11",
        "key": 7,
        "operation": "POST /v1/chat/completions",
        "model": "gpt-4o-mini",
        "units": {"input": 9, "output": 10},
        "details": {},
        "rate": {"input": 1000000, "output": 1000000},
        "created_at": "2026-11-21T09:00:00Z",
    },
    response_only=True,
)
USAGE_EXAMPLE = OpenApiExample(
    "A day's calls of one model",
    {
        "day": "2026-11-21",
        "model": "gpt-4o-mini",
        "calls": 12,
        "credits": 431,
        "input_tokens": 211,
        "output_tokens": 220,
    },
    response_only=True,
)
USER_ID = OpenApiParameter("user_id", int, OpenApiParameter.PATH)


def _show(user_id: int) -> Response:
    return Response(BalanceSerializer(_account(user_id)).data)


def _account(user_id: int) -> Account:
    """Raises Http404."""
    # By the user's own column: a lookup of the relation fails for a number that no database can hold.
    return generics.get_object_or_404(Account, user__pk=user_id)


class OwnBalanceView(APIView):
    @extend_schema(
        tags=["Balances"],
        summary="Your balance",
        description="In credits; one credit is one token unless the operator prices a model otherwise.",
        examples=[BALANCE_EXAMPLE],
        responses={200: BalanceSerializer, **errors(401)},
    )
    def get(self, request: Request) -> Response:
        return _show(user_of(request).pk)


_SET_BALANCE: dict[str, Any] = {
    "tags": ["Balances"],
    "description": "For operators. The change is an entry, with who made it and why.",
    "parameters": [USER_ID],
    "request": SetBalanceSerializer,
    "responses": {200: BalanceSerializer, **errors(400, 401, 403, 404)},
    "examples": [
        OpenApiExample("Thirty credits", {"balance": 30, "reason": "A trial"}, request_only=True),
        BALANCE_EXAMPLE,
    ],
}


class BalanceView(APIView):
    permission_classes = [IsOperator]

    @extend_schema(
        operation_id="user_balance_retrieve",
        tags=["Balances"],
        summary="A user's balance",
        description="For operators.",
        parameters=[USER_ID],
        examples=[BALANCE_EXAMPLE],
        responses={200: BalanceSerializer, **errors(401, 403, 404)},
    )
    def get(self, request: Request, user_id: int) -> Response:
        return _show(user_id)

    @extend_schema(summary="Set a user's balance", **_SET_BALANCE)
    def put(self, request: Request, user_id: int) -> Response:
        return self._set(request, user_id)

    @extend_schema(summary="Set a user's balance (as PUT does)", **_SET_BALANCE)
    def patch(self, request: Request, user_id: int) -> Response:
        return self._set(request, user_id)

    def _set(self, request: Request, user_id: int) -> Response:
        account = _account(user_id)
        given = SetBalanceSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        ledger.set_balance(
            user_id=account.pk,
            to_credits=given.validated_data["balance"],
            by_id=user_of(request).pk,
            reason=given.validated_data["reason"],
        )
        return _show(user_id)


class GrantView(APIView):
    permission_classes = [IsOperator]

    @extend_schema(
        tags=["Balances"],
        summary="Add to a user's balance, or take from it",
        description="For operators. Unlike setting the balance, it loses no charge that comes in meanwhile.",
        parameters=[USER_ID],
        request=GrantSerializer,
        responses={200: BalanceSerializer, **errors(400, 401, 403, 404)},
        examples=[
            OpenApiExample("A month", {"amount": 1000, "reason": "Paid for November"}, request_only=True),
            BALANCE_EXAMPLE,
        ],
    )
    def post(self, request: Request, user_id: int) -> Response:
        account = _account(user_id)
        given = GrantSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        amount = given.validated_data["amount"]
        ledger.change(
            user_id=account.pk,
            amount=amount,
            kind=Entry.Kind.GRANT if amount > 0 else Entry.Kind.CORRECTION,
            by_id=user_of(request).pk,
            reason=given.validated_data["reason"],
        )
        return _show(user_id)


def _asked_for(request: Request, filter_class: type[PeriodFilter]) -> dict[str, Any]:
    """The parameters of a history, with `user_id` for whose: the caller's own, unless an operator asks.

    Raises ValidationError, PermissionDenied, Http404.
    """
    given = filter_class(data=request.query_params)
    given.is_valid(raise_exception=True)
    asked: dict[str, Any] = dict(given.validated_data)
    own_id = user_of(request).pk
    asked["user_id"] = asked.pop("user", own_id)
    if asked["user_id"] != own_id and not is_operator(request):
        raise PermissionDenied("Only operators may see what others have used.")
    if asked["user_id"] is not None:
        _account(asked["user_id"])
    return asked


@extend_schema_view(
    get=extend_schema(
        tags=["Balances"],
        summary="The history of your balance",
        description="Newest first: grants and charges, with what was used, at which rate. "
        "Operators may ask for anybody's.",
        parameters=[EntryFilter],
        examples=[ENTRY_EXAMPLE],
        responses={200: EntrySerializer(many=True), **errors(400, 401, 403, 404)},
    )
)
class OwnEntriesView(generics.ListAPIView[Entry]):
    serializer_class = EntrySerializer
    pagination_class = History
    queryset = Entry.objects.none()

    def get_queryset(self) -> QuerySet[Entry]:
        return selectors.entries(**_asked_for(self.request, EntryFilter))


@extend_schema_view(
    get=extend_schema(
        operation_id="user_balance_entries_list",
        tags=["Balances"],
        summary="The history of a user's balance",
        description="For operators.",
        parameters=[USER_ID, EntryFilter],
        examples=[ENTRY_EXAMPLE],
        responses={200: EntrySerializer(many=True), **errors(400, 401, 403, 404)},
    )
)
class EntriesView(OwnEntriesView):
    permission_classes = [IsOperator]

    def get_queryset(self) -> QuerySet[Entry]:
        asked = _asked_for(self.request, EntryFilter)
        return selectors.entries(**{**asked, "user_id": _account(self.kwargs["user_id"]).pk})


class UsageView(generics.GenericAPIView[Entry]):
    pagination_class = Pages
    serializer_class = UsageSerializer
    queryset = Entry.objects.none()

    @extend_schema(
        tags=["Usage"],
        summary="Calls, credits and tokens of a period",
        description="By default your own of the last 30 days, by day and model. "
        "Operators may ask for anybody's, or for all.",
        parameters=[UsageFilter, OpenApiParameter("limit", int), OpenApiParameter("offset", int)],
        examples=[USAGE_EXAMPLE],
        responses={200: UsageSerializer(many=True), **errors(400, 401, 403, 404)},
    )
    def get(self, request: Request) -> Response:
        sums = selectors.usage(**_asked_for(request, UsageFilter))
        page = self.paginate_queryset(sums)
        assert page is not None
        return self.get_paginated_response(
            [{name.removeprefix("by_"): value for name, value in row.items()} for row in page]
        )
