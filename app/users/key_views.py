"""A user's own keys: /api/keys."""

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import generics, status
from rest_framework.permissions import IsAuthenticated
from rest_framework.request import Request
from rest_framework.response import Response

from common.drf import Pages, errors
from common.errors import Conflict
from users.models import ApiKey
from users.permissions import LogInToChange, user_of
from users.serializers import KeyFilter, KeySerializer, KeyWithSecretSerializer

KEY = {
    "id": 7,
    "kind": "issued",
    "name": "Laptop",
    "prefix": "sk-tg-Q0eXyz",
    "allowed_models": ["gpt-4o-mini", "gpt-4.1*"],
    "requests_per_minute": 60,
    "tokens_per_minute": None,
    "parallel_calls": 4,
    "created_at": "2026-11-21T09:00:00Z",
    "expires_at": None,
    "revoked_at": None,
    "last_used_at": None,
}
KEY_EXAMPLE = OpenApiExample("A key", KEY, response_only=True)
SECRET_EXAMPLE = OpenApiExample(
    "A key and its secret",
    {**KEY, "secret": "sk-tg-Q0eXyz…"},
    response_only=True,
    status_codes=["200", "201"],
)


class _OwnKeys(generics.GenericAPIView[ApiKey]):
    """The caller's keys; anybody else's do not exist here. An issued key may look at them only."""

    permission_classes = [IsAuthenticated, LogInToChange]
    serializer_class = KeySerializer
    queryset = ApiKey.objects.none()

    def get_queryset(self) -> QuerySet[ApiKey]:
        return ApiKey.objects.filter(user=user_of(self.request))

    def with_secret(self, key: ApiKey, secret: str, status_code: int) -> Response:
        shown = KeyWithSecretSerializer(key, context={**self.get_serializer_context(), "secret": secret})
        return Response(shown.data, status_code)


@extend_schema_view(
    get=extend_schema(
        tags=["Keys"],
        summary="List your keys",
        description="Newest first, log-ins and revoked ones included; never the secrets.",
        parameters=[KeyFilter],
        examples=[KEY_EXAMPLE],
        responses={200: KeySerializer(many=True), **errors(400, 401)},
    )
)
class KeyListView(_OwnKeys, generics.ListAPIView[ApiKey]):
    pagination_class = Pages

    def get_queryset(self) -> QuerySet[ApiKey]:
        given = KeyFilter(data=self.request.query_params)
        given.is_valid(raise_exception=True)
        return super().get_queryset().filter(**given.validated_data)

    @extend_schema(
        tags=["Keys"],
        summary="Make a key",
        description="The answer is the only one that shows the secret. Needs a login key.",
        examples=[
            OpenApiExample(
                "For one laptop",
                {
                    "name": "Laptop",
                    "expires_at": None,
                    "allowed_models": ["gpt-4o-mini", "gpt-4.1*"],
                    "requests_per_minute": 60,
                    "parallel_calls": 4,
                },
                request_only=True,
            ),
            SECRET_EXAMPLE,
        ],
        responses={201: KeyWithSecretSerializer, **errors(400, 401, 403)},
    )
    def post(self, request: Request) -> Response:
        given = self.get_serializer(data=request.data)
        given.is_valid(raise_exception=True)
        key, secret = ApiKey.issue(user=user_of(request), **given.validated_data)
        return self.with_secret(key, secret, status.HTTP_201_CREATED)


@extend_schema_view(
    get=extend_schema(
        tags=["Keys"],
        summary="One of your keys",
        examples=[KEY_EXAMPLE],
        responses={200: KeySerializer, **errors(401, 404)},
    ),
    delete=extend_schema(
        tags=["Keys"],
        summary="Revoke a key",
        description="It stops working at once, and stays in the list. Revoking your login key logs you out.",
        responses={204: None, **errors(401, 403, 404)},
    ),
)
class KeyDetailView(_OwnKeys, generics.RetrieveDestroyAPIView[ApiKey]):
    def perform_destroy(self, instance: ApiKey) -> None:
        instance.revoke()

    @extend_schema(
        tags=["Keys"],
        summary="Change a key",
        description="Its name, models, expiry and limits: those that are given, in force with the next call. "
        "The user's own limits, which only an operator changes, count beside the key's. "
        "A login key keeps its expiry. Needs a login key.",
        request=KeySerializer,
        examples=[
            OpenApiExample("Sixty calls a minute", {"requests_per_minute": 60}, request_only=True),
            OpenApiExample(
                "Another name, two models, until the end of the year",
                {
                    "name": "Laptop",
                    "allowed_models": ["gpt-4o-mini", "gpt-4.1*"],
                    "expires_at": "2026-12-31T23:59:59Z",
                },
                request_only=True,
            ),
            KEY_EXAMPLE,
        ],
        responses={200: KeySerializer, **errors(400, 401, 403, 404)},
    )
    def patch(self, request: Request, pk: int) -> Response:
        key = self.get_object()
        given = self.get_serializer(key, data=request.data, partial=True)
        given.is_valid(raise_exception=True)
        # Not the whole row: a call or a revocation may write to it meanwhile.
        ApiKey.objects.filter(pk=key.pk).update(**given.validated_data)
        key.refresh_from_db()
        return Response(self.get_serializer(key).data)


class KeyRotateView(_OwnKeys):
    @extend_schema(
        tags=["Keys"],
        summary="Give a key a new secret",
        description="The key keeps its name and limits; the old secret stops working at once.",
        request=None,
        examples=[SECRET_EXAMPLE],
        responses={200: KeyWithSecretSerializer, **errors(401, 403, 404, 409)},
    )
    def post(self, request: Request, pk: int) -> Response:
        key = self.get_object()
        if key.revoked_at is not None:
            raise Conflict("This key has been revoked; make a new one.")
        secret = key.renew_secret()
        key.save(update_fields=["prefix", "digest"])
        return self.with_secret(key, secret, status.HTTP_200_OK)
