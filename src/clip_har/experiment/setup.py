"""The common start of every command: dataset read, backbone loaded, images encoded, prompts embedded."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from clip_har import checkpoint, distributed
from clip_har.backbone import Backbone
from clip_har.config import DEFAULT_MODEL, Augment, BackboneConfig, DataConfig
from clip_har.dataset import (
    SPLITS,
    ActionDataset,
    GivenManifest,
    SplitName,
    load_dataset,
    merge_novel,
    novel_class_names,
    split_novel,
    write_unreadable,
)
from clip_har.dataset.saved_split import SavedSplit
from clip_har.dataset.sources import locate
from clip_har.errors import DataError
from clip_har.experiment.zero_shot_model import ZeroShotModel, zero_shot_model
from clip_har.features import Encoding, FeatureStore, FeatureTable, View
from clip_har.files import cache_folder
from clip_har.images.workers import worker_count
from clip_har.methods import LabelledImages, Source, Task
from clip_har.progress import Progress
from clip_har.prompts import resolve_phrases, resolve_templates
from clip_har.protocol import Protocol, hash_prompts, known_activation, new_features
from clip_har.run_backbone import load_run_backbone
from clip_har.seen_images import SeenImages, seen_images
from clip_har.tuned_models import load_given

FEW_SHOT_VAL = 4


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A dataset whose images are encoded, and the zero-shot model: what every method and evaluation starts from."""

    dataset: ActionDataset
    model: ZeroShotModel
    encoding: Encoding
    novel: ActionDataset | None = None
    """The classes that are held out of training, if any; their images are not encoded yet."""
    seen: SeenImages = field(default_factory=SeenImages)
    """What the model was fine-tuned on, if it is a run."""

    @property
    def whole(self) -> ActionDataset:
        """The dataset with its held-out classes: what the manifest names."""
        return self.dataset if self.novel is None else merge_novel(self.dataset, self.novel)

    @property
    def model_was_trained_on_these(self) -> bool:
        """Whether the model was fine-tuned on training images of this dataset, so that these cannot judge anything."""
        return any(record.sha256 in self.seen.trained for record in self.dataset.split("train"))

    @property
    def protocol(self) -> Protocol:
        """What a run trained on this depends on."""
        return Protocol(
            model=self.model.backbone.info.weights_hash,
            model_name=self.model.backbone.info.name,
            activation=known_activation(self.model.backbone.info.activation),
            features=new_features(self.model.backbone.info.projection),
            images=self.whole.manifest_hash(),
            classes=self.dataset.classes,
            prompts=hash_prompts(self.model.templates, self.model.phrasing),
        )

    def images(self, split: SplitName) -> LabelledImages:
        """Features, labels and files of one split."""
        return self.model.images(self.dataset, split)

    def task(self, seed: int, *, shots: int | None = None, source: Source | None = None) -> Task:
        """What a method may learn from.

        Args:
            shots: training images per class, drawn with the seed; validation then has at most four of each.
            source: the run to start from.
        """
        train, val = self.images("train"), self.images("val")
        if shots is not None:
            train = train.subset(few_shot(train.labels_N, shots, seed))
            val = val.subset(few_shot(val.labels_N, min(shots, FEW_SHOT_VAL), seed))
        return Task(
            classes=self.dataset.classes,
            templates=self.model.templates,
            phrases=tuple(self.model.phrasing[name] for name in self.dataset.classes),
            prompts_CD=self.model.prompts_CD,
            logit_scale=self.model.backbone.info.logit_scale,
            logit_bias=self.model.backbone.info.logit_bias,
            load_backbone=self.model.load_backbone,
            captions_CTD=self.model.captions_CTD,
            train=train,
            val=val,
            seed=seed,
            source=source,
        )

    def with_views(self, images: LabelledImages, augment: Augment, count: int) -> LabelledImages:
        """The same images with cached features of `count` augmented views each, encoding what is missing."""
        wanted = set(images.table.hashes)
        records = [record for record in self.dataset.split("train") if record.sha256 in wanted]
        tables = []
        for number in range(count):
            store = self.model.store.of_view(View(augment=augment, number=number))
            store.encode(records)
            tables.append(FeatureTable(store, images.table.hashes))
        return dataclasses.replace(images, views=tuple(tables))


