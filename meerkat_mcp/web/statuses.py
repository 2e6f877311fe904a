"""Which HTTP status an error has: the one table, by code."""

from starlette.responses import JSONResponse

from meerkat_mcp.domain.errors import MeerkatError

HTTP_STATUS: dict[str, int] = {
    "invalid_request": 400,
    "not_waiting": 400,
    "tool_results_mismatch": 400,
    "model_unknown": 400,
    "schema_invalid": 400,
    "permission_denied": 403,
    "session_not_found": 404,
    "realm_not_found": 404,
    "stream_not_found": 404,
    "session_ambiguous": 409,
    "session_archived": 409,
    "session_busy": 409,
    "idempotency_conflict": 409,
    "generation_conflict": 409,
    "plan_changed": 409,
    "realm_conflict": 409,
    "backend_mismatch": 409,
    "limit_exceeded": 429,
    "budget_exhausted": 429,
    "provider_rejected": 502,
    "provider_unauthenticated": 502,
    "provider_unavailable": 503,
    "tool_server_unavailable": 503,
    "store_unavailable": 503,
    "corrupt": 500,
    "internal": 500,
}


def refused(error: MeerkatError) -> JSONResponse:
    """An error as a response: `{"error": {code, message, hint, …}}`, with Retry-After where it is known."""
    headers = {"Cache-Control": "no-store"}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return JSONResponse({"error": error.as_dict()}, HTTP_STATUS[error.code], headers=headers)
