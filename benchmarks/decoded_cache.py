"""Training views from the decoded cache against views from the files: images/s, and the cosine of their embeddings.

python benchmarks/decoded_cache.py [--images 400] [--workers 2] [--model demo] [--photos FOLDER]
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import torch

from clip_har.backbone import load_backbone
from clip_har.images import DecodedCache, ImageFiles, PixelView
from decode_speed import _cpu_seconds, write_photographs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--compared", type=int, default=48)
    given = parser.parse_args()
    backbone = load_backbone(given.model, device="cpu", precision="float32")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = tuple(write_photographs(folder / "photos", given.images, (500, 333), given.photos))
        hashes = tuple(map(str, range(len(paths))))
        files = ImageFiles(paths=paths, preprocessing=backbone.info.preprocessing, workers=given.workers, hashes=hashes)
        for augment in ("light", "strong"):
            view = PixelView(preprocessing=files.preprocessing, augment=augment)
            cache = DecodedCache(folder, view.enough_pixels or 0)
            cache.fill(dict(zip(hashes, paths, strict=True)), workers=given.workers)
            size = sum(path.stat().st_size for path in cache.folder.glob("*.bin"))
            print(f"{augment}: {size / len(paths) / 1e3:.0f} kB per image")
            shown = {}
            for way, which in (("files", files), ("cache", dataclasses.replace(files, decoded=cache))):
                started, cpu_started = time.perf_counter(), _cpu_seconds()
                batches = [list(range(first, min(first + 32, len(paths)))) for first in range(0, len(paths), 32)]
                views = list(which.training_batches(batches, augment=augment, image_size=None, seed=1))
                wall, cpu = time.perf_counter() - started, _cpu_seconds() - cpu_started
                shown[way] = backbone.encode_images(torch.cat(views)[: given.compared]).embedding_BD
                print(f"  {way}: {len(paths) / wall:.0f} images/s, {len(paths) / cpu:.0f} per second of one core")
            cosines_N = (shown["files"] * shown["cache"]).sum(dim=-1)
            print(f"  cosine of {len(cosines_N)} views: mean {cosines_N.mean():.5f}, least {cosines_N.min():.5f}")


if __name__ == "__main__":
    main()
