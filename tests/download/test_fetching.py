"""HAR from each service, with cut connections, damaged files, refusals, a wrong archive and a full disk."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import HubHandler, KaggleHandler, Service, served

from clip_har.cli import main
from clip_har.commands import fetch
from clip_har.dataset import load_dataset
from clip_har.download import kaggle as kaggle_module
from clip_har.errors import ConfigError, DataError, UserError
from packed import HAR, jpeg, labelled, write_hub, write_jpegs, write_kaggle_flat


def zipped(folder: Path, *, top: str = "") -> bytes:
    """A folder as a zip archive."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                archive.write(path, f"{top}{path.relative_to(folder).as_posix()}")
    return stream.getvalue()


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Kaggle with HAR in its flat form, and nobody logged in."""
    pytest.importorskip("kagglehub")
    from kagglesdk import kaggle_env

    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "nobody"))
    offered = write_kaggle_flat(tmp_path / "offered")
    (offered / "notes.bin").write_bytes(bytes(3 << 20))  # kagglehub writes a megabyte at a time
    archive = zipped(offered, top="Human Action Recognition/")
    with served(Service(files={"/archive.zip": archive}), KaggleHandler) as service:
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, service.address)
        yield service


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """The hub with HAR as Parquet files, and nobody logged in."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "no-token"))
    offered = write_hub(tmp_path / "offered")
    files = {path.relative_to(offered).as_posix(): path.read_bytes() for path in offered.rglob("*") if path.is_file()}
    with served(Service(files={**files, "other.bin": b"not wanted"}), HubHandler) as service:
        monkeypatch.setenv("HF_ENDPOINT", service.address)
        yield service


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kaggle_module.download_kaggle, "__kwdefaults__", _without_sleep())


def _without_sleep() -> dict[str, object]:
    return {**(kaggle_module.download_kaggle.__kwdefaults__ or {}), "sleep": lambda _seconds: None}


