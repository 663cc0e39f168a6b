"""What failures of a download mean."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from clip_har.download import kaggle
from clip_har.download.har import SOURCES
from clip_har.download.network import is_offline
from clip_har.errors import DataError, first_line


def chained(root: BaseException) -> Exception:
    try:
        try:
            raise root
        except OSError as error:
            raise RuntimeError("inner") from error
    except RuntimeError as inner:
        try:
            raise ValueError("outer")
        except ValueError as outer:
            assert outer.__context__ is inner
            return outer


def test_a_name_that_cannot_be_resolved_is_no_network_however_it_is_wrapped() -> None:
    assert is_offline(chained(socket.gaierror(-2, "Name or service not known")))
    assert not is_offline(chained(ConnectionResetError("cut")))


def test_a_long_message_is_shortened_to_its_first_line() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("x" * 200)) == "x" * 157 + "..."


def test_no_network_is_one_line_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Offline:
        refusals = damages = ()
        cuts = (ConnectionError,)

        def download(self, archive: object) -> None:
            raise ConnectionError("no") from socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(kaggle, "_Kaggle", lambda source: Offline())
    with pytest.raises(
        DataError, match=r"Kaggle cannot be reached: there is no network\. Connect and run the command again"
    ):
        kaggle.download_kaggle(SOURCES["kaggle"], tmp_path / "archive.zip", sleep=lambda seconds: pytest.fail("waited"))