def prepare(
    data: DataConfig,
    backbone: BackboneConfig,
    *,
    out: Path,
    progress: Progress,
    run: checkpoint.Run | None = None,
    for_training: bool = True,
    hold_out: Sequence[str] | None = None,
    encoded: Sequence[SplitName] | None = None,
) -> Experiment:
    """Read the dataset, load the backbone, encode what is not cached, and embed the prompts.

    Args:
        out: where the list of unreadable images goes.
        run: a trained run, whose model, templates, classes and splits are then used.
        for_training: whether train and val must have images.
        hold_out: classes to omit, as --hold-out names them; a run names its own.
        encoded: the splits whose images are needed. Default: all for training, else val and test.

    Raises:
        UserError: data or model cannot be used, or too many images cannot be read.
    """
    if run is not None and run.caution:
        progress.warn(run.caution)
    needed: tuple[SplitName, ...] = SPLITS if for_training else ("val", "test")
    whole = _read_dataset(data, backbone, run, needed, progress)
    dataset, novel = _without_held_out(whole, data, run, hold_out, progress)
    loaded = _load_model(backbone, run)
    progress.note(
        f"Model {loaded.info.name}: {loaded.info.parameters / 1e6:.1f} M parameters, "
        f"{loaded.info.embed_dim}-d embeddings, {loaded.precision} on {loaded.device}"
    )
    for note in loaded.notes:
        progress.note(note)
    store = feature_store(backbone, loaded, progress)
    encoding = store.encode([r for r in dataset.records if r.split in (encoded or needed)])
    _say_encoding(encoding, progress)
    dataset = dataset.without(encoding.unreadable)
    _handle_unreadable(dataset, data.unreadable_limit, out, progress)
    if for_training:
        _require_training_images(dataset)
    templates = tuple(run.card.templates) if run else resolve_templates(backbone.templates, backbone.phrasings)
    phrasing = run.phrasing if run else resolve_phrases(backbone.phrasings, whole.classes)
    model = zero_shot_model(loaded, store, dataset.classes, templates, phrasing)
    seen = seen_images(loaded.info.name)
    for warning in _seen_before(dataset, novel, seen, loaded.info.name):
        progress.warn(warning)
    experiment = Experiment(dataset=dataset, model=model, encoding=encoding, novel=novel, seen=seen)
    if for_training and experiment.model_was_trained_on_these:
        progress.note(
            f"{loaded.info.name} was fine-tuned on these training images, so they cannot judge methods on its "
            "features: --no-refit is the default"
        )
    return experiment


def without_images(model: ZeroShotModel, classes: Sequence[str]) -> Experiment:
    """An experiment on classes of which there is no dataset."""
    dataset = ActionDataset(root=Path(), classes=tuple(classes), records=())
    nothing = Encoding(encoded=0, reused=0, seconds=0.0, unreadable={})
    return Experiment(dataset=dataset, model=model, encoding=nothing)


def feature_store(config: BackboneConfig, backbone: Backbone, progress: Progress) -> FeatureStore:
    """The store that the configuration means."""
    return FeatureStore(
        cache_folder(config.cache),
        backbone,
        batch_size=config.encode_batch_size,
        workers=worker_count(config.workers),
        progress=progress,
    )


def scored_split(dataset: ActionDataset) -> tuple[SplitName, list[str]]:
    """The split that is scored, test where there is one, and what to warn about."""
    counts = dataset.counts()
    warnings = list(dataset.warnings)
    if counts["test"]:
        return "test", warnings
    if counts["val"]:
        warnings.append(
            "There is no test split: metrics are on the validation images, which were also used for model selection"
        )
        return "val", warnings
    raise DataError(f"{dataset.root} has no test images of these classes", remedy="Pass a dataset with a test split.")


def few_shot(labels_N: Tensor, shots: int, seed: int) -> list[int]:
    """Indices of at most `shots` images of each class, in their order.

    The protocol of CoOp (Zhou et al. 2022, arXiv 2109.01134, section 4.1), whose validation has at most four of each.
    """
    order_N = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
    chosen = [order_N[labels_N[order_N] == label][:shots] for label in labels_N.unique()]
    return sorted(torch.cat(chosen).tolist())


def _read_dataset(
    data: DataConfig,
    backbone: BackboneConfig,
    run: checkpoint.Run | None,
    needed: Sequence[SplitName],
    progress: Progress,
) -> ActionDataset:
    """The dataset with its frozen splits: the given manifest's, the run's own, an earlier command's, or new ones."""
    folder = locate(data.data)
    set_aside = _set_aside(data, folder, run)
    key = f"{folder.resolve()}|{data.val_fraction}|{data.test_fraction}|{data.split_seed}"
    key += "".join(f"|without {split}" for split in sorted(set_aside))
    digest = hashlib.sha256(key.encode(errors="surrogateescape"))  # bytes of the folder's name that are not UTF-8
    name = f"{digest.hexdigest()[:32]}.csv"
    kept = SavedSplit(cache_folder(backbone.cache) / "splits" / name, progress)
    dataset = load_dataset(
        folder,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        split_seed=data.split_seed,
        manifests=[run.folder / "manifest.csv", *kept.paths()] if run else [] if data.manifest else kept.paths(),
        classes=sorted((*run.classes, *run.novel_classes)) if run else None,
        manifest=_given_manifest(data, run, needed),
        set_aside=set_aside,
    )
    if not run and not data.manifest and distributed.is_main():
        kept.save(dataset)
    counts = ", ".join(f"{split} {count:,}" for split, count in dataset.counts().items() if count)
    progress.note(f"Data {dataset.root}: {len(dataset.classes)} classes; {counts} images")
    progress.note(f"Read as {dataset.form}")
    for warning in dataset.warnings:
        progress.warn(warning)
    return dataset