def tree(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def flat_tree() -> set[str]:
    """What the flat form becomes."""
    found = {f"train/{label}/Image_{number}.jpg" for number, label in labelled(HAR, 4, start=1)}
    return found | {f".unlabelled/Image_{number}.jpg" for number in range(10_001, 10_006)}


def refused(*arguments: object, **options: object) -> UserError:
    with pytest.raises(UserError) as caught:
        fetch("har", *arguments, **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return caught.value


# Kaggle


def test_kaggles_flat_form_becomes_class_folders(kaggle: Service, tmp_path: Path) -> None:
    out = tmp_path / "har"
    fetched = fetch("har", "kaggle", out)
    assert tree(out) == flat_tree()
    assert (fetched.arranged.labelled, fetched.arranged.unlabelled, fetched.arranged.copied) == (60, 5, 0)
    assert all((out / "train" / label / f"Image_{n}.jpg").read_bytes() == jpeg(n) for n, label in labelled(HAR, 4, 1))
    assert all(path.stat().st_nlink == 1 for path in out.rglob("*.jpg"))  # of the links that were made one is left
    dataset = load_dataset(Path("har"))
    assert dataset.root == out.resolve() and dataset.classes == HAR and len(dataset.records) == 60
    assert kaggle.requests == [("/archive.zip", None)]


def test_a_cut_connection_is_resumed_where_it_was_cut(kaggle: Service, tmp_path: Path) -> None:
    kaggle.cuts = [1_500_000, 1 << 30, 1_200_000]  # the second request asks for the size only
    fetch("har", "kaggle", tmp_path / "har")
    assert tree(tmp_path / "har") == flat_tree()
    ranges = [span for _, span in kaggle.requests if span]
    assert ranges == ["bytes=1048576-", "bytes=2097152-"]


def test_a_download_given_up_is_continued_by_the_same_command(
    kaggle: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kaggle_module, "ATTEMPTS", 1)
    kaggle.cuts = [1_500_000]
    error = refused("kaggle", tmp_path / "har")
    handle = "meetnagadia/human-action-recognition-har-dataset"
    assert error.what.startswith(f"Downloading {handle} from Kaggle failed 1 times: the connection was interrupted")
    assert "run the command again; it resumes the download" in error.remedy
    fetch("har", "kaggle", tmp_path / "har")
    assert kaggle.requests[-1] == ("/archive.zip", "bytes=1048576-")
    assert tree(tmp_path / "har") == flat_tree()


def test_a_damaged_download_is_not_believed(kaggle: Service, tmp_path: Path) -> None:
    kaggle.damaged = 1
    fetch("har", "kaggle", tmp_path / "har")
    assert len(kaggle.requests) == 2 and tree(tmp_path / "har") == flat_tree()


@pytest.mark.parametrize("status", [401, 403])
def test_without_credentials_kaggle_says_what_to_do(kaggle: Service, status: int, tmp_path: Path) -> None:
    kaggle.status = status
    error = refused("kaggle", tmp_path / "har")
    handle = "meetnagadia/human-action-recognition-har-dataset"
    assert error.what == f"Kaggle requires a login for {handle} ({status})"
    page = f"https://www.kaggle.com/datasets/{handle}"
    assert error.remedy == (
        f"Open {page} and accept its terms if asked; on https://www.kaggle.com/settings create an API token and set "
        "KAGGLE_API_TOKEN to it, or save kaggle.json in ~/.kaggle; or download the archive from "
        f"{page} in a browser and add --archive FILE."
    )


def test_a_server_that_cannot_be_reached_is_one_line(
    kaggle: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kagglesdk import kaggle_env

    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    monkeypatch.setattr(kaggle_module, "ATTEMPTS", 1)
    assert "failed 1 times: the connection was interrupted" in refused("kaggle", tmp_path / "har").what


def test_without_kagglehub_the_archive_by_hand_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub.clients", None)
    error = refused("kaggle-structured", tmp_path / "har")
    assert "requires the package kagglehub" in error.what
    assert error.remedy.startswith(
        "pip install 'clip-har[kaggle]'; or download the archive from https://www.kaggle.com"
    )


# Archives by hand


def test_an_archive_by_hand_needs_no_network_and_stays(tmp_path: Path) -> None:
    start = 0
    for split, each in (("train", 4), ("test", 2)):
        for label in HAR:
            write_jpegs(tmp_path / "structured" / split / label, range(start, start + each))
            start += each
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped(tmp_path / "structured", top="Structured/"))
    fetch("har", "kaggle-structured", tmp_path / "har", archive=archive)
    assert archive.is_file() and tree(tmp_path / "har") == tree(tmp_path / "structured")
    assert load_dataset(Path("har")).counts()["test"] == 30


def test_where_there_are_no_hard_links_images_are_copied_and_the_unpacked_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped(write_kaggle_flat(tmp_path / "offered")))
    monkeypatch.setattr(os, "link", refuse)
    fetched = fetch("har", "kaggle", tmp_path / "har", archive=archive)
    assert fetched.arranged.copied == 65 and tree(tmp_path / "har") == flat_tree()


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("cats", "dogs"), "is not HAR: it has no calling, clapping, cycling and 12 more and it has cats, dogs"),
        (HAR[1:], "is not HAR: it has no calling"),
        ((*HAR, "skiing"), "is not HAR: it has skiing"),
    ],
)
def test_another_dataset_is_refused_and_removed(classes: tuple[str, ...], said: str, tmp_path: Path) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped(write_kaggle_flat(tmp_path / "offered", classes=classes)))
    error = refused("kaggle", tmp_path / "har", archive=archive)
    assert error.what == f"{archive} {said}"
    assert tree(tmp_path / "har") == {".fetch/unpacked.complete"}
    archive.write_bytes(zipped(write_kaggle_flat(tmp_path / "right")))
    fetch("har", "kaggle", tmp_path / "har", archive=archive)
    assert tree(tmp_path / "har") == flat_tree()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    error = refused("kaggle", tmp_path)
    assert isinstance(error, ConfigError) and error.what == f"--out {tmp_path} is not empty"
    with pytest.raises(ConfigError, match="Unknown dataset 'cifar'"):
        fetch("cifar", "kaggle", tmp_path / "new")
    assert not (tmp_path / "new").exists()


# The hub


def hub_tree() -> set[str]:
    half = 30
    found = {
        f"train/{label}/train-0000{number // half}-of-00002-ab12-{number % half:06d}.jpg"
        for number, label in labelled(HAR, 4)
    }
    return found | {f".unlabelled/test-00000-of-00001-cd34-{row:06d}.jpg" for row in range(6)}


