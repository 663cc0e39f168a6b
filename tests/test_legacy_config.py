"""The predecessor project's config file fills today's settings, and a training uses them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clip_har import checkpoint, cli, historic, trainer
from clip_har.cli import EXIT_DONE
from clip_har.config import (
    CompareConfig,
    DataConfig,
    EvaluateConfig,
    OptimizerConfig,
    PromptsConfig,
    Settings,
    TrainConfig,
    load_config_file,
    validate,
)
from clip_har.errors import ConfigError
from clip_har.integrity import SEAL_KEY
from clip_har.prompts import ACTION_TEMPLATES

CONFIG = Path(__file__).parent / "fixtures" / "config_har.json"
LEGACY: dict[str, Any] = json.loads(CONFIG.read_text())
SHARED = {"model": "ViT-B/32", "workers": 4, "templates": list(ACTION_TEMPLATES)}
TRAINING = {
    **SHARED,
    "out": "./checkpoints",
    "batch_size": 128,
    "epochs": 5,
    "lr": 5e-6,
    "weight_decay": 0.1,
    "warmup_epochs": 2,
    "gradient_clip": 0.5,
    "betas": [0.9, 0.95],
    "eps": 1e-6,
    "vision_lr_multiplier": 0.1,
    "text_lr_multiplier": 0.1,
    "projection_lr_multiplier": 1.0,
}


@pytest.mark.parametrize(
    ("config_type", "expected"),
    [(TrainConfig, TRAINING), (CompareConfig, TRAINING), (EvaluateConfig, SHARED), (PromptsConfig, SHARED)],
)
def test_each_command_takes_what_concerns_it(config_type: type, expected: dict[str, Any]) -> None:
    said: list[str] = []
    assert load_config_file(CONFIG, config_type, note=said.append) == expected
    assert len(said) == 1
    assert "save_every_n_epochs (states are saved by steps (--save-steps))" in said[0]
    assert "eval_every_n_epochs, logging.eval_interval (every epoch is validated)" in said[0]
    assert "logging.log_interval (the log interval is fixed)" in said[0]
    assert ("learning_rate" in said[0]) == (config_type in (EvaluateConfig, PromptsConfig))


def test_a_key_of_neither_project_stays_an_error(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**LEGACY, "gradient_clip_nrm": 1.0, "logging": {"log_intervall": 3}}))
    for config_type in (TrainConfig, EvaluateConfig):
        with pytest.raises(ConfigError, match=r"unknown key 'logging\.log_intervall'"):
            load_config_file(path, config_type)
    with pytest.raises(ConfigError, match=r"unknown key 'gradient_clip_nrm' \(did you mean 'gradient_clip"):
        load_config_file(path, TrainConfig)


def test_todays_files_are_read_as_strictly_as_ever(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"lr": 0.1, "epochs": 2}))
    with pytest.raises(ConfigError, match="'lr' is not a setting of this command"):
        load_config_file(path, EvaluateConfig)


# --- the values are used ----------------------------------------------------------------------------------


@pytest.fixture(name="small")
def fixture_small(tmp_path: Path, tiny_model: str) -> Path:
    """The file with a model that is here, and a folder of the test's own."""
    path = tmp_path / "config_har.json"
    templates = {"text_templates": ["a photo of a person {}", "{} action"]}
    own = {"model_name": tiny_model, "num_workers": 0, "checkpoint_dir": str(tmp_path / "run")}
    path.write_text(json.dumps({**LEGACY, **own, "batch_size": 16, "epochs": 3, "dataset_config": templates}))
    return path


@pytest.fixture(name="seen")
def fixture_seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """What the optimizer and the clipping were given."""
    seen: dict[str, list[Any]] = {"optimizer": [], "clip": []}
    step = trainer.Engine.step

    def watched(self: trainer.Engine, gradient_clip: float) -> bool:
        group = self.optimizer.param_groups[0]
        seen["optimizer"].append((group["betas"], group["eps"], group["weight_decay"], group["lr"]))
        seen["clip"].append(gradient_clip)
        return step(self, gradient_clip)

    monkeypatch.setattr(trainer.Engine, "step", watched)
    return seen


def check(run: checkpoint.Run, seen: dict[str, list[Any]]) -> None:
    steps_per_epoch = len(seen["clip"]) // 3
    assert len(seen["clip"]) == 3 * steps_per_epoch > 3
    assert set(seen["clip"]) == {0.5}
    assert {entry[:3] for entry in seen["optimizer"]} == {((0.9, 0.95), 1e-6, 0.1)}
    rates = [entry[3] for entry in seen["optimizer"]]
    assert max(rates) == pytest.approx(5e-6 * 0.1)  # the image side
    assert rates[: 2 * steps_per_epoch] == sorted(rates[: 2 * steps_per_epoch])  # two epochs of warm-up
    assert run.card.templates == ("a photo of a person {}", "{} action")
    assert (run.card.settings["batch_size"], run.card.settings["workers"]) == (16, 0)
    assert len(run.history()) == 3


