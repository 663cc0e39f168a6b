"""Near-duplicates: the search against every pair compared, the hash against scipy's DCT, grouping, and the cache."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.fft
from PIL import Image, ImageOps

from clip_har.audit import fingerprints as module
from clip_har.audit.fingerprints import FINGERPRINT, fingerprint, fingerprints, perceptual_hash
from clip_har.audit.hamming import pairs_within
from clip_har.audit.near_duplicates import (
    Groups,
    correlations,
    group_fingerprints,
    is_flat,
    near_duplicate_groups,
)
from clip_har.dataset import ImageRecord
from clip_har.images.addresses import file_of


def scene(seed: int, size: tuple[int, int] = (120, 80)) -> Image.Image:
    """A picture of coloured blobs that no other seed resembles."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def saved(image: Image.Image, path: Path, **options: Any) -> ImageRecord:
    stream = io.BytesIO()
    image.save(stream, "JPEG", **{"quality": 90, **options})
    return written(stream.getvalue(), path)


def written(content: bytes, path: Path) -> ImageRecord:
    path.write_bytes(content)
    return ImageRecord(
        path=path, name=path.name, sha256=hashlib.sha256(content).hexdigest(), label="running", split="train"
    )


@pytest.mark.parametrize("radius", [0, 3, 4, 10, 13])
def test_the_search_finds_exactly_the_pairs_within_the_radius(radius: int) -> None:
    random = np.random.default_rng(radius)
    hashes = random.integers(0, 2**64, 60, dtype=np.uint64)
    turned = [int(hashes[i]) ^ sum(1 << int(b) for b in random.choice(64, i % 16, replace=False)) for i in range(60)]
    hashes = np.concatenate([hashes, np.array(turned, dtype=np.uint64)])
    found = {(int(i), int(j)) for block in pairs_within(hashes, hashes, radius) for i, j in zip(*block, strict=True)}
    naive = {(i, j) for j in range(120) for i in range(j) if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= radius}
    assert found == naive and naive


def test_the_search_is_bounded_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clip_har.audit.hamming.BLOCK_PAIRS", 100)
    same = np.zeros(40, dtype=np.uint64)
    blocks = list(pairs_within(same, same, 0))
    assert max(len(left) for left, _ in blocks) <= 100
    assert {(int(i), int(j)) for block in blocks for i, j in zip(*block, strict=True)} == {
        (i, j) for j in range(40) for i in range(j)
    }


def test_the_hash_is_the_sign_of_the_low_dct_coefficients() -> None:
    thumbnail = np.random.default_rng(1).integers(0, 256, (32, 32)).astype(np.uint8)
    low = scipy.fft.dctn(thumbnail.astype(float), norm="ortho")[:8, :8]
    bits = "".join("1" if value > np.median(low) else "0" for value in low.ravel())
    assert perceptual_hash(thumbnail) == int(bits, 2)


def test_correlation_is_pearsons() -> None:
    left, right = np.random.default_rng(2).integers(0, 256, (2, 3, 32, 32)).astype(np.uint8)
    naive = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(correlations(left, right), naive, atol=1e-5)


def test_altered_copies_share_a_group_and_other_pictures_do_not(tmp_path: Path) -> None:
    picture = scene(0)
    copies = [
        saved(picture, tmp_path / "a.jpg"),
        saved(picture, tmp_path / "reencoded.jpg", quality=40),
        saved(picture.resize((60, 40)), tmp_path / "smaller.jpg"),
        saved(ImageOps.mirror(picture), tmp_path / "mirrored.jpg"),
        saved(picture.point(lambda value: int(value * 0.7)), tmp_path / "darker.jpg"),
        saved(picture.convert("L"), tmp_path / "grey.jpg"),
    ]
    others = [saved(scene(seed), tmp_path / f"{seed}.jpg") for seed in range(1, 9)]
    groups = near_duplicate_groups([*others, *copies], cache=tmp_path / "cache", workers=0)
    smallest = min(record.sha256 for record in copies)
    assert groups == {record.sha256: smallest for record in copies} | {r.sha256: r.sha256 for r in others}


