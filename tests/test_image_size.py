"""Models for images of another size than theirs: --model NAME@SIZE."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from clip_har import Predictor, checkpoint, commands, known_models
from clip_har.backbone import load_backbone
from clip_har.config import (
    AugmentConfig,
    BackboneConfig,
    CompareConfig,
    DataConfig,
    ExportConfig,
    OptimizerConfig,
    TrainConfig,
)
from clip_har.errors import ConfigError, ModelError, RunError
from clip_har.fusion import at_sizes_of, part_names
from clip_har.integrity import sealed
from clip_har.pretrained import absolute, is_built_in, split_image_size
from clip_har.pretrained.catalogue import describe
from clip_har.progress import SILENT
from clip_har.tuned_models import FOLDER, load_given
from families import write_family
from samples import MODEL_CONFIG, write_model

FAMILIES = {"ViT": (32, 48), "ModifiedResNet": (64, 96), "timm CNN": (64, 80), "SigLIP": (160, 192)}
"""Each family's own image size, and another."""


def load(name: str) -> Any:
    return load_backbone(name, device="cpu", precision="float32")


def train(model: str, photos: Path, out: Path, method: str = "ridge", **changes: Any) -> checkpoint.Run:
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0),
        method=method,
        optimizer=OptimizerConfig(epochs=1, batch_size=12),
        out=out,
        **changes,
    )
    return commands.train(config)


@pytest.mark.parametrize(
    ("name", "model", "side"),
    [
        ("ViT-B/32@288", "ViT-B/32", 288),
        ("ViT-B/32", "ViT-B/32", None),
        ("ViT-L/14@336px", "ViT-L/14@336px", None),
        ("ViT-L/14@336px@448", "ViT-L/14@336px", 448),
        ("local-dir:models/a@64", "local-dir:models/a", 64),
        ("local-dir:models/a@64/", "local-dir:models/a@64/", None),
        ("hf-hub:some/model@96", "hf-hub:some/model", 96),
        ("demo@0", "demo", 0),
        ("demo@x96", "demo@x96", None),
        ("@256", "@256", None),
        ("models/@256/", "models/@256/", None),
        ("models/a@64/@96", "models/a@64/", 96),
    ],
)
def test_a_name_may_end_in_a_size(name: str, model: str, side: int | None) -> None:
    assert split_image_size(name) == (model, side)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_images_of_another_size(family: str, tmp_path: Path) -> None:
    name = write_family(family, tmp_path)
    own_side, side = FAMILIES[family]
    own, sized = load(name), load(f"{name}@{side}")
    assert sized.info.preprocessing.image_size == (side, side) and own.info.preprocessing.image_size == (own_side,) * 2
    assert sized.info.name == f"{name}@{side}" and sized.info.weights_hash != own.info.weights_hash
    image_13SS = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    embedding_1D = sized.encode_images(image_13SS).embedding_BD
    assert embedding_1D.shape == own.encode_images(torch.rand(1, 3, own_side, own_side)).embedding_BD.shape
    assert load(f"{name}@{side}").encode_images(image_13SS).embedding_BD.equal(embedding_1D)
    named = load(f"{name}@{own_side}")
    assert (named.info.name, named.info.weights_hash) == (name, own.info.weights_hash)


def test_positions_are_interpolated_as_open_clip_does(tiny_model: str) -> None:
    folder = tiny_model.partition(":")[2]
    reference: Any = open_clip.create_model(tiny_model, force_image_size=48)
    image_13SS = torch.rand(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected_1D = F.normalize(reference.eval().encode_image(image_13SS), dim=-1)
    torch.testing.assert_close(load(f"{folder}@48").encode_images(image_13SS).embedding_BD, expected_1D)


def test_an_attention_pool_keeps_what_it_attends_to(tmp_path: Path) -> None:
    name = write_family("ModifiedResNet", tmp_path)
    own: Any = load(name).model
    sized: Any = load(f"{name}@128").model
    before_PW, after_PW = own.visual.attnpool.positional_embedding, sized.visual.attnpool.positional_embedding
    assert (len(before_PW), len(after_PW)) == (2**2 + 1, 4**2 + 1)
    assert after_PW[0].equal(before_PW[0])
    old_22W, new_44W = before_PW[1:].view(2, 2, -1), after_PW[1:].view(4, 4, -1)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):  # a corner is closest to the corner that it was made of
        distances_22 = (old_22W - new_44W[3 * row, 3 * column]).norm(dim=-1)
        assert int(distances_22.argmin()) == 2 * row + column


@pytest.mark.parametrize("family", FAMILIES)
def test_only_positions_change_with_the_size(family: str, tmp_path: Path) -> None:
    name = write_family(family, tmp_path)
    own, sized = load(name).model.state_dict(), load(f"{name}@{FAMILIES[family][1]}").model.state_dict()
    changed = {key for key in own if own[key].shape != sized[key].shape or not own[key].equal(sized[key])}
    assert own.keys() == sized.keys()
    assert all(key.endswith(("positional_embedding", "pos_embed")) for key in changed), changed


