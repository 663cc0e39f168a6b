"""From a request's body to what it asks for: images and options, in a multipart form or in JSON."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from clip_har.serving.limits import Limits
from clip_har.serving.problems import ProblemError

MOST_FIELDS = 1000
_SEND = 'Send images as multipart/form-data in the field "file", or as application/json in "images" (base64).'
_KEYS = ("images", "model", "top", "classes", "embed", "label")


@dataclass(frozen=True, kw_only=True)
class Upload:
    """One image as it came."""

    name: str
    content: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a request asks for."""

    images: tuple[Upload, ...]
    model: str | None = None
    top: int | None = None
    classes: tuple[str, ...] | None = None
    embed: bool = False
    label: str | None = None
    """The class to explain."""


async def read_request(request: Request, limits: Limits) -> Asked:
    """Read a request's body and query.

    Raises:
        ProblemError: it cannot be used.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images, values = await _of_form(request, limits)
    elif kind == "application/json":
        content = await request.body()
        images, values = await run_in_threadpool(_of_json, content, limits)
    else:
        raise ProblemError(415, f"The content type is {kind or 'not given'}. {_SEND}")
    values = {**values, **_of_query(request)}
    limits.check_images(len(images))
    classes = None if values.get("classes") is None else _names(values["classes"])
    if classes is not None:
        limits.check_classes(classes)
    return Asked(
        images=images,
        model=_text(values, "model"),
        top=_count(values.get("top")),
        classes=classes,
        embed=_flag(values.get("embed")),
        label=_text(values, "label"),
    )


def _of_query(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {key: request.query_params[key] for key in _KEYS[1:] if key in request.query_params}
    if "classes" in found:
        found["classes"] = request.query_params.getlist("classes")
    return found


async def _of_form(request: Request, limits: Limits) -> tuple[tuple[Upload, ...], dict[str, Any]]:
    try:
        async with request.form(max_files=limits.images + 1, max_fields=MOST_FIELDS) as form:
            return await _of_fields(form)
    except HTTPException as error:
        if "Too many files" in error.detail:
            limits.check_images(limits.images + 1)
        raise ProblemError(400, f"The form cannot be read: {error.detail.rstrip('.')}. {_SEND}") from error


async def _of_fields(form: FormData) -> tuple[tuple[Upload, ...], dict[str, Any]]:
    images: list[Upload] = []
    values: dict[str, Any] = {}
    for key, value in form.multi_items():
        if isinstance(value, UploadFile):
            if key != "file":
                raise ProblemError(422, f'The form has a file in the field {key[:50]!r}. Use the field "file".')
            images.append(Upload(name=value.filename or f"image {len(images)}", content=await value.read()))
        elif key == "classes":
            values.setdefault("classes", []).append(value)
        elif key in _KEYS[1:]:
            values[key] = value
        else:
            _refuse_key(key)
    return tuple(images), values


def _of_json(content: bytes, limits: Limits) -> tuple[tuple[Upload, ...], dict[str, Any]]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ProblemError(400, f"The body is not valid JSON. {_SEND}") from error
    if not isinstance(values, dict):
        raise ProblemError(422, f"The body is not a JSON object. {_SEND}")
    for key in values:
        if key not in _KEYS:
            _refuse_key(key)
    encoded = values.pop("images", [])
    encoded = [encoded] if isinstance(encoded, str) else encoded
    if not isinstance(encoded, list) or not all(isinstance(item, str) for item in encoded):
        raise ProblemError(422, '"images" is not a list of base64 texts.')
    limits.check_images(len(encoded))
    images = (Upload(name=f"image {number}", content=_bytes(item, number)) for number, item in enumerate(encoded))
    return tuple(images), values


def _refuse_key(key: str) -> None:
    raise ProblemError(
        422, f"The request has an unknown field {key[:50]!r}. Known fields: {', '.join(('file', *_KEYS))}."
    )


def _bytes(text: str, number: int) -> bytes:
    """An image of JSON; a data URL is base64 with something before it."""
    encoded = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProblemError(422, f"Image {number} is not valid base64.") from error


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise ProblemError(422, f'"{key}" is not a text.')


def _count(value: Any) -> int | None:
    if value is None or value == "":
        return None
    try:
        count = int(value) if isinstance(value, str) else value
    except ValueError:
        count = None
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= 1000:
        raise ProblemError(422, '"top" is not a whole number from 1 to 1000.')
    return count


def _flag(value: Any) -> bool:
    known = {None: False, False: False, True: True, "": False, "false": False, "0": False, "true": True, "1": True}
    if not isinstance(value, (str, bool, type(None))) or value not in known:
        raise ProblemError(422, '"embed" is neither true nor false.')
    return known[value]


def _names(given: Any) -> tuple[str, ...]:
    """Class names: a list, or texts with one name a line or between commas."""
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, Sequence) or not all(isinstance(name, str) for name in given):
        raise ProblemError(422, '"classes" is not a list of texts.')
    if len(given) == 1:
        given = given[0].replace("\n", ",").split(",")
    return tuple(name.strip() for name in given if name.strip())
