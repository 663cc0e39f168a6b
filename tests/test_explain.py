"""Relevance maps find what was planted and what a model needs; neighbours, lists and planes are as by hand."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.decomposition import PCA
from torch import Tensor, nn

from clip_har import checkpoint, cli, commands, demo
from clip_har.backbone import load_backbone
from clip_har.config import BackboneConfig, DataConfig, ExplainConfig, OptimizerConfig, RunModelConfig, TrainConfig
from clip_har.dataset import load_dataset
from clip_har.errors import ConfigError
from clip_har.explain import image_selection, neighbours
from clip_har.explain.overlay import overlay, shown_image
from clip_har.explain.relevance import ATTENTION, GRAD_CAM, relevance_maps
from clip_har.images import Preprocessing
from clip_har.prompts import ACTION_TEMPLATES, sentences

# --- relevance ------------------------------------------------------------------------------------------


class ColourTransformer(nn.Module):
    """One attention layer by hand: the class token attends to coloured patches and reads their colour."""

    pool_type = "tok"
    grid_size = (4, 4)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        patches_BN3 = F.avg_pool2d(images_BCHW, 8).flatten(2).transpose(1, 2)
        tokens_BN3 = torch.cat([torch.zeros_like(patches_BN3[:, :1]), patches_BN3], dim=1)
        keys_BN1 = tokens_BN3.sum(dim=2, keepdim=True)
        queries_BN1 = torch.full_like(keys_BN1, 6.0)
        attended = F.scaled_dot_product_attention(
            queries_BN1[:, None], keys_BN1[:, None], tokens_BN3[:, None], scale=1.0
        )
        return attended[:, 0, 0] * 10  # logits of red, green and blue


class ColourNetwork(nn.Module):
    """A convolution that passes colours on, and their mean as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 8, stride=8, bias=False)
        weight = torch.zeros(3, 3, 8, 8)
        weight[range(3), range(3)] = 1 / 64
        self.conv.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        maps_B3hw: Tensor = self.conv(images_BCHW)
        return maps_B3hw.mean(dim=(2, 3)) * 10


def planted() -> Tensor:
    """A black image with a red patch in row 1, column 2 and a blue one in row 3, column 0."""
    image_BCHW = torch.zeros(1, 3, 32, 32)
    image_BCHW[0, 0, 8:16, 16:24] = 1.0
    image_BCHW[0, 2, 24:32, 0:8] = 1.0
    return image_BCHW


@pytest.mark.parametrize(("tower", "name"), [(ColourTransformer(), ATTENTION), (ColourNetwork(), GRAD_CAM)])
def test_a_map_finds_the_object_planted_for_its_answer(tower: nn.Module, name: str) -> None:
    for answer, place in ((0, (1, 2)), (2, (3, 0))):
        found = relevance_maps(tower, tower, planted(), torch.tensor([answer]))
        assert found is not None
        method, maps_Bhw = found
        assert method == name
        assert maps_Bhw.shape == (1, 4, 4)
        assert maps_Bhw[0][place] == 1.0
        others = maps_Bhw[0].clone()
        others[place] = 0.0
        assert others.max() < 0.05


