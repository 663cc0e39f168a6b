"""The documentation as a site: links out of docs/, generated tables that are up to date, a build without warnings.

Whether the text of pages is right is tested elsewhere: commands in test_docs_commands.py, words in test_prose.py.
"""

from __future__ import annotations

import html.parser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import docs_reference
import docs_site
from clip_har import cli
from clip_har.cli.flags import CONFIG_TYPES
from clip_har.config import flat_fields
from refresh_docs import pages

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"


# Links out of docs/


def site_links(markdown: str, page: str) -> tuple[str, list[str]]:
    warnings: list[str] = []
    return docs_site.with_site_links(markdown, page, warn=warnings.append), warnings


@pytest.mark.parametrize(
    ("page", "written", "in_the_site"),
    [
        ("index.md", "[a](../README.md)", "[a](project/readme.md)"),
        ("guide/train.md", "[a](../../SECURITY.md#the-service)", "[a](../project/security.md#the-service)"),
        ("guide/train.md", "[a](../models.md#x)", "[a](../models.md#x)"),
        ("guide/train.md", "[`losses.py`](../../src/clip_har/losses.py)", "`losses.py`"),
        ("project/readme.md", "[a](docs/models.md)", "[a](../models.md)"),
        ("project/readme.md", "![a](docs/images/report.png)", "![a](../images/report.png)"),
        ("project/contributing.md", "[a](CHANGELOG.md)", "[a](changelog.md)"),
        ("project/readme.md", "[a](https://example.org/docs) [b](#b)", "[a](https://example.org/docs) [b](#b)"),
        ("index.md", "```sh\n[a](../README.md)\n```", "```sh\n[a](../README.md)\n```"),
    ],
)
def test_a_link_out_of_docs_fits_the_site(page: str, written: str, in_the_site: str) -> None:
    assert site_links(written, page) == (in_the_site, [])


@pytest.mark.parametrize("target", ["../NO_SUCH.md", "../../elsewhere.md", "../src/clip_har/no_such.py"])
def test_a_link_to_no_file_is_a_warning(target: str) -> None:
    text, warnings = site_links(f"[a]({target})", "index.md")
    assert text == "a"
    assert warnings == [f"docs/index.md links to {target}, which does not exist"]


# Generated tables


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_generated_tables_are_up_to_date(page: Path) -> None:
    """If this fails: make docs-refresh."""
    text = page.read_text(encoding="utf-8")
    assert docs_reference.with_generated_regions(text) == text


def test_every_command_and_option_is_in_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^#{2,3} clip-har ([\w ]+)\n(.*?)(?=^#{2,3} |\Z)", text, re.MULTILINE | re.DOTALL))
    assert {tuple(words.split()) for words in sections} == {*CONFIG_TYPES, ("data",)}
    for words in CONFIG_TYPES:
        assert cli.main([*words, "--help"]) == 0
        flags = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", " ".join(capsys.readouterr().out.split()))) - {"--help"}
        described = set(re.findall(r"(?<=`)--[a-z][\w-]*", sections[" ".join(words)]))
        own = {"--" + item.name.replace("_", "-") for item in flat_fields(CONFIG_TYPES[words])}
        own -= {"--search", "--search-engine"}  # of sweep: a table of --config, and --engine
        assert own - {"--config"} <= described
        assert {flag for flag in flags if flag in own} <= described


def test_a_row_of_the_reference_has_type_default_and_text() -> None:
    text = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert (
        "| `--seed` | integer | `0` | Random seed of initialisation, batch order, augmentation and dropout. |" in text
    )
    assert "| `--data` | path | required | Dataset: class folders, " in text
    assert "| `--overwrite` |  | no |" in text
    assert "--empty-" not in text


def test_every_config_key_is_described() -> None:
    text = (REFERENCE / "configuration.md").read_text(encoding="utf-8")
    described = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert {item.name for kind in CONFIG_TYPES.values() for item in flat_fields(kind)} <= described
    assert "| `val_fraction` | number | `0.15` | in (0, 0.5] |" in text
    assert "| `ema` | number | 0 | in [0, 1) |" in text


def test_every_public_name_is_in_the_python_reference() -> None:
    import clip_har

    text = (REFERENCE / "python.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: clip_har\.(\w+)$", text, re.MULTILINE)) == set(clip_har.__all__)


def test_an_unknown_region_is_noticed() -> None:
    with pytest.raises(KeyError, match="nosuch"):
        docs_reference.with_generated_regions("<!-- generated: nosuch -->\n<!-- end -->")


# The site


class Page(html.parser.HTMLParser):
    """What a page of the site loads, and its paragraphs."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.paragraphs: list[str] = []
        self._inside = False

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        if tag in ("script", "img", "iframe", "source"):
            self.loaded.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.loaded.append(given.get("href") or "")
        if tag == "p":
            self._inside = True
            self.paragraphs.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "p"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.paragraphs[-1] += data


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    warnings = [line for line in done.stderr.splitlines() if not line.startswith("INFO")]
    assert done.returncode == 0, "\n".join(warnings)
    return folder


@pytest.mark.slow  # builds the whole site
def test_the_site_is_built_without_warnings_and_loads_nothing_from_elsewhere(site: Path) -> None:
    read = {}
    for path in sorted(site.rglob("*.html")):
        read[path.relative_to(site).as_posix()] = page = Page()
        page.feed(path.read_text(encoding="utf-8"))
    assert {"index.html", "reference/cli.html", "project/readme.html", "project/licence.html"} <= read.keys()
    elsewhere = {name: [u for u in page.loaded if re.match(r"(https?:)?//", u)] for name, page in read.items()}
    assert {name: urls for name, urls in elsewhere.items() if urls} == {}


@pytest.mark.slow  # builds the whole site
def test_lists_and_tables_of_pages_are_those_of_the_site(site: Path) -> None:
    """A list or table without an empty line before it is one for code hosts, but text in the site."""
    found = []
    for path in sorted(site.rglob("*.html")):
        page = Page()
        page.feed(path.read_text(encoding="utf-8"))
        for text in page.paragraphs:
            if re.search(r"^(?:[*-] |\d+\. |\| ?-)", text, re.MULTILINE):
                found.append(f"{path.relative_to(site)}: {text[:80]}")
    assert found == []


@pytest.mark.slow  # builds the whole site
def test_the_python_reference_has_signatures_and_descriptions(site: Path) -> None:
    text = (site / "reference" / "python.html").read_text(encoding="utf-8")
    for name in ("Predictor", "train", "embed_images", "TrainConfig"):
        assert f'id="clip_har.{name}"' in text
    plain = " ".join(re.sub(r"<[^>]+>", " ", text).split())
    assert "Embed image files, in order; memory does not grow with their number." in plain
    assert "Raises:" in plain and "Args:" not in plain
