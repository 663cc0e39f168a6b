"""The container files: what they copy, install and run exists. Building an image needs an engine: not done here."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clip_har import cli
from clip_har.config import ServeConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))


def test_what_the_image_copies_exists_and_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = {
        name for names in re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE) for name in names.split()
    }
    assert "*" in lines
    assert copied == kept
    assert all((ROOT / name).exists() for name in copied)


def test_what_the_package_is_built_from_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    copied = re.findall(r"^COPY (?!--from)(.+) \./$", DOCKERFILE, re.MULTILINE)[0].split()
    assert {"pyproject.toml", project["readme"], *project["license-files"]} <= set(copied)
    extras = re.findall(r"^ARG EXTRAS=(\S+)$", DOCKERFILE, re.MULTILINE)[0].split(",")
    assert set(extras) <= set(project["optional-dependencies"])


def test_the_service_in_a_container_is_started_with_flags_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    default = re.findall(r"^CMD (\[.+\])$", DOCKERFILE, re.MULTILINE)[-1]
    assert cli.main(["serve", "--help"]) == 0
    shown = capsys.readouterr().out
    for command in (yaml.safe_load(default), COMPOSE["services"]["clip-har"]["command"]):
        assert command[0] == "serve"
        assert all(word in shown for word in command if word.startswith("--"))


def test_the_container_is_not_root_and_can_finish_its_requests() -> None:
    service = COMPOSE["services"]["clip-har"]
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)[-1] == "10001:10001"
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["ports"][0].startswith("127.0.0.1:")
    assert int(service["stop_grace_period"].rstrip("s")) > ServeConfig().timeout


def test_the_dockerfile_has_no_lint() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0