def naive_relevance(visual: Any, image_1CHW: Tensor, prompts_CD: Tensor, answer: int) -> Tensor:
    """open_clip's vision transformer written out with its attention kept, then the paper's rule by loops."""
    x_1NW = visual._embeds(image_1CHW.clone().requires_grad_(True))
    kept = []
    for block in visual.transformer.resblocks:
        normed, heads = block.ln_1(x_1NW), block.attn.num_heads
        projected = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in projected.chunk(3, dim=-1))
        attention = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        kept.append(attention)
        x_1NW = x_1NW + block.attn.out_proj((attention @ v).transpose(1, 2).flatten(2))
        x_1NW = x_1NW + block.mlp(block.ln_2(x_1NW))
    embedding = F.normalize(visual.ln_post(x_1NW)[:, 0] @ visual.proj, dim=-1)
    logits = 10 * embedding @ prompts_CD.T
    gradients = torch.autograd.grad(logits[0, answer] - logits[0].mean(), kept)
    relevance = np.eye(kept[0].shape[-1])
    for attention, gradient in zip(kept, gradients, strict=True):
        layer = np.zeros_like(relevance)
        for head in range(attention.shape[1]):
            layer += np.maximum((attention[0, head] * gradient[0, head]).detach().numpy(), 0) / attention.shape[1]
        relevance = relevance + layer @ relevance
    row = relevance[0, 1:].reshape(4, 4)
    return torch.from_numpy(row / row.max()).float()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_other_encoders_of_an_ensemble_leave_no_trace(first: bool, frozen: bool) -> None:
    """Such as the frozen one for the members on cached features, before or after the encoder that is shown."""
    tower, other = ColourTransformer(), ColourTransformer()

    def logits_of(images_BCHW: Tensor) -> Tensor:
        def rest() -> Tensor:
            with torch.set_grad_enabled(not frozen):
                return torch.zeros_like(other(images_BCHW))

        before = rest() if first else 0.0
        logits_BC: Tensor = before + tower(images_BCHW)
        return logits_BC if first else logits_BC + rest()

    answers_B = torch.tensor([0])
    alone, found = (relevance_maps(each, tower, planted(), answers_B) for each in (tower, logits_of))
    assert alone is not None and found is not None
    assert torch.equal(found[1], alone[1])


def test_attention_relevance_is_the_papers_rule_on_a_real_tower(tiny_model: str) -> None:
    backbone = load_backbone(tiny_model, device="cpu", precision="float32")
    visual: Any = backbone.model.visual
    generator = torch.Generator().manual_seed(0)
    images_BCHW = torch.randn(2, 3, 32, 32, generator=generator)
    prompts_CD = F.normalize(torch.randn(3, 24, generator=generator), dim=-1)
    fused = F.scaled_dot_product_attention

    def logits_of(images: Tensor) -> Tensor:
        return 10 * F.normalize(visual(images), dim=-1) @ prompts_CD.T

    found = relevance_maps(logits_of, visual, images_BCHW, torch.tensor([2, 0]))
    assert F.scaled_dot_product_attention is fused
    assert found is not None
    for image, answer, map_hw in zip(images_BCHW, (2, 0), found[1], strict=True):
        expected = naive_relevance(visual, image[None], prompts_CD, answer)
        torch.testing.assert_close(map_hw, expected, atol=1e-4, rtol=1e-3)


def test_hiding_what_a_map_marks_hurts_the_demo_model_more_than_hiding_anything_else(tmp_path: Path) -> None:
    root = demo.write_dataset(tmp_path, seed=1, train_per_class=1, test_per_class=2) / "test"
    backbone = load_backbone("demo", device="cpu", precision="float32")
    visual, scale = backbone.model.visual, backbone.info.logit_scale
    prompts = [
        backbone.encode_text(sentences(path.name, ACTION_TEMPLATES)).mean(dim=0) for path in sorted(root.iterdir())
    ]
    prompts_CD = F.normalize(torch.stack(prompts), dim=-1)
    transform = backbone.info.preprocessing.transform()
    images_BCHW = torch.stack([transform(Image.open(path).convert("RGB")) for path in sorted(root.rglob("*.jpg"))])

    def logits_of(images: Tensor) -> Tensor:
        return scale * F.normalize(visual(images), dim=-1) @ prompts_CD.T  # type: ignore[operator]

    with torch.no_grad():
        answers_B = logits_of(images_BCHW).argmax(dim=1)
    found = relevance_maps(logits_of, visual, images_BCHW, answers_B)  # type: ignore[arg-type]
    assert found is not None
    marks_BN = found[1].flatten(1)
    mean_BC11 = images_BCHW.mean(dim=(2, 3), keepdim=True)

    def confidence(order_BN: Tensor) -> float:
        """Mean probability of the answers with a fifth of the patches hidden."""
        hidden_BN = torch.zeros_like(marks_BN).scatter(1, order_BN.topk(7, dim=1).indices, 1.0)
        mask = F.interpolate(hidden_BN.reshape(-1, 1, 6, 6), images_BCHW.shape[-2:])
        with torch.no_grad():
            probabilities = logits_of(images_BCHW * (1 - mask) + mean_BC11 * mask).softmax(dim=1)
        return float(probabilities.gather(1, answers_B[:, None]).mean())

    anywhere = torch.rand(marks_BN.shape, generator=torch.Generator().manual_seed(0))
    assert confidence(marks_BN) < confidence(anywhere) - 0.05 < confidence(-marks_BN) - 0.1


