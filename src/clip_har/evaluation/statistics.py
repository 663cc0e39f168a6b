"""Intervals of accuracy and paired tests over images, for one training or several.

Right or wrong is all that is known of an answer here; what is measured of it is in `metrics`, and the intervals of
all metrics are in `resampling`.
"""

from __future__ import annotations

import math

import numpy as np

from clip_har.evaluation.records import BoolArray, FloatArray, IntArray, Interval

EXACT_BELOW = 25
RESAMPLES = 2000
_NEGLIGIBLE = 1e-100


def bootstrap_accuracy(correct_N: BoolArray, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """95 % percentile bootstrap interval of accuracy over images.

    Drawing n images with replacement from n of which k are right makes the number of right ones
    Binomial(n, k / n), so the resamples are drawn from it directly (Efron & Tibshirani 1993, chapter 13).
    """
    n = len(correct_N)
    counts = np.random.default_rng(seed).binomial(n, correct_N.mean(), size=resamples)
    return _percentile_interval(counts / n)


def mcnemar_p(correct_a_N: BoolArray, correct_b_N: BoolArray) -> float:
    """Two-sided p of McNemar's test that two models are right equally often on the same images.

    Exact binomial below 25 discordant pairs, otherwise chi-square with one degree of freedom and continuity
    correction (McNemar 1947, doi 10.1007/BF02295996; Edwards 1948, doi 10.1007/BF02289261; for classifiers:
    Dietterich 1998, doi 10.1162/089976698300017197). 1.0 when there are no discordant pairs.

    Args:
        correct_a_N: whether the first model answers each image rightly.
        correct_b_N: the same of the second model, for the same images in the same order.
    """
    gained, lost = _discordant(correct_a_N, correct_b_N)
    discordant = gained + lost
    if discordant == 0:
        return 1.0
    if discordant < EXACT_BELOW:
        tail = sum(math.comb(discordant, i) for i in range(min(gained, lost) + 1))
        return min(1.0, float(2 * tail / 2**discordant))
    statistic = max(0, abs(gained - lost) - 1) ** 2 / discordant
    # Survival function of chi-square with one degree of freedom: P(|Z| > sqrt(statistic)).
    return math.erfc(math.sqrt(statistic / 2.0))


def sign_flip_p(correct_a_N: BoolArray, correct_b_SN: BoolArray) -> float:
    """Two-sided p that S trainings together are right as often as one other model on the same images.

    An image's difference is the share of trainings that answer it rightly, minus 1 if the other model does. Were
    the two sides alike, each difference could as well have the other sign; p is the share of all such flips whose
    sum is at least as far from zero (the randomization test of Fisher 1935, The Design of Experiments, section 21;
    Pitman 1937, doi 10.2307/2984124). It is exact, and of one training it is McNemar's exact test. It is about
    these trainings on other images: how much another seed would change is not in it.

    Args:
        correct_a_N: whether the other model answers each image rightly.
        correct_b_SN: the same of each training, for the same images in the same order.
    """
    n_seeds = len(correct_b_SN)
    if correct_b_SN.shape[1:] != correct_a_N.shape:
        raise ValueError(f"paired predictions differ in shape: {correct_a_N.shape} and {correct_b_SN.shape}")
    return flip_p(correct_b_SN.sum(axis=0, dtype=np.int64) - n_seeds * correct_a_N.astype(np.int64))


def flip_p(differences_N: IntArray) -> float:
    """Two-sided p that whole-numbered differences of images could as well have the other sign, each for itself.

    Exact: the distribution of their sum over all flips, as `sign_flip_p` explains. Only chances below 1e-100 at both
    ends are omitted, so that the work grows with the images and not with their square; a p below about 1e-98 is 0.
    """
    sizes_N = np.abs(differences_N)
    chances: FloatArray = np.ones(1)  # of each sum of the positive differences, about the middle one
    for size in range(1, int(sizes_N.max(initial=0)) + 1):
        chances = _without_ends(_spread(chances, _without_ends(_fair_coin(int((sizes_N == size).sum()))), size))
    # Sums are told by their distance from the middle, which leaving out both ends alike does not move.
    observed = abs(int(differences_N[differences_N > 0].sum()) - int(sizes_N.sum()) / 2)
    extreme = np.abs(np.arange(len(chances)) - (len(chances) - 1) / 2) >= observed
    return min(1.0, float(chances[extreme].sum()))


def _spread(chances: FloatArray, coin: FloatArray, size: int) -> FloatArray:
    """Chances of a sum plus `size` for each head: a convolution, without the zeros between multiples of `size`."""
    spread = np.zeros(len(chances) + size * (len(coin) - 1))
    for offset in range(min(size, len(chances))):
        own = np.convolve(chances[offset::size], coin)
        spread[offset::size][: len(own)] = own
    return spread


def _without_ends(chances: FloatArray) -> FloatArray:
    """Chances that rise to the middle and fall again, without the same number at both ends that are below 1e-100."""
    kept = np.flatnonzero(chances >= _NEGLIGIBLE)
    cut = min(int(kept[0]), len(chances) - 1 - int(kept[-1]))
    return chances[cut : len(chances) - cut]


def _fair_coin(tosses: int) -> FloatArray:
    """Probability of 0 to `tosses` heads: binomial with 1/2, by logarithms so that large counts do not overflow."""
    heads = np.arange(tosses + 1)
    from scipy.special import gammaln  # slow to import, and predicting needs none of it

    logs = gammaln(tosses + 1) - gammaln(heads + 1) - gammaln(tosses - heads + 1) - tosses * math.log(2)
    chances: FloatArray = np.exp(logs)
    return chances


def _discordant(correct_a_N: BoolArray, correct_b_N: BoolArray) -> tuple[int, int]:
    """How many images only b answers rightly, and how many only a does."""
    if correct_a_N.shape != correct_b_N.shape:
        raise ValueError(f"paired predictions differ in shape: {correct_a_N.shape} and {correct_b_N.shape}")
    a, b = correct_a_N.astype(bool), correct_b_N.astype(bool)
    return int((b & ~a).sum()), int((a & ~b).sum())


def _percentile_interval(samples: FloatArray) -> Interval:
    low, high = np.percentile(samples, [2.5, 97.5])
    return float(low), float(high)
