"""README.md of an export for the Hugging Face Hub: metrics with intervals, use, limits and data; and the upload.

What is not known is stated as unknown.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip_har.checkpoint import Run
from clip_har.errors import ConfigError, first_line
from clip_har.exporting.certificate import Certificate
from clip_har.exporting.description import public_name
from clip_har.pretrained.architectures import DEMO
from clip_har.pretrained.catalogue import describe, listed_name

_HUB_NAMES = {"MIT": "mit", "Apache-2.0": "apache-2.0"}
"""Licences of the catalogue of models -> their names on the hub; for others it has "other" and a text."""


def model_card(run: Run, certificate: Certificate | None, test: Mapping[str, Any] | None) -> str:
    """The page, with its YAML front matter.

    Args:
        test: what `test_metrics` found; None without an evaluation.
    """
    licence = _licence(run.card.backbone.name)
    front: dict[str, Any] = {
        "license": _HUB_NAMES.get(licence, "other"),
        "library_name": "onnx",
        "pipeline_tag": "image-classification",
        "tags": ["clip", "human-action-recognition", "clip-har", run.card.method],
    }
    if test is not None:
        front["model-index"] = [_index(run, test)]
    matter = "\n".join(
        f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()
    )  # JSON is YAML
    return f"---\n{matter}\n---\n\n{_body(run, licence, certificate, test)}"


def test_metrics(run: Run) -> Mapping[str, Any] | None:
    """The run's entry in the results of its evaluation on test images, if there is one."""
    try:
        content = json.loads((run.folder / "eval" / "results.json").read_text(encoding="utf-8"))
        found = content["finetuned"]
        low, high = map(float, found["accuracy_ci95"])
        if any("no test split" in warning for warning in content["warnings"]):
            return None
        figures = {name: float(found[name]) for name in ("accuracy", "macro_f1")}
        return {**figures, "low": low, "high": high, "images": int(content["n"])}
    except (OSError, ValueError, KeyError, TypeError):
        return None


def push(folder: Path, files: Sequence[str], repository: str) -> str:
    """Upload files of a folder to a repository of the hub, made private if it is new; returns its address.

    Raises:
        ConfigError: the hub refuses it or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    api = HfApi()
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        said = "Export from clip-har"
        api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(files), commit_message=said)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        raise ConfigError(
            f"--push {repository} failed: {first_line(error)}",
            remedy=f"The export is in {folder}. Log in with hf auth login, check the name, and run the command again.",
        ) from error
    return str(address)


def _licence(model: str) -> str:
    """What the catalogue knows of a pretrained model's licence; "" for one of the user's own files."""
    if model != DEMO and listed_name(model) is None:
        return ""
    facts = describe(model)
    return "" if facts is None else facts.licence


def _body(run: Run, licence: str, certificate: Certificate | None, test: Mapping[str, Any] | None) -> str:
    card = run.card
    kinds = {"train": "training", "val": "validation"}
    trained = " and ".join(f"{card.splits[split]:,} {kind}" for split, kind in kinds.items() if card.splits.get(split))
    sections = {
        f"{card.method} for action recognition in photographs": (
            f"This model classifies photographs by the action they show, one of {len(run.classes)} classes. It was "
            f"trained with the method {card.method} of clip-har on the pretrained model "
            f"{public_name(card.backbone.name)}.\n\n"
            f"Classes: {', '.join(run.classes)}."
        ),
        "Metrics": _metrics(run, certificate, test),
        "Intended use": (
            "Sorting and searching collections of photographs by the action they show, and research. The model "
            "predicts one of its classes for every image, even if the image shows another action."
        ),
        "Limits": (
            "The model sees a single photograph, not motion. It has not been evaluated separately by age, gender, skin "
            "colour, disability, clothing or country of the people shown, and models of the CLIP family are known to "
            "have learned social biases from web images. Do not use it to identify or monitor people, or "
            "for decisions about a person. Accuracy on photographs of another source is usually lower."
        ),
        "Training data": f"{trained or 'Unknown'} images of a labelled dataset. Its content hash is "
        f"`{card.manifest_sha256 or 'unknown'}`.",
        "Licence": (
            f"The weights of the pretrained model are published under this licence: {licence}."
            if licence
            else f"The licence of the pretrained model {public_name(card.backbone.name)} is not known to clip-har. "
            "Check it before you publish or use this model."
        )
        + " The licence of the training images was not examined.",
        "Use": (
            "`model.onnx` takes `images`, float32 [batch, 3, height, width], and returns `logits` and calibrated "
            "`probabilities`. `export.json` contains the classes and the preprocessing; the same is in the metadata of "
            "the file."
        ),
    }
    titles = iter(sections.items())
    title, text = next(titles)
    return f"# {title}\n\n{text}\n" + "".join(f"\n## {title}\n\n{text}\n" for title, text in titles)


def _metrics(run: Run, certificate: Certificate | None, test: Mapping[str, Any] | None) -> str:
    rows = []
    if test is not None:
        rows.append(
            f"* Accuracy on {test['images']:,} test images: {test['accuracy']:.1%} "
            f"(95 % confidence interval {test['low']:.1%} to {test['high']:.1%}). Macro F1: {test['macro_f1']:.3f}."
        )
    else:
        rows.append("* The run has not been evaluated on test images with clip-har evaluate.")
    if certificate is not None:
        fitted = ", which the run was also fitted on" if certificate.fitted_on_images else ""
        rows.append(
            f"* This file compared with the run on {certificate.images:,} validation images{fitted}: "
            f"{certificate.agreement:.2%} same labels, accuracy {certificate.export.accuracy:.1%} "
            f"(run: {certificate.original.accuracy:.1%})."
        )
    if "val_accuracy" in run.card.validation:
        way = "cross-validation" if run.card.validation.get("cross_validated") else "the validation images"
        rows.append(f"* Accuracy in training by {way}: {run.card.validation['val_accuracy']:.1%}.")
    return "\n".join(rows)


def _index(run: Run, test: Mapping[str, Any]) -> dict[str, Any]:
    values = [{"type": name, "value": test[name]} for name in ("accuracy", "macro_f1")]
    dataset = {"name": Path(run.card.data).name or "images", "type": "images", "split": "test"}
    return {
        "name": f"clip-har {run.card.method}",
        "results": [{"task": {"type": "image-classification"}, "dataset": dataset, "metrics": values}],
    }
