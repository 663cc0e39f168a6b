"""Linear heads on cached features: each against another library's, cross-validation, and the fit on train and val."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from torch import Tensor

from clip_har.evaluation import calibrate
from clip_har.methods import LabelledImages, Task
from clip_har.methods.cross_validation import FOLDS, fit_mixture, fold_numbers
from clip_har.methods.gda import Gda
from clip_har.methods.linear_heads import HeadData, LinearHeadMethod, PromptedHeadClassifier, transformed
from clip_har.methods.linear_probe import LinearProbe, _raw_path, probe_of_raw_features
from clip_har.methods.ridge import Ridge
from tasks import Table, make_task, settings

METHODS = (Gda, Ridge, LinearProbe)


def names(count: int) -> list[str]:
    return [f"{index:064x}" for index in range(count)]


def clusters(*, classes: int = 4, per_class: int = 25, width: int = 20, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features of unit length, and labels."""
    generator = torch.Generator().manual_seed(seed)
    centres_CH = torch.randn(classes, width, generator=generator)
    labels_N = torch.arange(classes).repeat_interleave(per_class)
    noise_NH = torch.randn(len(labels_N), width, generator=generator)
    return F.normalize(centres_CH[labels_N] + noise_NH, dim=-1), labels_N


def data(features_NH: Tensor, labels_N: Tensor, fold_N: Tensor | None = None) -> HeadData:
    return HeadData(
        features_NH=features_NH,
        labels_N=labels_N,
        classes=int(labels_N.max()) + 1,
        fold_N=fold_N,
        held_out_MH=features_NH,
    )


def centred(logits_NC: Tensor) -> Tensor:
    """Logits as answers tell them apart: a constant added to all classes changes nothing."""
    return logits_NC - logits_NC.mean(dim=1, keepdim=True)


# --- each against another library's ---------------------------------------------------------------------


def test_gda_is_linear_discriminant_analysis_with_a_shrunk_covariance() -> None:
    features_NH, labels_N = clusters()
    for shrinkage, head in zip(Gda.penalties, Gda(settings()).path(features_NH, labels_N, 4), strict=True):
        theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=[0.25] * 4)
        theirs.fit(features_NH.double().numpy(), labels_N.numpy())
        expected_NC = torch.from_numpy(theirs.decision_function(features_NH.double().numpy())).float()
        torch.testing.assert_close(centred(head(features_NH)), centred(expected_NC), rtol=2e-3, atol=2e-3)


def test_gda_lets_a_larger_class_weigh_no_more() -> None:
    features_NH, labels_N = clusters(classes=2)
    kept_N = torch.cat([torch.arange(5), torch.arange(25, 50)])
    head = next(Gda(settings()).path(features_NH[kept_N], labels_N[kept_N], 2))
    middle_H = torch.stack([features_NH[:5].mean(dim=0), features_NH[25:].mean(dim=0)]).mean(dim=0)
    logits_C = head(middle_H[None])[0]
    assert float(logits_C[0] - logits_C[1]) == pytest.approx(0.0, abs=1e-4)


def test_ridge_is_weighted_least_squares() -> None:
    features_NH, labels_N = clusters()
    kept_N = torch.cat([torch.arange(8), torch.arange(25, 100)])
    features_NH, labels_N = features_NH[kept_N], labels_N[kept_N]
    inputs_NX = F.pad(features_NH, (0, 1), value=1.0).double().numpy()
    weights_N = (len(labels_N) / 4 / torch.bincount(labels_N).double())[labels_N].numpy()
    targets_NC = (F.one_hot(labels_N, 4).double() - 0.25).numpy()
    values = np.linalg.eigvalsh(inputs_NX.T @ (weights_N[:, None] * inputs_NX))
    for penalty, head in zip(Ridge.penalties, Ridge(settings()).path(features_NH, labels_N, 4), strict=True):
        theirs = SklearnRidge(alpha=penalty * values[:-1].mean(), fit_intercept=False)
        theirs.fit(inputs_NX, targets_NC, sample_weight=weights_N)
        np.testing.assert_allclose(head(features_NH).numpy(), theirs.predict(inputs_NX), atol=2e-4)


