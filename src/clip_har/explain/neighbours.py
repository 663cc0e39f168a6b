"""What lies near an image in the embedding space: sentences, training images; and the space as a plane to look at."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from clip_har.config.converters import PlaneMethod
from clip_har.errors import ConfigError
from clip_har.memory import one_thread
from clip_har.methods import Classifier
from clip_har.methods.embedding_lora import EmbeddingLora
from clip_har.methods.towers import Towers

# Shapes: Q images asked about, N images, C classes, T sentences of each, D embedding width.


_CHUNK = 1024


def nearest(query_QD: Tensor, embedding_ND: Tensor, count: int) -> list[list[tuple[int, float]]]:
    """The `count` most similar rows for each query: index and cosine similarity, best first.

    Args:
        query_QD: unit-length.
        embedding_ND: unit-length.
        count: at most N are given.
    """
    count = min(count, len(embedding_ND))
    found: list[list[tuple[int, float]]] = []
    for part_QD in query_QD.split(_CHUNK):
        values, indices = (part_QD @ embedding_ND.T).topk(count, dim=1)
        found += [list(zip(i, v, strict=True)) for i, v in zip(indices.tolist(), values.tolist(), strict=True)]
    return found


def nearest_captions(query_QD: Tensor, captions_CTD: Tensor, count: int) -> list[list[tuple[int, int, float]]]:
    """The most similar sentence of each of the `count` most similar classes: class, sentence, similarity, best first.

    One for each class, since the sentences of one class are paraphrases that all lie close together.

    Args:
        query_QD: unit-length.
        captions_CTD: unit-length.
        count: at most C are given.
    """
    found: list[list[tuple[int, int, float]]] = []
    for part_QD in query_QD.split(_CHUNK):
        best_QC, sentences_QC = torch.einsum("qd,ctd->qct", part_QD, captions_CTD).max(dim=2)
        values, classes = best_QC.topk(min(count, len(captions_CTD)), dim=1)
        sentences = sentences_QC.gather(1, classes)
        rows = zip(classes.tolist(), sentences.tolist(), values.tolist(), strict=True)
        found += [list(zip(*row, strict=True)) for row in rows]
    return found


def plane(embedding_ND: Tensor, method: PlaneMethod, seed: int) -> tuple[str, tuple[tuple[float, float], ...]]:
    """Embeddings as points of a plane, and the method that was taken.

    PCA keeps the two directions of most variance, turned so that each has its largest weight positive. UMAP (McInnes et
    al. 2018, arXiv 1802.03426) keeps neighbourhoods; its distances between groups mean little.

    Args:
        embedding_ND: unit-length.
        method: auto takes UMAP where umap-learn is installed and there are enough images for it.
        seed: of UMAP.

    Raises:
        ConfigError: UMAP is asked for and not installed.
    """
    embedding = embedding_ND.double().numpy()
    if method == "umap" and find_spec("umap") is None:
        raise ConfigError("--embedding-map umap requires umap-learn", remedy='pip install "clip-har[explain]"')
    enough = len(embedding) > 15  # UMAP's own number of neighbours
    if method == "umap" or (method == "auto" and enough and find_spec("umap") is not None):
        from umap import UMAP

        reducer = UMAP(metric="cosine", random_state=seed, n_jobs=1, n_neighbors=min(15, len(embedding) - 1))
        with one_thread():  # and torch's number of threads again afterwards: Numba, which UMAP starts, changes it
            return "umap", _points(reducer.fit_transform(embedding))
    return "pca", _points(_principal(embedding))


def _principal(embedding_ND: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    centred = embedding_ND - embedding_ND.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    kept = np.zeros((2, centred.shape[1]))
    kept[: len(directions[:2])] = directions[:2]
    signs = np.sign(kept[np.arange(2), np.abs(kept).argmax(axis=1)])
    projected: npt.NDArray[np.float64] = centred @ (kept * np.where(signs == 0, 1, signs)[:, None]).T
    return projected


def _points(rows: Sequence[Sequence[float]] | npt.NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    return tuple((round(float(x), 5), round(float(y), 5)) for x, y in rows)


def adapted_captions(classifier: Classifier, captions_CTD: Tensor) -> Tensor:
    """Each class's sentences [C, T, D] as the classifier sees them: through its own text side, where it has one."""
    classes, templates, width = captions_CTD.shape
    with torch.no_grad():
        if isinstance(classifier, EmbeddingLora):
            adapted = classifier.adapt_text(captions_CTD.reshape(-1, width).to(classifier.device))
            adapted = adapted if classifier.renormalise else F.normalize(adapted, dim=-1)
        elif isinstance(classifier, Towers) and classifier.train_text:
            labels = torch.arange(classes, device=classifier.device).repeat_interleave(templates)
            numbers = torch.arange(templates, device=classifier.device).repeat(classes)
            adapted = classifier.encode_captions(labels, numbers)
        else:
            return captions_CTD
    return adapted.cpu().reshape(captions_CTD.shape)
