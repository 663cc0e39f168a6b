"""Exports give the run's own answers, say how close they are, and leave nothing behind if they are not close."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import open_clip
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file

from clip_har import checkpoint, cli, commands
from clip_har.backbone import load_backbone
from clip_har.config import BackboneConfig, DataConfig, ExportConfig, OptimizerConfig, TrainConfig
from clip_har.errors import ConfigError, DataError, RunError
from clip_har.exporting import formats, int8, model_card, onnx_file
from clip_har.exporting.image_model import image_classifier
from clip_har.known_models import load_named
from clip_har.methods.towers import Towers
from clip_har.predict import Predictor, recorded_calibration
from families import write_family
from foreign_weights import clip_model, write_clip
from samples import CLASSES, HUES, write_colours, write_image

METHODS = ("ridge", "linear-probe", "lora", "tip-adapter", "lora-attention", "full")
OTHERS = ("zero-shot", "proker", "coop", "clap", "clip-adapter", "lp-ft")
SLOW = pytest.mark.slow  # each trains a run of its own and traces it
Train = Callable[..., Path]


@pytest.fixture(scope="module", name="train")
def fixture_train(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train a run by a method, once for the module."""

    @functools.cache
    def train(method: str, model: str = tiny_model, **changes: Any) -> Path:
        lr = {"lora-attention": 1e-2, "full": 1e-3, "lp-ft": 1e-3}.get(method)
        config = TrainConfig(
            data=DataConfig(data=photos),
            backbone=BackboneConfig(model=model, device="cpu", precision="float32", workers=0),
            method=method,
            optimizer=OptimizerConfig(epochs=1, batch_size=12, lr=lr),
            out=tmp_path_factory.mktemp("runs") / method,
            **changes,
        )
        return commands.train(config).folder

    return train


@pytest.fixture(autouse=True)
def known_model(tiny_model: str) -> None:
    """Each test has a home of its own, in which the model is not known yet."""
    load_named(tiny_model, device="cpu", precision="float32")


