"""Routes for health checks: liveness and readiness."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from serve_app.api import dialects, problems
from serve_app.api.context import ContextNow
from serve_app.api.schemas import Alive, Ready
from serve_app.errors import ModelUnavailable, StoreUnavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def check_health() -> Alive:
    """Check that the process answers. This route never needs the API key."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses=problems.documented(ModelUnavailable, StoreUnavailable))
async def check_readiness(request: Request, context: ContextNow) -> Response:
    """Check that the service can embed an image and write to the database. A result is reused for some seconds."""
    reasons = await context.readiness.reasons()
    if not reasons:
        ready = Ready(model=context.settings.model, warnings=context.readiness.warnings)
        return JSONResponse(ready.model_dump(), headers={"Cache-Control": "no-store"})
    detail = "; ".join(f"{component}: {reason}" for component, reason in reasons.items())
    problem = problems.of_status(503, detail, code="not_ready").model_copy(update={"components": reasons})
    return problems.response(problem, request.scope, {"Retry-After": str(dialects.OURS.retry_after_s)})
