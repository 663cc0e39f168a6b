"""PEFT: the adapter files of a run that has them, as they are, with the class prompts.

What they mean is in docs/reference/outputs.md.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from clip_har.checkpoint import Run
from clip_har.errors import ConfigError
from clip_har.run_card import check_files

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
PROMPTS = "prompts.safetensors"


def require_adapter(run: Run) -> None:
    """Refuse runs without an adapter.

    Raises:
        ConfigError: the run's method writes none.
    """
    if not all((run.folder / name).is_file() for name in ADAPTER):
        raise ConfigError(
            f"{run.folder} is a run of {run.card.method}, which has no PEFT adapter",
            remedy="Use --format onnx, or train with --method lora, lora-attention or lora-all.",
        )


def write(run: Run, folder: Path) -> None:
    """Copy the adapter and the class prompts, checked against the run's card."""
    names = (*ADAPTER, PROMPTS)
    check_files(run.folder, run.card, names)
    for name in names:
        shutil.copyfile(run.folder / name, folder / name)
