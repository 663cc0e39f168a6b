"""Run folders from somebody else: none runs code, fetches anything, or predicts with a model nobody here has named."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from clip_har import checkpoint, commands
from clip_har.config import (
    BackboneConfig,
    DataConfig,
    EvaluateConfig,
    ExplainConfig,
    LoraConfig,
    OptimizerConfig,
    RunModelConfig,
    TrainConfig,
)
from clip_har.errors import UserError
from clip_har.integrity import file_sha256, sealed
from clip_har.predict import Predictor
from samples import MODEL_CONFIG, write_model

Card = dict[str, Any]


class Code:
    """Runs when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return eval, (f"open({str(self.marker)!r}, 'w')",)


@pytest.fixture(scope="module")
def honest(photos: Path, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that reads images, so that its classifier loads the model as well."""
    config = TrainConfig(
        data=DataConfig(data=photos),
        backbone=BackboneConfig(model=tiny_model, workers=0, precision="float32"),
        lora=LoraConfig(placement="attention", rank=2),
        optimizer=OptimizerConfig(epochs=1, batch_size=8),
        out=tmp_path_factory.mktemp("honest") / "run",
    )
    return commands.train(config).folder


@pytest.fixture
def evil(honest: Path, tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run with a copy of its model inside, on a machine without a network."""

    def connect(_self: socket.socket, address: Any) -> None:
        (tmp_path / "connected").write_text(repr(address))
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", connect)
    shutil.copytree(honest, tmp_path / "evil")
    shutil.copytree(tiny_model.partition(":")[2], tmp_path / "evil" / "model")
    return tmp_path / "evil"


def forge(run: Path, change: Callable[[Card], None]) -> None:
    """Change the card and seal it again, as somebody who knows how would."""
    card = json.loads((run / "card.json").read_text())
    change(card)
    names = card["files"]
    (run / "card.json").write_text(json.dumps(sealed(card)))
    if isinstance(names, dict) and all("/" not in name for name in names):
        card["files"] = {name: file_sha256(run / name) for name in names if (run / name).is_file()}
        (run / "card.json").write_text(json.dumps(sealed(card)))


def named(name: str) -> Callable[[Card], None]:
    def change(card: Card) -> None:
        card["backbone"]["name"] = name

    return change


def remote_code(run: Path) -> None:
    config = json.loads(json.dumps(MODEL_CONFIG))
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "tokenizer",
        "tokenizer_kwargs": {"trust_remote_code": True},
    }
    (run / "model" / "open_clip_config.json").write_text(json.dumps(config))
    auto_map = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (run / "model" / "tokenizer_config.json").write_text(json.dumps(auto_map))
    (run / "model" / "evil.py").write_text(f"open({str(run.parent / 'executed')!r}, 'w')\n")
    forge(run, named(f"local-dir:{run / 'model'}"))


def other_weights(run: Path) -> None:
    (run / "model").rename(run / "other")
    (run / "model").mkdir()
    write_model(run / "model", MODEL_CONFIG, seed=7)
    forge(run, named(f"local-dir:{run / 'model'}"))


def same_weights_elsewhere(run: Path) -> None:
    forge(run, named(f"local-dir:{run / 'model'}"))


def stated_fingerprint(run: Path) -> None:
    from clip_har.pretrained import fingerprint

    def change(card: Card) -> None:
        named(f"local-dir:{run / 'model'}")(card)
        card["backbone"]["files_sha256"] = fingerprint(card["backbone"]["name"])

    forge(run, change)


def hub(run: Path) -> None:
    forge(run, named("hf-hub:someone/repository"))


def built_in_not_on_disk(run: Path) -> None:
    forge(run, named("ViT-B/32"))


def tokenizer_of_the_hub(run: Path) -> None:
    forge(run, named("ViT-B-16-SigLIP:webli"))


def pickled_model(run: Path) -> None:
    torch.save({"state_dict": Code(run.parent / "executed")}, run / "model.pt")
    forge(run, named(str(run / "model.pt")))


def pickled_weights_of_a_known_architecture(run: Path) -> None:
    torch.save({"state_dict": Code(run.parent / "executed")}, run / "model.pt")
    forge(run, named(f"ViT-B-32:{run / 'model.pt'}"))


def pickled_adapter(run: Path) -> None:
    torch.save({"x": Code(run.parent / "executed")}, run / "adapter_model.safetensors")
    forge(run, lambda card: None)