def test_the_hubs_placeholders_are_no_labels(hub: Service, tmp_path: Path) -> None:
    fetched = fetch("har", "hub", tmp_path / "har")
    assert tree(tmp_path / "har") == hub_tree()
    assert (fetched.arranged.labelled, fetched.arranged.unlabelled) == (60, 6)
    dataset = load_dataset(Path("har"))
    assert dataset.classes == HAR and dataset.own_splits == {"train"}
    assert sorted(file.read_bytes() for file in (tmp_path / "har").rglob("*.jpg")) == sorted(
        jpeg(number) for number in [*range(60), *range(20_000, 20_006)]
    )


def test_the_hub_sends_what_was_cut_or_damaged_again(hub: Service, tmp_path: Path) -> None:
    hub.cuts = [700]
    hub.damaged = 1
    fetch("har", "hub", tmp_path / "har")
    assert tree(tmp_path / "har") == hub_tree()


def test_the_hub_wants_a_login(hub: Service, tmp_path: Path) -> None:
    hub.status = 401
    error = refused("hub", tmp_path / "har")
    assert error.what == "The Hugging Face Hub requires a login for Bingsu/Human_Action_Recognition (401)"
    assert "run hf auth login with a token from https://huggingface.co/settings/tokens" in error.remedy


# A full disk


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_full_disk_is_one_line_and_the_command_goes_on_when_there_is_room(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        archive = tmp_path / "archive.zip"
        offered = write_kaggle_flat(tmp_path / "offered")
        (offered / "train" / "Image_1.jpg").write_bytes(jpeg(1) + bytes(400_000))
        archive.write_bytes(zipped(offered))
        error = refused("kaggle", disk / "har", archive=archive)
        assert isinstance(error, DataError) and error.what.startswith(f"Unpacking {archive} needs 0.00 GB")
        assert subprocess.run(["mount", "-o", "remount,size=8m", disk], capture_output=True).returncode == 0
        fetch("har", "kaggle", disk / "har", archive=archive)
        assert tree(disk / "har") == flat_tree()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_while_unpacking_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_har.download import unpacking

    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "har")

    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped(write_kaggle_flat(tmp_path / "offered")))
    with monkeypatch.context() as patch:
        patch.setattr(unpacking, "_copy", full)
        with pytest.raises(OSError, match="No space left"):
            fetch("har", "kaggle", tmp_path / "har", archive=archive)
    assert tree(tmp_path / "har") == set()
    fetch("har", "kaggle", tmp_path / "har", archive=archive)
    assert tree(tmp_path / "har") == flat_tree()


# The command


def test_the_command_says_what_it_did_and_refuses_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive.zip"
    archive.write_bytes(zipped(write_kaggle_flat(tmp_path / "offered")))
    command = ["data", "fetch", "har", "--source", "kaggle", "--out", str(tmp_path / "har"), "--archive", str(archive)]
    assert main(command) == 0
    assert f"{tmp_path / 'har'}: 60 labelled images" in capsys.readouterr().out.replace("\n", "")
    assert main(command) == 2
    said = capsys.readouterr().err.strip()
    assert (
        said
        == f"clip-har: --out {tmp_path / 'har'} is not empty. Pass a new folder, or delete this one to download again."
    )


def test_what_fetch_arranges_is_what_the_raw_form_loads(tmp_path: Path) -> None:
    """The same images, classes and splits, whether the hub's files are arranged or read as they are."""
    root = write_hub(tmp_path / "hub")
    raw = load_dataset(root, set_aside=["test"])
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for record in raw.records:
            packed.writestr(f"{record.label}/{record.name.replace('/', '-')}.jpg", record.path.read())  # type: ignore[union-attr]
    (tmp_path / "a.zip").write_bytes(archive.getvalue())
    fetch("har", "kaggle", tmp_path / "har", archive=tmp_path / "a.zip")
    loaded = load_dataset(tmp_path / "har")
    assert {(r.sha256, r.label, r.split) for r in loaded.records} == {(r.sha256, r.label, r.split) for r in raw.records}
