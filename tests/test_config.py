"""Each setting is explained, files and flags fill the same ones, and what cannot work is refused at once."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from clip_har import cli, commands, config
from clip_har.cli import app as cli_app
from clip_har.cli.data import data_app
from clip_har.cli.flags import CONFIG_TYPES
from clip_har.config import (
    METHOD_NAMES,
    AugmentConfig,
    BackboneConfig,
    CompareConfig,
    DataConfig,
    Defaults,
    EngineConfig,
    EvaluateConfig,
    LoraConfig,
    OptimizerConfig,
    OptimizerSettings,
    TrainConfig,
    apply_preset,
    flat_fields,
    load_config_file,
    resolve,
    to_flat_json,
    validate,
)
from clip_har.errors import ConfigError
from clip_har.methods import METHODS

Command = TrainConfig | EvaluateConfig | CompareConfig
COMMANDS: dict[str, type] = {"train": TrainConfig, "evaluate": EvaluateConfig, "compare": CompareConfig}
HISTORIC = {
    "model_name": "ViT-B/16",
    "learning_rate": 5e-5,
    "batch_size": 32,
    "epochs": 10,
    "weight_decay": 0.02,
    "warmup_epochs": 2,
    "optimization": {
        "vision_lr_multiplier": 0.1,
        "text_lr_multiplier": 0.2,
        "projection_lr_multiplier": 3.0,
    },
}
DATA = DataConfig(
    data=Path("my photos"),
    val_fraction=0.2,
    test_fraction=0.1,
    split_seed=4,
    manifest=Path("split.csv"),
    set_aside=("test", "val"),
    unreadable_limit=0.5,
)
BACKBONE = BackboneConfig(
    model="ViT-B-32:laion2b_s34b_b79k",
    templates=("a photo, {}", "-- {}"),
    phrasings="har",
    device="cuda:1",
    precision="bfloat16",
    encode_batch_size=7,
    workers=0,
    cache=Path("a cache"),
    offline=True,
)
LORA = LoraConfig(
    placement="attention",
    towers=("text",),
    rank=3,
    alpha=1.5,
    dropout=0.0,
    rslora=True,
    dora=False,
    separate_qkv=True,
    layers="last:2",
    renormalise=True,
    loss="supcon",
)
AUGMENTATION = AugmentConfig(
    augment="strong",
    views=2,
    train_image_size=160,
    text_augment=True,
    label_smoothing=0.0,
    mixup=0.0,
    hard_pairs=0.25,
    hard_pairs_every=2,
    hard_margin=0.1,
)
ENGINE = EngineConfig(
    activation_checkpointing=True,
    compile=True,
    fsdp=True,
    save_steps=7,
    tensorboard=True,
    wandb=True,
    decoded_cache=True,
    layer_cache=False,
)
OPTIMIZER = OptimizerConfig(
    epochs=2,
    batch_size=9,
    lr=1e-05,
    weight_decay=0.0,
    warmup_epochs=0.5,
    gradient_clip=0.0,
    betas=(0.8, 0.95),
    eps=1e-6,
    vision_lr_multiplier=0.1,
    text_lr_multiplier=0.2,
    projection_lr_multiplier=0.3,
    accumulate=2,
    warmup_steps=3,
    layer_decay=0.9,
    ema=0.99,
    patience=3,
    train_batchnorm=True,
)
FULL: dict[str, Command] = {
    "train": TrainConfig(
        data=DATA,
        backbone=BACKBONE,
        method="two-tier",
        preset="augmented",
        lora=LORA,
        optimizer=OPTIMIZER,
        augmentation=AUGMENTATION,
        engine=ENGINE,
        start_from=Path("runs/full"),
        shots=4,
        features="pre-projection",
        budget="minutes",
        members=("gda", "ridge"),
        refit=True,
        hold_out=("calling", "texting"),
        seed=5,
        out=Path("out"),
    ),
    "evaluate": EvaluateConfig(
        data=DATA,
        backbone=BACKBONE,
        checkpoint=Path("runs/lora"),
        out=Path("out"),
        seed=5,
        robustness=True,
        corruptions=("jpeg", "rotation"),
        severities=(3, 5),
        robustness_images=20,
        shift=Path("other"),
        explain=3,
        audit=Path("audit.json"),
    ),
    "compare": CompareConfig(
        data=DATA,
        backbone=BACKBONE,
        models=("ViT-B/16", "local-dir:a model"),
        methods=("lora", "zero-shot"),
        lora=LORA,
        optimizer=OPTIMIZER,
        augmentation=AUGMENTATION,
        engine=ENGINE,
        start_from=Path("runs/full"),
        budget="small",
        shots=4,
        features="pre-projection",
        members=("gda", "ridge"),
        refit=True,
        hold_out=("calling", "texting"),
        seeds=(5, 6),
        out=Path("out"),
    ),
}


class ReachedError(Exception):
    """Raised where a command would start its work."""


@pytest.fixture(name="parse")
def fixture_parse(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Parse a command line as `clip-har` does: its words -> the config that the workflow would get."""
    seen: list[Command] = []

    def workflow(given: Command, **_: object) -> None:
        validate(given)
        seen.append(given)
        raise ReachedError

    for name in COMMANDS:
        monkeypatch.setattr(commands, name, workflow)

    def parse(*tokens: str) -> Command:
        with pytest.raises(ReachedError):
            cli.run_command(tokens)
        return seen.pop()

    return parse


