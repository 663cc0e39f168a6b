"""The API over real HTTP: its answers are the Predictor's, and what is wrong is a problem in one sentence."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import hostile_images as hostile
from clip_har.predict import Predictor
from clip_har.serving.logs import LOGGER, JsonLines
from samples import CLASSES
from serving.conftest import Running, Serve


@pytest.fixture(scope="module")
def predictor(served_runs: dict[str, Path]) -> Predictor:
    return Predictor(served_runs["lora"], precision="float32", device="cpu")


def encoded(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def problem(response: httpx.Response, status: int) -> str:
    """The sentence of a response that must be a problem of this status."""
    assert response.headers["content-type"] == "application/problem+json"
    content = response.json()
    assert response.status_code == content["status"] == status
    assert content["type"] == "about:blank" and content["title"]
    detail: str = content["detail"]
    assert detail.endswith(".") and "\n" not in detail
    return detail


def test_predictions_are_those_of_the_predictor(running: Running, predictor: Predictor, pictures: list[Path]) -> None:
    response = running.predict(*pictures, top="3")
    assert response.status_code == 200
    content = response.json()
    assert (content["model"], content["classes"], content["coverage"]) == ("lora", list(CLASSES), 0.9)
    judge = running.service.models["lora"].policy
    for found, expected in zip(content["predictions"], predictor.predict(pictures, caution=judge), strict=True):
        assert found["image"] == Path(expected.image).name
        ranked = [(item["label"], item["probability"]) for item in found["top"]]
        assert [label for label, _ in ranked] == [label for label, _ in expected.top]
        assert dict(ranked) == pytest.approx(dict(expected.top), abs=1e-5)
        assert found["probability"] == pytest.approx(expected.probability, abs=1e-5)
        assert found["confidence"] == pytest.approx(expected.confidence, abs=1e-5)
        assert (found["label"], found["unsure"], found["unknown"]) == (expected.label, expected.unsure, False)
        assert found["possible"] == list(expected.possible or ())


def test_json_and_form_get_the_same_answer(running: Running, pictures: list[Path]) -> None:
    form = running.predict(pictures[0], top="2").json()
    body = {"images": [encoded(pictures[0])], "top": 2}
    plain = running.client.post("/v1/predict", json=body).json()
    url = running.client.post("/v1/predict", json={"images": f"data:image/png;base64,{encoded(pictures[0])}", "top": 2})
    for content in (form, plain, url.json()):
        del content["predictions"][0]["image"]
    assert form == plain == url.json() | {"predictions": plain["predictions"]}
    assert len(plain["predictions"][0]["top"]) == 2


def test_micro_batches_give_the_answers_of_single_requests(serve: Serve, pictures: list[Path]) -> None:
    with serve(batch_wait=0.3, workers=2) as running:
        alone = [running.predict(path).json()["predictions"][0] for path in pictures]
        before = running.metric('clip_har_batch_images_count{model="lora"}')
        with ThreadPoolExecutor(12) as pool:
            together = list(pool.map(lambda n: running.predict(pictures[n % 3]).json()["predictions"][0], range(12)))
        batches = running.metric('clip_har_batch_images_count{model="lora"}') - before
    assert batches < 12, "some requests were computed together"
    for number, found in enumerate(together):
        expected = alone[number % 3]
        assert [item["label"] for item in found["top"]] == [item["label"] for item in expected["top"]]
        for one, other in zip(found["top"], expected["top"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-5)


def test_a_run_is_chosen_by_name(running: Running, pictures: list[Path]) -> None:
    assert running.predict(pictures[0], model="linear-probe").json()["model"] == "linear-probe"
    files = {"file": pictures[0].read_bytes()}
    assert running.client.post("/v1/predict?model=linear-probe", files=files).json()["model"] == "linear-probe"
    assert problem(running.predict(pictures[0], model="nix"), 404) == (
        "There is no model 'nix'. Models: lora, linear-probe."
    )
    listed = running.client.get("/v1/models").json()
    assert listed["default"] == "lora"
    assert [(item["name"], item["accepts_classes"]) for item in listed["models"]] == [
        ("lora", True),
        ("linear-probe", False),
    ]
    lora, probe = running.service.models.values()
    assert lora.predictor.backbone is probe.predictor.backbone, "one copy of the weights"


def test_other_classes(running: Running, predictor: Predictor, pictures: list[Path]) -> None:
    names = ["riding a bicycle", "playing chess"]
    (expected,) = predictor.predict([pictures[0]], classes=names)
    for response in (
        running.predict(pictures[0], path="/v1/classes", classes=names),
        running.predict(pictures[0], path="/v1/classes", classes=", ".join(names)),
        running.client.post("/v1/classes", json={"images": [encoded(pictures[0])], "classes": names}),
    ):
        content = response.json()
        assert content["classes"] == names and content["coverage"] is None
        (found,) = content["predictions"]
        ranked = {item["label"]: item["probability"] for item in found["top"]}
        assert ranked == pytest.approx(dict(expected.top), abs=1e-5)
        assert found["confidence"] is None and found["possible"] is None


def test_other_classes_that_cannot_be_asked_for(running: Running, pictures: list[Path]) -> None:
    def asked(**fields: Any) -> str:
        return problem(running.predict(pictures[0], path="/v1/classes", **fields), 422)

    assert asked() == 'The request has no class names. Send them in "classes".'
    assert asked(classes="alone") == "Fewer than two classes are given. Give at least two class names."
    assert asked(classes=["a", "a"]) == "The class 'a' is given twice. Give each class once."
    assert asked(classes=[f"class {n}" for n in range(201)]).startswith("The request has 201 classes, more than 200.")
    assert asked(classes=["x" * 201, "y"]).startswith("A class name has more than 200 characters.")
    assert asked(classes="a,b", model="linear-probe").startswith("linear-probe predicts only the classes it was")


def test_embeddings(running: Running, predictor: Predictor, pictures: list[Path]) -> None:
    content = running.predict(*pictures, path="/v1/embed").json()
    assert (content["model"], content["dimensions"]) == ("lora", 24)
    for found, expected in zip(content["embeddings"], predictor.predict(pictures, embed=True), strict=True):
        assert found["embedding"] == pytest.approx(expected.embedding, abs=1e-5)
    (with_predictions,) = running.predict(pictures[0], embed="true").json()["predictions"]
    assert with_predictions["embedding"] == pytest.approx(content["embeddings"][0]["embedding"], abs=1e-5)


def test_explanations_are_pictures(running: Running, pictures: list[Path]) -> None:
    response = running.predict(pictures[0], path="/v1/explain")
    assert (response.status_code, response.headers["content-type"]) == (200, "image/png")
    assert response.content.startswith(b"\x89PNG")
    maps = {label: running.predict(pictures[0], path="/v1/explain", label=label).content for label in CLASSES}
    assert len(set(maps.values())) > 1
    (prediction,) = running.predict(pictures[0]).json()["predictions"]
    assert maps[prediction["top"][0]["label"]] == response.content
    detail = problem(running.predict(pictures[0], path="/v1/explain", label="nix"), 422)
    assert detail == "The label 'nix' is not one of the classes."
    assert problem(running.predict(*pictures, path="/v1/explain"), 422).startswith("The request has 3 images.")


# --- what is wrong --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/embed", "/v1/explain"])
def test_no_hostile_file_is_an_error_of_the_server(running: Running, tmp_path: Path, path: str) -> None:
    for name, file in hostile.write_hostile_images(tmp_path).items():
        response = running.predict(file, path=path)
        readable = name not in hostile.UNREADABLE or "truncated_half" in name
        assert response.status_code == (200 if readable else 422), name
        if not readable:
            assert hostile.UNREADABLE[name] in problem(response, 422)
    assert running.metric("clip_har_decoders_replaced_total") == 0


def test_good_images_are_answered_next_to_bad_ones(running: Running, pictures: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"buy milk\n")
    content = running.predict(pictures[0], bad, pictures[1]).json()["predictions"]
    assert [item.get("error") for item in content] == [None, "not an image but text", None]
    assert content[1] == {"image": "bad.jpg", "error": "not an image but text"}
    embedded = running.predict(bad, pictures[0], path="/v1/embed").json()["embeddings"]
    assert [set(item) for item in embedded] == [{"image", "error"}, {"image", "embedding"}]
    none = running.predict(bad, bad)
    assert problem(none, 422) == "None of the images can be read: not an image but text."
    assert len(none.json()["errors"]) == 2


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "The body is not valid JSON."),
        ({"content": b"[" * 100_000, "headers": {"content-type": "application/json"}}, 400, "The body is not valid"),
        ({"json": [1]}, 422, "The body is not a JSON object."),
        ({"json": {"images": [7]}}, 422, '"images" is not a list of base64 texts.'),
        ({"json": {"images": ["%%%"]}}, 422, "Image 0 is not valid base64."),
        ({"json": {"images": []}}, 422, "The request has no image."),
        ({"json": {"images": ["aaaa"], "tpo": 1}}, 422, "The request has an unknown field 'tpo'."),
        ({"json": {"images": ["aaaa"], "top": 0}}, 422, '"top" is not a whole number from 1 to 1000.'),
        ({"json": {"images": ["aaaa"], "top": True}}, 422, '"top" is not'),
        ({"json": {"images": ["aaaa"], "embed": 3}}, 422, '"embed" is neither true nor false.'),
        ({"json": {"images": ["aaaa"], "model": 3}}, 422, '"model" is not a text.'),
        ({"json": {"images": ["aaaa"], "classes": [1, 2]}}, 422, '"classes" is not a list of texts.'),
        ({"files": {"photo": b"x"}}, 422, "The form has a file in the field 'photo'. Use the field \"file\"."),
        ({"files": {"file": b"x"}, "data": {"size": "1"}}, 422, "The request has an unknown field 'size'."),
        ({"data": {"top": "1"}}, 415, "The content type is application/x-www-form-urlencoded."),
        ({}, 415, "The content type is not given."),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "The form cannot be read"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=a"}}, 400, "The form cannot"),
    ],
)
def test_what_is_wrong_with_a_body_is_said(running: Running, body: dict[str, Any], status: int, detail: str) -> None:
    assert problem(running.client.post("/v1/predict", **body), status).startswith(detail)


def test_what_is_not_there_is_a_problem_too(running: Running) -> None:
    assert problem(running.client.get("/nix"), 404) == "There is nothing at /nix. See /openapi.json."
    response = running.client.get("/v1/predict")
    assert problem(response, 405) == "GET is not allowed at /v1/predict. See /openapi.json."
    assert response.headers["allow"] == "POST"


def test_an_error_of_ours_is_a_problem_and_its_traceback_is_logged(
    serve: Serve, pictures: list[Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    with serve(runs=("lora",)) as running:
        monkeypatch.setattr(running.service.models["lora"].predictor.model, "scores", broken)
        with caplog.at_level(logging.INFO, LOGGER):
            detail = problem(running.predict(pictures[0]), 500)
        monkeypatch.undo()
        assert running.predict(pictures[0]).status_code == 200
    assert detail == "The service made an error. Its log has the details."
    assert "ZeroDivisionError" in caplog.text


# --- its description and state --------------------------------------------------------------------------


def test_health_readiness_and_description(running: Running) -> None:
    assert running.client.get("/healthz").json() == {"status": "ok"}
    assert running.client.get("/readyz").json() == {"status": "ready", "models": ["lora", "linear-probe"]}
    described = running.client.get("/openapi.json").json()
    paths = {"/v1/predict", "/v1/classes", "/v1/embed", "/v1/explain", "/v1/models", "/healthz", "/readyz", "/metrics"}
    assert set(described["paths"]) == paths
    body = described["paths"]["/v1/classes"]["post"]["requestBody"]["content"]
    assert body["multipart/form-data"]["schema"]["required"] == ["file", "classes"]
    assert "application/problem+json" in described["paths"]["/v1/predict"]["post"]["responses"]["429"]["content"]


def test_metrics_count_requests_images_and_outcomes(serve: Serve, pictures: list[Path], tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"")
    with serve(runs=("lora",), abstain_below=1.0) as running:
        running.predict(*pictures)
        running.predict(tmp_path / "bad.jpg")
        running.client.get("/some/other")
        assert running.metric('clip_har_requests_total{path="/v1/predict",status="200"}') == 1
        assert running.metric('clip_har_requests_total{path="/v1/predict",status="422"}') == 1
        assert running.metric('clip_har_requests_total{path="other",status="404"}') == 1
        assert running.metric('clip_har_images_total{model="lora",outcome="unsure"}') == 3
        assert running.metric('clip_har_images_total{model="lora",outcome="unreadable"}') == 1
        assert running.metric('clip_har_unsure_fraction{model="lora"}') == 1
        assert running.metric('clip_har_validation_unsure_fraction{model="lora"}') == 1
        assert 0.3 < running.metric('clip_har_validation_confidence_mean{model="lora"}') < 1
        assert running.metric('clip_har_drift{model="lora"}') == 0
        assert running.metric("clip_har_images_in_flight") == 0
        assert running.metric('clip_har_batch_images_sum{model="lora"}') == 3


def wait_until(done: Callable[[], bool], *, seconds: float = 10.0) -> None:
    """A request is logged when its answer has been sent, which may be after it has been received."""
    end = time.monotonic() + seconds
    while not done() and time.monotonic() < end:
        time.sleep(0.01)


def test_the_log_is_json_without_anything_of_the_images(
    running: Running, pictures: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, LOGGER):
        response = running.predict(*pictures)
        wait_until(lambda: any(record.getMessage() == "request" for record in caplog.records))
    record = next(record for record in caplog.records if record.getMessage() == "request")
    entry = json.loads(JsonLines().format(record))
    assert entry["request"] == response.headers["x-request-id"]
    fixed = {key: entry[key] for key in ("method", "path", "status", "model", "images", "level", "event")}
    assert fixed == {
        "method": "POST",
        "path": "/v1/predict",
        "status": 200,
        "model": "lora",
        "images": 3,
        "level": "info",
        "event": "request",
    }
    assert set(entry) - set(fixed) == {"time", "request", "seconds", "bytes"}, "no names of files, no labels"


def test_every_answer_has_a_strict_policy(running: Running) -> None:
    for path in ("/", "/healthz", "/nix"):
        headers = running.client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
