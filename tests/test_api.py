"""The public API: each name is there, and importing the package stays quick."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clip_har


@pytest.mark.parametrize("name", clip_har.__all__)
def test_each_public_name_is_importable_and_documented(name: str) -> None:
    assert getattr(clip_har, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'telepathy'"):
        clip_har.telepathy  # noqa: B018 (the access is what is tested)


def test_importing_the_package_does_not_import_torch() -> None:
    code = "import sys, clip_har; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_commands_does_not_import_open_clip() -> None:
    """It takes as long as torch, and auditing by hashes or reading a table needs none of it."""
    code = "import sys, clip_har.commands; sys.exit(bool({'open_clip', 'transformers', 'peft'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
