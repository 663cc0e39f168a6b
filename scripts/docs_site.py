"""A hook of MkDocs: pages of docs/ may link to files of the repository outside docs/, as they do on a code host.

The Markdown files of the repository's root are pages of the site. Other files are not in the site: a link to one
becomes its text. Not here: the theme, the navigation and the checks of links inside docs/, which are in mkdocs.yml.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PAGES_OF_THE_ROOT = {
    "README.md": "project/readme.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
    "LICENSE": "project/licence.md",
}
"""File of the repository -> the page of the site that shows it."""

FENCED = re.compile(r"^( *)(```+|~~~+)[^\n]*\n.*?^\1\2[ \t]*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
log = logging.getLogger("mkdocs.hooks.docs_site")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages of the root."""
    for name, page in PAGES_OF_THE_ROOT.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        if not name.endswith(".md"):
            text = f"# Licence\n\n```text\n{text}```\n"
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links at the pages of the root, and remove those to files that the site does not have."""
    return with_site_links(markdown, page.file.src_uri, warn=log.warning)


def with_site_links(markdown: str, page: str, *, warn: Callable[[str], None]) -> str:
    """The Markdown of a page in which links out of docs/ fit the site.

    Args:
        page: the page's path in the site's sources, such as guide/train.md.
        warn: called with a line for each link to a file that the repository does not have.
    """
    written_in = {site: name for name, site in PAGES_OF_THE_ROOT.items()}.get(page, f"docs/{page}")

    def replaced(match: re.Match[str]) -> str:
        text, (target, hash_, anchor) = match[1], match[2].partition("#")
        if not target or re.match(r"[a-z][a-z0-9+.-]*:", target):
            return match[0]
        named = os.path.normpath(PurePosixPath(written_in).parent / target)
        if named.startswith("docs/"):
            site = named.removeprefix("docs/")
        elif named in PAGES_OF_THE_ROOT:
            site = PAGES_OF_THE_ROOT[named]
        else:
            if named.startswith("..") or not (ROOT / named).exists():
                warn(f"{written_in} links to {match[2]}, which does not exist")
            return text
        relative = os.path.relpath(site, PurePosixPath(page).parent)
        return match[0].replace(f"({match[2]}", f"({relative}{hash_}{anchor}")

    pieces, end = [], 0
    for block in FENCED.finditer(markdown):
        pieces += [LINK.sub(replaced, markdown[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*pieces, LINK.sub(replaced, markdown[end:])])
