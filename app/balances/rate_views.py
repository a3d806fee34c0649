"""What units cost: /api/rates."""

from drf_spectacular.utils import OpenApiExample, extend_schema, extend_schema_view
from rest_framework import generics

from balances.models import MICRO, Rate
from balances.rates import DEFAULT_MICRO_CREDITS
from balances.serializers import RateSerializer
from common.drf import Pages, errors
from users.permissions import IsOperator

_DEFAULTS = ", ".join(f"{unit} {micro // MICRO}" for unit, micro in DEFAULT_MICRO_CREDITS.items())
RATE_EXAMPLE = OpenApiExample(
    "A rate",
    {"id": 1, "model": "gpt-4o*", "unit": "output", "credits_per_unit": "4.000000"},
    response_only=True,
)
_NEW_RATE = OpenApiExample(
    "Output at four credits a token",
    {"model": "gpt-4o*", "unit": "output", "credits_per_unit": "4"},
    request_only=True,
)


@extend_schema_view(
    get=extend_schema(
        tags=["Rates"],
        summary="List the rates",
        description="For operators. The longest pattern that fits a model's name decides, unit by unit; "
        f"a unit without a rate costs its default, in credits: {_DEFAULTS}. Reasoning without a rate costs "
        "what output does.",
        examples=[RATE_EXAMPLE],
        responses={200: RateSerializer(many=True), **errors(401, 403)},
    ),
    post=extend_schema(
        tags=["Rates"],
        summary="Price a unit of a model",
        description="For operators. It holds for calls that end after it has been made.",
        examples=[_NEW_RATE, RATE_EXAMPLE],
        responses={201: RateSerializer, **errors(400, 401, 403)},
    ),
)
class RateListView(generics.ListCreateAPIView[Rate]):
    permission_classes = [IsOperator]
    serializer_class = RateSerializer
    pagination_class = Pages
    queryset = Rate.objects.all()


@extend_schema_view(
    get=extend_schema(
        tags=["Rates"],
        summary="A rate",
        description="For operators.",
        examples=[RATE_EXAMPLE],
        responses={200: RateSerializer, **errors(401, 403, 404)},
    ),
    patch=extend_schema(
        tags=["Rates"],
        summary="Change a rate",
        description="For operators.",
        examples=[OpenApiExample("Dearer", {"credits_per_unit": "5"}, request_only=True), RATE_EXAMPLE],
        responses={200: RateSerializer, **errors(400, 401, 403, 404)},
    ),
    delete=extend_schema(
        tags=["Rates"],
        summary="Remove a rate",
        description="For operators. The unit then costs its default, or what a shorter pattern says.",
        responses={204: None, **errors(401, 403, 404)},
    ),
)
class RateDetailView(generics.RetrieveUpdateDestroyAPIView[Rate]):
    http_method_names = ["get", "patch", "delete", "head", "options"]
    permission_classes = [IsOperator]
    serializer_class = RateSerializer
    queryset = Rate.objects.all()
