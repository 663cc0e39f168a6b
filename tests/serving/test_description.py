"""The service against its own description: requests made from /openapi.json, valid ones and broken ones."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from serving.conftest import Serve

load_all_checks()
PATHS = ("/v1/predict", "/v1/classes", "/v1/embed", "/v1/explain", "/v1/models", "/healthz", "/readyz", "/metrics")


@pytest.mark.slow  # several hundred requests
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_the_service_answers_as_it_describes(serve: Serve, mode: GenerationMode) -> None:
    """No 5xx, no undocumented status or content type, answers that fit their schema, broken requests refused."""
    made: dict[str, int] = dict.fromkeys(PATHS, 0)
    with serve() as running:
        description = schemathesis.openapi.from_url(f"{running.url}/openapi.json")
        for path in PATHS if mode is GenerationMode.POSITIVE else PATHS[:4]:  # the others take nothing to get wrong
            operation = description[path]["POST" if path in PATHS[:4] else "GET"]

            @settings(max_examples=25, derandomize=True, deadline=None, database=None)
            @given(case=operation.as_strategy(generation_mode=mode))
            def answers(case: Any) -> None:
                made[case.operation.path] += 1
                response = case.call()
                excluded = [positive_data_acceptance]  # random bytes are not an image
                if response.status_code == 413 or case.media_type == "multipart/form-data":
                    excluded.append(negative_data_rejection)  # 413 is a refusal too; all fields of a form are texts
                case.validate_response(response, excluded_checks=excluded)

            answers()
    assert all(made[path] >= 20 for path in PATHS[:4])
    assert mode is not GenerationMode.POSITIVE or all(made.values())