@pytest.fixture(name="write")
def fixture_write(tmp_path: Path) -> Callable[..., Path]:
    """Write a config file: text as it is, anything else as JSON."""

    def write(content: object, name: str = "settings.json") -> Path:
        path = tmp_path / name
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refusal(path: Path, config_type: type = TrainConfig) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config_file(path, config_type)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# The tree of settings


GROUPS = {
    *("DataConfig", "BackboneConfig", "LoraConfig", "OptimizerConfig", "AugmentConfig", "EngineConfig"),
    *("RunModelConfig", "DataConfig | None", "AuditSettings", "AuditSettings | None", "AuditLimits"),
}


def config_classes() -> Iterator[ast.ClassDef]:
    for module in (config.groups, config.commands, config.data_commands):
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
        yield from (node for node in tree.body if isinstance(node, ast.ClassDef) and node.name.endswith("Config"))


@pytest.mark.parametrize("node", list(config_classes()), ids=lambda node: node.name)
def test_every_setting_has_a_docstring(node: ast.ClassDef) -> None:
    assert ast.get_docstring(node)
    for statement, following in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.annotation) not in GROUPS:
            explained = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            assert explained, f"{node.name}.{ast.unparse(statement.target)} has no docstring"


@pytest.mark.parametrize("config_type", COMMANDS.values(), ids=COMMANDS)
def test_flat_names_are_unique_and_are_those_of_the_json(config_type: type) -> None:
    names = [field.name for field in flat_fields(config_type)]
    assert len(set(names)) == len(names)
    assert names == list(to_flat_json(config_type(data=DATA)))


@pytest.mark.parametrize("config_type", COMMANDS.values(), ids=COMMANDS)
def test_configs_are_frozen_and_keyword_only(config_type: type) -> None:
    with pytest.raises(TypeError):
        config_type(DATA)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config_type(data=DATA).seed = 1


def test_method_names_are_those_of_the_methods() -> None:
    assert set(METHOD_NAMES) == set(METHODS)
    assert set(CompareConfig(data=DATA).methods) <= set(METHODS)


# Files