def test_train_evaluate_and_compare_take_the_same_file(
    photos: Path, small: Path, seen: dict[str, list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", "--data", str(photos), "--config", str(small)]) == EXIT_DONE
    assert capsys.readouterr().err.count("ignored") == 1
    run = checkpoint.load_run(tmp_path / "run")
    check(run, seen)
    argv = ["evaluate", "--data", str(photos), "--config", str(small), "--checkpoint", str(run.folder)]
    assert cli.main(argv) == EXIT_DONE
    assert "learning_rate" in capsys.readouterr().err
    assert (run.folder / "eval" / "results.csv").is_file()
    argv = ["compare", "--data", str(photos), "--config", str(small), "--methods", "zero-shot,lora"]
    assert cli.main([*argv, "--out", str(tmp_path / "compared")]) == EXIT_DONE
    compared = checkpoint.load_run(tmp_path / "compared" / "runs" / "lora").card.settings
    assert (compared["betas"], compared["eps"], compared["gradient_clip"]) == ([0.9, 0.95], 1e-6, 0.5)


def test_the_scripts_take_the_file(
    photos: Path, small: Path, seen: dict[str, list[Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data_dir", str(photos), "--config", str(small)]
    assert historic.main(historic.train_clip_lora, argv) == 0
    run = checkpoint.load_run(tmp_path / "run")
    check(run, seen)
    assert (run.card.settings["rank"], run.card.settings["alpha"]) == (16, 32.0)
    table = tmp_path / "results.csv"
    assert historic.main(historic.main_clip, [*argv, "--output_csv", str(table)]) == 0
    assert "already finished" in capsys.readouterr().err
    assert table.is_file()
    assert len(seen["clip"]) == len(run.history()) * (len(seen["clip"]) // 3)  # nothing was trained a second time


def test_flags_of_the_scripts_take_precedence(photos: Path, small: Path, tmp_path: Path) -> None:
    argv = ["--data_dir", str(photos), "--config", str(small), "--epochs", "1", "--lr", "0.01"]
    assert historic.main(historic.train_clip_lora, [*argv, "--checkpoint_dir", str(tmp_path / "other")]) == 0
    settings = checkpoint.load_run(tmp_path / "other").card.settings
    assert (settings["epochs"], settings["lr"], settings["batch_size"]) == (1, 0.01, 16)


# --- the new settings -------------------------------------------------------------------------------------


def train(photos: Path, model: str, out: Path, *flags: str) -> int:
    argv = ["train", "--data", str(photos), "--model", model, "--epochs", "1", "--precision", "float32"]
    return cli.main([*argv, "--workers", "0", "--out", str(out), *flags])


def test_by_default_adamw_is_as_it_was(photos: Path, tiny_model: str, tmp_path: Path, seen: dict[str, Any]) -> None:
    assert train(photos, tiny_model, tmp_path / "run") == EXIT_DONE
    assert {entry[:2] for entry in seen["optimizer"]} == {((0.9, 0.98), 1e-8)}
    assert set(seen["clip"]) == {1.0}


def test_other_betas_give_other_weights_and_no_resume(
    photos: Path, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("default", "betas", "eps")]
    for folder, flags in zip(folders, ([], ["--betas", "0.5,0.6"], ["--eps", "0.1"]), strict=True):
        assert train(photos, tiny_model, folder, *flags) == EXIT_DONE
    weights = [checkpoint.load_run(folder).tensors()["base_model.model.image.lora_B.weight"] for folder in folders]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    capsys.readouterr()
    assert train(photos, tiny_model, folders[1], "--resume", "--betas", "0.5,0.7") == cli.EXIT_USER_INPUT
    assert "betas [0.5, 0.6] -> [0.5, 0.7]" in capsys.readouterr().err
    assert train(photos, tiny_model, folders[1], "--resume", "--betas", "0.5,0.6") == EXIT_DONE


def test_a_run_of_an_earlier_version_loads_and_resumes_with_the_defaults(
    photos: Path, tiny_model: str, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert train(photos, tiny_model, folder) == EXIT_DONE
    card = json.loads((folder / "card.json").read_text())
    for name in ("betas", "eps", "renormalise"):
        del card["settings"][name]
    for name in ("files", SEAL_KEY):
        del card[name]
    (folder / "card.json").write_text(json.dumps({**card, "format_version": 1}))
    config = json.loads((folder / "config.json").read_text())
    earlier = {key: value for key, value in config.items() if key not in ("betas", "eps", "renormalise")}
    (folder / "config.json").write_text(json.dumps(earlier))
    run = checkpoint.load_run(folder)
    assert run.settings.optimizer.betas == (0.9, 0.98)
    assert run.classifier()
    assert train(photos, tiny_model, folder, "--resume") == EXIT_DONE


@pytest.mark.parametrize("betas", [(0.9,), (0.9, 1.0), (-0.1, 0.9), (0.9, 0.98, 0.5), ()])
def test_betas_are_two_numbers_below_one(betas: tuple[float, ...]) -> None:
    config = TrainConfig(data=DataConfig(data=Path("photos")), optimizer=OptimizerConfig(betas=betas))
    with pytest.raises(ConfigError, match="--betas must be two numbers in"):
        validate(config)


def test_the_old_settings_of_a_wise_ft_run_are_filled() -> None:
    from clip_har.methods import create_method

    earlier = {"data": "photos", "rank": 4}
    settings = Settings.from_json({"data": "photos", "source_method": "lora", "source_settings": earlier})
    method = create_method("wise-ft", settings)
    origin: Callable[[], Any] = method.origin  # type: ignore[attr-defined]
    assert origin().settings.lora.renormalise is True and origin().settings.lora.rank == 4