@pytest.mark.parametrize("classes", [2, 4])
def test_the_probe_is_logistic_regression(classes: int) -> None:
    features_NH, labels_N = clusters(classes=classes)
    for inverse, head in zip(
        LinearProbe.penalties, LinearProbe(settings()).path(features_NH, labels_N, classes), strict=True
    ):
        if inverse > 10:  # nearly unregularised: the optimum is flat
            continue
        # With two classes scikit-learn penalises one row of weights, in place of two of half its length.
        theirs = LogisticRegression(C=inverse * (2.0 if classes == 2 else 1.0), max_iter=5000, tol=1e-8)
        theirs.fit(features_NH.double().numpy(), labels_N.numpy())
        expected = theirs.predict_proba(features_NH.double().numpy())
        np.testing.assert_allclose(head(features_NH).softmax(dim=1).numpy(), expected, atol=1e-2)


def test_less_regularisation_fits_the_training_images_better() -> None:
    features_NH, labels_N = clusters()
    heads = LinearProbe(settings()).path(features_NH, labels_N, 4)
    losses = [float(F.cross_entropy(head(features_NH), labels_N)) for head in heads]
    order = np.argsort(LinearProbe.penalties)
    assert np.all(np.diff(np.array(losses)[order]) <= 1e-4)
    assert losses[order[0]] > losses[order[-1]] + 0.1


def test_the_probe_of_raw_features_is_the_best_on_validation() -> None:
    task = make_task()
    head = probe_of_raw_features(task)
    assert (head(task.val.table.hidden).argmax(dim=1) == task.val.labels_N).float().mean() > 0.7
    doubled = replace(
        task,
        train=replace(task.train, table=Table(task.train.table.embedding, 2 * task.train.table.hidden)),  # type: ignore[arg-type]
        val=replace(task.val, table=Table(task.val.table.embedding, 2 * task.val.table.hidden)),  # type: ignore[arg-type]
    )
    torch.testing.assert_close(probe_of_raw_features(doubled).weight_CH * 2, head.weight_CH, rtol=0.02, atol=1e-3)


def test_the_probe_of_raw_features_is_fitted_again_with_the_penalty_that_was_best() -> None:
    task = make_task()
    joined = replace(task, train=task.train.joined(task.val))
    head, again = probe_of_raw_features(task), probe_of_raw_features(task, refit=True)
    assert not torch.allclose(head.weight_CH, again.weight_CH, rtol=1e-3)
    heads = dict(_raw_path(joined.train, len(task.classes)))
    losses = {
        inverse: float(F.cross_entropy(each(task.val.table.hidden), task.val.labels_N))
        for inverse, each in _raw_path(task.train, len(task.classes))
    }
    expected = heads[min(losses, key=losses.__getitem__)]
    assert torch.equal(again.weight_CH, expected.weight_CH) and torch.equal(again.bias_C, expected.bias_C)


def test_transforms() -> None:
    x = torch.tensor([[4.0, -9.0, 0.0]])
    assert torch.equal(transformed(x, "none"), x)
    torch.testing.assert_close(transformed(x, "unit"), x / 97**0.5)
    torch.testing.assert_close(transformed(x, "signed-sqrt"), torch.tensor([[2.0, -3.0, 0.0]]) / 13**0.5)


# --- cross-validation -----------------------------------------------------------------------------------


def test_folds_spread_every_class_and_keep_equal_files_together() -> None:
    labels_N = torch.tensor([0] * 23 + [1] * 7 + [2] * 2 + [3])
    hashes = names(33)
    hashes[5] = hashes[6] = hashes[7]
    fold_N = fold_numbers(labels_N, hashes, seed=0)
    assert fold_N[5] == fold_N[6] == fold_N[7]
    assert fold_N[-1] == -1, "a class of one image is in no fold"
    for label, own in ((0, 23), (1, 7), (2, 2)):
        counts = torch.bincount(fold_N[labels_N == label], minlength=FOLDS)
        assert int(counts.sum()) == own
        assert int(counts.max() - counts.min()) <= (3 if label == 0 else 1)
    assert torch.equal(fold_N, fold_numbers(labels_N, hashes, seed=0))
    assert not torch.equal(fold_N, fold_numbers(labels_N, hashes, seed=1))


def test_folds_are_numbered_without_gaps_where_images_are_few() -> None:
    fold_N = fold_numbers(torch.tensor([0, 0, 1, 1]), names(4), seed=0)
    assert sorted(set(fold_N.tolist())) == list(range(len(set(fold_N.tolist()))))


