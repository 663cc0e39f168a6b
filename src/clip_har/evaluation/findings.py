"""What an evaluation finds beyond the metrics of the test split, as records.

They are computed in the other modules of this package and in experiment/, and shown by report.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from clip_har.evaluation.unknown import UnknownActions


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Predictions of similar confidence, and how many of them were right."""

    lower: float
    """Lower edge of the bin's confidences, in [0, 1]."""
    upper: float
    """Upper edge of the bin's confidences, in [0, 1]."""
    count: int
    """Predictions in the bin; 0 leaves the next two at 0."""
    confidence: float
    """Mean confidence of the predictions, in [0, 1]."""
    accuracy: float
    """Share of the predictions that were right, in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class SelectivePoint:
    """Answering only when confident enough: a threshold chosen on validation, and what it gives on test."""

    wished_accuracy: float
    """Accuracy asked for among the answered images, in [0, 1]."""
    threshold: float | None
    """Calibrated confidence below which the model is unsure, in [0, 1]; None: validation promises the wish at none."""
    coverage: float
    """Share of the test images that are answered, in [0, 1]."""
    accuracy: float
    """Accuracy among the answered test images, in [0, 1]; 0 where none is answered."""


@dataclass(frozen=True, kw_only=True)
class ConformalLevel:
    """Split-conformal prediction sets of one stated coverage: calibrated on validation, checked on test."""

    level: float
    """Stated coverage, in (0, 1)."""
    threshold: float
    """Largest nonconformity score that still enters the set."""
    coverage: float
    """Share of the test images whose set holds the true class, in [0, 1]."""
    mean_size: float
    """Mean number of classes in a set."""
    empty: float = 0.0
    """Share of the test images whose set is empty: no class is likely enough."""


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How far one model's confidence can be trusted, before and after temperature scaling."""

    temperature: float
    """Divides the logits; fitted on validation (Guo et al. 2017, arXiv 1706.04599)."""
    ece_before: float
    """Expected calibration error on test, 15 equal-width bins, as the model is."""
    ece_after: float
    """The same after temperature scaling."""
    reliability_before: tuple[ReliabilityBin, ...]
    """Of the test images, as the model is."""
    reliability_after: tuple[ReliabilityBin, ...]
    """Of the test images, after temperature scaling."""
    risk_coverage: tuple[tuple[float, float], ...]
    """Points (coverage, error rate among the answered) on test, by falling confidence; at most 200."""
    aurc: float
    """Area under the risk-coverage curve of all test images."""
    selective: tuple[SelectivePoint, ...]
    """For several target accuracies."""
    conformal: tuple[ConformalLevel, ...]
    """For several stated coverages."""
    images: int = 0
    """Validation images that temperature and thresholds were fitted on."""


@dataclass(frozen=True, kw_only=True)
class CorruptionScore:
    """Accuracy on the test images under one corruption."""

    kind: str
    """Such as gaussian-noise or jpeg."""
    severity: int
    """1 (mild) to 5."""
    baseline: float
    """Accuracy of zero-shot, in [0, 1]."""
    finetuned: float | None
    """Accuracy of the run, in [0, 1]; None without a run."""


@dataclass(frozen=True, kw_only=True)
class Robustness:
    """Accuracy under corruptions of the test images, baseline and run side by side."""

    images: int
    """Test images that were corrupted."""
    clean_baseline: float
    """Zero-shot accuracy on the same images as they are."""
    clean_finetuned: float | None
    """The run's accuracy on them."""
    scores: tuple[CorruptionScore, ...]
    """One for each kind and severity."""
    mean_baseline: float
    """Mean accuracy of zero-shot over kinds and severities."""
    mean_finetuned: float | None
    """The same of the run."""


@dataclass(frozen=True, kw_only=True)
class ShiftScore:
    """Accuracy on another dataset with the same class names: a natural shift."""

    name: str
    """Name of the dataset's folder."""
    images: int
    """Images scored."""
    classes: int
    """Classes that both datasets have."""
    baseline: float
    """Zero-shot accuracy, in [0, 1]."""
    baseline_ci95: tuple[float, float]
    """Its 95 % interval."""
    finetuned: float | None
    """Accuracy of the run."""
    finetuned_ci95: tuple[float, float] | None
    """Its 95 % interval."""
    mcnemar_p: float | None
    """p-value of the difference."""
    left_out: int = 0
    """Images omitted because the run was trained or chosen on their very content."""


@dataclass(frozen=True, kw_only=True)
class BaseNovel:
    """Accuracy on the actions a model was trained on and on those it never saw, each among its own names.

    Protocol of CoCoOp (Zhou et al. 2022, arXiv 2203.05557).
    """

    base: float
    """Accuracy on test images of the trained actions, choosing among those, in [0, 1]."""
    novel: float
    """Accuracy on test images of the held-out actions, choosing among those, in [0, 1]."""
    harmonic: float
    """Harmonic mean of the two."""


