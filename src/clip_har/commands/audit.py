"""`data audit` and `data clean`: a dataset read and examined, with a model if asked for; plans made and applied.

What counts as a fault is in audit/, how it looks is in report/ and console.
"""

from __future__ import annotations

import json
from pathlib import Path

from clip_har import report
from clip_har.audit.approximate import EXACT_ROWS, uses_index
from clip_har.audit.audit import audit, read_images
from clip_har.audit.fingerprints import Fingerprints
from clip_har.audit.inventory import Inventory, as_records, read_inventory
from clip_har.audit.label_errors import require_cleanlab
from clip_har.audit.plan import Cleaned, apply_plan, manifest_csv, proposed_plan, read_plan, write_plan
from clip_har.audit.records import Audit
from clip_har.backbone import Backbone, load_backbone
from clip_har.commands.outputs import require_outside_dataset
from clip_har.config import DEFAULT_MODEL, AuditLimits, AuditSettings, validate
from clip_har.dataset.layout import FoundFile
from clip_har.errors import ConfigError, ModelError
from clip_har.experiment.thumbnails import thumbnail_loader
from clip_har.experiment.training import versions
from clip_har.features import FeatureStore, FeatureTable
from clip_har.files import cache_folder, write_atomically
from clip_har.images.workers import worker_count
from clip_har.progress import SILENT, Progress
from clip_har.tuned_models import load_given


