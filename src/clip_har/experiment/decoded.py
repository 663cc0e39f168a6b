"""`--decoded-cache`: a method's training images decoded once and kept on disk, before its first epoch."""

from __future__ import annotations

import dataclasses

from clip_har import distributed
from clip_har.config import AugmentSettings
from clip_har.experiment.setup import Experiment
from clip_har.files import unless_unwritable
from clip_har.images import DecodedCache, PixelView
from clip_har.methods import InputKind, LabelledImages
from clip_har.progress import Progress


def with_decoded_cache(
    experiment: Experiment, images: LabelledImages, reads: InputKind, settings: AugmentSettings, progress: Progress
) -> LabelledImages:
    """The same images, with their pixels from the decoded cache where it is of use.

    Raises:
        ConfigError: the disk has no room.
    """
    view = PixelView(
        preprocessing=experiment.model.backbone.info.preprocessing,
        augment=settings.augment,
        image_size=settings.train_image_size,
    )
    if reads != "image" or view.enough_pixels is None or images.files is None:
        progress.warn("--decoded-cache has no effect: it is for augmented training of the encoders")
        return images
    if distributed.is_main():
        files = dict(zip(images.table.hashes, images.files.paths, strict=True))
        cache = DecodedCache(experiment.model.store.cache, view.enough_pixels, progress=progress)
        said = f"{cache.folder} cannot be written to: images that are not in it are decoded in every epoch"
        with unless_unwritable(progress.warn, said):
            cache.fill(files, workers=experiment.model.store.workers, progress=progress)
    distributed.barrier()
    if not distributed.is_main():
        cache = DecodedCache(experiment.model.store.cache, view.enough_pixels, verify=False)
    return dataclasses.replace(
        images, files=dataclasses.replace(images.files, decoded=cache, hashes=images.table.hashes)
    )
