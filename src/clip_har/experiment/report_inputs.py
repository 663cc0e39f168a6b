"""What a report says of the data and the machine behind its numbers.

The run's own facts are in its card; how they look is in `clip_har.report`.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import torch

from clip_har import report
from clip_har.audit.records import CHECKS, Check
from clip_har.dataset import SPLITS, ActionDataset
from clip_har.errors import ConfigError
from clip_har.experiment.setup import Experiment
from clip_har.files import read_text

LARGEST_AUDIT_BYTES = 1_000_000_000
_AUDIT_REMEDY = "Create one with clip-har data audit DATA --json FILE."


def data_summary(dataset: ActionDataset, checks: tuple[Check, ...] = ()) -> report.DataSummary:
    """Images of each class in each split that has any, what was omitted, and an audit's checks."""
    counts = {split: dict.fromkeys(dataset.classes, 0) for split in SPLITS}
    for record in dataset.records:
        counts[record.split][record.label] += 1
    return report.DataSummary(
        counts={split: by_class for split, by_class in counts.items() if any(by_class.values())},
        unreadable=tuple((image.name, image.reason) for image in dataset.unreadable),
        warnings=dataset.warnings,
        checks=checks,
    )


def read_checks(path: Path) -> tuple[Check, ...]:
    """The checks of an audit that was written as JSON.

    Raises:
        ConfigError: the file is not one.
    """
    try:
        found = json.loads(read_text(path, largest=LARGEST_AUDIT_BYTES))["checks"]
        return tuple(
            Check(
                name=name,
                found=int(found[name]["found"] or 0),
                limit=found[name]["limit"],
                performed=found[name]["found"] is not None,
            )
            for name in CHECKS
        )
    except OSError as error:
        raise ConfigError(f"The audit {path} cannot be read: {error.strerror}", remedy=_AUDIT_REMEDY) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} is not the JSON of an audit", remedy=_AUDIT_REMEDY) from error


def environment(experiment: Experiment) -> dict[str, Any]:
    """Where the numbers were made, and of which images: keys of the report's card."""
    return {
        "device": device_name(experiment.model.backbone.device),
        "precision": experiment.model.backbone.precision,
        "platform": platform.platform(terse=True),
        "manifest_sha256": experiment.whole.manifest_hash(),
    }


def device_name(device: torch.device) -> str:
    """The name of the hardware: "cpu", or as the driver calls a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
