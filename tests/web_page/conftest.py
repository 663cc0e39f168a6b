"""Scripts of the page run in node or Chromium, and folders served by a web server in a thread."""

from __future__ import annotations

import contextlib
import functools
import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import clip_har
from report.conftest import browser  # noqa: F401  # a fixture

SCRIPTS = Path(clip_har.__file__).parent / "exporting" / "web_page"
Script = Callable[[str, Any], Any]
"""Body of an async function of `load` (imports a script of the page) and `given` -> what it returns, as JSON."""


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder as Python's own server does; gives the address."""
    handler = functools.partial(_Silent, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def script(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    """Runs code on the page's scripts: in node if it is installed, otherwise in Chromium."""
    folder = tmp_path_factory.mktemp("scripts")
    shutil.copytree(SCRIPTS, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')
    node = shutil.which("node")
    if node is not None:

        def run_in_node(body: str, given: Any) -> Any:
            (folder / "given.json").write_text(json.dumps(given))
            (folder / "run.js").write_text(
                'import fs from "node:fs";\nconst load = (name) => import(`./${name}`);\n'
                f"const work = async (load, given) => {{{body}}};\n"
                'const found = await work(load, JSON.parse(fs.readFileSync("given.json")));\n'
                'fs.writeFileSync("found.json", JSON.stringify(found));\n'
            )
            ran = subprocess.run([node, "run.js"], cwd=folder, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr
            return json.loads((folder / "found.json").read_text())

        yield run_in_node
        return
    chromium = request.getfixturevalue("browser")
    (folder / "empty.html").write_text("<!DOCTYPE html><title>Scripts</title>")
    with served(folder) as address:
        page = chromium.new_page()
        page.goto(f"{address}/empty.html")

        def run_in_chromium(body: str, given: Any) -> Any:
            code = f"async (given) => {{const load = (name) => import(`/${{name}}`);{body}}}"
            return page.evaluate(code, given)

        yield run_in_chromium
        page.close()
