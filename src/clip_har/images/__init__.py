"""Image files become upright 8-bit RGB images, and those become the tensors a backbone expects.

Which files belong to a dataset, and whether they are good examples, is decided in dataset/.
"""

from clip_har.images.addresses import ImageAddress, PackedImage, ParquetImage
from clip_har.images.augmentation import PixelView, ViewTransform, training_transform, view_seed
from clip_har.images.batches import DecodeDataset, DecodedBatch, decode_batches
from clip_har.images.corruptions import KINDS, SEVERITIES, CorruptedTransform, Corruption
from clip_har.images.decoded_cache import DecodedCache
from clip_har.images.decoding import TRUNCATED_WARNING, Decoded, decode, decode_lenient, from_pillow
from clip_har.images.files import ImageFiles
from clip_har.images.formats import IMAGE_SUFFIXES, sniff
from clip_har.images.fused_preprocessing import FusedPreprocessing, preprocessing_from_json
from clip_har.images.limits import MAX_PIXELS, MAX_SIDE
from clip_har.images.preprocessing import PIXELS_VERSION, ModelTransform, PixelTransform, Preprocessing

__all__ = [
    "IMAGE_SUFFIXES",
    "KINDS",
    "MAX_PIXELS",
    "MAX_SIDE",
    "PIXELS_VERSION",
    "SEVERITIES",
    "TRUNCATED_WARNING",
    "CorruptedTransform",
    "Corruption",
    "DecodeDataset",
    "Decoded",
    "DecodedBatch",
    "DecodedCache",
    "FusedPreprocessing",
    "ImageAddress",
    "ImageFiles",
    "ModelTransform",
    "PackedImage",
    "ParquetImage",
    "PixelTransform",
    "PixelView",
    "Preprocessing",
    "ViewTransform",
    "decode",
    "decode_batches",
    "decode_lenient",
    "from_pillow",
    "preprocessing_from_json",
    "sniff",
    "training_transform",
    "view_seed",
]
