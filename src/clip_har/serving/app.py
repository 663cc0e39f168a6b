"""The application: which path does what. What the answers are is in answers.py, what bounds them in gate.py."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from clip_har import __version__
from clip_har.serving import page, schemas
from clip_har.serving.answers import Answers
from clip_har.serving.decoders import Decoders
from clip_har.serving.gate import Gate
from clip_har.serving.limits import Admission, Limits
from clip_har.serving.logs import LOGGER
from clip_har.serving.metrics import Metrics
from clip_har.serving.models import ServedModel
from clip_har.serving.problems import ProblemError


@dataclass(frozen=True, kw_only=True)
class Service:
    """What the application is made of."""

    models: Mapping[str, ServedModel]
    """By name; the first is the default."""
    decoders: Decoders
    admission: Admission
    limits: Limits
    top: int
    """Classes of an answer that are given unless asked otherwise."""
    key: str | None
    """What requests must send."""


def create_app(service: Service) -> FastAPI:
    """The application of a service, which it starts and stops."""
    watches = {name: model.watch for name, model in service.models.items() if model.watch is not None}
    metrics = Metrics(
        in_flight=lambda: service.admission.in_flight, replaced=lambda: service.decoders.replaced, watches=watches
    )
    for name, model in service.models.items():
        _observe(model, metrics, name)
    app = FastAPI(
        title="clip-har",
        version=__version__,
        description="Action recognition in still images.",
        docs_url=None,  # both load scripts from elsewhere
        redoc_url=None,
        lifespan=lambda _app: _running(service),
    )
    paths = frozenset[str]()

    def known() -> frozenset[str]:
        nonlocal paths
        paths = paths or frozenset(getattr(route, "path", "") for route in app.routes)
        return paths

    def observed(path: str, status: int, seconds: float) -> None:
        metrics.requests.labels(path, str(status)).inc()
        metrics.seconds.labels(path).observe(seconds)

    app.add_middleware(
        Gate, limits=service.limits, key=service.key, observed=observed, known=known, log=logging.getLogger(LOGGER)
    )
    answers = Answers(service.models, service.decoders, service.admission, metrics, service.limits, service.top)
    _add_problems(app)
    _add_api(app, answers, service)
    _add_state(app, service, metrics)
    page.add_page(app)
    return app


@asynccontextmanager
async def _running(service: Service) -> AsyncIterator[None]:
    service.decoders.start()
    for model in service.models.values():
        model.start()
    yield
    for model in service.models.values():
        model.stop()
    service.decoders.stop()


def _observe(model: ServedModel, metrics: Metrics, name: str) -> None:
    def observed(images: int, seconds: float) -> None:
        metrics.batches.labels(name).observe(images)
        metrics.batch_seconds.labels(name).observe(seconds)

    model.observed = observed


def _add_problems(app: FastAPI) -> None:
    """Let every refusal be a problem, those of the framework too."""

    @app.exception_handler(ProblemError)
    async def problem(_request: Request, error: ProblemError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        details = {
            404: f"There is nothing at {request.url.path[:100]}. See /openapi.json.",
            405: f"{request.method} is not allowed at {request.url.path[:100]}. See /openapi.json.",
        }
        detail = details.get(error.status_code, str(error.detail))
        return ProblemError(error.status_code, detail, headers=error.headers).response()


def _add_api(app: FastAPI, answers: Answers, service: Service) -> None:
    problems = schemas.problems()
    limits, names = service.limits, tuple(service.models)

    @app.post(
        "/v1/predict",
        summary="Predict the action in images",
        response_model=schemas.PredictAnswer,
        responses=problems,
        openapi_extra=schemas.body(limits, names),
    )
    async def predict(request: Request) -> Response:
        return JSONResponse(await answers.predict(request))

    @app.post(
        "/v1/classes",
        summary="Predict among class names given with the request",
        response_model=schemas.PredictAnswer,
        responses=problems,
        openapi_extra=schemas.body(limits, names, classes=True),
    )
    async def classes(request: Request) -> Response:
        return JSONResponse(await answers.predict(request, needs_classes=True))

    @app.post(
        "/v1/embed",
        summary="Embed images",
        response_model=schemas.EmbedAnswer,
        responses=problems,
        openapi_extra=schemas.body(limits, names),
    )
    async def embed(request: Request) -> Response:
        return JSONResponse(await answers.embed(request))

    @app.post(
        "/v1/explain",
        summary="Show which pixels support a prediction",
        responses={200: {"content": {"image/png": {}}, "description": "The image with its saliency map."}, **problems},
        openapi_extra=schemas.body(limits, names, classes=True, label=True),
        response_class=Response,
    )
    async def explain(request: Request) -> Response:
        return Response(await answers.explain(request), media_type="image/png")

    @app.get(
        "/v1/models",
        summary="List the runs that are served",
        response_model=schemas.ModelsAnswer,
        responses=schemas.problems(401),
    )
    async def models() -> Response:
        content: dict[str, Any] = {
            "default": next(iter(service.models)),
            "models": [model.describe() for model in service.models.values()],
            "limits": {"bytes": limits.bytes, "images": limits.images, "seconds": limits.seconds},
        }
        return JSONResponse(content)


def _add_state(app: FastAPI, service: Service, metrics: Metrics) -> None:
    @app.get("/healthz", summary="Whether the process works", responses=schemas.problems(503))
    async def healthz() -> Response:
        if not all(model.batcher.is_alive() for model in service.models.values()):
            raise ProblemError(503, "A thread that computes has ended. Restart the service.")
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", summary="Whether requests are answered", responses=schemas.problems(503))
    async def readyz() -> Response:
        if not all(model.batcher.is_alive() for model in service.models.values()):
            raise ProblemError(503, "A thread that computes has ended. Restart the service.")
        if not service.decoders.pids:
            raise ProblemError(503, "No decoding process is running.")
        return JSONResponse({"status": "ready", "models": list(service.models)})

    @app.get(
        "/metrics",
        summary="Metrics in Prometheus's text format",
        response_class=PlainTextResponse,
        responses=schemas.problems(401),
    )
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