def _set_aside(data: DataConfig, folder: Path, run: checkpoint.Run | None) -> tuple[SplitName, ...]:
    """The splits to omit: those asked for, else on the same data those that the run was trained without."""
    if data.set_aside is not None or run is None:
        return data.set_aside or ()
    try:
        same_data = locate(run.settings.data.data).resolve() == folder.resolve()
    except DataError:  # it has gone from there
        same_data = False
    return run.settings.data.set_aside or () if same_data else ()


def _without_held_out(
    whole: ActionDataset,
    data: DataConfig,
    run: checkpoint.Run | None,
    hold_out: Sequence[str] | None,
    progress: Progress,
) -> tuple[ActionDataset, ActionDataset | None]:
    """The dataset that is trained on, and the classes held out of it."""
    held_out = run.novel_classes if run else ()
    if not run and hold_out:
        held_out = novel_class_names(whole.classes, hold_out, data.split_seed)
    if not held_out:
        return whole, None
    progress.note(f"Excluded from training: {', '.join(held_out)}")
    return split_novel(whole, held_out)


def _given_manifest(data: DataConfig, run: checkpoint.Run | None, needed: Sequence[SplitName]) -> GivenManifest | None:
    """The manifest named with --manifest; else that of a run trained by one, unless the data is other data."""
    if data.manifest:
        return GivenManifest(path=data.manifest, splits=needed)
    if run and run.settings.data.manifest:
        return GivenManifest(path=run.folder / "manifest.csv", splits=needed, binding=False)
    return None


def _load_model(backbone: BackboneConfig, run: checkpoint.Run | None) -> Backbone:
    device, precision, local_only = backbone.device, backbone.precision, backbone.offline
    if run:
        return load_run_backbone(run, model=backbone.model, device=device, precision=precision, local_only=local_only)
    return load_given(backbone.model or DEFAULT_MODEL, device=device, precision=precision, local_only=local_only)


def _say_encoding(encoding: Encoding, progress: Progress) -> None:
    if encoding.encoded:
        rate = encoding.encoded / max(encoding.seconds, 1e-9)
        progress.note(
            f"Encoded {encoding.encoded:,} images in {encoding.seconds:.1f} s ({rate:.0f} images/s); "
            f"{encoding.reused:,} were cached"
        )
    else:
        progress.note(f"All {encoding.reused:,} images are cached: nothing to encode")


def _handle_unreadable(dataset: ActionDataset, limit: float, out: Path, progress: Progress) -> None:
    """Say which images are omitted, write the list, and stop where they are too many of a split."""
    if not dataset.unreadable:
        return
    if distributed.is_main():
        write_unreadable(dataset, out / "unreadable.csv")
    first = dataset.unreadable[0]
    progress.warn(
        f"{len(dataset.unreadable)} images cannot be read and are skipped, such as {first.name} ({first.reason}); "
        f"all in {out / 'unreadable.csv'}"
    )
    counts = dataset.counts()
    for split in SPLITS:
        bad = sum(image.split == split for image in dataset.unreadable)
        share = bad / max(1, bad + counts[split])
        if share > limit:
            raise DataError(
                f"{bad} of {bad + counts[split]} {split} images ({share:.0%}) cannot be read, "
                f"above the limit of {limit:.0%}",
                remedy=f"Fix or remove the files listed in {out / 'unreadable.csv'}, or raise --unreadable-limit.",
            )


def _seen_before(dataset: ActionDataset, novel: ActionDataset | None, seen: SeenImages, model: str) -> Iterator[str]:
    """What to warn about where a model was fine-tuned on images that now judge it."""
    judging: dict[SplitName, str] = {"val": "model selection and calibration", "test": "the accuracy"}
    for split, what in judging.items():
        hashes = [record.sha256 for record in dataset.split(split)]
        if trained := sum(sha256 in seen.trained for sha256 in hashes):
            share = f"{trained:,} of the {len(hashes):,} {split} images"
            yield f"{model} was fine-tuned on {share}, which makes {what} too optimistic"
    hashes = [record.sha256 for record in dataset.split("test")]
    if selected := sum(sha256 in seen.selected for sha256 in hashes):
        yield f"{selected:,} of the {len(hashes):,} test images were validation images of {model}"
    held_out = () if novel is None else novel.records
    if labels := sorted({record.label for record in held_out if record.sha256 in seen.trained}):
        names = ", ".join(labels)
        yield f"{model} was fine-tuned on images of {names}: accuracies on held-out classes are too optimistic"


def _require_training_images(dataset: ActionDataset) -> None:
    counts = dataset.counts()
    for split in ("train", "val"):
        if not counts[split]:
            raise DataError(
                f"{dataset.root} has no {split} images",
                remedy="Add a train/ folder with at least two images in one class.",
            )
    trained = {record.label for record in dataset.split("train")}
    lacking = [name for name in dataset.classes if name not in trained]
    if lacking:
        raise DataError(
            f"No readable training image of {lacking[0]!r}"
            + (f" and {len(lacking) - 1} more classes" * (len(lacking) > 1)),
            remedy="Add images to the class folder or remove it.",
        )
