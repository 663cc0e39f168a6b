"""Stratified bootstrap of every metric at once, and the intervals that follow, for one training or several.

Images are drawn within their true classes. What is drawn for a seed depends on the true classes alone, so that two
models on the same images are resampled in pairs. The metrics of the images as they are are in `metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from clip_har.evaluation.ranking import Ranking, resampled_average_precision
from clip_har.evaluation.records import BIASED, UNBOUNDED, FloatArray, IntArray, Interval

if TYPE_CHECKING:
    from scipy.sparse import csr_array

BLOCK_CELLS = 2_000_000
"""Weights of images in resamples that are held at a time, where there are fewer than 250,000 images."""
LEAST_RESAMPLES = 8
"""Resamples that are taken at a time however many images there are."""
MEANS = ("log_loss", "brier", "top3_accuracy", "top5_accuracy", "mean_average_precision")


@dataclass(frozen=True, kw_only=True, eq=False)
class Contributions:
    """What each image adds to the metrics. Shape legend: N images by rising true class, C classes, B bins."""

    sizes_C: IntArray
    """Images of each true class."""
    predictions_N: IntArray
    means: Mapping[str, FloatArray]
    """Metrics that are means over the images -> the images' values. For mean_average_precision, its slope in each
    image's weight times N, where it is not resampled itself."""
    gaps_N: FloatArray
    """Rightness minus confidence."""
    bins: Mapping[str, IntArray]
    """Calibration error -> the bin of each image."""
    n_bins: int
    rankings: Mapping[int, Ranking]
    """Class -> its ranking, where average precision is resampled itself; the images in the order of these arrays."""

    @property
    def targets_N(self) -> IntArray:
        return np.repeat(np.arange(len(self.sizes_C)), self.sizes_C)


@dataclass(frozen=True, kw_only=True, eq=False)
class Resampled:
    """Metrics of R resamples: by name [R], and by name for each class [C, R]."""

    scalars: Mapping[str, FloatArray]
    of_classes: Mapping[str, FloatArray]