@pytest.mark.parametrize("method", METHODS)
def test_out_of_fold_answers_are_those_of_heads_fitted_without_the_fold(method: type[LinearHeadMethod]) -> None:
    """Ridge's shortcut is exact; an image's own label has no part in its answer."""
    features_NH, labels_N = clusters()
    labels_N = torch.cat([labels_N, torch.tensor([3])])
    features_NH = torch.cat([features_NH, features_NH[:1]])
    fold_N = torch.cat([torch.arange(100) % 3, torch.tensor([-1])])
    model = method(settings())
    found = list(model.solutions(data(features_NH, labels_N, fold_N)))
    for fold in range(3):
        others = fold_N != fold
        counted = torch.bincount(labels_N, minlength=4).float()
        heads = list(model.path(features_NH[others], labels_N[others], 4))
        for solution, head in zip(found, heads, strict=True):
            if method is Ridge:  # its penalty and weights are relative to all images: solve directly
                inputs_NX = F.pad(features_NH, (0, 1), value=1.0).double()
                weights_N = (len(labels_N) / 4 / counted.double())[labels_N]
                gram_XX = inputs_NX.T @ (weights_N[:, None] * inputs_NX)
                unit = torch.linalg.eigvalsh(gram_XX)[:-1].mean()
                own_XX = inputs_NX[others].T @ (weights_N[others, None] * inputs_NX[others])
                own_XX += solution.penalty * unit * torch.eye(len(own_XX))
                targets_NC = F.one_hot(labels_N, 4).double() - 0.25
                moments_XC = inputs_NX[others].T @ (weights_N[others, None] * targets_NC[others])
                expected_FC = (inputs_NX[fold_N == fold] @ torch.linalg.solve(own_XX, moments_XC)).float()
            else:
                expected_FC = head(features_NH[fold_N == fold])
            actual_FC = solution.judged_MC[fold_N[fold_N >= 0] == fold]
            torch.testing.assert_close(actual_FC, expected_FC, rtol=1e-3, atol=1e-3)


def solve(
    method: LinearHeadMethod, task: Task
) -> list[tuple[str, Mapping[str, Tensor], LabelledImages | None, Tensor | None]]:
    classifier = method.build(task)
    return [
        (
            candidate.description,
            {key: value.clone() for key, value in method.tensors(classifier).items()},
            None,
            None if candidate.out_of_fold is None else candidate.out_of_fold.probabilities_NC,
        )
        for candidate in method.solve(classifier, task)
    ]


@pytest.mark.parametrize("method", METHODS)
def test_there_are_as_many_candidates_as_said(method: type[LinearHeadMethod]) -> None:
    task, model = make_task(), method(settings(refit=True))
    found = solve(model, task)
    assert len(found) == model.candidates
    assert len({description for description, *_ in found}) == len(found)


@pytest.mark.parametrize("method", METHODS)
def test_refit_uses_the_validation_images_and_no_refit_does_not(method: type[LinearHeadMethod]) -> None:
    task = make_task()
    labels_M = torch.cat([torch.full((12,), 3), task.val.labels_N[12:]])
    other = replace(task, val=replace(task.val, labels_N=labels_M))
    alone, also = method(settings()), method(settings(refit=True))
    key = "linear.weight"

    def direction(model: LinearHeadMethod, given: Task) -> Tensor:
        """The first candidate's weights: their scale is fitted on what judges it."""
        return F.normalize(solve(model, given)[0][1][key].flatten(), dim=0)

    torch.testing.assert_close(direction(alone, task), direction(alone, other))
    assert float(direction(also, task) @ direction(also, other)) < 0.999
    assert all(answers is None for *_, answers in solve(alone, task))
    assert all(answers is not None and len(answers) == 160 for *_, answers in solve(also, task))


@pytest.mark.parametrize("method", METHODS)
def test_saved_heads_answer_as_before(method: type[LinearHeadMethod]) -> None:
    task, model = make_task(), method(settings(refit=True))
    classifier = model.build(task)
    for _ in model.solve(classifier, task):
        pass
    again = model.restore(task, model.tensors(classifier))
    torch.testing.assert_close(again.probabilities(task.val), classifier.probabilities(task.val), rtol=0, atol=0)
    assert (again.probabilities(task.val).argmax(dim=1) == task.val.labels_N).float().mean() > 0.7