@pytest.fixture(name="images")
def fixture_images(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "images" / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        write_image(path, HUES[CLASSES[number % 3]], seed=900 + number)
    return paths


def export(run: Path, out: Path, kind: Any = "onnx", **changes: Any) -> commands.Exported:
    return commands.export(run, ExportConfig(format=kind, out=out, workers=0, **changes))


def answers(folder: Path, images_BCHW: torch.Tensor) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Logits and probabilities of an exported graph."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    logits_BC, probabilities_BC = session.run(["logits", "probabilities"], {"images": images_BCHW.numpy()})
    return logits_BC, probabilities_BC


def assert_same_as_the_run(run: Path, folder: Path, images: list[Path]) -> None:
    opened = checkpoint.load_run(run)
    transform = opened.preprocessing.transform()
    images_BCHW = torch.stack([transform(Image.open(path).convert("RGB")) for path in images])
    predictions = list(Predictor(run, precision="float32", device="cpu").predict(images, top=len(opened.classes)))
    expected_BC = np.array([[dict(item.top)[name] for name in opened.classes] for item in predictions])
    calibration = recorded_calibration(opened)
    assert calibration is not None
    for batch in (images_BCHW[:1], images_BCHW):
        logits_BC, probabilities_BC = answers(folder, batch)
        own_BC = torch.from_numpy(logits_BC).softmax(dim=-1).numpy()
        np.testing.assert_allclose(own_BC, expected_BC[: len(batch)], atol=1e-4)
        np.testing.assert_allclose(probabilities_BC, calibration.confidence(expected_BC[: len(batch)]), atol=1e-4)


@pytest.mark.parametrize("method", [*METHODS, *(pytest.param(name, marks=SLOW) for name in OTHERS)])
def test_the_graph_gives_the_answers_of_the_run(method: str, train: Train, images: list[Path], tmp_path: Path) -> None:
    run = train(method)
    exported = export(run, tmp_path / "out")
    assert exported.certificate is not None and exported.certificate.agreement == 1.0
    assert exported.files == ("certificate.json", "export.json", "model.onnx")
    assert {path.name for path in (tmp_path / "out").iterdir()} == set(exported.files)
    assert_same_as_the_run(run, tmp_path / "out", images)
    assert (tmp_path / "out" / "model.onnx").stat().st_size < 1_000_000  # the vocabulary alone has 3 MB


def test_lora_on_embeddings_alone_is_exported(train: Train, images: list[Path], tmp_path: Path) -> None:
    run = train("lora", features="embedding")
    export(run, tmp_path / "out")
    assert_same_as_the_run(run, tmp_path / "out", images)


@pytest.mark.parametrize("members", [("gda", "ridge"), pytest.param(("ridge", "full"), marks=SLOW)])
def test_ensembles_are_one_graph(members: tuple[str, ...], train: Train, images: list[Path], tmp_path: Path) -> None:
    if "full" in members:
        members = (str(train("ridge", refit=False)), str(train("full")))
    run = train("ensemble", members=members)
    export(run, tmp_path / "out")
    assert_same_as_the_run(run, tmp_path / "out", images)


@pytest.mark.parametrize("family", ["ModifiedResNet", "timm CNN", pytest.param("SigLIP", marks=SLOW)])
@pytest.mark.parametrize("method", ["linear-probe", pytest.param("full", marks=SLOW)])
def test_encoders_of_other_families_are_exported(
    family: str, method: str, train: Train, images: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    run = train(method, write_family(family, tmp_path / "model"))
    export(run, tmp_path / "out")
    assert_same_as_the_run(run, tmp_path / "out", images)


def test_the_file_describes_itself(train: Train, tmp_path: Path) -> None:
    run = train("ridge")
    export(run, tmp_path / "out")
    described = json.loads((tmp_path / "out" / "export.json").read_text())
    card = checkpoint.load_run(run).card
    assert described["classes"] == list(CLASSES)
    assert described["preprocessing"] == dict(card.preprocessing)
    assert described["calibration"] == card.confidence and described["calibration"]["temperature"] > 0
    assert described["run"]["weights_sha256"] == checkpoint.load_run(run).weights_sha256()
    assert described["input"]["shape"] == ["batch", 3, 32, 32]
    model = onnx.load(str(tmp_path / "out" / "model.onnx"))
    onnx.checker.check_model(model)
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata == {key: value for key, value in described.items() if key != "files"}
    assert str(tmp_path.parent) not in (tmp_path / "out" / "export.json").read_text()


# The certificate


def test_the_certificate_is_that_of_a_computation_by_hand(train: Train, photos: Path, tmp_path: Path) -> None:
    run = train("lora", features="embedding")
    export(run, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "certificate.json").read_text())
    opened = checkpoint.load_run(run)
    rows = [line.split(",") for line in (run / "manifest.csv").read_text().splitlines()]
    columns = {name: rows[0].index(name) for name in ("path", "class", "split")}
    val = [row for row in rows[1:] if row[columns["split"]] == "val"]
    transform = opened.preprocessing.transform()
    opened_images = [Image.open(photos / row[columns["path"]]).convert("RGB") for row in val]
    images_BCHW = torch.stack([transform(image) for image in opened_images])
    targets_N = np.array([CLASSES.index(row[columns["class"]]) for row in val])
    _, export_NC = answers(tmp_path / "out", images_BCHW)
    predictor, calibration = Predictor(run, precision="float32", device="cpu"), recorded_calibration(opened)
    assert calibration is not None
    tops = [dict(item.top) for item in predictor.predict(opened_images, top=3)]
    original_NC = calibration.confidence([[top[name] for name in CLASSES] for top in tops])
    assert found["images"] == len(val) > 3
    assert found["agreement"] == (export_NC.argmax(1) == original_NC.argmax(1)).mean()
    assert found["largest_probability_difference"] == pytest.approx(np.abs(export_NC - original_NC).max(), abs=1e-6)
    assert found["bytes"] == (tmp_path / "out" / "model.onnx").stat().st_size
    for name, probabilities_NC in (("original", original_NC), ("export", export_NC)):
        own_N = probabilities_NC[np.arange(len(val)), targets_N]
        right_N = probabilities_NC.argmax(1) == targets_N
        assert found[name]["accuracy"] == right_N.mean()
        gap, bins = 0.0, np.ceil(probabilities_NC.max(1) * 15)
        for number in np.unique(bins):
            chosen = bins == number
            gap += chosen.mean() * abs(right_N[chosen].mean() - probabilities_NC.max(1)[chosen].mean())
        assert found[name]["ece"] == pytest.approx(gap, abs=1e-6)
        for level, fraction in found[name]["coverage"].items():
            assert fraction == pytest.approx((1 - own_N <= calibration.set_threshold(float(level))).mean())


@pytest.mark.parametrize("method", ["ridge", "lora"])
def test_an_export_that_answers_otherwise_is_not_kept(
    method: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def sabotaged(*args: Any, **settings: Any) -> Any:
        model = image_classifier(*args, **settings)
        for parameter in model.classifier.parameters():
            parameter.copy_(-parameter if parameter.ndim else parameter)
        for name, buffer in model.classifier.named_buffers():
            if name == "prompts_CD":
                buffer.copy_(-buffer)
        return model

    monkeypatch.setattr(formats, "image_classifier", sabotaged)
    run = train(method)
    assert cli.main(["export", str(run), "--out", str(tmp_path / "place" / "out"), "--workers", "0"]) == 3
    assert list((tmp_path / "place").iterdir()) == []
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(r"% of \d+ validation images get the run's label, below --min-agreement 0.999", said)


def test_an_interrupted_export_leaves_nothing(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(formats, "add_description", fails)
    with pytest.raises(KeyboardInterrupt):
        export(train("ridge"), tmp_path / "place" / "out")
    assert list((tmp_path / "place").iterdir()) == []


def test_test_images_are_never_read(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from clip_har.images import ImageFiles

    read: list[str] = []
    real = ImageFiles.evaluation_batches

    def recorded(self: ImageFiles, *args: Any, **settings: Any) -> Any:
        read.extend(str(path) for path in self.paths)
        return real(self, *args, **settings)

    monkeypatch.setattr(ImageFiles, "evaluation_batches", recorded)
    export(train("ridge"), tmp_path / "out")
    assert read and not any("/test/" in path for path in read)


def test_a_certificate_tells_whether_the_run_was_fitted_on_the_images(
    train: Train, photos: Path, tmp_path: Path
) -> None:
    other = write_colours(tmp_path / "other", HUES, train=8)
    for run, data, expected in (
        (train("ridge"), photos, True),
        (train("ridge"), other, False),
        (train("lora"), photos, False),
    ):
        found = export(run, tmp_path / "out", data=data, min_agreement=0.0).certificate
        assert found is not None and found.fitted_on_images is expected and found.data == data.name


# Where it goes


def test_only_an_earlier_export_is_replaced(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(train("ridge"), out)
    export(train("linear-probe"), out)
    assert json.loads((out / "export.json").read_text())["run"]["method"] == "linear-probe"
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"contains files that are not an export, such as notes.txt.*--force"):
        export(train("ridge"), out)
    export(train("ridge"), out, force=True)
    assert json.loads((out / "export.json").read_text())["run"]["method"] == "ridge"
    assert (out / "notes.txt").read_text() == "mine"


def test_places_that_are_not_for_an_export_are_refused(train: Train, photos: Path, tmp_path: Path) -> None:
    run = train("ridge")
    (tmp_path / "file").write_text("x")
    for out, said in ((tmp_path / "file", "is a file"), (run, "is the run folder itself")):
        with pytest.raises(ConfigError, match=said):
            export(run, out, force=True)
    with pytest.raises(ConfigError, match="is in the dataset directory"):
        export(run, photos / "out", data=photos)
    with pytest.raises(RunError, match="not found"):
        export(tmp_path / "nothing", tmp_path / "out")


def test_a_dataset_that_is_gone_needs_data_or_no_certificate(
    train: Train, tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train("ridge")
    gone = photos.rename(photos.with_name("moved"))
    try:
        with pytest.raises(DataError, match=r"was not found. Pass it with --data, or --no-certificate"):
            export(run, tmp_path / "out")
        command = ["export", str(run), "--out", str(tmp_path / "out"), "--no-certificate"]
        assert cli.main(command) == 0
        assert "The export was not compared with the run" in capsys.readouterr().err
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"export.json", "model.onnx"}
        export(run, tmp_path / "out", data=gone)
        assert (tmp_path / "out" / "certificate.json").is_file()
    finally:
        gone.rename(photos)


def test_combined_models_are_refused(train: Train, tiny_model: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    run = train("ridge", f"{tiny_model}+{write_family('timm CNN', tmp_path / 'other')}")
    with pytest.raises(ConfigError, match="combines several models") as caught:
        export(run, tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_missing_packages_are_named(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r'requires onnx and onnxruntime. pip install "clip-har\[export\]"'):
        export(train("ridge"), tmp_path / "out")


# Other formats


@pytest.mark.parametrize("family", ["ViT", pytest.param("timm CNN", marks=SLOW)])
def test_int8_weights_are_int8_and_what_they_cost_is_stated(
    family: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(int8, "LARGEST_DIVERGENCE", 10.0)  # the tiny models' answers are close to ties
    (tmp_path / "model").mkdir()
    run = train("linear-probe", write_family(family, tmp_path / "model"))
    command = [
        "export",
        str(run),
        "--format=onnx-int8",
        f"--out={tmp_path / 'out'}",
        "--workers=0",
        "--min-agreement=0",
    ]
    assert cli.main(command) == 0
    printed = capsys.readouterr()
    assert re.search(r"\b0 of \d+ layers of the image encoder stay in float32", printed.out + printed.err)
    certificate = json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert certificate["agreement"] >= 0.5
    assert certificate["largest_probability_difference"] > 0
    graph = onnx.load(str(tmp_path / "out" / "model.onnx")).graph
    in_int8 = sum(np.prod(item.dims) for item in graph.initializer if item.data_type == onnx.TensorProto.INT8)
    largest = max(np.prod(item.dims) for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT)
    assert in_int8 > 2 * largest
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"certificate.json", "export.json", "model.onnx"}


@pytest.mark.parametrize("method", ["full", "lora-attention", "zero-shot"])
def test_an_open_clip_folder_is_the_model_as_fine_tuned(method: str, train: Train, tmp_path: Path) -> None:
    run = train(method)
    exported = export(run, tmp_path / "out", "openclip")
    assert exported.certificate is not None and exported.certificate.agreement == 1.0
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'out'}")
    model.eval()
    images_BCHW = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    classifier = checkpoint.load_run(run).classifier()
    with torch.no_grad():
        embedding_BD = F.normalize(model.encode_image(images_BCHW), dim=-1)
    tensors = load_file(tmp_path / "out" / "class_weights.safetensors")
    own_logits_BC = tensors["logit_scale"] * embedding_BD @ tensors["class_weights_CD"].T
    if isinstance(classifier, Towers):
        torch.testing.assert_close(embedding_BD, classifier.encode_images(images_BCHW), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(own_logits_BC, classifier(images_BCHW), rtol=1e-4, atol=1e-4)
    image = Image.new("RGB", (60, 40), (200, 10, 30))
    expected_CHW = checkpoint.load_run(run).preprocessing.transform()(image)
    torch.testing.assert_close(preprocess(image), expected_CHW, rtol=0, atol=0.02)
    assert open_clip.get_tokenizer(f"local-dir:{tmp_path / 'out'}")(["a person"]).shape == (1, 16)
    again = load_backbone(f"local-dir:{tmp_path / 'out'}", device="cpu", precision="float32")
    torch.testing.assert_close(again.encode_images(images_BCHW).embedding_BD, embedding_BD, rtol=1e-4, atol=1e-5)


def test_an_open_clip_folder_of_a_transformers_model_has_its_tokenizer(train: Train, tmp_path: Path) -> None:
    run = train("zero-shot", write_clip(tmp_path / "model", clip_model()))
    exported = export(run, tmp_path / "out", "openclip")
    assert exported.certificate is not None and exported.certificate.agreement == 1.0
    own = load_backbone(f"local-dir:{tmp_path / 'model'}", device="cpu", precision="float32")
    again = load_backbone(f"local-dir:{tmp_path / 'out'}", device="cpu", precision="float32")
    sentences = ["a person", "someone running"]
    assert torch.equal(again.tokenizer(sentences), own.tokenizer(sentences))
    torch.testing.assert_close(again.encode_text(sentences), own.encode_text(sentences))


def test_encoders_that_open_clip_cannot_express_are_refused(train: Train, tmp_path: Path) -> None:
    run = train("zero-shot", write_clip(tmp_path / "model", clip_model(image="quick_gelu", text="gelu")))
    with pytest.raises(ConfigError, match=r"has an image encoder that open_clip.*\(activations: QuickGELU, text.*onnx"):
        export(run, tmp_path / "out", "openclip")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("kind", "said"), [("openclip", "does not fine-tune the model's embeddings"), ("peft", "has no PEFT adapter")]
)
def test_a_run_without_such_a_form_is_refused(kind: str, said: str, train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"{said}.*--format onnx"):
        export(train("ridge"), tmp_path / "out", kind)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["lora", "lora-attention"])
def test_an_adapter_is_copied(method: str, train: Train, tmp_path: Path) -> None:
    run = train(method)
    exported = export(run, tmp_path / "out", "peft")
    names = ("adapter_config.json", "adapter_model.safetensors", "export.json", "prompts.safetensors")
    assert exported.files == names
    for name in set(names) - {"export.json"}:
        assert (tmp_path / "out" / name).read_bytes() == (run / name).read_bytes()


def test_a_model_card_has_the_metrics_and_the_limits(
    train: Train, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from clip_har.config import EvaluateConfig

    uploaded: list[tuple[str, list[str]]] = []

    class Api:
        def create_repo(self, repository: str, *, private: bool, exist_ok: bool) -> str:
            assert private and exist_ok
            return f"https://hub/{repository}"

        def upload_folder(
            self, *, repo_id: str, folder_path: str, allow_patterns: list[str], commit_message: str
        ) -> None:
            assert commit_message and Path(folder_path) == tmp_path / "out"
            uploaded.append((repo_id, allow_patterns))

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    run = train("linear-probe")
    given = EvaluateConfig(data=DataConfig(data=photos), backbone=BackboneConfig(workers=0), checkpoint=run)
    result, _ = commands.evaluate(given)
    exported = export(run, tmp_path / "out", "hub", push="me/actions")
    assert exported.address == "https://hub/me/actions"
    assert uploaded == [("me/actions", ["README.md", "certificate.json", "export.json", "model.onnx"])]
    page = (tmp_path / "out" / "README.md").read_text()
    front = {
        line.partition(": ")[0]: json.loads(line.partition(": ")[2]) for line in page.split("---\n")[1].splitlines()
    }
    assert front["pipeline_tag"] == "image-classification" and front["license"] == "other"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == result.best.metrics.accuracy
    low, high = result.best.metrics.accuracy_ci95
    assert f"{result.best.metrics.accuracy:.1%} (95 % confidence interval {low:.1%} to {high:.1%})" in page
    for heading in ("Metrics", "Intended use", "Limits", "Training data", "Licence", "Use"):
        assert f"\n## {heading}\n" in page
    assert str(photos) not in page and "Do not use it to identify or monitor people" in page


def test_a_card_without_an_evaluation_says_so(train: Train) -> None:
    page = model_card.model_card(checkpoint.load_run(train("gda")), None, None)
    assert "has not been evaluated on test images" in page


def test_a_failed_upload_is_one_line(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Api:
        def create_repo(self, *_: object, **__: object) -> str:
            raise OSError("no network\nat all")

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(ConfigError, match=r"--push me/x failed: no network. The export is in"):
        export(train("ridge"), tmp_path / "out", "hub", push="me/x")
    assert (tmp_path / "out" / "README.md").is_file()
    with pytest.raises(ConfigError, match="--push requires --format hub, not onnx"):
        export(train("ridge"), tmp_path / "other", push="me/x")


# The command line and the page about it


def test_json_is_all_that_is_printed(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(train("ridge")), f"--out={tmp_path / 'out'}", "--json", "--workers=0"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["certificate"] == json.loads((tmp_path / "out" / "certificate.json").read_text())
    assert printed["files"] == ["certificate.json", "export.json", "model.onnx"]


def test_the_example_of_the_page_gives_the_labels_of_the_run(train: Train, images: list[Path], tmp_path: Path) -> None:
    run = train("ridge")
    export(run, tmp_path / "ridge-onnx")
    page = (Path(__file__).parent.parent / "docs" / "guide" / "export.md").read_text(encoding="utf-8")
    code = page.partition("```python\n")[2].partition("```")[0]
    (tmp_path / "example.py").write_text(code, encoding="utf-8")
    command = [sys.executable, "example.py", *map(str, images)]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    predictions = list(Predictor(run, precision="float32", device="cpu").predict(images))
    rows = [line.split("\t") for line in found.stdout.splitlines()]
    assert [row[1] for row in rows] == [item.label for item in predictions]
    for row, item in zip(rows, predictions, strict=True):
        assert float(row[2]) == pytest.approx(item.confidence, abs=0.02)


@pytest.mark.slow  # torch.export takes half a minute
def test_a_large_model_keeps_its_weights_in_a_file_of_their_own(
    train: Train, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_file, "ONE_FILE", 0)
    run = train("lora")
    exported = export(run, tmp_path / "out")
    assert exported.files == ("certificate.json", "export.json", "model.onnx", "model.onnx.data")
    assert_same_as_the_run(run, tmp_path / "out", images)


@pytest.mark.parametrize(
    ("model", "licence"),
    [
        ("demo", "MIT"),
        ("ViT-B/32", "MIT"),
        ("siglip2", "Apache-2.0"),
        ("ViT-B-32:laion2b_s34b_b79k", "MIT"),
        ("local-dir:/nowhere", ""),
    ],
)
def test_a_model_card_has_the_licence_of_the_catalogue(model: str, licence: str, train: Train) -> None:
    run = checkpoint.load_run(train("zero-shot"))
    card = dataclasses.replace(run.card, backbone=dataclasses.replace(run.card.backbone, name=model))
    text = model_card.model_card(dataclasses.replace(run, card=card), None, None)
    assert f"license: {json.dumps({'MIT': 'mit', 'Apache-2.0': 'apache-2.0'}.get(licence, 'other'))}\n" in text
    assert (f"under this licence: {licence}." in text) == bool(licence)