def pickled_prompts(run: Path) -> None:
    torch.save({"prompts_CD": Code(run.parent / "executed")}, run / "prompts.safetensors")
    forge(run, lambda card: None)


def known_model_altered(run: Path) -> None:
    """The model that the user has named, and somebody has changed since."""
    folder = run / "model"
    tensors = load_file(folder / "open_clip_model.safetensors")
    from clip_har.known_models import load_named

    load_named(f"local-dir:{folder}", device="cpu", precision="float32")
    save_file({key: value + 1 for key, value in tensors.items()}, folder / "open_clip_model.safetensors")
    forge(run, named(f"local-dir:{folder}"))


def outside(run: Path) -> None:
    forge(run, lambda card: card["files"].update({"../../etc/passwd": "0" * 64}))


def nested(run: Path) -> None:
    (run / "card.json").write_text('{"a":' * 200_000)


def wrong_types(run: Path) -> None:
    forge(run, lambda card: card.update(classes={"a": 1}, templates=3, settings=[], seed="x"))


def unknown_method(run: Path) -> None:
    forge(run, lambda card: card.update(method="os.system"))


def huge_rank(run: Path) -> None:
    forge(run, lambda card: card["settings"].update(rank=10**9))


def rank_of_another_type(run: Path) -> None:
    forge(run, lambda card: card["settings"].update(rank="2; import os"))


def huge_images(run: Path) -> None:
    forge(run, lambda card: card["preprocessing"].update(image_size=[10**6, 10**6]))


def other_classes(run: Path) -> None:
    forge(run, lambda card: card.update(classes=["a", "b"]))


HOSTILE = (
    remote_code,
    other_weights,
    same_weights_elsewhere,
    stated_fingerprint,
    hub,
    built_in_not_on_disk,
    tokenizer_of_the_hub,
    pickled_model,
    pickled_weights_of_a_known_architecture,
    pickled_adapter,
    pickled_prompts,
    known_model_altered,
    outside,
    nested,
    wrong_types,
    unknown_method,
    huge_rank,
    rank_of_another_type,
    huge_images,
    other_classes,
)


@pytest.mark.parametrize("prepare", HOSTILE, ids=lambda prepare: prepare.__name__)
def test_a_hostile_run_neither_runs_code_nor_fetches_nor_predicts(
    prepare: Callable[[Path], None], evil: Path, photos: Path, tmp_path: Path
) -> None:
    prepare(evil)
    data = DataConfig(data=photos)
    backbone = BackboneConfig(workers=0, precision="float32")
    image = next((photos / "test").rglob("*.jpg"))
    for command in (
        lambda: list(Predictor(evil, device="cpu", precision="float32").predict([image])),
        lambda: commands.evaluate(EvaluateConfig(data=data, backbone=backbone, checkpoint=evil, out=tmp_path / "e")),
        lambda: commands.explain(
            evil,
            ExplainConfig(
                data=photos,
                model=RunModelConfig(precision="float32"),
                workers=0,
                out=tmp_path / "x",
                limit=1,
                maps=False,
            ),
        ),
    ):
        with pytest.raises(UserError) as caught:
            command()
        assert "\n" not in str(caught.value) and caught.value.remedy
    assert not (tmp_path / "executed").exists(), "code of the folder was run"
    assert not (tmp_path / "connected").exists(), "the network was asked"


def test_the_same_run_predicts_once_the_user_names_its_model(evil: Path, photos: Path, honest: Path) -> None:
    same_weights_elsewhere(evil)
    image = next((photos / "test").rglob("*.jpg"))
    name = f"local-dir:{evil / 'model'}"
    (expected,) = Predictor(honest, device="cpu", precision="float32").predict([image])
    (first,) = Predictor(evil, model=name, device="cpu", precision="float32").predict([image])
    (later,) = Predictor(evil, device="cpu", precision="float32").predict([image])
    assert expected.top == first.top == later.top


def test_a_refusal_names_the_model_and_the_flag(evil: Path) -> None:
    hub(evil)
    with pytest.raises(UserError, match=r"hf-hub:someone/repository, which has not been used.* --model hf-hub:some"):
        Predictor(evil, device="cpu")


def test_the_honest_run_loads(honest: Path) -> None:
    assert checkpoint.load_run(honest).classifier().training is False
