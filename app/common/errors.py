"""Every error that a caller can be told of, in OpenAI's shape, so that OpenAI's SDKs raise their own classes.

    ApiError                        status  code
    ├── BadRequest                  400     invalid_request
    ├── KeyRejected                 401     invalid_api_key
    ├── InsufficientBalance         402     insufficient_quota
    ├── PermissionDenied            403     permission_denied
    ├── NotFound                    404     not_found
    ├── MethodNotAllowed            405     method_not_allowed
    ├── RequestTimedOut             408     request_timeout
    ├── Conflict                    409     conflict
    ├── PayloadTooLarge             413     payload_too_large
    ├── Unprocessable               422     unprocessable
    ├── RateLimited                 429     rate_limit_exceeded     LimitReached: see balances.limits
    ├── UpstreamFailed              502     upstream_error
    ├── Unavailable                 503     service_unavailable
    └── UpstreamTimedOut            504     upstream_timeout

The shape is that of OpenAI's API reference, "Error codes":
`{"error": {"message", "type", "param", "code"}}`.
"""

import json
from collections.abc import Iterable
from typing import Any


class ApiError(Exception):
    """An error for the caller: `message` says what to do; `headers` go out with the answer."""

    status = 500
    type = "server_error"
    code = "internal_error"
    #: Seconds after which trying again may help; sent as `Retry-After`.
    retry_after_s: int | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        if code is not None:
            self.code = code
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s

    def as_dict(self) -> dict[str, Any]:
        return error_body(self.message, type=self.type, param=self.param, code=self.code)

    def as_bytes(self) -> bytes:
        return json.dumps(self.as_dict(), ensure_ascii=False).encode("utf-8", "replace")

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry_after_s is None else {"retry-after": str(self.retry_after_s)}


class BadRequest(ApiError):
    status = 400
    type = "invalid_request_error"
    code = "invalid_request"


class KeyRejected(ApiError):
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, "www-authenticate": "Bearer"}


class InsufficientBalance(ApiError):
    status = 402
    type = "insufficient_quota"
    code = "insufficient_quota"

    def __init__(self, message: str, *, available: int) -> None:
        """`available` in credits."""
        super().__init__(message)
        self.available = available

    @property
    def headers(self) -> dict[str, str]:
        left = {"x-balance-charged": "0", "x-balance-remaining": str(self.available)}
        return {**super().headers, **left}


class PermissionDenied(ApiError):
    status = 403
    type = "permission_error"
    code = "permission_denied"


class NotFound(ApiError):
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(ApiError):
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"

    def __init__(self, message: str, *, allowed: Iterable[str]) -> None:
        """`allowed` are the methods that there are (RFC 9110, section 15.5.6)."""
        super().__init__(message)
        self.allowed = ", ".join(sorted(allowed))

    @property
    def headers(self) -> dict[str, str]:
        return {**super().headers, "allow": self.allowed}


class RequestTimedOut(ApiError):
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    @property
    def headers(self) -> dict[str, str]:
        # The rest of the request may still come; it is not to be waited for.
        return {**super().headers, "connection": "close"}


class Conflict(ApiError):
    status = 409
    type = "invalid_request_error"
    code = "conflict"


class PayloadTooLarge(ApiError):
    status = 413
    type = "invalid_request_error"
    code = "payload_too_large"


class Unprocessable(ApiError):
    status = 422
    type = "invalid_request_error"
    code = "unprocessable"


class RateLimited(ApiError):
    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    retry_after_s = 1


class UpstreamFailed(ApiError):
    status = 502
    type = "upstream_error"
    code = "upstream_error"
    retry_after_s = 1


class Unavailable(ApiError):
    status = 503
    type = "server_error"
    code = "service_unavailable"
    retry_after_s = 1


class UpstreamTimedOut(ApiError):
    status = 504
    type = "upstream_error"
    code = "upstream_timeout"
    retry_after_s = 1


def forget_frames(error: BaseException) -> None:
    """Lets go of the calls that an error passed through, once it has been answered.

    Their variables, a request's body among them, often hold the error in turn (a future does that raised it),
    and such a circle stays in memory until the garbage collector comes by.
    """
    link: BaseException | None = error
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__


def error_body(
    message: str, *, type: str, param: str | None = None, code: str | None = None
) -> dict[str, Any]:
    """OpenAI's error object, for errors that are raised by something other than `ApiError`."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}
