"""`clip-har embed`: what the files hold, that parts cover all images once, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch

import clip_har
from clip_har import cli
from clip_har.backbone import Backbone, load_backbone
from clip_har.config import STANDARD_INPUT, EmbedConfig
from clip_har.embedding import encoding
from clip_har.embedding.command import check, embed
from clip_har.embedding.encoding import EmbeddingCounts, lock_of
from clip_har.embedding.images import NamedImages
from clip_har.errors import ConfigError, DataError, ModelError, RunError
from clip_har.images import decode
from samples import HUES, MODEL_CONFIG, write_image, write_model

IMAGES = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven images, the fourth of which is none."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(IMAGES):
        write_image(folder / f"{number:02d}.jpg", HUES["running"], seed=number)
    (folder / "03.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def backbone(tiny_model: str) -> Backbone:
    return load_backbone(tiny_model, device="cpu", precision="float32")


def config_of(out: Path, model: str, **changes: Any) -> EmbedConfig:
    given = EmbedConfig(out=out, model=model, shard_size=4, workers=0, precision="float32", encode_batch_size=3)
    return dataclasses.replace(given, **changes)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones too."""
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def rows(out: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(out.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]


def expected(backbone: Backbone, paths: list[Path], kind: str = "embedding") -> npt.NDArray[np.float32]:
    """The features, one image at a time."""
    preprocessing = backbone.info.preprocessing
    transform = preprocessing.pixel_transform()
    pixels = torch.stack([preprocessing.normalise(transform(decode(path))) for path in paths])
    return backbone.encode_images(pixels).of_kind(kind).numpy()


# --- what is written ------------------------------------------------------------------------------------


def test_rows_are_the_images_in_order_with_their_embeddings(
    folder: Path, tiny_model: str, backbone: Backbone, tmp_path: Path
) -> None:
    counts = embed([folder], config_of(tmp_path / "out", tiny_model))
    assert counts == EmbeddingCounts(embedded=10, unreadable=1, shards=3, present=3)
    names = ["_embeddings.json", *(f"embeddings-0000{number}.parquet" for number in range(3))]
    assert sorted(contents(tmp_path / "out")) == names
    written = rows(tmp_path / "out")
    paths = sorted(folder.iterdir())
    assert [row["path"] for row in written] == [str(path) for path in paths]
    assert [row["sha256"] for row in written] == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert [row["error"] for row in written] == [None if n != 3 else "not an image but text" for n in range(IMAGES)]
    assert written[3]["embedding"] is None
    readable = [n for n in range(IMAGES) if n != 3]
    found = np.array([written[n]["embedding"] for n in readable])
    np.testing.assert_allclose(found, expected(backbone, [paths[n] for n in readable]), atol=1e-6)
    assert str(pq.read_schema(tmp_path / "out" / "embeddings-00000.parquet").field("embedding").type).endswith("[24]")


@pytest.mark.parametrize("features", ["hidden", "both"])
def test_features_before_the_projection_are_written(
    features: Any, folder: Path, tiny_model: str, backbone: Backbone, tmp_path: Path
) -> None:
    embed([folder / "00.jpg", folder / "01.jpg"], config_of(tmp_path / "out", tiny_model, features=features))
    written = rows(tmp_path / "out")
    assert set(written[0]) == {"path", "sha256", "hidden", "error"} | ({"embedding"} if features == "both" else set())
    hidden = expected(backbone, [folder / "00.jpg", folder / "01.jpg"], "hidden")
    np.testing.assert_allclose(np.array([row["hidden"] for row in written]), hidden, atol=1e-5)


def test_float16_is_the_rounded_float32(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    embed([folder], config_of(tmp_path / "whole", tiny_model))
    embed([folder], config_of(tmp_path / "half", tiny_model, dtype="float16"))
    table = pq.read_table(tmp_path / "half" / "embeddings-00000.parquet")
    assert str(table.schema.field("embedding").type) == "fixed_size_list<element: halffloat>[24]"
    for whole, half in zip(rows(tmp_path / "whole"), rows(tmp_path / "half"), strict=True):
        assert (whole["embedding"] is None) == (half["embedding"] is None)
        if whole["embedding"] is not None:
            assert np.array_equal(np.float16(whole["embedding"]), np.float16(half["embedding"]))


def test_workers_and_a_list_on_standard_input_change_nothing(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    embed([folder], config_of(tmp_path / "out", tiny_model))
    names = "".join(f"{path}\n" for path in sorted(folder.iterdir())).encode()
    config = config_of(tmp_path / "listed", tiny_model, workers=2)
    embed([STANDARD_INPUT], config, standard_input=io.BytesIO(names))
    assert contents(tmp_path / "listed") == contents(tmp_path / "out")


def test_processes_of_torchrun_each_read_the_whole_list(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(folder.iterdir())))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with (tmp_path / "list.txt").open("rb") as shared:
        first, second = (NamedImages([STANDARD_INPUT], standard_input=shared).summary() for _ in range(2))
    assert first == second == NamedImages([folder]).summary()
    reading, writing = os.pipe()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe, pytest.raises(ConfigError, match="cannot all read a list from a pipe"):
        NamedImages([STANDARD_INPUT], standard_input=pipe)


def test_images_in_tar_shards_have_the_embeddings_of_their_files(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
        archive.add(__file__, arcname="00.txt")
    embed([folder], config_of(tmp_path / "out", tiny_model))
    embed([tmp_path / "shard.tar"], config_of(tmp_path / "packed", tiny_model))
    plain, packed = rows(tmp_path / "out"), rows(tmp_path / "packed")
    assert [row.pop("path") for row in packed] == [f"{tmp_path}/shard.tar/{n:02d}.jpg" for n in range(IMAGES)]
    assert packed == [{key: row[key] for key in row if key != "path"} for row in plain]


def test_a_damaged_tar_shard_is_named(tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "shard.tar").write_bytes(b"no archive" * 100)
    with pytest.raises(DataError, match=r"Cannot read the shard .*shard\.tar"):
        embed([tmp_path / "shard.tar"], config_of(tmp_path / "out", tiny_model))


def test_embed_images_yields_the_same(folder: Path, backbone: Backbone, tiny_model: str, tmp_path: Path) -> None:
    embed([folder], config_of(tmp_path / "out", tiny_model, shard_size=100))
    images = clip_har.embed_images(sorted(folder.iterdir()), model=backbone, batch_size=3)
    for written, image in zip(rows(tmp_path / "out"), images, strict=True):
        assert (image.path, image.sha256, image.error) == (written["path"], written["sha256"], written["error"])
        if image.embedding is None:
            assert written["embedding"] is None and image.hidden is None
        else:
            assert image.embedding.tolist() == written["embedding"]
            assert image.hidden is not None and image.hidden.shape == (32,)


# --- parts and continuing -------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 3, 5])
def test_parts_write_every_image_once_and_the_same_bytes(
    count: int, folder: Path, tiny_model: str, tmp_path: Path
) -> None:
    embed([folder], config_of(tmp_path / "whole", tiny_model, shard_size=2))
    whole, found = contents(tmp_path / "whole"), []
    for index in reversed(range(count)):
        config = config_of(tmp_path / "parts", tiny_model, shard_size=2, part=f"{index}/{count}")
        found.append(embed([folder], config))
        mine = [n for n in range(6) if n % count == index]
        assert all((tmp_path / "parts" / f"embeddings-{n:05d}.parquet").exists() for n in mine)
    assert contents(tmp_path / "parts") == whole
    assert [each.present for each in found][-1] == 6
    assert sum(each.embedded for each in found) == 10 and sum(each.earlier for each in found) == 0


def test_a_second_command_encodes_nothing(
    folder: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed([folder], config_of(tmp_path / "out", tiny_model))
    before = contents(tmp_path / "out")
    monkeypatch.setattr(encoding, "write_shard", lambda *_, **__: pytest.fail("a file was written again"))
    counts = embed([folder], config_of(tmp_path / "out", tiny_model))
    assert (counts.embedded, counts.earlier) == (10, IMAGES)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("batches", range(1, 5))
def test_an_interrupted_command_is_continued_to_the_same_bytes(
    batches: int, folder: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed([folder], config_of(tmp_path / "whole", tiny_model))
    encode, calls = Backbone.encode_images, 0

    def interrupted(self: Backbone, images_BCHW: torch.Tensor) -> Any:
        nonlocal calls
        calls += 1
        if calls == batches + 1:  # the first is to find the widths
            raise KeyboardInterrupt
        return encode(self, images_BCHW)

    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "encode_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embed([folder], config_of(tmp_path / "out", tiny_model))
    assert not list((tmp_path / "out").glob(".*")), "no lock stays behind"
    embed([folder], config_of(tmp_path / "out", tiny_model))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["cut", "flipped", "flipped checksum", "empty", "of another list"])
def test_a_damaged_file_is_written_again(damage: str, folder: Path, tiny_model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    embed([folder], config_of(out, tiny_model))
    whole = contents(out)
    path = out / "embeddings-00001.parquet"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[:-100])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "of another list":
        shutil.copy(out / "embeddings-00000.parquet", path)
    else:
        place = len(content) // 2 if damage == "flipped" else content.rfind(b"clip_har_sealed:") + 20
        content[place] ^= 1
        path.write_bytes(content)
    if damage != "of another list":
        found = check([], config_of(out, tiny_model))
        assert (found.complete, found.missing, found.damaged) == (2, 0, (path,))
    counts = embed([folder], config_of(out, tiny_model))
    assert (counts.embedded, counts.earlier) == (10, 7)
    assert contents(out) == whole


def test_files_that_another_process_writes_are_left_to_it(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    lock = lock_of(tmp_path / "out" / ".embeddings-00001.writing")
    assert lock is not None
    counts = embed([folder], config_of(tmp_path / "out", tiny_model))
    assert (counts.locked, counts.present) == (1, 2)
    assert not (tmp_path / "out" / "embeddings-00001.parquet").exists()
    lock.close()
    assert embed([folder], config_of(tmp_path / "out", tiny_model)).present == 3
    assert not list((tmp_path / "out").glob(".*"))


def test_what_a_killed_process_left_is_removed(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "out" / ".embeddings-00002.writing").mkdir(parents=True)
    (tmp_path / "out" / ".embeddings-00002.writing" / ".lock").write_text("{}")
    embed([folder], config_of(tmp_path / "out", tiny_model))
    assert not list((tmp_path / "out").glob(".*"))


def test_the_directory_of_embeddings_may_be_among_the_images(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "images")
    config = config_of(tmp_path / "images" / "out", tiny_model)
    assert embed([tmp_path / "images"], config) == dataclasses.replace(embed([tmp_path / "images"], config), earlier=0)


# --- what is refused ------------------------------------------------------------------------------------


@pytest.fixture
def other_model(tmp_path: Path) -> str:
    (tmp_path / "other").mkdir()
    return write_model(tmp_path / "other", MODEL_CONFIG, seed=5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"shard_size": 5}, "with --shard-size 4, not 5. Pass --shard-size 4, or pass another --out."),
        ({"dtype": "float16"}, "with --dtype float32, not float16. Pass --dtype float32"),
        ({"features": "both"}, "with --features embedding, not both. Pass --features embedding"),
        ({"precision": "bfloat16"}, "with --precision float32, not bfloat16. Pass --precision float32"),
    ],
)
def test_other_options_are_refused(
    changes: dict[str, Any], said: str, folder: Path, tiny_model: str, tmp_path: Path
) -> None:
    embed([folder / "00.jpg"], config_of(tmp_path / "out", tiny_model))
    before = contents(tmp_path / "out")
    with pytest.raises(RunError) as caught:
        embed([folder / "00.jpg"], config_of(tmp_path / "out", tiny_model, **changes))
    assert said in str(caught.value)
    assert contents(tmp_path / "out") == before


def test_another_model_is_refused_but_not_another_name_of_it(
    folder: Path, tiny_model: str, other_model: str, tmp_path: Path
) -> None:
    config = config_of(tmp_path / "out", tiny_model)
    embed([folder], config)
    with pytest.raises(RunError, match=f"of the model {tiny_model} .*Pass --model {tiny_model}, or pass another --out"):
        embed([folder], config_of(tmp_path / "out", other_model))
    moved = shutil.copytree(tiny_model.removeprefix("local-dir:"), tmp_path / "moved")
    assert embed([folder], config_of(tmp_path / "out", f"local-dir:{moved}")).earlier == IMAGES


def test_another_list_is_refused(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    given = sorted(folder.iterdir())
    embed(given, config_of(tmp_path / "out", tiny_model))
    for other, number in ((given[:-1], IMAGES - 1), (given[::-1], IMAGES)):
        with pytest.raises(RunError, match=rf"another list of images \(11 images, now {number}\)"):
            embed(other, config_of(tmp_path / "out", tiny_model))
        with pytest.raises(RunError, match="another list of images"):
            check(other, config_of(tmp_path / "out", tiny_model))


def test_no_images_a_file_as_out_and_several_models_are_refused(folder: Path, tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="No image is named"):
        embed([tmp_path / "empty"], config_of(tmp_path / "out", tiny_model))
    with pytest.raises(ConfigError, match="is a file"):
        embed([folder], config_of(folder / "00.jpg", tiny_model))
    with pytest.raises(ModelError, match="combines several models"):
        embed([folder], config_of(tmp_path / "out", f"{tiny_model}+demo"))
    assert not (tmp_path / "out").exists()


def test_without_pyarrow_one_line_says_how_to_install_it(
    folder: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r"requires the package pyarrow, .*pip install 'clip-har\[parquet\]'"):
        embed([folder], config_of(tmp_path / "out", tiny_model))


# --- the command line -----------------------------------------------------------------------------------


@pytest.fixture
def argv(tiny_model: str, tmp_path: Path) -> list[str]:
    options = ["--shard-size", "4", "--workers", "0", "--precision", "float32"]
    return ["embed", "--model", tiny_model, "--out", str(tmp_path / "out"), *options]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    def read() -> tuple[str, str]:
        captured = capsys.readouterr()
        return captured.out, captured.err

    return read  # type: ignore[return-value]


def test_the_command_counts_checks_and_continues(folder: Path, argv: list[str], said: Any) -> None:
    assert cli.main([*argv, str(folder), "--part", "0/2"]) == 0
    assert "Part 0/2: 7 images: 6 embedded, 1 unreadable\nPart 0/2: 2 of 3 files are in" in said()[0]
    assert cli.main([*argv, "--check"]) == 3
    assert "2 of 3 files are complete, with 7 images, 1 of them unreadable\n1 are missing and 0 damaged" in said()[0]
    assert cli.main([*argv, str(folder)]) == 0
    assert "11 images: 10 embedded, 1 unreadable, 7 of them by an earlier command\n3 of 3 files" in said()[0]
    assert cli.main([*argv, str(folder), "--check"]) == 0
    assert "3 of 3 files are complete, with 11 images" in said()[0]


def test_the_exit_code_is_2_if_no_image_can_be_read(folder: Path, argv: list[str], said: Any) -> None:
    assert cli.main([*argv, str(folder / "03.jpg"), str(folder / "missing.jpg")]) == 2
    assert "2 images: 0 embedded, 2 unreadable" in said()[0]


def test_an_interruption_names_the_command_that_continues(
    folder: Path, argv: list[str], said: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(encoding, "write_shard", interrupt)
    assert cli.main([*argv, str(folder)]) == 130
    assert "continue with: clip-har embed" in said()[1]


def test_a_wrong_check_is_one_line(argv: list[str], said: Any) -> None:
    assert cli.main([*argv, "--check"]) == 2
    assert "has no _embeddings.json" in said()[1]