def test_flat_and_unreadable_images_stand_alone(tmp_path: Path) -> None:
    records = [saved(Image.new("RGB", (50, 50), (40 + n, 40, 40)), tmp_path / f"{n}.jpg") for n in range(4)]
    records += [written(b"\xff\xd8\xff" + bytes([n]), tmp_path / f"bad{n}.jpg") for n in range(3)]
    groups = near_duplicate_groups(records, cache=tmp_path / "cache", workers=0)
    assert groups == {record.sha256: record.sha256 for record in records}
    prints = fingerprints(records, cache=tmp_path / "cache", workers=0)
    assert is_flat(prints).tolist() == [True] * 4 + [False] * 3


def test_groups_are_transitive_and_named_by_their_first_image() -> None:
    groups = Groups(7)
    groups.merge(np.array([5, 1]), np.array([6, 2]))
    groups.merge(np.array([2]), np.array([6]))
    assert groups.root_N.tolist() == [0, 1, 1, 3, 4, 1, 1]
    assert groups.apart(np.array([1, 0]), np.array([5, 3])).tolist() == [False, True]


def test_a_hash_alone_does_not_make_copies() -> None:
    prints = np.zeros(2, dtype=FINGERPRINT)
    prints["thumbnail"] = np.random.default_rng(0).integers(0, 256, (2, 32, 32))
    assert group_fingerprints(prints).root_N.tolist() == [0, 1]
    prints["thumbnail"][1] = prints["thumbnail"][0]
    assert group_fingerprints(prints).root_N.tolist() == [0, 0]


def test_no_records_no_groups(tmp_path: Path) -> None:
    assert near_duplicate_groups([], cache=tmp_path, workers=0) == {}


# The cache


def test_a_cached_image_is_not_read_again(tmp_path: Path) -> None:
    record = saved(scene(3), tmp_path / "a.jpg")
    first = fingerprints([record], cache=tmp_path / "cache", workers=0)
    file_of(record.path).unlink()
    again = fingerprints([record, record], cache=tmp_path / "cache", workers=0)
    assert again.tobytes() == 2 * first.tobytes()
    assert first["reason"][0] == b"" and (first["width"][0], first["height"][0]) == (120, 80)


def test_a_damaged_cache_file_does_not_count(tmp_path: Path) -> None:
    record = saved(scene(3), tmp_path / "a.jpg")
    first = fingerprints([record], cache=tmp_path / "cache", workers=0)
    (shard,) = (tmp_path / "cache").rglob("*.npy")
    shard.write_bytes(shard.read_bytes()[:-9] + b"overwrite")
    assert fingerprints([record], cache=tmp_path / "cache", workers=0).tobytes() == first.tobytes()


def test_what_was_read_before_an_interruption_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [saved(scene(seed), tmp_path / f"{seed}.jpg") for seed in range(5)]
    monkeypatch.setattr(module, "_TASK_IMAGES", 1)

    def interrupted(record: ImageRecord) -> Any:
        if record is records[3]:
            raise KeyboardInterrupt
        return fingerprint(record)

    monkeypatch.setattr(module, "fingerprint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fingerprints(records, cache=tmp_path / "cache", workers=0)
    read: list[str] = []

    def noted(record: ImageRecord) -> Any:
        read.append(record.name)
        return fingerprint(record)

    monkeypatch.setattr(module, "fingerprint", noted)
    fingerprints(records, cache=tmp_path / "cache", workers=0)
    assert read == ["3.jpg", "4.jpg"]


def test_processes_and_this_process_agree(tmp_path: Path) -> None:
    records = [saved(scene(seed), tmp_path / f"{seed}.jpg") for seed in range(40)]
    records.append(written(b"\x89PNG\r\n\x1a\n", tmp_path / "broken.png"))
    by_processes = fingerprints(records, cache=tmp_path / "one", workers=2)
    assert by_processes.tobytes() == fingerprints(records, cache=tmp_path / "two", workers=0).tobytes()
    assert by_processes["reason"][-1] == b"ends early (truncated PNG)"


def test_sizes_are_exact_where_a_side_is_short(tmp_path: Path) -> None:
    long = saved(scene(1, (3000, 100)), tmp_path / "long.jpg")
    tiny = saved(scene(1, (9, 5)), tmp_path / "tiny.jpg")
    prints = fingerprints([long, tiny], cache=tmp_path / "cache", workers=0)
    assert [(int(row["width"]), int(row["height"])) for row in prints] == [(3000, 100), (9, 5)]
