"""What the API answers, for its description at /openapi.json. The answers themselves are made in answers.py."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from clip_har.serving.limits import LONGEST_NAME, Limits


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


def body(limits: Limits, models: Sequence[str], *, classes: bool = False, label: bool = False) -> dict[str, Any]:
    """The description of a request body: the same fields in a form and in JSON."""
    options: dict[str, Any] = {
        "model": {"type": "string", "enum": list(models), "description": "Name of a run. Default: the first."},
        "top": {"type": "integer", "minimum": 1, "maximum": 1000, "description": "Number of classes to return."},
        "embed": {"type": "boolean", "description": "Also return the image embeddings."},
    }
    if classes:
        options["classes"] = {
            "type": "array",
            "items": {"type": "string", "minLength": 1, "maxLength": LONGEST_NAME},
            "minItems": 2,
            "maxItems": limits.classes,
            "description": "Class names to choose from instead of the run's own.",
        }
    if label:
        options["label"] = {"type": "string", "description": "Class to explain. Default: the most likely one."}
    images = {"type": "array", "minItems": 1, "maxItems": 1 if label else limits.images}
    files = {"file": {**images, "items": {"type": "string", "format": "binary"}}}
    encoded = {"images": {**images, "items": {"type": "string", "contentEncoding": "base64"}}}
    needed = ["classes"] if classes and not label else []
    as_text = dict(options)  # an empty field of a form is one that is not given
    as_text["model"] = {**options["model"], "enum": [*models, ""]}
    as_text["embed"] = {**options["embed"], "type": "string", "enum": ["true", "false", "1", "0", ""]}
    as_text["top"] = {"anyOf": [options["top"], {"const": ""}]}
    form = {"type": "object", "properties": {**files, **as_text}, "required": ["file", *needed]}
    plain = {"type": "object", "properties": {**encoded, **options}, "required": ["images", *needed]}
    content = {
        "multipart/form-data": {"schema": {**form, "additionalProperties": False}},
        "application/json": {"schema": {**plain, "additionalProperties": False}},
    }
    return {"requestBody": {"required": True, "content": content}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The descriptions of refusals: those named, or all."""
    content = {"application/problem+json": {"schema": ProblemAnswer.model_json_schema()}}
    return {
        status: {"description": text, "content": content}
        for status, text in _PROBLEMS.items()
        if not statuses or status in statuses
    }


_PROBLEMS = {
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
}
