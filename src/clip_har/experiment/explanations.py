"""`explain`: why a run answers as it does, for the informative test images of a dataset or for photographs named.

How each thing is found is in explain/; this reads, ties together and writes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from clip_har import checkpoint, distributed
from clip_har.config import ExplainConfig
from clip_har.config.converters import PlaneMethod
from clip_har.csv_cells import csv_text
from clip_har.dataset import ImageRecord
from clip_har.dataset.reading import content_hash
from clip_har.errors import DataError
from clip_har.evaluation import FloatArray
from clip_har.evaluation.findings import EmbeddingMap, ExplainResult, Explanation, Neighbour
from clip_har.experiment.predictions import Predictions
from clip_har.experiment.setup import Experiment, scored_split
from clip_har.explain import image_selection, neighbours
from clip_har.explain.overlay import overlay, png, shown_image
from clip_har.explain.relevance import relevance_maps
from clip_har.explain.through_encoder import through_encoder
from clip_har.files import write_atomically
from clip_har.images import decode
from clip_har.methods import Classifier, LabelledImages
from clip_har.progress import Progress

SHOWN_PROMPTS = 5
SHOWN_CLASSES = 5
LISTED = 50
MAP_BATCH = 8


def explain_dataset(
    run: checkpoint.Run,
    answering: Predictions,
    experiment: Experiment,
    out: Path,
    *,
    limit: int,
    seed: int,
    progress: Progress,
) -> ExplainResult:
    """The most informative test images explained, with overlays in `out`; training images must be encoded."""
    config = ExplainConfig(limit=limit, seed=seed, embedding_map="pca")
    return Explainer(run, answering, experiment, config, out, progress).of_dataset()


class Explainer:
    """What is asked of a run, for images or for a split's most informative ones; the run's weights are loaded once."""

    def __init__(
        self,
        run: checkpoint.Run,
        answering: Predictions,
        experiment: Experiment,
        config: ExplainConfig,
        out: Path,
        progress: Progress,
    ) -> None:
        self._run, self._experiment, self._config, self._out = run, experiment, config, out
        self._progress = progress
        self._answering = answering
        self._classifier: Classifier = experiment.model.classifier()
        if self._answering.run is not None:
            self._classifier = self._answering.classifier
        self._map_method: str | None = None

    def of_files(self, paths: Sequence[Path]) -> ExplainResult:
        """Photographs whose classes are not known."""
        records = [ImageRecord(path=path, name=str(path), sha256=_hash(path), label="", split="test") for path in paths]
        encoding = self._experiment.model.store.encode(records)
        for record in records:
            if record.sha256 in encoding.unreadable:
                self._progress.warn(f"cannot read {record.name}: {encoding.unreadable[record.sha256]}")
        records = [record for record in records if record.sha256 not in encoding.unreadable]
        if not records:
            raise DataError("None of the images can be read", remedy="Pass image files such as photo.jpg.")
        first = self._experiment.dataset.classes[0]  # a label that is only needed to make a split of them
        dataset = dataclasses.replace(
            self._experiment.dataset, records=tuple(dataclasses.replace(record, label=first) for record in records)
        )
        images = self._experiment.model.images(dataset, "test")
        answers_NC = self._answering.finetuned(images)
        explained = self._explanations(
            records, images, self._answering.baseline(images) if answers_NC is None else answers_NC, known=False
        )
        return ExplainResult(
            run=str(self._run.folder),
            method=self._run.card.method,
            classes=self._experiment.dataset.classes,
            map_method=self._map_method,
            explanations=explained,
        )

    def of_dataset(self) -> ExplainResult:
        """The test images that tell most, and what all of them say of classes and of the training."""
        split, _ = scored_split(self._experiment.dataset)
        images, records = self._experiment.images(split), self._experiment.dataset.split(split)
        names, targets = [record.name for record in records], images.labels_N.numpy()
        before_NC, after_NC = self._answering.baseline(images), self._answering.finetuned(images)
        answers_NC = before_NC if after_NC is None else after_NC
        wrong = image_selection.confidently_wrong(answers_NC, targets)
        hard = image_selection.hardest(answers_NC, targets)
        fixed, broken = ([], []) if after_NC is None else image_selection.changed(before_NC, after_NC, targets)
        classes = self._experiment.dataset.classes
        chosen = image_selection.chosen([wrong, fixed, broken, hard], range(len(records)), self._config.limit)
        explained = self._explanations(
            [records[index] for index in chosen], images.subset(chosen), answers_NC[chosen], known=True
        )
        return ExplainResult(
            run=str(self._run.folder),
            method=self._run.card.method,
            classes=classes,
            map_method=self._map_method,
            explanations=explained,
            confused=image_selection.confused_images(answers_NC, targets, classes, names),
            confidently_wrong=tuple(names[index] for index in wrong[:LISTED]),
            hardest=tuple(names[index] for index in hard[:LISTED]),
            fixed=tuple(names[index] for index in fixed[:LISTED]),
            broken=tuple(names[index] for index in broken[:LISTED]),
            changes=() if after_NC is None else image_selection.class_changes(before_NC, after_NC, targets, classes),
            embedding_map=self._plane(images),
            map_paths=tuple(names) if self._config.embedding_map != "none" else (),
            map_classes=tuple(record.label for record in records) if self._config.embedding_map != "none" else (),
        )

    def _explanations(
        self, records: Sequence[ImageRecord], images: LabelledImages, answers_NC: FloatArray, *, known: bool
    ) -> tuple[Explanation, ...]:
        if not records:
            return ()
        classes = self._experiment.dataset.classes
        predicted = torch.from_numpy(answers_NC).argmax(dim=1)
        overlays = self._overlays(records, images, predicted, known=known)
        embedding_QD = self._classifier.image_embeddings(images)
        captions_CTD = neighbours.adapted_captions(self._classifier, self._experiment.model.captions_CTD)
        words = neighbours.nearest_captions(embedding_QD, captions_CTD, SHOWN_PROMPTS)
        top = torch.from_numpy(answers_NC).topk(min(SHOWN_CLASSES, len(classes)), dim=1)
        near = self._neighbours(images)
        return tuple(
            Explanation(
                path=record.name,
                true=record.label if known else None,
                predicted=classes[int(predicted[index])],
                confidence=float(answers_NC[index].max()),
                top=tuple(
                    (classes[place], value)
                    for place, value in zip(top.indices[index].tolist(), top.values[index].tolist(), strict=True)
                ),
                overlay=overlays[index][0],
                overlay_true=overlays[index][1],
                prompts=tuple((self._sentence(name, number), value) for name, number, value in words[index]),
                neighbours=near[index],
            )
            for index, record in enumerate(records)
        )

    def _sentence(self, of_class: int, template: int) -> str:
        model = self._experiment.model
        return model.templates[template].replace("{}", model.phrasing[self._experiment.dataset.classes[of_class]])

    def _neighbours(self, images: LabelledImages) -> list[tuple[Neighbour, ...]]:
        """Training images by cached embeddings, as the run adapts them where it works on those."""
        records = self._experiment.dataset.split("train")
        if not records or not self._config.neighbours:
            return [()] * len(images)
        train = self._experiment.images("train")
        if self._classifier.reads == "image":  # its own tower would have to see every training image again
            query_QD, train_ND = images.table.embedding, train.table.embedding
        else:
            query_QD, train_ND = self._classifier.image_embeddings(images), self._classifier.image_embeddings(train)
        found = neighbours.nearest(query_QD, train_ND, self._config.neighbours)
        return [
            tuple(
                Neighbour(path=records[place].name, label=records[place].label, similarity=value)
                for place, value in of_image
            )
            for of_image in found
        ]

    def _plane(self, images: LabelledImages) -> EmbeddingMap | None:
        if self._config.embedding_map == "none":
            return None
        self._progress.note("Projecting the test images to two dimensions")  # UMAP takes its time
        method, before = neighbours.plane(images.table.embedding, self._config.embedding_map, self._config.seed)
        if self._answering.run is None:
            return EmbeddingMap(method=method, baseline=before, finetuned=None)
        own_ND = self._classifier.image_embeddings(images)
        _, after = neighbours.plane(own_ND, cast(PlaneMethod, method), self._config.seed)
        return EmbeddingMap(method=method, baseline=before, finetuned=after)

    def _overlays(
        self, records: Sequence[ImageRecord], images: LabelledImages, predicted_N: Tensor, *, known: bool
    ) -> list[tuple[str | None, str | None]]:
        """File names of the maps for the answer and, where that is wrong, for the true class; the files are written."""
        names: list[tuple[str | None, str | None]] = [(None, None)] * len(records)
        if distributed.is_main():
            for stale in self._out.glob("overlay_*.png"):
                stale.unlink()
        if not self._config.maps:
            return names
        classifier = self._classifier.eval()
        classifier.prepare()
        through = through_encoder(classifier, self._experiment.model.load_backbone)
        if through is None:
            self._progress.warn("Several combined models have no saliency map: no overlays")
            return names
        preprocessing = self._experiment.model.backbone.info.preprocessing
        transform = preprocessing.transform()
        with self._progress.bar("Drawing maps", total=len(records), unit="images") as bar:
            for start in range(0, len(records), MAP_BATCH):
                part = range(start, min(start + MAP_BATCH, len(records)))
                images_BCHW = torch.stack([transform(decode(records[index].path)) for index in part])
                maps = []
                for classes_N in (predicted_N, images.labels_N):
                    answers_B = classes_N[list(part)].to(through.device)
                    maps.append(
                        relevance_maps(through.logits_of, through.visual, images_BCHW.to(through.device), answers_B)
                    )
                if maps[0] is None or maps[1] is None:
                    self._progress.warn("This image encoder has neither attention nor feature maps: no overlays")
                    return names
                self._map_method = maps[0][0]
                for row, index in enumerate(part):
                    picture = shown_image(images_BCHW[row], preprocessing)
                    wrong = known and predicted_N[index] != images.labels_N[index]
                    names[index] = (
                        self._write(f"overlay_{index:03d}.png", overlay(picture, maps[0][1][row])),
                        self._write(f"overlay_{index:03d}_true.png", overlay(picture, maps[1][1][row]))
                        if wrong
                        else None,
                    )
                bar.advance(len(part))
        return names

    def _write(self, name: str, picture: object) -> str:
        from PIL import Image

        assert isinstance(picture, Image.Image)
        if distributed.is_main():
            write_atomically(self._out / name, png(picture))
        return name


def _hash(path: Path) -> str:
    if path.exists() and not path.is_file():  # a device or a pipe may have no end
        raise DataError(f"The image {path} is not a regular file", remedy="Pass an image file such as photo.jpg.")
    try:
        return content_hash(path)
    except OSError as error:
        raise DataError(f"The image {path} cannot be read: {error.strerror}", remedy="Pass an image file.") from error


def explanations_csv(result: ExplainResult) -> str:
    """A row per explained image."""
    rows = []
    for item in result.explanations:
        near = item.neighbours[0] if item.neighbours else None
        named = (near.path, near.label) if near else ("", "")
        answer = (item.predicted, f"{item.confidence:.6f}", item.overlay or "")
        rows.append((item.path, item.true or "", *answer, item.prompts[0][0], *named))
    header = ["path", "true", "predicted", "confidence", "overlay", "prompt", "neighbour", "neighbour_label"]
    return csv_text(header, rows)
