"""What is published: the wheel, its metadata, the citation, and the files of the code host."""

from __future__ import annotations

import os
import re
import site
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import clip_har
import docs_reference

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
GITHUB = ROOT / ".github"
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LARGEST_WHEEL = 6_000_000
"""Bytes; 4.1 MB are the weights of the bundled model."""

CITATION_SCHEMA = {
    "type": "object",
    "required": ["cff-version", "message", "title", "authors"],
    "additionalProperties": False,
    "properties": {
        "cff-version": {"const": "1.2.0"},
        "message": {"type": "string", "minLength": 1},
        "type": {"enum": ["software", "dataset"]},
        "title": {"type": "string", "minLength": 1},
        "abstract": {"type": "string", "minLength": 1},
        "authors": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "anyOf": [{"required": ["name"]}, {"required": ["family-names"]}],
                "additionalProperties": False,
                "properties": {
                    key: {"type": "string", "minLength": 1}
                    for key in ("name", "family-names", "given-names", "orcid", "affiliation", "website", "alias")
                },
            },
        },
        "version": {"type": ["string", "number"]},
        "license": {"type": "string"},
        "keywords": {"type": "array", "items": {"type": "string"}, "uniqueItems": True, "minItems": 1},
        "date-released": {"type": "string", "format": "date"},
        "doi": {"type": "string", "pattern": r"^10\.\d{4,9}/"},
        "repository-code": {"type": "string", "format": "uri"},
    },
}
"""The part that is used of the schema of the Citation File Format, version 1.2.0."""


def read_yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# Metadata


def test_the_citation_is_valid_and_agrees_with_the_package() -> None:
    citation = read_yaml(ROOT / "CITATION.cff")
    jsonschema.validate(citation, CITATION_SCHEMA)
    assert citation["version"] == clip_har.__version__
    assert (citation["title"], citation["license"]) == (PROJECT["name"], PROJECT["license"])
    assert (citation["abstract"], citation["keywords"]) == (PROJECT["description"], PROJECT["keywords"])


def test_the_metadata_has_known_classifiers_and_no_address_that_does_not_exist() -> None:
    trove_classifiers = pytest.importorskip("trove_classifiers")
    assert set(PROJECT["classifiers"]) <= trove_classifiers.classifiers
    python = PROJECT["requires-python"].removeprefix(">=")
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]
    assert not any("example" in url for url in PROJECT.get("urls", {}).values())


def test_every_extra_is_described_and_dev_has_them_all() -> None:
    extras = PROJECT["optional-dependencies"]
    assert docs_reference.EXTRAS.keys() == extras.keys()
    (everything,) = [item for item in extras["dev"] if item.startswith("clip-har[")]
    assert set(re.split(r"[\[\],]", everything)[1:-1]) == extras.keys() - {"dev"}


# The code host


@pytest.mark.parametrize("path", sorted((GITHUB / "workflows").glob("*.yml")), ids=lambda path: path.name)
def test_a_workflow_runs_commands_that_exist_with_pinned_actions(path: Path) -> None:
    workflow = read_yaml(path)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
    text = path.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z-]+)", text)) <= targets
    assert all((ROOT / command).is_file() for command in re.findall(r"(?<=command: )\.\S+", text))


def test_issue_forms_have_fields_with_names_of_their_own() -> None:
    forms = sorted((GITHUB / "ISSUE_TEMPLATE").glob("*.yml"))
    assert [form.stem for form in forms] == ["bug", "config", "feature"]
    for form in forms:
        content = read_yaml(form)
        if form.stem == "config":
            assert set(content) <= {"blank_issues_enabled", "contact_links"}
            continue
        assert content["name"] and content["description"]
        fields = [field for field in content["body"] if field["type"] != "markdown"]
        assert len({field["id"] for field in fields}) == len(fields) > 0
        assert all(field["attributes"]["label"] for field in fields)


def test_the_pull_request_template_names_targets_and_files_that_exist() -> None:
    text = (GITHUB / "PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in re.findall(r"`make ([\w-]+)`", text))
    assert all((ROOT / name).is_file() for name in re.findall(r"`(\w+\.md)`", text))


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="hatchling is not installed")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", str(folder), str(ROOT)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow  # builds the wheel
def test_the_wheel_has_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        metadata = archive.read(f"clip_har-{clip_har.__version__}.dist-info/METADATA").decode()
    assert {name.partition("/")[0] for name in names} == {"clip_har", f"clip_har-{clip_har.__version__}.dist-info"}
    sources = {
        f"clip_har/{path.relative_to(ROOT / 'src' / 'clip_har').as_posix()}"
        for path in (ROOT / "src" / "clip_har").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if name.startswith("clip_har/")} == sources
    assert "clip_har/demo/model/open_clip_model.safetensors" in names
    assert wheel.stat().st_size <= LARGEST_WHEEL, f"{wheel.stat().st_size:,} bytes"
    assert f"Version: {clip_har.__version__}" in metadata
    assert "License-Expression: MIT" in metadata


SMALL_QUICKSTART = """
import sys
import clip_har.commands.quickstart
from clip_har import cli
module = sys.modules["clip_har.commands.quickstart"]
module.DEMO_TRAIN_PER_CLASS, module.DEMO_TEST_PER_CLASS = 10, 3
sys.exit(cli.main(["quickstart", "--methods", "zero-shot"]))
"""
"""As many images as `clip-har quickstart` draws would take most of the test's time."""


@pytest.mark.slow  # installs the wheel into an environment of its own and runs a quickstart there
def test_the_installed_wheel_runs_a_quickstart_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    """The environment sees the packages of this one, but not this checkout."""
    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    target = ["--target", str(packages), "--no-deps", "--no-index", "--quiet"]
    subprocess.run([sys.executable, "-m", "pip", "install", *target, str(wheel)], check=True, capture_output=True)
    (packages / "others.pth").write_text("\n".join([*site.getsitepackages(), ""]))  # .pth files there are not read
    empty = tmp_path / "empty"
    empty.mkdir()
    variables = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    variables |= {"CLIP_HAR_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    python = environment / "bin" / "python"

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=empty, env=variables, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    home = run(str(python), "-c", "import clip_har; print(clip_har.__file__)").strip()
    assert Path(home).is_relative_to(environment)
    (script,) = packages.glob("bin/clip-har")
    text = script.read_text(encoding="utf-8")
    script.write_text(re.sub(r"^#!.*", f"#!{python}", text, count=1), encoding="utf-8")
    assert run(str(script), "--version").strip() == clip_har.__version__
    printed = run(str(python), "-c", SMALL_QUICKSTART)
    assert "45 test images, 15 classes" in printed
    assert {path.name for path in empty.iterdir()} == {"quickstart"}
    assert (empty / "quickstart" / "report.html").is_file()
