"""Cached rows found by content hash: the index against a dict, and files that are only read when they are wanted."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from clip_har import feature_shards
from clip_har.errors import MachineError
from clip_har.feature_index import ABSENT, RowIndex
from clip_har.feature_rows import CachedRows
from clip_har.feature_shards import write_shard
from clip_har.integrity import file_sha256


def digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def write(folder: Path, shard: int, numbers: range, value: float = 0.0) -> Path:
    path = folder / f"{shard:020d}-abcd.json"
    rows = np.array([[number + value, shard] for number in numbers], dtype=np.float32)
    write_shard(path, {"embedding": rows}, [digest(number) for number in numbers])
    return path


@pytest.fixture
def damaged() -> list[Path]:
    return []


def test_the_index_finds_what_a_dict_finds() -> None:
    generator = np.random.default_rng(0)
    index = RowIndex()
    expected: dict[str, list[int]] = {}
    assert (index.find([digest(0)]) == ABSENT).all()
    for shard in range(30):
        numbers = generator.integers(0, 300, size=int(generator.integers(0, 40)))
        index.add(shard, [digest(number) for number in numbers])
        expected |= {digest(number): [shard, row] for row, number in enumerate(numbers)}
        if shard % 7 == 3:
            index.remove(shard - 1)
            expected = {key: place for key, place in expected.items() if place[0] != shard - 1}
        asked = [digest(number) for number in generator.permutation(320)]
        found = index.find(asked).tolist()
        assert found == [expected.get(sha256, [ABSENT, ABSENT]) for sha256 in asked]
        assert len(index) == len(expected)


def test_digests_that_end_in_zeros_or_are_none() -> None:
    index, zeros = RowIndex(), "ab" + 31 * "00"
    index.add(0, [zeros, 64 * "0"])
    assert index.find([64 * "0", zeros, "ab" + 30 * "00" + "01"]).tolist() == [[0, 1], [0, 0], [ABSENT, ABSENT]]
    for wrong in ("ab", 64 * "g"):
        with pytest.raises(ValueError):
            index.add(1, [wrong])


def test_only_shards_with_wanted_rows_are_read(
    tmp_path: Path, damaged: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 1, range(10))
    write(tmp_path, 2, range(10, 20))
    read: list[str] = []

    def noted(path: Path) -> str:
        read.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(feature_shards, "file_sha256", noted)
    rows = CachedRows(tmp_path, damaged.append)
    assert read == []
    assert rows.has("embedding")
    assert not rows.has("hidden")
    wanted = [digest(number) for number in (13, 11, 99)]
    assert rows.known(wanted).tolist() == [True, True, False]
    assert rows.rows(wanted[:2], "embedding").tolist() == [[13, 2], [11, 2]]
    assert [name[:20] for name in read] == [f"{2:020d}"]
    with pytest.raises(KeyError):
        rows.rows(wanted, "embedding")


def test_a_damaged_shard_is_dropped_and_the_others_stay(tmp_path: Path, damaged: list[Path]) -> None:
    first, second = write(tmp_path, 1, range(10)), write(tmp_path, 2, range(10, 20))
    (tmp_path / f"{2:020d}-abcd.embedding.npy").write_bytes(b"nothing")
    rows = CachedRows(tmp_path, damaged.append)
    assert damaged == []
    known = rows.known([digest(number) for number in range(20)])
    assert known.tolist() == [True] * 10 + [False] * 10
    assert damaged == [second]
    assert first.exists()
    assert not second.exists()
    assert rows.rows([digest(3)], "embedding").tolist() == [[3, 1]]


def test_a_file_that_changes_after_it_was_found_is_an_error(tmp_path: Path, damaged: list[Path]) -> None:
    write(tmp_path, 1, range(10))
    rows = CachedRows(tmp_path, damaged.append)
    (tmp_path / f"{1:020d}-abcd.embedding.npy").unlink()
    with pytest.raises(MachineError, match="was deleted or changed just now"):
        rows.rows([digest(3)], "embedding")


def test_a_shard_whose_hashes_are_no_hashes_does_not_count(tmp_path: Path, damaged: list[Path]) -> None:
    path = tmp_path / f"{1:020d}-abcd.json"
    write_shard(path, {"embedding": np.zeros((1, 2), np.float32)}, ["nothing"])
    assert CachedRows(tmp_path, damaged.append).known([digest(1)]).tolist() == [False]
    assert damaged == [path]


def test_of_equal_images_the_later_shard_counts(tmp_path: Path, damaged: list[Path]) -> None:
    write(tmp_path, 1, range(5), value=0.5)
    write(tmp_path, 2, range(3, 6))
    rows = CachedRows(tmp_path, damaged.append)
    assert rows.rows([digest(2), digest(4)], "embedding").tolist() == [[2.5, 1], [4, 2]]
