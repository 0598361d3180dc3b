"""Routes for whoever watches the service: is it alive, can it work."""

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from serve_app.api import dialects, problems
from serve_app.api.context import ContextNow
from serve_app.api.schemas import Alive, Ready
from serve_app.errors import ModelUnavailable, StoreUnavailable

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def check_health() -> Alive:
    """The process answers. Open even where there is an API key."""
    return Alive()


@router.get("/readyz", response_model=Ready, responses=problems.documented(ModelUnavailable, StoreUnavailable))
async def check_readiness(request: Request, context: ContextNow) -> Response:
    """The service can embed and write: it has just done both, or did within the last seconds."""
    reasons = await context.readiness.reasons()
    if not reasons:
        ready = Ready(model=context.settings.model, warnings=context.readiness.warnings)
        return JSONResponse(ready.model_dump(), headers={"Cache-Control": "no-store"})
    detail = "; ".join(f"{component}: {reason}" for component, reason in reasons.items())
    problem = problems.of_status(503, detail, code="not_ready").model_copy(update={"components": reasons})
    return problems.response(problem, request.scope, {"Retry-After": str(dialects.OURS.retry_after_s)})