@pytest.mark.parametrize(
    ("size", "message"),
    [(50, "multiple of 8"), (0, "an image size of 0"), (16, "an image size of 16"), (99999, "an image size of 99999")],
)
def test_a_size_that_does_not_fit_is_refused(size: int, message: str, tiny_model: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(f"{tiny_model}@{size}")
    assert caught.value.remedy


def test_only_sizes_in_range_are_advised() -> None:
    for size, advised in ((34, "Pass 36."), (1024, "Pass 1020.")):
        with pytest.raises(ModelError, match=f"multiple of 12. {advised}$"):
            load(f"demo@{size}")


def test_training_views_of_a_size_that_the_encoder_does_not_take(tiny_model: str, photos: Path, tmp_path: Path) -> None:
    views = AugmentConfig(train_image_size=16)
    with pytest.raises(ModelError, match=r"takes images of 48 pixels only, not of 16.*@SIZE"):
        train(f"{tiny_model}@48", photos, tmp_path / "vit", "full", augmentation=views)
    (tmp_path / "model").mkdir()
    name = write_family("timm CNN", tmp_path / "model")
    run = train(f"{name}@96", photos, tmp_path / "cnn", "full", augmentation=AugmentConfig(train_image_size=32))
    assert run.preprocessing.image_size == (96, 96)


def test_an_encoder_with_one_size_is_refused(tmp_path: Path) -> None:
    config = {**MODEL_CONFIG, "model_cfg": {**MODEL_CONFIG["model_cfg"]}}
    config["model_cfg"]["vision_cfg"] = {
        "image_size": 224,
        "timm_model_name": "levit_128s",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
    }
    name = write_model(tmp_path, config, seed=0)
    with pytest.raises(ModelError, match="does not take images of 96 pixels"):
        load(f"{name}@96")


def test_a_run_keeps_its_size_wherever_its_model_is(tiny_model: str, photos: Path, tmp_path: Path) -> None:
    run = train(f"{tiny_model}@48", photos, tmp_path / "run")
    assert run.card.backbone.name == f"{tiny_model}@48" and run.preprocessing.image_size == (48, 48)
    moved = tmp_path / "moved"
    shutil.copytree(tiny_model.partition(":")[2], moved)
    photo = next((photos / "test").rglob("*.jpg"))
    (own,) = Predictor(run.folder, device="cpu", precision="float32").predict(photo)
    for model in (str(moved), f"{moved}@48"):
        (named,) = Predictor(run.folder, model=model, device="cpu", precision="float32").predict(photo)
        assert named.top == own.top
    with pytest.raises(RunError, match="weights"):
        Predictor(run.folder, model=f"{moved}@64", device="cpu", precision="float32")
    with pytest.raises((RunError, ConfigError)):
        train(tiny_model, photos, tmp_path / "mixed", "ensemble", members=("gda", str(run.folder)))


def test_a_fine_tuned_model_keeps_its_size(tiny_model: str, photos: Path, tmp_path: Path) -> None:
    run = train(f"{tiny_model}@48", photos, tmp_path / "run", "full")
    tuned = load_given(str(run.folder), device="cpu", precision="float32")
    assert tuned.info.preprocessing.image_size == (48, 48)
    larger = load_given(f"{run.folder}@64", device="cpu", precision="float32")
    assert larger.info.preprocessing.image_size == (64, 64)
    assert larger.info.name == f"local-dir:{run.folder / FOLDER}@64"
    second = train(f"{run.folder}@64", photos, tmp_path / "second")
    assert not second.settings.refit, "its encoder has seen the images at another size"


@pytest.mark.parametrize("format", ["onnx", "openclip", "transformers"])
@pytest.mark.parametrize("family", ["ViT", "timm CNN"])
def test_exports_have_the_size(family: str, format: Any, photos: Path, tmp_path: Path) -> None:
    side = FAMILIES[family][1]
    (tmp_path / "model").mkdir()
    name = write_family(family, tmp_path / "model")
    run = train(f"{name}@{side}", photos, tmp_path / "run", "lp-ft" if format == "transformers" else "full")
    found = commands.export(run.folder, ExportConfig(format=format, out=tmp_path / "out", workers=0))
    assert found.certificate is not None and found.certificate.agreement == 1
    if format == "openclip":
        exported: Any = open_clip.create_model(f"local-dir:{tmp_path / 'out'}")
        assert exported.visual.image_size == (side, side)


def test_open_clip_has_no_folder_of_a_timm_transformer_at_another_size(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    name = write_family("SigLIP", tmp_path / "model")
    run = train(f"{name}@192", photos, tmp_path / "run", "zero-shot")
    with pytest.raises(ConfigError, match=r"only for its own image size.*--format onnx"):
        commands.export(run.folder, ExportConfig(format="openclip", out=tmp_path / "out", workers=0))


def test_sizes_are_compared_like_models(tiny_model: str, photos: Path, tmp_path: Path) -> None:
    given = CompareConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(device="cpu", precision="float32", workers=0),
        models=(tiny_model, f"{tiny_model}@48"),
        methods=("zero-shot", "ridge"),
        out=tmp_path,
    )
    found = commands.compare(given, progress=SILENT)
    assert found.models is not None
    sizes = {entry.name: entry.figures.image_size for entry in found.models.models}
    assert sizes == {tiny_model: (32, 32), f"{tiny_model}@48": (48, 48)}
    both = train(f"{tiny_model}+{tiny_model}@48", photos, tmp_path / "both")
    assert both.card.backbone.name == f"{tiny_model}+{tiny_model}@48"
    assert len(list(Predictor(both.folder, precision="float32").predict(next(photos.rglob("*.jpg"))))) == 1


def test_a_larger_image_costs_more(tiny_model: str) -> None:
    own, sized = describe(tiny_model), describe(f"{tiny_model}@64")
    assert own is not None and sized is not None
    assert (own.image_size, sized.image_size) == (32, 64)
    assert sized.gflops > 2 * own.gflops
    listed = describe("ViT-B/32@288")
    assert listed is not None and (listed.image_size, listed.licence) == (288, describe("ViT-B/32").licence)  # type: ignore[union-attr]


def test_sizes_of_combined_models() -> None:
    assert at_sizes_of("new/a+demo", "local-dir:/a@48+demo@72") == "new/a@48+demo@72"
    assert at_sizes_of("new/a@96", "local-dir:/a@48") == "new/a@96"
    assert at_sizes_of("new/a", "local-dir:/a+demo@72") == "new/a"


def test_folders_whose_names_look_like_a_size(tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "model@64"
    shutil.copytree(tiny_model.partition(":")[2], folder)
    own = load(f"{folder}/")
    assert own.info.preprocessing.image_size == (32, 32)
    assert load(own.info.name).info.preprocessing.image_size == (32, 32)
    assert load(f"{folder}/@48").info.preprocessing.image_size == (48, 48)
    monkeypatch.chdir(tmp_path)
    assert absolute("model@64/") == f"local-dir:{folder}/"
    assert part_names(f"{folder}/+demo@72") == [f"{folder}/", "demo@72"]


def test_a_path_that_looks_like_a_size_is_not_another_model(tiny_model: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_model.partition(":")[2], tmp_path / "model")
    shutil.copytree(tiny_model.partition(":")[2], tmp_path / "model@48")
    for name in (f"{tmp_path}/model@48", f"local-dir:{tmp_path}/model@48", f"demo+{tmp_path}/model@48"):
        with pytest.raises(ModelError, match=r"is a path, and also the model .*Pass .*model@48/ for the folder"):
            load_given(name, device="cpu", precision="float32")
    assert load_given(f"{tmp_path}/model@48/", device="cpu", precision="float32").info.name.endswith("model@48/")
    assert load_given(f"{tmp_path}/model/@48", device="cpu", precision="float32").info.name.endswith("model@48")


def test_two_sizes_are_refused(tiny_model: str) -> None:
    with pytest.raises(ModelError, match=r"has two image sizes.*Pass demo@144"):
        load("demo@96@144")


def test_a_size_is_trusted_with_its_model_and_not_without(
    tiny_model: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert is_built_in("demo@72") and not is_built_in(f"{tiny_model}@48")
    run = train(f"{tiny_model}@48", photos, tmp_path / "run")
    assert Predictor(run.folder, precision="float32")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))  # where no model was named
    with pytest.raises(RunError, match="has not been used on this machine"):
        Predictor(run.folder, precision="float32")
    known_models.load_named(tiny_model, device="cpu", precision="float32")
    assert Predictor(run.folder, precision="float32")

    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_model.partition(":")[2], tmp_path / "demo@72")
    backbone = known_models.load_for_run("demo@72", "", tmp_path, device="cpu", precision="float32")
    assert backbone.info.parameters == load("demo").info.parameters, "a name in a card never means a folder here"


def test_a_card_with_another_size_than_its_model_is_refused(tiny_model: str, photos: Path, tmp_path: Path) -> None:
    run = train(tiny_model, photos, tmp_path / "run")
    card = json.loads((run.folder / "card.json").read_text())
    card["preprocessing"]["image_size"] = [48, 48]
    (run.folder / "card.json").write_text(json.dumps(sealed(card)))
    with pytest.raises(RunError, match="has images of 48 x 48 pixels, the model 32 x 32"):
        Predictor(run.folder, device="cpu", precision="float32")


def test_images_are_read_at_the_size(tiny_model: str, tmp_path: Path) -> None:
    """Stripes of two pixels are grey at a quarter of the size, and stripes at the full one."""
    backbone = load(f"{tiny_model}@64")
    stripes = Image.new("RGB", (64, 64))
    for column in range(64):
        if column % 4 < 2:
            stripes.paste((255, 255, 255), (column, 0, column + 1, 64))
    pixels_CHW = backbone.info.preprocessing.pixel_transform()(stripes)
    assert pixels_CHW.shape == (3, 64, 64) and sorted(pixels_CHW.unique().tolist()) == [0, 255]