def test_a_historic_config_loads(write: Callable[..., Path], parse: Callable[..., TrainConfig]) -> None:
    assert load_config_file(write(HISTORIC), TrainConfig) == {
        "model": "ViT-B/16",
        "lr": 5e-5,
        "batch_size": 32,
        "epochs": 10,
        "weight_decay": 0.02,
        "warmup_epochs": 2,
        "vision_lr_multiplier": 0.1,
        "text_lr_multiplier": 0.2,
        "projection_lr_multiplier": 3.0,
    }
    parsed = parse("train", "--data", "photos", "--config", str(write(HISTORIC)))
    assert parsed == TrainConfig(
        data=DataConfig(data=Path("photos")),
        backbone=BackboneConfig(model="ViT-B/16"),
        optimizer=OptimizerConfig(
            epochs=10,
            batch_size=32,
            lr=5e-5,
            weight_decay=0.02,
            warmup_epochs=2,
            vision_lr_multiplier=0.1,
            text_lr_multiplier=0.2,
            projection_lr_multiplier=3.0,
        ),
    )


@pytest.mark.parametrize(("kind", "command"), [("toml", "train"), ("json", "compare")])
def test_the_config_files_of_the_documentation_are_read(
    kind: str, command: str, tmp_path: Path, parse: Callable[..., Command]
) -> None:
    page = (Path(__file__).parent.parent / "docs" / "guide" / "train.md").read_text(encoding="utf-8")
    path = tmp_path / f"{command}.{kind}"
    path.write_text(page.partition(f"```{kind}\n")[2].partition("```")[0], encoding="utf-8")
    config = parse(command, "--config", str(path))
    validate(config)
    flat = {key: value for key, value in to_flat_json(config).items() if value is not None}
    given = load_config_file(path, type(config))
    assert len(given) >= 7 and given.items() <= flat.items()


def test_a_key_that_is_used_under_another_name_is_told(write: Callable[..., Path]) -> None:
    said: list[str] = []
    path = write({"learning-rate": 0.1, "model_name": "RN50", "batch-size": 8, "seed": 3})
    assert load_config_file(path, CompareConfig, note=said.append)["seeds"] == 3
    assert said == [f"{path}: read learning-rate as lr, model_name as model, seed as seeds"]
    load_config_file(
        write({"batch-size": 8, "data": "photos", "lr": 0.1, "model_name": None}), TrainConfig, note=said.append
    )
    load_config_file(write(HISTORIC), TrainConfig, note=said.append)
    assert not any("read " in line for line in said[1:])


def test_json_and_toml_and_all_spellings_mean_the_same(write: Callable[..., Path]) -> None:
    expected = {"batch_size": 8, "model": "RN50", "lr": 0.5, "vision_lr_multiplier": 2.0}
    toml = 'batch-size = 8\nmodel-name = "RN50"\nlearning_rate = 0.5\n[optimization]\nvision-lr_multiplier = 2.0\n'
    files = [
        write(expected),
        write({key.replace("_", "-"): value for key, value in expected.items()}, "hyphens.json"),
        write(expected, "settings"),
        write("\ufeff" + json.dumps(expected), "from_windows.json"),
        write(toml, "settings.toml"),
        write(toml, "SETTINGS.TOML"),
    ]
    assert [load_config_file(path, TrainConfig) for path in files] == [expected] * len(files)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("full", [True, False], ids=["all settings", "defaults"])
def test_a_resolved_config_reads_back_the_same(
    command: str, full: bool, write: Callable[..., Path], parse: Callable[..., Command]
) -> None:
    original = FULL[command] if full else COMMANDS[command](data=DataConfig(data=Path("photos")))
    assert parse(command, "--config", str(write(to_flat_json(original)))) == original


def test_the_full_configs_leave_no_setting_at_its_default() -> None:
    for command, given in FULL.items():
        flat, default = to_flat_json(given), to_flat_json(COMMANDS[command](data=DataConfig(data=Path())))
        assert {name for name in flat if flat[name] == default[name]} <= {"resume"}