def test_a_tower_without_attention_or_feature_maps_has_no_map() -> None:
    tower = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 3))
    assert relevance_maps(tower, tower, planted(), torch.tensor([0])) is None


def test_an_overlay_is_warm_where_the_map_is_high() -> None:
    picture = Image.new("RGB", (72, 72), (60, 60, 60))
    map_hw = torch.zeros(6, 6)
    map_hw[1, 4] = 1.0
    pixels = np.asarray(overlay(picture, map_hw), dtype=int)
    assert pixels.shape == (224, 224, 3)
    brightest = np.unravel_index(pixels[..., 0].argmax(), pixels.shape[:2])
    assert (brightest[0] * 6 // 224, brightest[1] * 6 // 224) == (1, 4)
    assert (pixels[150:, :70] == 60).all()


def test_the_picture_shown_is_what_the_model_saw() -> None:
    preprocessing = Preprocessing(image_size=(32, 32), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    again = shown_image(preprocessing.transform()(image), preprocessing)
    np.testing.assert_array_equal(np.asarray(again), np.asarray(image))


# --- words, images, classes -----------------------------------------------------------------------------


def test_the_nearest_are_the_most_similar() -> None:
    generator = torch.Generator().manual_seed(0)
    query, others = (F.normalize(torch.randn(n, 8, generator=generator), dim=-1) for n in (5, 9))
    for row, found in zip(query @ others.T, neighbours.nearest(query, others, 3), strict=True):
        wanted = sorted(range(9), key=lambda index: -float(row[index]))[:3]
        assert [index for index, _ in found] == wanted
        assert [value for _, value in found] == pytest.approx([float(row[index]) for index in wanted])
    assert len(neighbours.nearest(query, others, 20)[0]) == 9


def test_the_nearest_captions_are_the_best_of_each_class() -> None:
    generator = torch.Generator().manual_seed(0)
    query, captions = (F.normalize(torch.randn(*shape, 8, generator=generator), dim=-1) for shape in ((5,), (4, 3)))
    for vector, found in zip(query, neighbours.nearest_captions(query, captions, 3), strict=True):
        best = [max((float(vector @ captions[c, t]), c, t) for t in range(3)) for c in range(4)]
        wanted = sorted(best, reverse=True)[:3]
        assert [(of_class, template) for of_class, template, _ in found] == [(c, t) for _, c, t in wanted]
        assert [value for *_, value in found] == pytest.approx([value for value, *_ in wanted])
    assert len(neighbours.nearest_captions(query, captions, 20)[0]) == 4


def test_pca_is_scikit_learns_up_to_the_sign() -> None:
    points = F.normalize(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)), dim=-1)
    method, found = neighbours.plane(points, "pca", 0)
    wanted = PCA(n_components=2).fit_transform(points.double().numpy())
    assert method == "pca"
    assert np.abs(np.array(found)) == pytest.approx(np.abs(wanted), abs=1e-4)


def test_umap_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "find_spec", lambda name: None)
    points = F.normalize(torch.randn(40, 6), dim=-1)
    assert neighbours.plane(points, "auto", 0)[0] == "pca"
    with pytest.raises(ConfigError, match=r'requires umap-learn. pip install "clip-har\[explain\]"'):
        neighbours.plane(points, "umap", 0)


BEFORE = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7], [0.55, 0.45]])
AFTER = np.array([[0.8, 0.2], [0.7, 0.3], [0.1, 0.9], [0.4, 0.6], [0.95, 0.05]])
TARGETS = np.array([0, 0, 0, 1, 1])


