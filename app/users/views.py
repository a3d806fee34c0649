"""Registration, log-in, profiles, and the operators' list of users: /api/user and /api/users."""

from datetime import timedelta
from typing import Any

from django.contrib.auth import authenticate
from django.db.models import QuerySet
from django.utils import timezone
from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from common.drf import Pages, errors
from common.errors import BadRequest
from users.models import ApiKey, User
from users.permissions import IsOperator, MayRegister, user_of
from users.serializers import (
    CredentialsSerializer,
    OwnProfileSerializer,
    RegistrationSerializer,
    TokenSerializer,
    UserFilter,
    UserSerializer,
)
from users.throttles import LogIns, RegistrationsByAddress

# Long enough not to ask for the password each week, short enough that a forgotten one dies.
LOG_IN_LASTS = timedelta(days=30)

ALICE = {"id": 2, "email": "alice@example.org", "name": "Alice"}
PROFILE_EXAMPLE = OpenApiExample("Alice", ALICE, response_only=True)
USER_EXAMPLE = OpenApiExample(
    "Alice",
    {
        **ALICE,
        "is_active": True,
        "is_superuser": False,
        "date_joined": "2026-11-21T09:00:00Z",
        "requests_per_minute": 600,
        "tokens_per_minute": 100_000,
        "parallel_calls": None,
    },
    response_only=True,
)
OWN_EXAMPLE = OpenApiExample(
    "Alice",
    {**ALICE, "requests_per_minute": 600, "tokens_per_minute": 100_000, "parallel_calls": 20},
    response_only=True,
)


@extend_schema_view(
    post=extend_schema(
        tags=["Users"],
        summary="Create a user",
        description="Operators may; everybody may where the operator opened the registration.",
        examples=[
            OpenApiExample(
                "Alice",
                {"email": "alice@example.org", "password": "correct horse battery", "name": "Alice"},
                request_only=True,
            ),
            PROFILE_EXAMPLE,
        ],
        responses={201: RegistrationSerializer, **errors(400, 401, 403, 429)},
    )
)
class RegisterView(generics.CreateAPIView[User]):
    permission_classes = [MayRegister]
    throttle_classes = [RegistrationsByAddress]
    serializer_class = RegistrationSerializer


class LogInView(APIView):
    authentication_classes = []
    permission_classes = [AllowAny]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tries = LogIns()

    def get_throttles(self) -> list[BaseThrottle]:
        return [self._tries]

    @extend_schema(
        tags=["Users"],
        summary="Log in",
        description="Answers a login key, which lasts 30 days; a wrong e-mail or password answers 400.",
        auth=[],
        request=CredentialsSerializer,
        responses={200: TokenSerializer, **errors(400, 429)},
        examples=[
            OpenApiExample(
                "Alice",
                {"email": "alice@example.org", "password": "correct horse battery"},
                request_only=True,
            ),
            OpenApiExample(
                "A token",
                {"token": "sk-tg-Q0e…", "expires_at": "2026-12-21T09:00:00Z"},
                response_only=True,
                status_codes=["200"],
            ),
        ],
    )
    def post(self, request: Request) -> Response:
        given = CredentialsSerializer(data=request.data)
        given.is_valid(raise_exception=True)
        # Takes as long for an address that nobody has, and refuses the disabled alike.
        user = authenticate(
            request._request,
            username=given.validated_data["email"],
            password=given.validated_data["password"],
        )
        if not isinstance(user, User):
            raise BadRequest("The e-mail address or the password is wrong.", code="invalid_credentials")
        self._tries.give_back()
        key, secret = ApiKey.issue(
            user=user, name="Log-in", kind=ApiKey.Kind.LOGIN, expires_at=timezone.now() + LOG_IN_LASTS
        )
        return Response(TokenSerializer({"token": secret, "expires_at": key.expires_at}).data)


_CHANGE_PROFILE: dict[str, Any] = {
    "tags": ["Users"],
    "description": "A new e-mail address or password needs a login key; "
    "a new password ends the other log-ins.",
    "examples": [
        OpenApiExample("A new name", {"email": "alice@example.org", "name": "Alice L."}, request_only=True),
        OWN_EXAMPLE,
    ],
    "responses": {200: OwnProfileSerializer, **errors(400, 401, 403)},
}


@extend_schema_view(
    get=extend_schema(
        tags=["Users"],
        summary="Your profile",
        description="With the limits that are in force for your calls; null: unlimited.",
        examples=[OWN_EXAMPLE],
        responses={200: OwnProfileSerializer, **errors(401)},
    ),
    put=extend_schema(summary="Replace your profile", **_CHANGE_PROFILE),
    patch=extend_schema(summary="Change your profile", **_CHANGE_PROFILE),
)
class MeView(generics.RetrieveUpdateAPIView[User]):
    serializer_class = OwnProfileSerializer

    def get_object(self) -> User:
        return user_of(self.request)


@extend_schema_view(
    get=extend_schema(
        tags=["Users"],
        summary="List users",
        description="For operators.",
        parameters=[UserFilter],
        examples=[USER_EXAMPLE],
        responses={200: UserSerializer(many=True), **errors(400, 401, 403)},
    )
)
class UserListView(generics.ListAPIView[User]):
    permission_classes = [IsOperator]
    serializer_class = UserSerializer
    pagination_class = Pages

    def get_queryset(self) -> QuerySet[User]:
        given = UserFilter(data=self.request.query_params)
        given.is_valid(raise_exception=True)
        return User.objects.filter(email__contains=given.validated_data.get("search", "").lower())


@extend_schema_view(
    get=extend_schema(
        tags=["Users"],
        summary="A user",
        description="For operators.",
        examples=[USER_EXAMPLE],
        responses={200: UserSerializer, **errors(401, 403, 404)},
    ),
    patch=extend_schema(
        tags=["Users"],
        summary="Change, limit or disable a user",
        description="For operators. A disabled user cannot log in, and none of their keys works. "
        "A new password or e-mail address needs a login key, and a new password ends the user's log-ins. "
        "Limits are in force with the user's next call; null makes them the gateway's own.",
        examples=[
            OpenApiExample("Disable", {"is_active": False}, request_only=True),
            OpenApiExample(
                "Limit",
                {"requests_per_minute": 600, "tokens_per_minute": 100_000, "parallel_calls": None},
                request_only=True,
            ),
            USER_EXAMPLE,
        ],
        responses={200: UserSerializer, **errors(400, 401, 403, 404)},
    ),
)
class UserDetailView(generics.RetrieveUpdateAPIView[User]):
    http_method_names = ["get", "patch", "head", "options"]
    permission_classes = [IsOperator]
    serializer_class = UserSerializer
    queryset = User.objects.all()