def test_a_null_counts_as_not_given(write: Callable[..., Path]) -> None:
    assert load_config_file(write({"model": None, "epochs": 3, "cache": None}), TrainConfig) == {"epochs": 3}


def test_resuming_is_for_the_command_line_alone(write: Callable[..., Path], parse: Callable[..., TrainConfig]) -> None:
    path = write(to_flat_json(TrainConfig(data=DATA, resume=True)))
    assert not parse("train", "--config", str(path)).resume
    assert parse("train", "--config", str(path), "--resume").resume


def test_flags_win_over_the_file(write: Callable[..., Path], parse: Callable[..., TrainConfig]) -> None:
    path = write({"data": "from file", "epochs": 3, "batch_size": 4, "templates": ["one {}", "two {}"]})
    flags = ("--epochs", "7", "--templates", "mine {}")
    for tokens in (("--config", str(path), *flags), (*flags, f"--config={path}")):
        parsed = parse("train", *tokens)
        assert (parsed.optimizer.epochs, parsed.optimizer.batch_size) == (7, 4)
        assert parsed.backbone.templates == ("mine {}",)
        assert parsed.data.data == Path("from file")
    assert parse("train", "--data", "x", "--batch_size", "5", "--weight-decay", "0").optimizer == (
        OptimizerConfig(batch_size=5, weight_decay=0.0)
    )


def test_every_unknown_key_is_named_with_the_nearest_known_one(write: Callable[..., Path]) -> None:
    wrong = {
        "epochs": 1,
        "epoch": 2,
        "batchsize": 3,
        "learning-rat": 0.1,
        "lora": {"rank": 8},
        "optimization": {"lr": 1.0},
        "zebra": None,
    }
    said = refusal(write(wrong))
    for problem in (
        "unknown key 'epoch' (did you mean 'epochs'?)",
        "unknown key 'batchsize' (did you mean 'batch_size'?)",
        "unknown key 'learning-rat' (did you mean 'learning_rate'?)",
        "unknown key 'lora.rank' (did you mean 'rank'?)",
        "unknown key 'optimization.lr' (did you mean 'lr'?)",
        "unknown key 'zebra'.",
    ):
        assert problem in said
    assert said.count("unknown key") == 6
    assert "settings.json" in said


def test_a_setting_of_another_command_is_called_so(write: Callable[..., Path]) -> None:
    said = refusal(write({"epochs": 3, "checkpoint": "runs/a", "learning_rate": 0.1}), EvaluateConfig)
    assert "'epochs' is not a setting of this command" in said
    assert "'learning_rate' is not a setting of this command" in said
    assert "checkpoint" not in said


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ('{"lr": 1, }', "a.json", "is not valid JSON"),
        ("", "a.json", "is not valid JSON"),
        ("lr = = 1", "a.toml", "is not valid TOML"),
        ('{"lr": 1, "lr": 2}', "a.json", "the key 'lr' is given twice"),
        ("lr = 1\nlr = 2", "a.toml", "is not valid TOML"),
        ('{"batch-size": 1, "batch_size": 2}', "a.json", "'batch_size' is given twice"),
        ('{"lr": 1, "learning_rate": 2}', "a.json", "'learning_rate' is given twice"),
        ("[1, 2]", "a.json", "contains no settings"),
        ("null", "a.json", "contains no settings"),
        ("[" * 100_000, "a.json", "is not valid JSON"),
    ],
)
def test_files_that_are_no_settings_are_refused(content: str, name: str, said: str, write: Callable[..., Path]) -> None:
    assert said in refusal(write(content, name))


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.json").write_bytes(b'{"model": "caf\xe9"}')
    for path in (tmp_path / "missing.json", tmp_path, tmp_path / "latin.json", Path("a\0b")):
        assert "Cannot read the config file" in refusal(path)


