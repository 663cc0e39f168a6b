"""The embedded default: a drawn set of pictures of fifteen actions, and a tiny CLIP that reads them.

Loading a model or a dataset is done elsewhere; here the pictures are made.
"""

from pathlib import Path

from clip_har.demo.scenes import ACTIONS
from clip_har.demo.writing import write_dataset

MODEL_DIR: Path = Path(__file__).resolve().parent / "model"
"""The tiny CLIP in open_clip's local-dir format: use the model name `local-dir:<MODEL_DIR>`."""

__all__ = ["ACTIONS", "MODEL_DIR", "write_dataset"]
