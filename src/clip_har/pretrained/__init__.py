"""A pretrained model's name -> the model, through open_clip or from files: checked before anything in them is used."""

from clip_har.pretrained.names import HISTORIC_NAMES, absolute, is_built_in
from clip_har.pretrained.opening import Opened, fingerprint, open_pretrained

__all__ = ["HISTORIC_NAMES", "Opened", "absolute", "fingerprint", "is_built_in", "open_pretrained"]