@dataclass(frozen=True, kw_only=True)
class Unseen:
    """What training on some actions does to others."""

    base_classes: tuple[str, ...]
    """Names trained on."""
    novel_classes: tuple[str, ...]
    """Names held out."""
    baseline: BaseNovel
    """Of zero-shot."""
    finetuned: BaseNovel
    """Of the run."""
    falls_back: bool = False
    """Whether the run has no answer for new names, such as for its fixed head, and zero-shot's stands in its place."""


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training image close to a test image in the embedding space."""

    path: str
    """Where it is, as in the manifest."""
    label: str
    """Its class."""
    similarity: float
    """Cosine similarity, in [-1, 1]."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Why one image was answered as it was."""

    path: str
    """The image, as the user named it or as in the manifest."""
    true: str | None
    """Its class, where it is known."""
    predicted: str
    """The model's answer."""
    confidence: float
    """Probability of the answer, in [0, 1]."""
    top: tuple[tuple[str, float], ...] = ()
    """The most probable classes with their probabilities, best first."""
    overlay: str | None
    """File name of the relevance map laid over the picture, next to the results; None where the tower has no map."""
    overlay_true: str | None = None
    """The same for the true class, where the answer is wrong: what would have spoken for it."""
    prompts: tuple[tuple[str, float], ...]
    """Sentences closest to the image with their cosine similarities, best first, one of each class."""
    neighbours: tuple[Neighbour, ...]
    """Closest training images, best first."""


@dataclass(frozen=True, kw_only=True)
class EmbeddingMap:
    """Test images as points of a plane, before and after adaptation; axes have no unit."""

    method: str
    """How the plane was found: umap or pca."""
    baseline: tuple[tuple[float, float], ...]
    """One point for each test image, in their order, of zero-shot's embeddings."""
    finetuned: tuple[tuple[float, float], ...] | None
    """The same of the run's."""


@dataclass(frozen=True, kw_only=True)
class WisePoint:
    """WiSE-FT's weights at one share of the trained ones, on the test images."""

    alpha: float
    """Share of the trained weights, in [0, 1]; 0 is zero-shot."""
    in_domain: float
    """Accuracy on the test images, in [0, 1]."""
    novel: float | None = None
    """Accuracy on the actions held out of training, among their names; None where none were."""
    corrupted: float | None = None
    """Mean accuracy over the corruptions at `WiseCurve.severity`; None where it was not asked for."""
    shift: float | None = None
    """Accuracy on the other dataset; None where none was given."""


@dataclass(frozen=True, kw_only=True)
class WiseCurve:
    """What is won in the domain and lost outside it on the way from zero-shot to the trained weights.

    After figure 1 of WiSE-FT (Wortsman et al. 2021, arXiv 2109.01903).
    """

    points: tuple[WisePoint, ...]
    """By rising alpha."""
    chosen: float
    """The run's alpha, chosen on validation."""
    severity: int | None
    """Of the corruptions; None where there are none."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found beyond the test split's metrics; None is what was not asked for."""

    robustness: Robustness | None = None
    shift: ShiftScore | None = None
    unseen: Unseen | None = None
    unknown: UnknownActions | None = None
    wise_curve: WiseCurve | None = None

    def to_json(self) -> dict[str, Any]:
        """What was found, as results.json has it."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PromptScore:
    """Zero-shot with one set of templates and one way to say the classes, on validation images."""

    templates: str
    """Name of the set, such as actions."""
    phrasings: str
    """names, har, or the file."""
    sentences: int
    """Sentences per class; their embeddings are averaged."""
    example: str
    """The first sentence of the first class."""
    accuracy: float
    """In [0, 1]."""
    accuracy_ci95: tuple[float, float]
    """Its 95 % interval."""
    macro_f1: float
    """In [0, 1]."""
    mcnemar_p: float | None
    """Against the default, in pairs; None for the default itself."""
    recall: tuple[float, ...]
    """Of each class in [0, 1], in the order of the classes; 0 for one without images."""


@dataclass(frozen=True, kw_only=True)
class PromptTrial:
    """What the wording of the prompts changes, measured on validation and never on test."""

    images: int
    """Validation images."""
    classes: tuple[str, ...]
    default: PromptScore
    """What is used where nothing is said: the words of the names in seven templates on actions."""
    scores: tuple[PromptScore, ...]
    """All, the default too, best accuracy first."""
    phrases: dict[str, dict[str, str]]
    """Class descriptions: name -> class -> what stands for it."""


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """The effect of fine-tuning on one class of the test images."""

    name: str
    support: int
    """Test images of the class."""
    baseline: float
    """Zero-shot's recall, in [0, 1]; 0 without images."""
    finetuned: float
    """The run's."""
    fixed: int
    """Images that zero-shot answers wrongly and the run rightly."""
    broken: int
    """The other way round."""


@dataclass(frozen=True, kw_only=True)
class ConfusedImages:
    """Classes taken for each other, with images to look at."""

    true: str
    predicted: str
    count: int
    """Images of `true` that were answered `predicted`."""
    support: int
    """Images of `true`."""
    paths: tuple[str, ...]
    """Some of them, the most confident first."""


@dataclass(frozen=True, kw_only=True)
class ExplainResult:
    """Why a run answers as it does; lists of images are paths as in the manifest, the most informative first."""

    run: str
    """The run's folder."""
    method: str
    """Its method."""
    classes: tuple[str, ...]
    map_method: str | None
    """How the overlays were computed; None where there are none."""
    explanations: tuple[Explanation, ...]
    """Image by image."""
    confused: tuple[ConfusedImages, ...] = ()
    """The most frequent confusions of the run."""
    confidently_wrong: tuple[str, ...] = ()
    """Wrong answers, the most confident first."""
    hardest: tuple[str, ...] = ()
    """Images whose true class got the least probability."""
    fixed: tuple[str, ...] = ()
    """Images that zero-shot answers wrongly and the run rightly, the most confident first."""
    broken: tuple[str, ...] = ()
    """The other way round."""
    changes: tuple[ClassChange, ...] = ()
    """Class by class, in their order; empty for a run of zero-shot."""
    embedding_map: EmbeddingMap | None = None
    map_paths: tuple[str, ...] = ()
    """The images of the embedding map, in its order."""
    map_classes: tuple[str, ...] = ()
    """Their classes."""