def stratified_weights(sizes_C: IntArray, *, seed: int, resamples: int) -> Iterator[FloatArray]:
    """How often each image is drawn, in blocks [N, R'] of some resamples.

    Within each class as many images are drawn with replacement as it has, so that every resample has the classes in
    their sizes (Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 8).

    Args:
        sizes_C: images of each class; the images stand in the order of their classes.
        seed: the same seed and sizes give the same weights.
        resamples: how many in all.
    """
    n = int(sizes_C.sum())
    sizes_N1 = np.repeat(sizes_C, sizes_C)[:, None]
    starts_N1 = np.repeat(np.cumsum(sizes_C) - sizes_C, sizes_C)[:, None]
    generator = np.random.default_rng(seed)
    step = min(resamples, max(LEAST_RESAMPLES, BLOCK_CELLS // n))
    for first in range(0, resamples, step):
        count = min(step, resamples - first)
        uniform = generator.random((n, count))
        uniform *= sizes_N1
        drawn = uniform.astype(np.int64)
        del uniform
        drawn += starts_N1
        drawn *= count
        drawn += np.arange(count)
        yield np.bincount(drawn.ravel(), minlength=n * count).reshape(n, count).astype(np.float32)


def resample(of: Contributions, *, seed: int, resamples: int) -> Resampled:
    """All metrics of stratified resamples; the bins of calibration stay those of the images as they are."""
    names = [name for name in MEANS if name in of.means]
    features = _features(of, names)
    n_classes = len(of.sizes_C)
    sums, precisions = [], []
    for weights_NR in stratified_weights(of.sizes_C, seed=seed, resamples=resamples):
        sums.append(features @ weights_NR)
        if of.rankings:
            found = [resampled_average_precision(ranking, weights_NR) for ranking in of.rankings.values()]
            precisions.append(np.stack(found))
    sums_FR = np.concatenate(sums, axis=1)
    heights = [len(names), *[of.n_bins] * len(of.bins), n_classes, n_classes]
    means_MR, *gaps, answered_CR, right_CR = np.split(sums_FR, np.cumsum(heights)[:-1])
    n = len(of.predictions_N)
    scalars = dict(zip(names, means_MR / n, strict=True))
    scalars |= {name: np.abs(gaps_BR).sum(axis=0) / n for name, gaps_BR in zip(of.bins, gaps, strict=True)}
    of_classes = class_metrics(right_CR, answered_CR, of.sizes_C)
    scalars |= averages(of_classes, right_CR, of.sizes_C)
    if of.rankings:
        all_CR = np.zeros((n_classes, resamples))
        all_CR[list(of.rankings)] = np.concatenate(precisions, axis=1)
        of_classes["average_precision"] = all_CR
        scalars["mean_average_precision"] = all_CR[list(of.rankings)].mean(axis=0)
    return Resampled(scalars=scalars, of_classes=of_classes)


def class_metrics(right_CR: FloatArray, answered_CR: FloatArray, sizes_C: IntArray) -> dict[str, FloatArray]:
    """Precision, recall and F1 of each class from counts; 0 where there is nothing to divide by."""
    sizes_C1 = sizes_C[:, None]
    return {
        "precision": right_CR / np.maximum(answered_CR, 1),
        "recall": right_CR / np.maximum(sizes_C1, 1),
        "f1": 2 * right_CR / np.maximum(answered_CR + sizes_C1, 1),
    }


def averages(of_classes: Mapping[str, FloatArray], right_CR: FloatArray, sizes_C: IntArray) -> dict[str, FloatArray]:
    """Accuracy, and the macro and weighted averages over the classes that have images."""
    present, shares_C = sizes_C > 0, sizes_C / sizes_C.sum()
    found = {"accuracy": right_CR.sum(axis=0) / sizes_C.sum()}
    for name, values_CR in of_classes.items():
        found[f"macro_{name}"] = values_CR[present].mean(axis=0)
        found[f"weighted_{name}"] = shares_C @ values_CR
    found["balanced_accuracy"] = found["macro_recall"]
    return found


def interval(name: str, value: float, samples_R: FloatArray) -> Interval:
    """95 % percentile interval of a metric.

    A calibration error takes absolute values, which turn the noise that resampling adds into error: there the
    resamples are shifted so that their mean is the value measured (the bootstrap's correction for bias, Efron &
    Tibshirani 1993, chapter 10).
    """
    shift = samples_R.mean() - value if name in BIASED else 0.0
    low, high = np.percentile(samples_R - shift, [2.5, 97.5]).tolist()
    top = math.inf if name in UNBOUNDED else 1.0
    return min(max(low, 0.0), top), min(max(high, 0.0), top)


def interval_over_seeds(name: str, values_S: Sequence[float], samples_SR: FloatArray, *, seed: int) -> Interval:
    """95 % interval of a metric's mean over S trainings, for other images and other seeds.

    Each resample adds to the mean over the trainings, on the images drawn, what other seeds would change: s / sqrt(S)
    times a draw of Student's t with S - 1 degrees of freedom (Student 1908, Biometrika 6), s being the trainings'
    standard deviation. If seeds alone vary, it is the t interval; the sum covers 95 % or more (Behrens and Fisher's
    problem: Fisher 1935, Annals of Eugenics 6), since s contains some of the variation of the images too. Where all
    seeds answer alike it is the interval of one.

    Args:
        name: of the metric.
        values_S: of each training.
        samples_SR: of each training in each resample, all of the same images.
        seed: of the order in which the draws of t meet the resamples.
    """
    values = np.asarray(values_S)
    n_seeds, resamples = samples_SR.shape
    if (samples_SR == samples_SR[0]).all():
        return interval(name, float(values[0]), samples_SR[0])
    from scipy.special import stdtrit  # slow to import, and predicting needs none of it

    # Evenly spaced quantiles in a random order: the tails of t with one degree of freedom are too long to draw from.
    t_R = np.random.default_rng(seed).permutation(stdtrit(n_seeds - 1, (np.arange(resamples) + 0.5) / resamples))
    effects_R = values.std(ddof=1) / math.sqrt(n_seeds) * t_R
    return interval(name, float(values.mean()), samples_SR.mean(axis=0) + effects_R)


def difference_interval(name: str, difference: float, samples_a_R: FloatArray, samples_b_R: FloatArray) -> Interval:
    """95 % interval of a metric's difference, b minus a, over the same resamples of the same images."""
    samples_R = samples_b_R - samples_a_R
    shift = samples_R.mean() - difference if name in BIASED else 0.0
    low, high = np.percentile(samples_R - shift, [2.5, 97.5]).tolist()
    return low, high


def stratified_spread(slopes_N: FloatArray, sizes_C: IntArray) -> float:
    """Standard deviation over stratified resamples of a sum of weights times slopes; images by rising class."""
    sizes_P = sizes_C[sizes_C > 0]
    means_P = np.add.reduceat(slopes_N, np.cumsum(sizes_P) - sizes_P) / sizes_P
    return float(np.sqrt(((slopes_N - np.repeat(means_P, sizes_P)) ** 2).sum()))


def _features(of: Contributions, names: Sequence[str]) -> csr_array:
    """A sparse matrix [F, N] that sums what each image adds: means, gaps by bin, answers by class, right ones."""
    n, n_classes = len(of.predictions_N), len(of.sizes_C)
    images_N, right_N = np.arange(n), of.predictions_N == of.targets_N
    blocks = [(np.full(n, row), images_N, of.means[name]) for row, name in enumerate(names)]
    height = len(names)
    for bins_N in of.bins.values():
        blocks.append((height + bins_N, images_N, of.gaps_N))
        height += of.n_bins
    blocks.append((height + of.predictions_N, images_N, np.ones(n)))
    blocks.append((height + n_classes + of.predictions_N[right_N], images_N[right_N], np.ones(int(right_N.sum()))))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    from scipy.sparse import coo_array  # slow to import, and predicting needs none of it

    return coo_array((values, (rows, columns)), shape=(height + 2 * n_classes, n)).tocsr()