# What is refused


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", "many"),
        ("epochs", 1.5),
        ("epochs", True),
        ("epochs", [1, 2]),
        ("epochs", math.nan),
        ("rank", math.inf),
        ("lr", "fast"),
        ("lr", [0.1]),
        ("lr", math.nan),
        ("method", "lorra"),
        ("precision", "bf16"),
        ("data", ["a", "b"]),
    ],
)
def test_a_wrong_type_in_a_file_is_one_line_and_exit_code_2(
    key: str, value: object, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write({"data": "photos", key: value})
    assert cli.main(["train", "--config", str(path)]) == cli.EXIT_USER_INPUT
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("clip-har: ") and printed.err.count("\n") == 1
    assert key in printed.err


@pytest.mark.parametrize(
    ("text", "number"),
    [("15", 15), ("15.0", 15), ("1e2", 100), ("1.5", None), ("many", None), ("nan", None), ("inf", None)],
)
def test_whole_numbers(
    text: str, number: int | None, parse: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    if number is not None:
        assert parse("train", "--data", "photos", "--epochs", text).optimizer.epochs == number
    else:
        assert cli.main(["train", "--data", "photos", "--epochs", text]) == cli.EXIT_USER_INPUT
        assert f'--epochs: unable to convert "{text}" into int' in capsys.readouterr().err


def with_setting(name: str, value: object) -> Command:
    """A config that has this one setting, with this value; the others at their defaults."""
    config_type = next(
        config_type
        for config_type in COMMANDS.values()
        if any(field.name == name for field in flat_fields(config_type))
    )
    given: Any = config_type(data=DATA)
    for field in dataclasses.fields(given):
        group = getattr(given, field.name)
        if dataclasses.is_dataclass(group) and hasattr(group, name):
            name, value = field.name, dataclasses.replace(group, **{name: value})  # type: ignore[type-var]
            break
    changed: Command = dataclasses.replace(given, **{name: value})
    return changed


def number_settings(kind: str) -> list[str]:
    fields = [field for config_type in COMMANDS.values() for field in flat_fields(config_type)]
    return sorted({field.name for field in fields if field.type in (kind, f"{kind} | None")})


def test_the_defaults_are_valid() -> None:
    for config_type in COMMANDS.values():
        validate(config_type(data=DATA))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0])
@pytest.mark.parametrize("name", number_settings("float"))
def test_no_fraction_rate_or_factor_may_be_negative_or_not_finite(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be "):
        validate(with_setting(name, value))


@pytest.mark.parametrize("name", number_settings("WholeNumber"))
def test_no_whole_number_may_be_below_minus_one(name: str) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be "):
        validate(with_setting(name, -2))


def test_all_numbers_are_among_those_tested() -> None:
    assert {"lr", "val_fraction", "dropout"} <= set(number_settings("float"))
    assert {"epochs", "seed", "workers", "rank"} <= set(number_settings("WholeNumber"))
    assert number_settings("int") == []  # cyclopts rounds what is given for these


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("val_fraction", [1e-6, 0.5], [0, 0.500001]),
        ("test_fraction", [1e-6, 0.5], [0, 0.500001]),
        ("unreadable_limit", [0, 1], [1.01]),
        ("dropout", [0, 0.99], [1]),
        ("alpha", [0.1], [0]),
        ("lr", [1e-12], [0]),
        ("weight_decay", [0], []),
        ("gradient_clip", [0], []),
        ("eps", [1e-12], [0]),
        ("vision_lr_multiplier", [0], []),
        ("epochs", [1], [0]),
        ("batch_size", [1], [0]),
        ("encode_batch_size", [1], [0]),
        ("rank", [1], [0]),
        ("workers", [-1, 0, 64], []),
        ("layer_decay", [0.1, 1], [0, 1.01]),
        ("ema", [0, 0.9999], [1]),
        ("label_smoothing", [0, 0.99], [-0.1, 1]),
        ("mixup", [0, 2], [-0.1]),
        ("hard_pairs", [0, 1], [1.01]),
        ("hard_margin", [0, 1], [1.01]),
        ("views", [1], [0]),
        ("train_image_size", [16], [15]),
        ("shots", [1], [0]),
        ("accumulate", [1], [0]),
        ("save_steps", [1], [0]),
        ("layers", ["all", "last:1", "last:12"], ["last:0", "first:2", "last:"]),
        ("seed", [0, 2**32 - 1], [-1, 2**32]),
        ("split_seed", [0, 2**32 - 1], [-1, 2**32]),
    ],
)
def test_the_ends_of_each_range(name: str, allowed: list[float], refused: list[float]) -> None:
    for value in allowed:
        validate(with_setting(name, value))
    for value in refused:
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} must be .*, not {value}"):
            validate(with_setting(name, value))


