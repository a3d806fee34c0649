"""Errors in OpenAI's shape and words, as its API gives them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

HELP = "help.openai.com"


@dataclass(slots=True, frozen=True)
class ApiError(Exception):
    """An answer of the form `{"error": {message, type, param, code}}`.

    Attributes:
        status: the HTTP status.
        headers: further headers of the answer, names in lower case.
    """

    status: int
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    code: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def document(self) -> dict[str, Any]:
        error = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": error}

    def body(self) -> bytes:
        return orjson.dumps(self.document(), option=orjson.OPT_INDENT_2) + b"\n"


def no_key() -> ApiError:
    return ApiError(
        401,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using "
        "Bearer auth (i.e. Authorization: Bearer YOUR_KEY), or as the password field (with blank username) "
        "if you're accessing the API from your browser and are prompted for a username and password. You "
        "can obtain an API key from https://platform.openai.com/account/api-keys.",
    )


def unknown_url(method: str, path: str) -> ApiError:
    return ApiError(404, f"Invalid URL ({method} {path})")


def wrong_method(method: str, path: str) -> ApiError:
    hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
    return ApiError(405, f"Not allowed to {method} on {path} {hint}", code="method_not_supported")


def not_json() -> ApiError:
    return ApiError(
        400,
        "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your "
        "HTTP library correctly. The OpenAI API expects a JSON payload, but what was sent was not valid "
        "JSON. If you have trouble figuring out how to fix this, please contact us through our help "
        f"center at {HELP}.)",
    )


def empty_array(parameter: str) -> ApiError:
    message = (
        f"Invalid '{parameter}': empty array. "
        "Expected an array with minimum length 1, but got an empty array instead."
    )
    return ApiError(400, message, param=parameter, code="empty_array")


def missing(parameter: str) -> ApiError:
    message = f"Missing required parameter: '{parameter}'."
    return ApiError(400, message, param=parameter, code="missing_required_parameter")


def invalid_type(parameter: str, expected: str, value: object) -> ApiError:
    got = {bool: "a boolean", int: "an integer", float: "a decimal", str: "a string", list: "an array"}
    name = "null" if value is None else got.get(type(value), "an object")
    message = f"Invalid type for '{parameter}': expected {expected}, but got {name} instead."
    return ApiError(400, message, param=parameter, code="invalid_type")


def below_minimum(parameter: str, minimum: int, value: int) -> ApiError:
    message = (
        f"Invalid '{parameter}': integer below minimum value. "
        f"Expected a value >= {minimum}, but got {value} instead."
    )
    return ApiError(400, message, param=parameter, code="integer_below_min_value")


def above_maximum(parameter: str, maximum: int, value: int) -> ApiError:
    message = (
        f"Invalid '{parameter}': integer above maximum value. "
        f"Expected a value <= {maximum}, but got {value} instead."
    )
    return ApiError(400, message, param=parameter, code="integer_above_max_value")


def invalid_schema(why: str) -> ApiError:
    return ApiError(400, f"Invalid schema: {why}.", code="invalid_function_parameters")


def unsupported_max_tokens() -> ApiError:
    message = (
        "Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead."
    )
    return ApiError(400, message, param="max_tokens", code="unsupported_parameter")


def unknown_model(model: str) -> ApiError:
    message = f"The model `{model}` does not exist or you do not have access to it."
    return ApiError(404, message, code="model_not_found")


def of_status(
    status: int, *, model: str, key: str, request_id: str, quota: bool, retry_after_s: float | None
) -> ApiError:
    """The error that OpenAI typically gives with `status`."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if retry_after_s is not None:
        headers = ((b"retry-after", f"{retry_after_s:g}".encode()),)
    if status == 401:
        masked = f"{key[:8]}{'*' * 8}{key[-4:]}" if len(key) > 16 else key
        message = (
            f"Incorrect API key provided: {masked}. "
            "You can find your API key at https://platform.openai.com/account/api-keys."
        )
        return ApiError(401, message, code="invalid_api_key", headers=headers)
    if status == 404:
        error = unknown_model(model)
        return ApiError(404, error.message, code=error.code, headers=headers)
    if status == 429 and quota:
        message = (
            "You exceeded your current quota, please check your plan and billing details. For more "
            "information on this error, read the docs: https://platform.openai.com/docs/guides/error-codes/api-errors."
        )
        return ApiError(429, message, "insufficient_quota", code="insufficient_quota", headers=headers)
    if status == 429:
        message = (
            f"Rate limit reached for {model} in organization org-simulator on tokens per min (TPM): "
            f"Limit 30000, Used 29000, Requested 2000. Please try again in {retry_after_s or 2:g}s. Visit "
            "https://platform.openai.com/account/rate-limits to learn more."
        )
        return ApiError(429, message, "tokens", code="rate_limit_exceeded", headers=headers)
    if status == 503:
        message = (
            "That model is currently overloaded with other requests. You can retry your request, or contact "
            f"us through our help center at {HELP} if the error persists."
        )
        return ApiError(503, message, "server_error", headers=headers)
    if status >= 500:
        return ApiError(status, server_error_message(request_id), "server_error", headers=headers)
    return ApiError(status, f"The request was refused with status {status}.", headers=headers)


def server_error_message(request_id: str) -> str:
    return (
        "The server had an error processing your request. Sorry about that! You can retry your request, or "
        f"contact us through our help center at {HELP} if you keep seeing this error. "
        f"(Please include the request ID {request_id} in your email.)"
    )
