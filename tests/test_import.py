"""A checkpoint of the predecessor project becomes a run with the predictions that its own forward pass gave."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clip_har import checkpoint, cli, commands, historic, legacy_checkpoint
from clip_har.backbone import load_backbone
from clip_har.cli import EXIT_DONE
from clip_har.commands import import_checkpoint
from clip_har.config import BackboneConfig, DataConfig, EvaluateConfig, ImportConfig
from clip_har.errors import ConfigError, ModelError, RunError
from clip_har.images import decode
from clip_har.predict import Predictor
from samples import CLASSES

WIDTH, RANK, ALPHA, LOG_SCALE = 24, 3, 7.0, 5.3
"""exp(5.3) = 200: above the bound of a scale that is learned here."""
TEMPLATES = ("a photo of a person {}", "someone {}")
CONFIG = {"rank": RANK, "alpha": ALPHA, "dataset_config": {"text_templates": list(TEMPLATES)}, "lr": 1e-3}


def adapters(seed: int = 3) -> dict[str, Tensor]:
    """Matrices for x + (alpha / rank) (x A) B, large enough that the adapted lengths differ between classes."""
    generator = torch.Generator().manual_seed(seed)
    names = [(f"{side}_lora.lora_{letter}", letter) for side in ("visual", "text") for letter in "AB"]
    shapes = {"A": (WIDTH, RANK), "B": (RANK, WIDTH)}
    return {name: torch.randn(shapes[letter], generator=generator) * 0.25 for name, letter in names}


def as_linear(given: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same as weights of nn.Linear modules."""
    return {f"{name}.weight": tensor.T.contiguous() for name, tensor in given.items()}


@pytest.fixture(name="clip_weights", scope="module")
def fixture_clip_weights(tiny_model: str) -> dict[str, Tensor]:
    return dict(load_backbone(tiny_model, device="cpu", precision="float32").model.state_dict())


@pytest.fixture(name="write")
def fixture_write(clip_weights: dict[str, Tensor], tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint as the predecessor did; `weights` replace or add, None removes."""

    def write(
        *, prefix: str = "clip_model.", lora: dict[str, Tensor] | None = None, half: bool = False, **changes: Any
    ) -> Path:
        clip = {f"{prefix}{key}": tensor.half() if half else tensor for key, tensor in clip_weights.items()}
        state: dict[str, Any] = {**clip, **(lora or adapters()), "temp_scale": torch.tensor(LOG_SCALE)}
        state |= changes.pop("weights", {})
        content = {
            "epoch": 12,
            "model_state_dict": {key: value for key, value in state.items() if value is not None},
            "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-3}]},
            "train_loss": 0.25,
            "config": CONFIG,
            **changes,
        }
        path = tmp_path / "checkpoints" / "clip_lora_best.pt"
        path.parent.mkdir(exist_ok=True)
        torch.save(content, path)
        return path

    return write


def asked(path: Path, model: str, data: Path | None, **changes: Any) -> tuple[Path, ImportConfig]:
    backbone = BackboneConfig(model=model, precision="float32", workers=0)
    given = None if data is None else DataConfig(data=data)
    return path, ImportConfig(**{"data": given, "backbone": backbone, **changes})


def reference_logits(model: str, images: list[Path], templates: tuple[str, ...] = TEMPLATES) -> Tensor:
    """The predecessor's forward pass, written down by hand: neither residual is renormalised, no scale is bounded."""
    backbone, lora = load_backbone(model, device="cpu", precision="float32"), adapters()
    transform = backbone.info.preprocessing.transform()
    clip: Any = backbone.model
    with torch.no_grad():
        image_BD = clip.encode_image(torch.stack([transform(decode(path)) for path in images]))
        image_BD = image_BD / image_BD.norm(dim=-1, keepdim=True)
        rows = []
        for name in CLASSES:
            text_TD = clip.encode_text(backbone.tokenizer([template.format(name) for template in templates]))
            mean_D = (text_TD / text_TD.norm(dim=-1, keepdim=True)).mean(dim=0)
            rows.append(mean_D / mean_D.norm())
        text_CD = torch.stack(rows)
        scaling = ALPHA / RANK
        image_BD = image_BD + scaling * (image_BD @ lora["visual_lora.lora_A"]) @ lora["visual_lora.lora_B"]
        text_CD = text_CD + scaling * (text_CD @ lora["text_lora.lora_A"]) @ lora["text_lora.lora_B"]
        logits: Tensor = math.exp(LOG_SCALE) * image_BD @ text_CD.T
    return logits


def held_out_images(photos: Path) -> list[Path]:
    return sorted((photos / "test").glob("*/*.jpg"))


# --- the same predictions ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prefix", "stored", "half"),
    [
        ("clip_model.", adapters, False),
        ("", lambda: as_linear(adapters()), True),
        ("module.model.clip.", lambda: {f"module.{key}": value for key, value in adapters().items()}, False),
    ],
)
def test_an_imported_run_predicts_as_the_predecessor_did(
    prefix: str,
    stored: Callable[[], dict[str, Tensor]],
    half: bool,
    photos: Path,
    tiny_model: str,
    write: Callable[..., Path],
) -> None:
    path = write(prefix=prefix, lora=stored(), half=half)
    run = import_checkpoint(*asked(path, tiny_model, photos))
    images = held_out_images(photos)
    expected_BC = reference_logits(tiny_model, images)
    found = Predictor(run.folder, precision="float32").predict(images, top=len(CLASSES))
    probabilities = [[dict(one.top)[name] for name in CLASSES] for one in found]
    torch.testing.assert_close(torch.tensor(probabilities), expected_BC.softmax(dim=-1), rtol=1e-4, atol=1e-5)
    backbone = load_backbone(tiny_model, device="cpu", precision="float32")
    transform = backbone.info.preprocessing.transform()
    features = backbone.encode_images(torch.stack([transform(decode(image)) for image in images]))
    with torch.no_grad():
        logits_BC = run.classifier()(features.embedding_BD)
    torch.testing.assert_close(logits_BC, expected_BC, rtol=1e-5, atol=1e-4)