def test_telling_images_come_in_the_order_of_what_they_tell() -> None:
    assert image_selection.confidently_wrong(AFTER, TARGETS) == [4, 2]
    assert image_selection.hardest(AFTER, TARGETS) == [4, 2, 3, 1, 0]
    assert image_selection.changed(BEFORE, AFTER, TARGETS) == ([1], [2])
    first, second = image_selection.class_changes(BEFORE, AFTER, TARGETS, ("a", "b"))
    assert (first.support, first.fixed, first.broken) == (3, 1, 1)
    assert (first.baseline, first.finetuned) == pytest.approx((2 / 3, 2 / 3))
    assert (second.support, second.fixed, second.broken, second.finetuned) == (2, 0, 0, 0.5)
    pairs = image_selection.confused_images(AFTER, TARGETS, ("a", "b"), list("vwxyz"))
    assert [(pair.true, pair.predicted, pair.count, pair.paths) for pair in pairs] == [
        ("a", "b", 1, ("x",)),
        ("b", "a", 1, ("z",)),
    ]


def test_every_list_has_its_share_of_the_images_explained() -> None:
    assert image_selection.chosen([[4, 2], [1], [], [4, 2, 3]], range(5), 4) == [4, 1, 2, 3]
    assert image_selection.chosen([[4, 2], [1], [], [4, 2, 3]], range(5), 9) == [4, 1, 2, 3, 0]
    assert image_selection.chosen([[4], [1]], range(5), 0) == []


# --- the command ----------------------------------------------------------------------------------------


def trained(photos: Path, model: str, out: Path, **changes: Any) -> checkpoint.Run:
    return commands.train(
        TrainConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(model=model, workers=0, precision="float32"),
            optimizer=OptimizerConfig(epochs=2, batch_size=8),
            out=out,
            **changes,
        )
    )