def test_a_probe_saved_before_transforms_were_known_reads_features_as_they_are() -> None:
    task = make_task()
    weight_CH, bias_C = torch.randn(4, 20), torch.randn(4)
    classifier = LinearProbe(settings()).restore(task, {"linear.weight": weight_CH, "linear.bias": bias_C})
    expected_NC = (task.val.table.hidden @ weight_CH.T + bias_C).softmax(dim=1)
    torch.testing.assert_close(classifier.probabilities(task.val), expected_NC)


def test_a_damaged_transform_is_refused() -> None:
    tensors = {"linear.weight": torch.zeros(4, 20), "linear.bias": torch.zeros(4), "transform": torch.tensor(9)}
    with pytest.raises(ValueError, match="unknown transform"):
        LinearProbe(settings()).restore(make_task(), tensors)


# --- mixing with zero-shot ------------------------------------------------------------------------------


def test_the_mixture_has_the_least_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    labels_N = torch.arange(5).repeat(60)
    truth_NC = F.one_hot(labels_N, 5).float()
    one_NC = truth_NC + torch.randn(300, 5, generator=generator)
    two_NC = 10 * truth_NC + 10 * torch.randn(300, 5, generator=generator)
    found = fit_mixture(one_NC, two_NC, labels_N)

    def loss(scale: float, weight: float) -> float:
        return float(F.cross_entropy(scale * one_NC + weight * two_NC, labels_N, label_smoothing=1 / 301))

    best = loss(found.scale, found.zero_shot_weight)
    for scale in (0.9, 1.1):
        assert loss(found.scale * scale, found.zero_shot_weight) > best
        assert loss(found.scale, found.zero_shot_weight * scale) > best


def test_useless_logits_get_no_weight_and_perfect_ones_a_finite_scale() -> None:
    labels_N = torch.arange(5).repeat(60)
    truth_NC = F.one_hot(labels_N, 5).float()
    noise_NC = torch.randn(300, 5, generator=torch.Generator().manual_seed(0))
    found = fit_mixture(truth_NC, -noise_NC - truth_NC, labels_N)
    assert found.zero_shot_weight == 0.0
    assert 1.0 < found.scale < 50.0


def test_gda_adds_zero_shot_logits() -> None:
    task = make_task()
    classifier = Gda(settings()).build(task)
    assert isinstance(classifier, PromptedHeadClassifier)
    classifier.zero_shot_weight.fill_(0.5)
    expected_NC = (0.5 * 20.0 * task.val.table.embedding @ task.prompts_CD.T).softmax(dim=1)
    torch.testing.assert_close(classifier.probabilities(task.val), expected_NC)


# --- confidence after the fit on all images ---------------------------------------------------------------


def test_prediction_sets_from_out_of_fold_answers_cover_new_images() -> None:
    """90 % sets hold the true class of 90 % of new images, though the head was fitted on all that calibrated it."""
    covered, total = 0, 0
    for seed in range(20):
        features_NH, labels_N = clusters(classes=5, per_class=140, width=12, seed=seed)
        table = Table(features_NH[:, :8], features_NH)
        order_N = torch.randperm(len(labels_N), generator=torch.Generator().manual_seed(seed))
        images = LabelledImages(table=table, labels_N=labels_N)  # type: ignore[arg-type]
        base = make_task(classes=5, width=8)
        task = replace(
            base,
            train=images.subset(order_N[:120].tolist()),
            val=images.subset(order_N[120:200].tolist()),
            seed=seed,
        )
        test = images.subset(order_N[200:].tolist())
        model = Ridge(settings(refit=True))
        classifier = model.build(task)
        candidate = next(iter(model.solve(classifier, task)))
        assert candidate.out_of_fold is not None
        found = candidate.out_of_fold
        calibration = calibrate(found.probabilities_NC.numpy(), found.labels_N.numpy())
        probabilities_NC = calibration.confidence(classifier.probabilities(test).numpy())
        own_N = probabilities_NC[np.arange(len(test)), test.labels_N.numpy()]
        covered += int((1 - own_N <= calibration.set_threshold(0.9)).sum())
        total += len(test)
    assert covered / total == pytest.approx(0.9, abs=0.02)
