"""A finished run with its backbone as one model: preprocessed images in, probabilities and embeddings out.

Any number of threads may ask at once. What is made of the probabilities is in predict.py.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clip_har.backbone import Backbone
from clip_har.checkpoint import Run
from clip_har.errors import ConfigError, RunError
from clip_har.explain.relevance import relevance_maps
from clip_har.explain.through_encoder import through_encoder
from clip_har.methods.base import Classifier, ClassifierContext
from clip_har.methods.towers import Towers
from clip_har.prompts import class_phrase, filled
from clip_har.text_tower import mean_prompts

# Shapes: B images, C classes, T prompt templates, D embedding width.

CLASS_SETS = 16
"""Sets of other classes whose classifiers are kept, those asked for last."""
KEPT_PROMPTS = 1024
"""Other classes whose prompt embeddings are kept, so that a set that differs by one class costs one class."""
_ONE_AT_A_TIME = threading.RLock()
"""Held in every forward pass of the process: encoding and explaining replace parts of modules, and of torch, for the
time being. torch uses all cores in one pass, so that nothing is lost."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What a run says of one image."""

    probabilities_C: Tensor
    """Float32 on the CPU; the sum is 1."""
    embedding_D: Tensor | None = None
    """Unit-length float32 embedding of the image encoder: of the trained one, where the method's classifier is that."""


