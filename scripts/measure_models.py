"""Write src/clip_har/pretrained/architectures.json: size and cost of every model that open_clip has weights for.

    python scripts/measure_models.py

Needs no weights and no network, and takes about ten minutes on two cores. Run it after an update of open_clip.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import open_clip
import transformers

from clip_har.pretrained.architectures import Architecture
from clip_har.pretrained.measuring import blank_model, measure
from clip_har.pretrained.names import HISTORIC_NAMES, SHORT_NAMES, meaning

TARGET = Path(__file__).resolve().parent.parent / "src" / "clip_har" / "pretrained" / "architectures.json"
DEMO = Path(__file__).resolve().parent.parent / "src" / "clip_har" / "demo" / "model" / "open_clip_config.json"
_ROBERTA = {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": 1}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_NLLB = {"vocab_size": 256206, "d_model": 1024, "encoder_attention_heads": 16, "decoder_attention_heads": 16}
TEXT_ENCODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "roberta-base": ("RobertaConfig", {**_ROBERTA, "vocab_size": 50265}),
    "xlm-roberta-base": ("XLMRobertaConfig", {**_ROBERTA, "vocab_size": 250002}),
    "xlm-roberta-large": ("XLMRobertaConfig", {**_ROBERTA, **_LARGE, "vocab_size": 250002}),
    "facebook/nllb-200-distilled-600M": (
        "M2M100Config",
        {**_NLLB, "encoder_layers": 12, "decoder_layers": 12, "encoder_ffn_dim": 4096, "decoder_ffn_dim": 4096},
    ),
    "facebook/nllb-200-distilled-1.3B": (
        "M2M100Config",
        {**_NLLB, "encoder_layers": 24, "decoder_layers": 24, "encoder_ffn_dim": 8192, "decoder_ffn_dim": 8192},
    ),
}
"""Text encoders of transformers, whose configurations would have to be downloaded."""


@contextmanager
def known_text_encoders() -> Iterator[None]:
    """Let open_clip build the encoders above from what is written here."""

    def from_pretrained(name: str, **_settings: Any) -> Any:
        kind, values = TEXT_ENCODERS[name]
        return getattr(transformers, kind)(**values)

    with mock.patch.object(transformers.AutoConfig, "from_pretrained", from_pretrained):
        yield


def measured(architecture: str) -> Architecture:
    """Size and cost of one of open_clip's architectures."""
    with known_text_encoders():
        return measure(blank_model(architecture))


def measured_demo() -> Architecture:
    """Size and cost of the bundled tiny CLIP."""
    config = json.loads(DEMO.read_text(encoding="utf-8"))["model_cfg"]
    open_clip.factory._MODEL_CONFIGS["clip-har-demo"] = config
    return measured("clip-har-demo")


def weights() -> dict[str, dict[str, str]]:
    """NAME:TAG -> the architecture that it is measured as, and where its weights are."""
    found = {}
    for architecture, tag in open_clip.list_pretrained():
        own = open_clip.get_pretrained_cfg(architecture, tag)
        quick = own.get("quick_gelu") and not architecture.endswith("-quickgelu")
        found[f"{architecture}:{tag}"] = {
            "architecture": f"{architecture}-quickgelu" if quick else architecture,
            "hub": own.get("hf_hub", ""),
        }
    return found


def main() -> None:
    """Measure all of them, or with --missing only those that the file does not have yet."""
    logging.disable(logging.WARNING)
    listed = weights()
    known = json.loads(TARGET.read_text(encoding="utf-8"))["architectures"] if "--missing" in sys.argv else {}
    measured_as = {name: entry["architecture"] for name, entry in listed.items()}
    first = [measured_as[meaning(name)] for name in (*HISTORIC_NAMES, *SHORT_NAMES)]
    for name in dict.fromkeys(["demo", *first, *sorted(measured_as.values())]):
        if name not in known:
            known[name] = dataclasses.asdict(measured_demo() if name == "demo" else measured(name))
            print(name, known[name], flush=True)
            write(known, {name: entry for name, entry in listed.items() if entry["architecture"] in known})


def write(architectures: dict[str, Any], listed: dict[str, dict[str, str]]) -> None:
    """Write what is measured so far, a line for each entry."""
    lines = [f' "open_clip": {json.dumps(open_clip.__version__)}']
    for key, entries in (("architectures", dict(sorted(architectures.items()))), ("weights", listed)):
        inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in entries.items())
        lines.append(f' "{key}": {{\n{inner}\n }}')
    TARGET.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
