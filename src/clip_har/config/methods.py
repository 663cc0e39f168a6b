"""The methods that can be named, and where each is. Adding one is its file and its line here.

Names are known without importing torch; `methods.METHODS` imports a class when it is asked for.
"""

from __future__ import annotations

METHOD_CLASSES: dict[str, str] = {
    "zero-shot": "clip_har.methods.zero_shot:ZeroShot",
    "lora": "clip_har.methods.embedding_lora:Lora",
    "linear-probe": "clip_har.methods.linear_probe:LinearProbe",
    "gda": "clip_har.methods.gda:Gda",
    "ridge": "clip_har.methods.ridge:Ridge",
    "proker": "clip_har.methods.proker:Proker",
    "clap": "clip_har.methods.clap:Clap",
    "prolip": "clip_har.methods.prolip:Prolip",
    "ensemble": "clip_har.methods.ensemble:Ensemble",
    "auto": "clip_har.methods.auto:Auto",
    "full": "clip_har.methods.full:FullFineTuning",
    "two-tier": "clip_har.methods.full:TwoTier",
    "lp-ft": "clip_har.methods.lp_ft:LpFt",
    "soup": "clip_har.methods.soup:Soup",
    "wise-ft": "clip_har.methods.wise_ft:WiseFt",
    "coop": "clip_har.methods.coop:CoOp",
    "clip-adapter": "clip_har.methods.clip_adapter:ClipAdapter",
    "tip-adapter": "clip_har.methods.tip_adapter:TipAdapter",
    "tip-adapter-f": "clip_har.methods.tip_adapter:TipAdapterF",
}
"""Name -> module:class."""
METHOD_NAMES = tuple(METHOD_CLASSES)