def test_all_problems_are_reported_at_once() -> None:
    wrong = CompareConfig(
        data=DataConfig(data=Path("photos"), val_fraction=0.9),
        optimizer=OptimizerConfig(epochs=0, lr=math.nan),
        lora=LoraConfig(rank=0),
        methods=("lora", "lora"),
    )
    with pytest.raises(ConfigError) as caught:
        validate(wrong)
    for flag in ("--val-fraction", "--epochs", "--lr", "--rank", "--methods"):
        assert flag in caught.value.what
    assert caught.value.what.count(";") == 4 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("zero-shot,lorra", "unknown method 'lorra': did you mean 'lora'?"),
        ("magic", "choose from zero-shot, lora, linear-probe"),
        (" , ", "no method is given"),
    ],
)
def test_methods_that_do_not_exist(given: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--data", "photos", "--methods", given]) == cli.EXIT_USER_INPUT
    assert said in capsys.readouterr().err


def test_methods_are_separated_by_commas(parse: Callable[..., CompareConfig], write: Callable[..., Path]) -> None:
    asked = ("lora", "zero-shot")
    assert parse("compare", "--data", "photos", "--methods", "lora, zero-shot,").methods == asked
    for given in (list(asked), "lora,zero-shot"):
        path = write({"data": "photos", "methods": given})
        assert parse("compare", "--config", str(path)).methods == asked


# Every command

POSITIONAL = {
    "explain": ["run"],
    "predict": ["run", "a.jpg"],
    "video": ["run", "a.mp4"],
    "serve": ["run"],
    "import": ["a.pt"],
    "export": ["run"],
    "data fetch": ["har"],
}
ASKED: dict[str, dict[str, Any]] = {
    "quickstart": {"out": "q", "methods": ["zero-shot"], "seed": 3},
    "train": {"data": "photos", "epochs": 3, "rank": 2},
    "evaluate": {"data": "photos", "severities": [1, 2]},
    "compare": {"data": "photos", "seeds": [3, 4], "models": ["demo", "RN50"]},
    "sweep": {"data": "photos", "trials": 4, "metric": "macro-f1", "jobs": 2},
    "prompts": {"data": "photos", "out": "p"},
    "models": {"model": ["siglip", "ViT-B/32"], "batch_size": 8, "probe": True},
    "explain": {"data": "photos", "limit": 3, "maps": False, "device": "cpu", "workers": 0},
    "predict": {"top": 2, "accuracy": 0.9, "json": True, "precision": "float32", "engine": "ray"},
    "video": {"rate": 1.5, "out": ["a.srt", "b.png"], "mean_span": 5.0, "json": True, "device": "cpu"},
    "embed": {"out": "e", "part": "1/4", "features": "both", "shard_size": 10, "offline": True, "engine": "ray"},
    "serve": {"port": 0, "api_key_file": "key", "batch_wait": 0.01, "max_images": 2, "device": "cpu"},
    "import": {"data": "photos", "split_seed": 3, "classes": ["a", "b"], "alpha": 2.0, "model": "demo"},
    "export": {"format": "hub", "out": "o", "min_agreement": 0.9, "certificate": False, "push": "a/b", "json": True},
    "data fetch": {"source": "hub", "out": "h"},
    "data audit": {"embeddings": False, "min_side": 32, "max_leaks": 2, "html": "a.html", "json": "a.json"},
    "data clean": {"plan": "p.csv", "workers": 2, "relabel_suspects": True},
    "data split": {"folds": 3, "group_by": ["near-duplicates", "g.csv"], "set_aside": ["val"], "pool": True},
    "data verify": {"manifest": "m.csv", "strict": True},
}


def test_every_command_is_among_those_tested() -> None:
    assert set(ASKED) == {" ".join(words) for words in CONFIG_TYPES}
    shown = {name for name in cli_app.app if not name.startswith("-")}
    within = {f"data {name}" for name in data_app if not name.startswith("-")}
    assert (shown - {"data"}) | within == set(ASKED)


@pytest.mark.parametrize("command", ASKED)
def test_every_command_takes_its_settings_from_a_file_or_from_flags(
    command: str, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given, words = ASKED[command], tuple(command.split())
    path = write({name: value for name, value in given.items() if value is not None})
    positional = POSITIONAL.get(command, ["photos"] if words[0] == "data" else [])
    flags = []
    for name, value in given.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            flags.append(f"{flag}={','.join(map(str, value)) if isinstance(value, list) else value}")

    def parsed(*arguments: str) -> Any:
        found: list[Any] = []

        def called(_: Any, bound: inspect.BoundArguments, __: Any) -> tuple[Callable[..., int], Any, Any]:
            found.append(bound.arguments.get("config") or CONFIG_TYPES[words]())
            raise ReachedError

        real = type(cli_app.app).parse_args
        monkeypatch.setattr(type(cli_app.app), "parse_args", lambda *a, **k: called(*real(*a, **k)))
        with pytest.raises(ReachedError):
            cli.run_command([*words, *positional, *arguments])
        monkeypatch.undo()
        return found.pop()

    from_file, from_flags = parsed("--config", str(path)), parsed(*flags)
    assert from_file == from_flags and type(from_file) is CONFIG_TYPES[words]
    assert from_file != parsed(*(["--plan=x"] if command == "data clean" else NEEDED.get(command, ["--out=other"])))


NEEDED = {"predict": [], "models": [], "serve": [], "data audit": [], "data verify": ["--manifest=x"]} | {
    name: ["--data=other"] for name in ("train", "evaluate", "compare", "sweep", "prompts")
}


@pytest.mark.parametrize("command", ASKED)
def test_a_key_that_is_not_a_setting_is_named(
    command: str, write: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write({"spead": 1})
    positional = POSITIONAL.get(command, ["photos"] if command.startswith("data") else [])
    assert cli.main([*command.split(), *positional, "--config", str(path)]) == cli.EXIT_USER_INPUT
    assert "unknown key 'spead'" in capsys.readouterr().err


# Presets, and what decides a setting


def test_every_preset_says_its_command_and_loads() -> None:
    assert {"lora", "lora-attention", "lora-all", "augmented", "full", "two-tier"} <= set(config.preset_names())
    for name in config.preset_names():
        assert config.load_preset(name)["method"] in METHOD_NAMES
        header = (config.converters.PRESET_FOLDER / f"{name}.toml").read_text(encoding="utf-8").split("\n\n")[0]
        assert header.startswith("# ") and f"--preset {name}" in header, name


def test_a_preset_fills_what_is_not_given() -> None:
    given = TrainConfig(data=DATA, method="augmented", augmentation=AugmentConfig(views=7))
    filled = apply_preset(given)
    assert (filled.method, filled.preset) == ("lora", "augmented")
    assert filled.augmentation.augment == "strong" and filled.augmentation.views == 7
    assert apply_preset(TrainConfig(data=DATA, preset="augmented", augmentation=AugmentConfig(views=7))) == filled
    assert apply_preset(TrainConfig(data=DATA, method="full")) == TrainConfig(data=DATA, method="full")


def test_what_is_given_wins_over_the_method_and_that_over_the_base() -> None:
    given = TrainConfig(data=DATA, optimizer=OptimizerConfig(lr=0.5))
    settled = resolve(given, Defaults(optimizer=OptimizerSettings(lr=0.1, epochs=3)))
    optimizer = settled.optimizer
    assert (optimizer.lr, optimizer.epochs, optimizer.batch_size) == (0.5, 3, 64)
    open_ended = {"model", "cache", "preset", "start_from", "shots", "out", "warmup_steps", "train_image_size"}
    open_ended |= {"hold_out", "phrasings"}
    assert {name for name, value in settled.to_json().items() if value is None} <= open_ended


@pytest.mark.parametrize("flag", ["--seed", "--seeds"])
def test_seeds_are_separated_by_commas(
    flag: str, parse: Callable[..., CompareConfig], write: Callable[..., Path]
) -> None:
    assert parse("compare", "--data", "photos", flag, "3,1").seeds == (3, 1)
    assert parse("compare", "--config", str(write({"data": "photos", "seed": 4}))).seeds == (4,)


@pytest.mark.parametrize(
    ("given", "shots", "compared"),
    [(16, 16, (16,)), ("16", 16, (16,)), ("8,1,2", (8, 1, 2), (1, 2, 8)), ([4, 1], (4, 1), (1, 4))],
)
def test_one_number_of_shots_or_several(
    given: Any, shots: Any, compared: Any, parse: Callable[..., CompareConfig], write: Callable[..., Path]
) -> None:
    read = parse("compare", "--config", str(write({"data": "photos", "shots": given})))
    assert (read.shots, read.shots_compared) == (shots, compared)
    if isinstance(given, str):
        assert parse("compare", "--data", "photos", "--shots", given).shots == shots


def test_shots_that_cannot_be_compared(capsys: pytest.CaptureFixture[str]) -> None:
    for shots, said in (((1, 0), "--shots must be at least 1, not"), ((2, 2), "--shots lists a number twice")):
        with pytest.raises(ConfigError, match=said):
            validate(CompareConfig(data=DATA, shots=shots))
    assert cli.main(["compare", "--data", "x", "--shots", "1,two"]) == cli.EXIT_USER_INPUT
    assert "shots are whole numbers separated by commas" in capsys.readouterr().err
    assert cli.main(["train", "--data", "x", "--shots", "1,2"]) == cli.EXIT_USER_INPUT
    assert CompareConfig(data=DATA).shots_compared == ()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mixup": 0.2, "hard_pairs": 0.5}, "--mixup and --hard-pairs cannot be combined"),
        ({"mixup": 0.2, "loss": "supcon"}, "--mixup requires --loss cross-entropy or sigmoid"),
        ({"label_smoothing": 0.1, "loss": "infonce"}, "--label-smoothing requires --loss cross-entropy or sigmoid"),
        ({"placement": "all", "renormalise": False}, "--no-renormalise requires --placement embedding, not all"),
        ({"towers": ("image", "audio")}, "--towers must be image, text or both"),
        ({"batch_size": "large"}, None),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], said: str | None) -> None:
    lora = {name: value for name, value in settings.items() if name in ("loss", "towers", "placement", "renormalise")}
    of_augmentation = ("mixup", "hard_pairs", "label_smoothing")
    augmentation = {name: value for name, value in settings.items() if name in of_augmentation}
    if said is None:
        assert cli.main(["train", "--data", "x", "--batch-size", settings["batch_size"]]) == cli.EXIT_USER_INPUT
        return
    given = TrainConfig(data=DATA, lora=LoraConfig(**lora), augmentation=AugmentConfig(**augmentation))
    with pytest.raises(ConfigError, match=said):
        validate(given)