class RunModel:
    """A run's classifier in its backbone, and classifiers of other class names where the method has such.

    Args:
        run: a finished run.
        backbone: the one it was trained on; it may serve several runs.
        model: where that is, if not where the run's card says.
    """

    def __init__(self, run: Run, backbone: Backbone, *, model: str | None = None) -> None:
        self.run = run
        self.backbone = backbone
        self.preprocessing = run.preprocessing
        self._frame = run.frame(model=model, device=str(backbone.device))
        self._own = self._ready(run.classifier(frame=self._frame))
        self._others: OrderedDict[tuple[str, ...], Classifier] = OrderedDict()
        self._prompts: OrderedDict[str, Tensor] = OrderedDict()
        self._exact: Backbone | None = backbone if backbone.precision == "float32" else None

    @property
    def answers_new_names(self) -> bool:
        """Whether other classes than the run's own may be asked for."""
        return self.run.method.answers_new_names

    def check_classes(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Refuse class names that cannot be asked for, without computing anything.

        Raises:
            ConfigError: the method knows its own classes only, or the names are too few, empty or repeated.
        """
        if not self.answers_new_names:
            raise ConfigError(
                f"{self.run.card.method} predicts only the classes it was trained on",
                remedy="For other classes use a run of zero-shot, lora, clip-adapter, prolip or full.",
            )
        names = tuple(" ".join(name.split()) for name in classes)
        if len(names) < 2:
            raise ConfigError("Fewer than two classes are given", remedy="Give at least two class names.")
        if not all(names):
            raise ConfigError("A class name is empty", remedy="Remove it.")
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ConfigError(f"The class {repeated!r} is given twice", remedy="Give each class once.")
        return names

    def prepare(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Embed the prompts of other classes, so that the next call of `scores` finds them; returns their names.

        Raises:
            ConfigError: they cannot be asked for.
        """
        names = self.check_classes(classes)
        self._classifier(names)
        return names

    def scores(
        self, images_BCHW: Tensor, classes: Sequence[tuple[str, ...] | None] | None = None, *, embed: bool = False
    ) -> list[Scores]:
        """What the run says of preprocessed images, float32 [B, 3, H, W].

        Args:
            classes: per image the names to choose from, None for the run's own. None: the run's own for all.
            embed: whether embeddings are asked for.

        Raises:
            RunError: an answer is not finite.
        """
        wanted = [None] * len(images_BCHW) if classes is None else list(classes)
        found: list[Scores] = [Scores(probabilities_C=torch.empty(0))] * len(wanted)
        with _ONE_AT_A_TIME, torch.no_grad():
            inputs, embedding_BD = self._encoded(images_BCHW, embed=embed)
            for names in dict.fromkeys(wanted):
                rows = [row for row, other in enumerate(wanted) if other == names]
                probabilities_BC = self._probabilities(inputs[rows], names)
                for row, probabilities_C in zip(rows, probabilities_BC, strict=True):
                    found[row] = Scores(
                        probabilities_C=probabilities_C,
                        embedding_D=None if embedding_BD is None else embedding_BD[row],
                    )
        return found

    def relevance(self, image_CHW: Tensor, classes: tuple[str, ...] | None, answer: int) -> tuple[str, Tensor] | None:
        """Which places of one preprocessed image speak for a class: the method's name and a map [h, w] in [0, 1].

        None for an image encoder with neither attention over the image nor feature maps, and for combined models.
        """
        with _ONE_AT_A_TIME:
            through = through_encoder(self._classifier(classes), self._exact_backbone)
            if through is None:
                return None
            image_1CHW, answer_1 = image_CHW[None].to(through.device), torch.tensor([answer], device=through.device)
            found = relevance_maps(through.logits_of, through.visual, image_1CHW, answer_1)
        return None if found is None else (found[0], found[1][0])

    def _exact_backbone(self) -> Backbone:
        """The backbone in float32, loaded when it is first needed."""
        if self._exact is None:
            self._exact = self._frame.load_backbone()
        return self._exact

    def _encoded(self, images_BCHW: Tensor, *, embed: bool) -> tuple[Tensor, Tensor | None]:
        """What classifiers of any names read of the images, and the images' embeddings if asked for or at hand."""
        on_device = images_BCHW.to(self.backbone.device)
        if isinstance(self._own, Towers):
            embedding_BD = self._own.encode_images(on_device)
            return embedding_BD, embedding_BD.cpu()
        if self._own.reads == "image":
            return on_device, self.backbone.encode_images(images_BCHW).embedding_BD if embed else None
        features = self.backbone.encode_images(images_BCHW)
        return features.of_kind(self._own.reads).to(self.backbone.device), features.embedding_BD

    def _probabilities(self, inputs: Tensor, names: tuple[str, ...] | None) -> Tensor:
        classifier = self._classifier(names)
        logits: Tensor = classifier.logits(inputs) if isinstance(classifier, Towers) else classifier(inputs)
        probabilities_BC = logits.float().softmax(dim=-1).cpu()
        if not bool(probabilities_BC.isfinite().all()):
            raise RunError(
                f"The weights in {self.run.folder} give scores that are not finite",
                remedy="Pass --precision float32; if that does not help, train the run again.",
            )
        return probabilities_BC

    def _classifier(self, names: tuple[str, ...] | None) -> Classifier:
        if names is None or names == self.run.classes:
            return self._own
        with _ONE_AT_A_TIME:
            if names not in self._others:
                self._others[names] = self._of_names(names)
            self._others.move_to_end(names)
            while len(self._others) > CLASS_SETS:
                self._others.popitem(last=False)
            return self._others[names]

    def _of_names(self, names: tuple[str, ...]) -> Classifier:
        """The run as a classifier of other names, under its own templates."""
        known = self.run.phrasing
        phrases = tuple(known.get(name, class_phrase(name)) for name in names)
        frame = ClassifierContext(
            classes=names,
            templates=self._frame.templates,
            phrases=phrases,
            prompts_CD=self._embedded(phrases),
            logit_scale=self._frame.logit_scale,
            load_backbone=self._frame.load_backbone,
        )
        if isinstance(self._own, Towers):
            return self._ready(self._own.of_frame(frame, self.backbone))
        try:
            return self._ready(self.run.classifier(frame=frame))
        except RunError as error:
            if self.run.method.fits_any_name:
                raise
            longest = max(names, key=len)
            raise ConfigError(
                f"The class {longest!r} does not fit the learned prompts of {self.run.card.method}",
                remedy="Give shorter class names.",
            ) from error

    def _embedded(self, phrases: tuple[str, ...]) -> Tensor:
        """The prompt embedding of each class; of those that were asked for lately, as it was then."""
        templates = self._frame.templates
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self._prompts]
        if new:
            texts = [sentence for phrase in new for sentence in filled(phrase, templates)]
            captions_CTD = self.backbone.encode_text(texts).clone().reshape(len(new), len(templates), -1)
            self._prompts.update(zip(new, mean_prompts(captions_CTD), strict=True))
        found_CD = torch.stack([self._prompts[phrase] for phrase in phrases])
        for phrase in phrases:
            self._prompts.move_to_end(phrase)
        while len(self._prompts) > KEPT_PROMPTS:
            self._prompts.popitem(last=False)
        return found_CD

    def _ready(self, classifier: Classifier) -> Classifier:
        classifier = classifier.to(self.backbone.device).eval()
        with torch.no_grad():
            classifier.prepare()
        return classifier