def test_explain_leaves_exactly_its_files_and_names_the_nearest(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    run = trained(photos, tiny_model, tmp_path / "run")
    argv = ["explain", str(run.folder), "--data", str(photos), "--limit", "5", "--neighbours", "2", "--workers", "0"]
    argv += ["--precision", "float32"]
    assert cli.main([*argv, "--embedding-map", "pca"]) == 0
    out = run.folder / "explain"
    content = json.loads((out / "explain.json").read_text())
    shown = content["explanations"]
    assert len(shown) == 5
    overlays = {item[key] for item in shown for key in ("overlay", "overlay_true") if item[key]}
    assert {path.name for path in out.iterdir()} == {"explain.json", "explain.csv", "report.html", *overlays}
    assert all((item["overlay_true"] is None) == (item["true"] == item["predicted"]) for item in shown)
    with (out / "explain.csv").open() as stream:
        assert [row["path"] for row in csv.DictReader(stream)] == [item["path"] for item in shown]

    lora: Any = run.classifier()
    backbone = load_backbone(tiny_model, device="cpu", precision="float32")
    transform, dataset = backbone.info.preprocessing.transform(), load_dataset(photos)

    def embedded(path: Path) -> Tensor:
        image = transform(Image.open(path).convert("RGB"))[None]
        return lora.adapt_images(backbone.encode_images(image).of_kind("both"))[0].detach()  # type: ignore[no-any-return]

    train = {record.name: embedded(Path(str(record.path))) for record in dataset.split("train")}
    for item in shown[:2]:
        query = embedded(photos / item["path"])
        similarity = {name: float(query @ embedding) for name, embedding in train.items()}
        wanted = sorted(similarity.values(), reverse=True)[:2]
        assert [near["similarity"] for near in item["neighbours"]] == pytest.approx(wanted, abs=1e-5)
        assert item["neighbours"][0]["path"].split("/")[1] == item["neighbours"][0]["label"]
        texts = {text: None for name in run.classes for text in sentences(name, ACTION_TEMPLATES)}
        adapted = lora.adapt_text(backbone.encode_text(list(texts))).detach() @ query
        assert item["prompts"][0][1] == pytest.approx(float(adapted.max()), abs=1e-5)
        assert item["prompts"][0][0] == list(texts)[int(adapted.argmax())]
        assert len(item["prompts"]) == len(run.classes)  # three classes, a sentence of each
        assert len({sentence.split()[-1] for sentence, _ in item["prompts"]}) == len(run.classes)
        assert item["top"][0][0] == item["predicted"]
        assert sum(value for _, value in item["top"]) == pytest.approx(1, abs=1e-5)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<h3>Probabilities</h3>") == page.count("<h3>Closest training images</h3>") == 5
    assert page.count("figcaption>relevance for") == len(overlays)
    assert content["map_method"] == ATTENTION
    assert content["embedding_map"]["method"] == "pca"
    assert len(content["embedding_map"]["baseline"]) == len(content["embedding_map"]["finetuned"]) == 18
    assert [change["support"] for change in content["changes"]] == [6, 6, 6]


@pytest.mark.parametrize("method", ["zero-shot", "linear-probe", "full"])
def test_other_methods_are_explained_too(method: str, photos: Path, tiny_model: str, tmp_path: Path) -> None:
    run = trained(photos, tiny_model, tmp_path / "run", method=method)
    config = ExplainConfig(
        data=photos, model=RunModelConfig(precision="float32"), workers=0, limit=2, embedding_map="pca"
    )
    result, out = commands.explain(run.folder, config)
    assert result.map_method == ATTENTION
    assert len(result.explanations) == 2
    assert all((out / str(item.overlay)).is_file() for item in result.explanations)
    assert bool(result.changes) == (method != "zero-shot")
    assert result.embedding_map is not None
    assert (result.embedding_map.finetuned is None) == (method == "zero-shot")


def test_photographs_are_explained_without_a_dataset(
    photos: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(photos, tiny_model, tmp_path / "run")
    photo = photos / "test" / "running" / "running_000.jpg"
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    argv = ["explain", str(run.folder), str(photo), str(tmp_path / "broken.jpg"), "--out", str(tmp_path / "why")]
    argv += ["--precision", "float32"]
    assert cli.main(argv) == 0
    assert f"cannot read {tmp_path / 'broken.jpg'}" in capsys.readouterr().err
    (item,) = json.loads((tmp_path / "why" / "explain.json").read_text())["explanations"]
    assert (item["path"], item["true"], item["neighbours"]) == (str(photo), None, [])
    assert (tmp_path / "why" / item["overlay"]).is_file()
    assert cli.main(["explain", str(run.folder)]) == 2
    assert "Nothing to explain. Pass a dataset with --data, or image files." in capsys.readouterr().err


# --- in the report of an evaluation -----------------------------------------------------------------------


def test_evaluate_shows_explanations_a_map_and_an_audit(photos: Path, tiny_model: str, tmp_path: Path) -> None:
    run = trained(photos, tiny_model, tmp_path / "run")
    audit = tmp_path / "audit.json"
    assert cli.main(["data", "audit", str(photos), "--no-embeddings", "--json", str(audit), "--workers", "0"]) in (0, 3)
    argv = ["evaluate", "--data", str(photos), "--checkpoint", str(run.folder), "--workers", "0"]
    argv += ["--precision", "float32"]
    assert cli.main([*argv, "--explain", "3", "--audit", str(audit)]) == 0
    folder = run.folder / "eval"
    overlays = [path.name for path in folder.glob("overlay_*.png") if not path.stem.endswith("_true")]
    assert sorted(overlays) == ["overlay_000.png", "overlay_001.png", "overlay_002.png"]
    both = len(list(folder.glob("overlay_*.png")))  # of the predicted class and, where that is wrong, of the true one
    page = (folder / "report.html").read_text()
    assert cli.main([*argv, "--explain", "1"]) == 0
    left = [path.name for path in folder.glob("overlay_*.png") if not path.stem.endswith("_true")]
    assert left == ["overlay_000.png"]
    assert page.count("<h3>Closest prompts</h3>") == page.count("<h3>Closest training images</h3>") == 3
    assert page.count("figcaption>relevance for") == both > 3 and "Embedding map" in page
    assert re.search(r"<h3>Audit</h3>.*<th scope=\"row\">leaks</th><td>0</td><td>0</td>", page, re.DOTALL)


@pytest.mark.parametrize("content", ["{}", "[1]", "not JSON", '{"checks": {"leaks": 3}}'])
def test_a_file_that_is_no_audit_is_one_line(
    content: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "audit.json"
    wrong.write_text(content)
    assert cli.main(["evaluate", "--data", str(photos), "--audit", str(wrong)]) == 2
    assert capsys.readouterr().err == (
        f"clip-har: {wrong} is not the JSON of an audit. Create one with clip-har data audit DATA --json FILE.\n"
    )


def test_explaining_needs_a_run(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", "--data", str(photos), "--explain", "3"]) == 2
    assert "--explain requires a run. Pass one with --checkpoint." in capsys.readouterr().err
