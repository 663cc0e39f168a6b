"""What a report says of the data and the machine behind its numbers.

The run's own facts are in its card; how they look is in `clip_har.report`.
"""

from __future__ import annotations

import platform
from typing import Any

import torch

from clip_har import report
from clip_har.dataset import SPLITS, ActionDataset
from clip_har.workflows.prepare import Prepared


def data_summary(dataset: ActionDataset) -> report.DataSummary:
    """Images of each class in each split that has any, and what was left out."""
    counts = {split: dict.fromkeys(dataset.classes, 0) for split in SPLITS}
    for record in dataset.records:
        counts[record.split][record.label] += 1
    return report.DataSummary(
        counts={split: by_class for split, by_class in counts.items() if any(by_class.values())},
        unreadable=tuple((image.name, image.reason) for image in dataset.unreadable),
        warnings=dataset.warnings,
    )


def environment(prepared: Prepared) -> dict[str, Any]:
    """Where the numbers were made, and of which images: keys of the report's card."""
    return {
        "device": device_name(prepared.backbone.device),
        "precision": prepared.backbone.precision,
        "platform": platform.platform(terse=True),
        "manifest_sha256": prepared.dataset.manifest_hash(),
    }


def device_name(device: torch.device) -> str:
    """The name of the hardware: "cpu", or as the driver calls a GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