def audit_data(
    data: Path,
    *,
    settings: AuditSettings | None = None,
    limits: AuditLimits | None = None,
    json_file: Path | None = None,
    html_file: Path | None = None,
    progress: Progress = SILENT,
    command: str = "",
) -> Audit:
    """Examine a dataset and write what was found.

    Args:
        data: the dataset's folder, into which nothing is written.
        settings: what counts as a fault, and with which model.
        limits: how many of each are allowed.
        json_file: where everything found goes as JSON.
        html_file: where the page to work through goes.
        progress: says what is happening.
        command: the command line that does this again.

    Raises:
        UserError: settings, data or model cannot be used.
    """
    settings, limits = settings or AuditSettings(), limits or AuditLimits()
    validate(settings)
    validate(limits)
    if limits.max_label_errors is not None and not settings.embeddings:
        raise ConfigError(
            "--max-label-errors cannot be combined with --no-embeddings: label errors are detected from embeddings",
            remedy="Remove one of the two.",
        )
    require_outside_dataset(data, json=json_file, html=html_file)
    found = _examine(read_inventory(data), settings, limits, progress)
    if json_file is not None:
        write_atomically(json_file, json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n")
    if html_file is not None:
        report.write_audit(
            found,
            html_file,
            command=command,
            versions=versions(),
            load_thumbnail=thumbnail_loader({file.name: file.path for file in found.files}),
        )
    return found


def propose_cleaning(
    data: Path,
    plan: Path,
    *,
    settings: AuditSettings | None = None,
    relabel_suspects: bool = False,
    progress: Progress = SILENT,
) -> Audit:
    """Examine a dataset and write a plan that a person can edit.

    Raises:
        UserError: settings, data or model cannot be used, or the plan exists.
    """
    settings = settings or AuditSettings()
    validate(settings)
    require_outside_dataset(data, plan=plan)
    if plan.exists():
        raise ConfigError(
            f"The plan {plan} already exists",
            remedy="Apply it with --out MANIFEST.csv, or delete it to create a new one.",
        )
    found = _examine(read_inventory(data), settings, AuditLimits(), progress)
    write_plan(proposed_plan(found, relabel_suspects=relabel_suspects), plan)
    return found


def apply_cleaning(data: Path, plan: Path, out: Path) -> Cleaned:
    """Apply a plan to a dataset: write a new manifest, and leave every image as it is.

    Raises:
        UserError: the plan is missing, or does not fit the dataset as it is now; the manifest exists.
    """
    if not plan.is_file():
        raise ConfigError(f"Plan {plan} not found", remedy="Create it first: run the same command without --out.")
    if out.exists():
        raise ConfigError(f"{out} exists", remedy="Pass a new file with --out, or delete this one.")
    require_outside_dataset(data, out=out)
    inventory = read_inventory(data)
    cleaned = apply_plan(read_plan(plan, inventory), inventory)
    write_atomically(out, manifest_csv(cleaned.files, out.parent))
    return cleaned


def _examine(inventory: Inventory, settings: AuditSettings, limits: AuditLimits, progress: Progress) -> Audit:
    backbone = _model(settings, limits, progress)  # before an hour's work, not after it
    cache = cache_folder(settings.cache)
    progress.note(f"Data {inventory.root}: {len(inventory.images):,} images")
    for warning in inventory.warnings:
        progress.warn(warning)
    if backbone is not None and len(inventory.images) > EXACT_ROWS:
        progress.note(
            "Similar images are searched through an index, which finds nearly all pairs"
            if uses_index(len(inventory.images))
            else "Comparing all images with each other takes long; pip install 'clip-har[faiss]' makes it faster"
        )
    readable, prints, reasons = read_images(inventory, settings, cache, progress)
    table = None
    model = None
    if backbone is not None and readable:
        model = settings.model or DEFAULT_MODEL
        readable, prints, table = _features(readable, prints, reasons, backbone, settings, cache, progress)
    found = audit(
        inventory,
        readable,
        prints,
        reasons,
        settings=settings,
        limits=limits,
        features_NH=None if table is None else table.hidden.numpy(),
        model=model,
    )
    for warning in found.warnings:
        if warning not in inventory.warnings:
            progress.warn(warning)
    return found


def _model(settings: AuditSettings, limits: AuditLimits, progress: Progress) -> Backbone | None:
    """The model that was asked for; else the default one if it is on this machine, which needs no network."""
    if not settings.embeddings:
        progress.note("Compared by content and perceptual hashes, without a model")
        return None
    try:
        if settings.model is None:
            backbone = load_backbone(
                DEFAULT_MODEL, device=settings.device, precision=settings.precision, local_only=True
            )
        else:
            backbone = load_given(settings.model, device=settings.device, precision=settings.precision)
    except ModelError as error:
        if settings.model is not None or error.what.startswith("--device"):
            remedy = f"{error.remedy.rstrip('.')}. Or audit without a model: --no-embeddings."
            raise ModelError(error.what, remedy=remedy) from error
        if limits.max_label_errors is not None:
            raise ConfigError(
                f"--max-label-errors requires a model, and the default model {DEFAULT_MODEL} is not on this machine",
                remedy=f"Pass --model {DEFAULT_MODEL} to download it, or another --model.",
            ) from error
        progress.note(
            f"Compared by content and perceptual hashes only: the default model {DEFAULT_MODEL} is not on this "
            f"machine. Pass --model {DEFAULT_MODEL} to download it and to find similar images and likely label errors"
        )
        return None
    require_cleanlab()
    progress.note(f"Compared by content, perceptual hashes and the model {backbone.info.name}")
    return backbone


def _features(
    readable: tuple[FoundFile, ...],
    prints: Fingerprints,
    reasons: dict[str, str],
    backbone: Backbone,
    settings: AuditSettings,
    cache: Path,
    progress: Progress,
) -> tuple[tuple[FoundFile, ...], Fingerprints, FeatureTable]:
    """The features of the readable images, less those that turn out unreadable to the model's transform."""
    store = FeatureStore(
        cache,
        backbone,
        batch_size=settings.encode_batch_size,
        workers=worker_count(settings.workers),
        progress=progress,
    )
    records = as_records(readable)
    encoding = store.encode(records)
    reasons.update(encoding.unreadable)
    kept = [place for place, file in enumerate(readable) if file.sha256 not in encoding.unreadable]
    table = store.table([records[place] for place in kept])
    return tuple(readable[place] for place in kept), prints[kept], table
