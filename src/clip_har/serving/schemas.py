"""What the API answers, for its description at /openapi.json. The answers themselves are made in answers.py."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

_OPTIONS: dict[str, Any] = {
    "model": {"type": "string", "description": "Name of a run of /v1/models. Default: the first."},
    "top": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Number of classes to return."},
    "embed": {"type": "boolean", "description": "Also return the image embeddings."},
}
_CLASSES = {
    "type": "array",
    "items": {"type": "string"},
    "minItems": 2,
    "description": "Class names to choose from instead of the run's own.",
}


class Ranked(BaseModel):
    label: str
    probability: float


class PredictionAnswer(BaseModel):
    image: str = Field(description="File name, or the number of the image in the request.")
    label: str | None = Field(default=None, description="Predicted class; null if unsure or unknown.")
    probability: float | None = None
    confidence: float | None = Field(default=None, description="Calibrated probability of the most likely class.")
    top: list[Ranked] = []
    possible: list[str] | None = Field(default=None, description="Prediction set, most likely class first.")
    unsure: bool = False
    unknown: bool = False
    reason: str | None = Field(default=None, description="Why there is no label.")
    warning: str | None = None
    embedding: list[float] | None = None
    error: str | None = Field(default=None, description="Why the image cannot be read.")


class PredictAnswer(BaseModel):
    model: str
    classes: list[str]
    coverage: float | None = Field(description="Coverage of the prediction sets.")
    predictions: list[PredictionAnswer]


class Embedded(BaseModel):
    image: str
    embedding: list[float] | None = None
    error: str | None = None


class EmbedAnswer(BaseModel):
    model: str
    dimensions: int
    embeddings: list[Embedded]


class ModelAnswer(BaseModel):
    name: str
    method: str
    backbone: str
    classes: list[str]
    accepts_classes: bool = Field(description="Whether /v1/classes accepts this model.")
    image_size: list[int]
    coverage: float | None
    labels_from_confidence: float | None


class ModelsAnswer(BaseModel):
    default: str
    models: list[ModelAnswer]
    limits: dict[str, float]


class ProblemAnswer(BaseModel):
    type: str
    title: str
    status: int
    detail: str


def body(*, classes: bool = False, label: bool = False) -> dict[str, Any]:
    """The description of a request body: the same fields in a form and in JSON."""
    options = dict(_OPTIONS)
    if classes:
        options["classes"] = _CLASSES
    if label:
        options["label"] = {"type": "string", "description": "Class to explain. Default: the most likely one."}
    files = {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}}
    encoded = {"images": {"type": "array", "items": {"type": "string", "contentEncoding": "base64"}}}
    needed = ["classes"] if classes and not label else []
    form = {"type": "object", "properties": {**files, **options}, "required": ["file", *needed]}
    plain = {"type": "object", "properties": {**encoded, **options}, "required": ["images", *needed]}
    content = {"multipart/form-data": {"schema": form}, "application/json": {"schema": plain}}
    return {"requestBody": {"required": True, "content": content}}


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemAnswer, "description": text}
    for status, text in {
        400: "The body is malformed.",
        401: "The API key is missing or wrong.",
        404: "There is no such model.",
        408: "The upload took too long.",
        413: "The body is too large, or has too many images.",
        415: "The body is neither a form nor JSON.",
        422: "The images or options cannot be used.",
        429: "The queue is full; see Retry-After.",
        503: "A decoding process died, or the service is ending.",
        504: "The time limit has passed.",
    }.items()
}