def test_lengths_and_the_unbounded_scale_decide_predictions_here(
    photos: Path, tiny_model: str, write: Callable[..., Path]
) -> None:
    run = import_checkpoint(*asked(write(), tiny_model, photos))
    settings = {**run.card.settings, "renormalise": True}
    renormalised = checkpoint.Run(folder=run.folder, card=dataclasses.replace(run.card, settings=settings)).classifier()
    embedding_ND = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(1))
    embedding_ND = torch.nn.functional.normalize(embedding_ND, dim=-1)
    with torch.no_grad():
        one, other = run.classifier()(embedding_ND), renormalised(embedding_ND)
    assert (one.argmax(dim=1) != other.argmax(dim=1)).float().mean() > 0.05
    assert other.abs().max() <= 100.001 < one.abs().max()


def test_evaluate_gives_the_predecessors_accuracy(
    photos: Path, tiny_model: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    run = import_checkpoint(*asked(write(), tiny_model, photos, out=tmp_path / "run"))
    config = EvaluateConfig(
        data=DataConfig(data=photos), checkpoint=run.folder, backbone=BackboneConfig(workers=0, precision="float32")
    )
    result, _ = commands.evaluate(config)
    images = held_out_images(photos)
    expected = [CLASSES[index] for index in reference_logits(tiny_model, images).argmax(dim=1).tolist()]
    accuracy = np.mean([image.parent.name == label for image, label in zip(images, expected, strict=True)])
    assert result.finetuned is not None
    assert result.finetuned.metrics.accuracy == pytest.approx(float(accuracy), abs=1e-9)
    found = [CLASSES[int(index)] for index in result.finetuned.predictions]
    assert dict(zip(result.paths, found, strict=True)) == {
        str(image.relative_to(photos)): label for image, label in zip(images, expected, strict=True)
    }


def test_an_imported_run_is_like_any_other(
    photos: Path, tiny_model: str, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numba.config.DISABLE_JIT", True)  # UMAP compiles itself for longer than it takes in Python
    path, threads = write(), torch.get_num_threads()
    run = import_checkpoint(*asked(path, tiny_model, photos))
    assert run.folder == path.with_suffix("")
    names = {file.name for file in run.folder.iterdir()}
    assert names >= {"card.json", "config.json", "manifest.csv", "prompts.safetensors", "adapter_model.safetensors"}
    card = run.card
    assert card.settings["renormalise"] is False
    assert (card.settings["rank"], card.settings["alpha"]) == (RANK, ALPHA)
    assert card.templates == TEMPLATES
    assert card.classes == CLASSES
    assert card.trainable_params == 4 * WIDTH * RANK + 1
    assert card.imported is not None
    assert (card.imported.epoch, card.imported.train_loss) == (12, 0.25)
    assert {"val_accuracy", "val_macro_f1", "val_loss"} <= card.validation.keys()
    assert card.confidence
    checkpoint.load_run(run.folder).weights_sha256()
    code = cli.main(["explain", str(run.folder), "--data", str(photos), "--limit", "2", "--no-maps", "--workers", "0"])
    assert code == EXIT_DONE
    explained = json.loads((run.folder / "explain" / "explain.json").read_text())
    assert explained["embedding_map"]["method"] == "umap"
    assert torch.get_num_threads() == threads


def test_explained_similarities_are_cosines(photos: Path, tiny_model: str, write: Callable[..., Path]) -> None:
    run = import_checkpoint(*asked(write(), tiny_model, photos))
    assert cli.main(["explain", str(run.folder), str(held_out_images(photos)[0]), "--no-maps"]) == EXIT_DONE
    explained = json.loads((run.folder / "explain-images" / "explain.json").read_text())
    prompts = explained["explanations"][0]["prompts"]
    assert all(-1.0001 <= similarity <= 1.0001 for _, similarity in prompts)


def test_without_data_the_classes_are_given(photos: Path, tiny_model: str, write: Callable[..., Path]) -> None:
    path = write()
    with pytest.raises(ConfigError, match=r"has no class names.*--data FOLDER, or --classes"):
        import_checkpoint(*asked(path, tiny_model, None))
    run = import_checkpoint(*asked(path, tiny_model, None, classes=("running", "drinking", "cycling")))
    assert run.classes == CLASSES
    assert not run.card.validation and not (run.folder / "manifest.csv").exists()
    image = held_out_images(photos)[0]
    expected = reference_logits(tiny_model, [image]).softmax(dim=-1)[0]
    (prediction,) = Predictor(run.folder, precision="float32").predict([image])
    assert prediction.probability == pytest.approx(expected.max().item(), abs=1e-5)
    argv = ["evaluate", "--data", str(photos), "--checkpoint", str(run.folder), "--workers", "0"]
    assert cli.main(argv) == EXIT_DONE


# --- what the file does not contain -----------------------------------------------------------------------


def test_alpha_is_asked_for_if_the_config_has_none(tiny_model: str, write: Callable[..., Path], photos: Path) -> None:
    path = write(config={"lr": 1e-3})
    with pytest.raises(ConfigError, match=r"does not contain alpha.*--alpha"):
        import_checkpoint(*asked(path, tiny_model, photos))
    run = import_checkpoint(*asked(path, tiny_model, photos, alpha=5.0))
    assert run.card.settings["alpha"] == 5.0
    assert len(run.card.templates) == 7


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({**CONFIG, "alpha": "32"}, "alpha in the config of .* is not a number"),
        ({**CONFIG, "alpha": math.nan}, "alpha in the config of .* is not a number"),
        ({**CONFIG, "alpha": -1.0}, "--alpha must be above 0"),
        ({**CONFIG, "dataset_config": {"text_templates": ["/etc/passwd"]}}, "have no {}"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(
    config: dict[str, Any], said: str, tiny_model: str, write: Callable[..., Path], photos: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        import_checkpoint(*asked(write(config=config), tiny_model, photos))


def test_the_model_in_the_config_is_only_a_name(write: Callable[..., Path], photos: Path) -> None:
    path = write(config={**CONFIG, "model_name": "hf-hub:someone/else"})
    with pytest.raises(ModelError, match=r"ViT-B[-/]32"):
        import_checkpoint(path, ImportConfig(data=DataConfig(data=photos)))


def test_another_rank_than_the_files_is_refused(tiny_model: str, write: Callable[..., Path], photos: Path) -> None:
    with pytest.raises(RunError, match="was trained with rank 3, not 16"):
        import_checkpoint(*asked(write(), tiny_model, photos, rank=16))


# --- files that cannot be used ----------------------------------------------------------------------------


def changed(key: str) -> Callable[[dict[str, Tensor]], dict[str, Any]]:
    return lambda clip: {f"clip_model.{key}": clip[key] + 0.01}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        (changed("visual.conv1.weight"), "are not those of .*visual.conv1.weight differs"),
        (lambda clip: {"clip_model.text_projection": torch.zeros(3, 3)}, "text_projection differs"),
        (lambda clip: {"clip_model.ln_final.bias": None}, "ln_final.bias is missing"),
        (lambda clip: {"classifier.weight": torch.zeros(3, 24)}, "'classifier.weight', which neither"),
        (lambda clip: {"a\nb\x1b": torch.zeros(3)}, r"'a\\nb\\x1b', which neither"),
        (lambda clip: {"temp_scale": None}, "has no temp_scale"),
        (lambda clip: {"temp_scale": torch.zeros(2)}, "does not have one number as temp_scale"),
        (lambda clip: {"temp_scale": torch.tensor(math.nan)}, "temp_scale .* is nan"),
        (lambda clip: {"temp_scale": torch.tensor(1000.0)}, "temp_scale .* is 1000"),
        (lambda clip: {"text_lora.lora_B": None}, "text_lora.lora_B missing"),
        (lambda clip: {"text_lora.lora_B": torch.zeros(3, 23)}, "shape 3 x 23, which does not fit .* width 24"),
        (lambda clip: {"text_lora.lora_A": torch.zeros(24, 4)}, "different ranks: 3, 4"),
        (lambda clip: {"text_lora.lora_A": torch.zeros(24, 24)}, "orientation is unknown"),
        (lambda clip: {"text_lora.lora_A": torch.zeros(1).expand(24, 10**9)}, "does not fit"),
        (lambda clip: {"text_lora.lora_A": torch.zeros(24)}, "has 1 dimensions, not 2"),
        (lambda clip: {"text_lora.lora_A": torch.full((24, 3), math.inf)}, "not finite"),
        (lambda clip: {"text_lora.lora_A": torch.zeros(24, 3, dtype=torch.int64)}, "not floating-point"),
        (lambda clip: {"visual_lora.lora_A.weight": torch.zeros(24, 3)}, "is given twice"),
        (lambda clip: {"temp_scale": "4.6"}, "'temp_scale' .* is not a tensor"),
        (lambda clip: {"text_lora.lora_A": torch.zeros(24, 3).to_sparse()}, "is not a tensor"),
    ],
)
def test_weights_that_do_not_fit_are_refused_in_one_line(
    weights: Callable[[dict[str, Tensor]], dict[str, Any]],
    said: str,
    clip_weights: dict[str, Tensor],
    tiny_model: str,
    photos: Path,
    write: Callable[..., Path],
) -> None:
    path = write(weights=weights(clip_weights))
    with pytest.raises(RunError, match=said) as caught:
        import_checkpoint(*asked(path, tiny_model, photos))
    assert "\n" not in str(caught.value)
    assert not path.with_suffix("").exists()


def test_weights_that_differ_by_rounding_alone_are_the_same(
    clip_weights: dict[str, Tensor], tiny_model: str, photos: Path, write: Callable[..., Path]
) -> None:
    rounded = {f"clip_model.{key}": tensor.bfloat16() for key, tensor in clip_weights.items()}
    import_checkpoint(*asked(write(weights=rounded), tiny_model, photos))


class Hostile:
    """Unpickled, it would make a file."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._target,)


def test_code_in_the_file_is_not_run(
    write: Callable[..., Path], tiny_model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(config={"alpha": 1.0, "hook": Hostile(tmp_path / "made")})
    with pytest.raises(RunError, match="contains more than tensors and plain values"):
        import_checkpoint(*asked(path, tiny_model, photos))
    assert not (tmp_path / "made").exists()
    assert cli.main(["import", str(path), "--model", tiny_model, "--data", str(photos)]) == cli.EXIT_USER_INPUT
    assert capsys.readouterr().err.count("\n") == 1


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (truncated, "is damaged or is not a PyTorch checkpoint"),
        (lambda path: path.write_bytes(b""), "is damaged or is not a PyTorch checkpoint"),
        (lambda path: path.write_text("no pickle\n" * 99), "damaged|contains more"),
        (lambda path: path.write_bytes(pickle.dumps({"model_state_dict": {}})), "damaged|contains more|has no LoRA"),
        (lambda path: torch.save({"state": 1}, path), "no model_state_dict"),
        (lambda path: torch.save([1], path), "no model_state_dict"),
        (lambda path: torch.save({"model_state_dict": {1: torch.zeros(1)}}, path), "is not a tensor"),
        (lambda path: path.unlink(), "not found"),
    ],
)
def test_damaged_files_are_refused_in_one_line(
    damage: Callable[[Path], object], said: str, write: Callable[..., Path], tiny_model: str, photos: Path
) -> None:
    path = write()
    damage(path)
    with pytest.raises(RunError, match=said) as caught:
        import_checkpoint(*asked(path, tiny_model, photos))
    assert "\n" not in str(caught.value)


def test_a_finished_run_is_not_overwritten(write: Callable[..., Path], tiny_model: str, photos: Path) -> None:
    path = write()
    import_checkpoint(*asked(path, tiny_model, photos))
    with pytest.raises(RunError, match=r"already contains a run.*--out"):
        import_checkpoint(*asked(path, tiny_model, photos))


def test_only_adapters_are_imported_with_a_warning(write: Callable[..., Path], photos: Path, tiny_model: str) -> None:
    path = write()
    content = torch.load(path, weights_only=True)
    state = {key: value for key, value in content["model_state_dict"].items() if not key.startswith("clip_model.")}
    torch.save({**content, "model_state_dict": state}, path)
    assert legacy_checkpoint.read_legacy_checkpoint(path).clip == {}
    import_checkpoint(*asked(path, tiny_model, photos))


# --- the commands -----------------------------------------------------------------------------------------


def test_the_command_says_what_it_made_and_what_is_next(
    write: Callable[..., Path], tiny_model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["import", str(write()), "--model", tiny_model, "--data", str(photos), "--out", str(tmp_path / "run")]
    assert cli.main([*argv, "--precision", "float32", "--workers", "0"]) == EXIT_DONE
    printed = capsys.readouterr().out
    assert "lora of rank 3, alpha 7, validation accuracy" in printed and "clip-har evaluate" in printed
    command = checkpoint.load_run(tmp_path / "run").card.command
    assert command.startswith("clip-har import ") and f"--out={tmp_path / 'run'}" in command


@pytest.mark.parametrize("command", [historic.evaluate_lora_clip, historic.evaluate_clip_har])
def test_the_historic_evaluations_take_the_file_itself(
    command: Callable[..., int], write: Callable[..., Path], tiny_model: str, photos: Path, tmp_path: Path
) -> None:
    path = write()
    argv = ["--data_dir", str(photos), "--checkpoint", str(path), "--model_name", tiny_model]
    out = "output_csv" if command is historic.evaluate_lora_clip else "save_dir"
    argv += [f"--{out}", str(tmp_path / ("r.csv" if out == "output_csv" else "results"))]
    for _ in range(2):  # the second time the run is there
        assert historic.main(command, argv) == 0
    run = checkpoint.load_run(path.with_suffix(""))
    assert run.card.settings["renormalise"] is False
    if command is historic.evaluate_lora_clip:
        assert historic.main(command, [*argv, "--rank", "16"]) == cli.EXIT_USER_INPUT
    write(lora=adapters(seed=4))
    assert historic.main(command, argv) == cli.EXIT_USER_INPUT


def test_the_historic_evaluation_assumes_the_historic_alpha(
    write: Callable[..., Path], tiny_model: str, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(config={})
    argv = ["--data_dir", str(photos), "--checkpoint", str(path), "--model_name", tiny_model]
    assert historic.main(historic.evaluate_clip_har, [*argv, "--save_dir", str(tmp_path / "results")]) == 0
    assert "32 is assumed" in capsys.readouterr().err
    assert checkpoint.load_run(path.with_suffix("")).card.settings["alpha"] == 32.0


def test_evaluate_points_to_import(
    write: Callable[..., Path], photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write()
    assert cli.main(["evaluate", "--data", str(photos), "--checkpoint", str(path)]) == cli.EXIT_USER_INPUT
    assert f"clip-har import {path}" in " ".join(capsys.readouterr().err.split())
