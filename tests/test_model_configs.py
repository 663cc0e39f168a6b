"""Hostile model folders: each is refused in one line, runs no code and asks no network. Models are tiny and random."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from clip_har.backbone import load_backbone
from clip_har.errors import ModelError
from clip_har.pretrained.configs import without_paths

CODE = """
from pathlib import Path
Path({marker!r}).write_text("executed")
from transformers import BertConfig as Config, PreTrainedTokenizerFast as Tokenizer
"""
TOKENIZER = {"tokenizer_class": "PreTrainedTokenizerFast", "auto_map": {"AutoTokenizer": ["hostile.Tokenizer", None]}}


@pytest.fixture
def folder(tiny_model: str, tmp_path: Path) -> Path:
    """A good model's folder, to be spoiled."""
    target = tmp_path / "model"
    shutil.copytree(tiny_model.partition(":")[2], target)
    return target


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once code of a model ran; meanwhile any connection fails the test."""

    def connect(*_arguments: Any) -> NoReturn:
        pytest.fail("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    return tmp_path / "executed"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "open_clip_config.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def text(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, lambda config: config["model_cfg"]["text_cfg"].update(values))


def vision(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, lambda config: config["model_cfg"]["vision_cfg"].update(values))


def write(name: str, content: Any) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))

    return spoil


def together(*spoils: Callable[[Path], None]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        for part in spoils:
            part(folder)

    return spoil


def link_out(folder: Path) -> None:
    (folder.parent / "secret.json").write_text("{}")
    (folder / "tokenizer.json").symlink_to(folder.parent / "secret.json")


def link_folder_out(folder: Path) -> None:
    (folder.parent / "elsewhere").mkdir()
    (folder / "text").symlink_to(folder.parent / "elsewhere")


def link_weights_out(folder: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    weights.rename(folder.parent / "weights.safetensors")
    weights.symlink_to(folder.parent / "weights.safetensors")


def encoder_outside(folder: Path) -> None:
    (folder.parent / "text").mkdir()
    (folder.parent / "text" / "config.json").write_text(json.dumps({"model_type": "bert"}))
    text(hf_model_name="../text")(folder)


class Pickled:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('executed').write_text('executed')",))


def pickled_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    torch.save({"visual.proj": Pickled()}, folder / "open_clip_pytorch_model.bin")


def script_weights(folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    torch.jit.script(torch.nn.Identity()).save(str(folder / "open_clip_pytorch_model.bin"))


def remote_tokenizer(folder: Path) -> None:
    text(hf_tokenizer_name="x", tokenizer_kwargs={"trust_remote_code": True})(folder)
    write("tokenizer_config.json", TOKENIZER)(folder)
    write("hostile.py", CODE.format(marker=str(folder.parent / "executed")))(folder)


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "remote tokenizer": (remote_tokenizer, r"contains Python code: .*hostile\.py"),
    "tokenizer kwargs": (text(tokenizer_kwargs={"trust_remote_code": True}), "trust_remote_code"),
    "bpe path": (text(tokenizer_kwargs={"bpe_path": "/etc/passwd"}), 'unknown key "bpe_path" in tokenizer_kwargs'),
    "kwargs of a wrong type": (text(tokenizer_kwargs={"clean": ["a"]}), 'invalid value for "clean"'),
    "auto_map": (write("tokenizer_config.json", TOKENIZER), "auto_map"),
    "auto_map below": (write("text/config.json", {"a": [{"auto_map": {"AutoModel": "x--y.Z"}}]}), "auto_map"),
    "further configuration": (
        write("config.json", {"model_type": "bert", "configuration_files": ["../config.4.0.0.json"]}),
        "configuration_files",
    ),
    "custom pipelines": (write("config.json", {"custom_pipelines": {"a": {"impl": "x.Y"}}}), "custom_pipelines"),
    "text encoder of the hub": (text(hf_model_name="someone/model"), "outside the model's folder"),
    "text encoder above": (encoder_outside, "outside the model's folder"),
    "tokenizer elsewhere": (text(hf_tokenizer_name="/etc"), "outside the model's folder"),
    "unsupported text encoder": (
        together(text(hf_model_name="text"), write("text/config.json", {"model_type": "detr", "backbone": "a/b"})),
        "text encoder that open_clip does not support",
    ),
    "pretrained text encoder": (text(hf_model_pretrained=True), "asks to download other weights"),
    "timm of the hub": (vision(timm_model_name="hf-hub:someone/model"), "image encoder that timm does not contain"),
    "timm of a folder": (vision(timm_model_name="local-dir:/tmp/model"), "image encoder that timm does not contain"),
    "timm pretrained": (
        vision(timm_model_name="resnet10t", timm_model_pretrained=True),
        "asks to download other weights",
    ),
    "unknown key": (vision(hook="os.system"), 'unknown key "hook" in vision_cfg'),
    "unknown model key": (
        lambda folder: edit(folder, lambda config: config["model_cfg"].update(cast_dtype="x")),
        'unknown key "cast_dtype" in model_cfg',
    ),
    "preprocessing": (
        lambda folder: edit(folder, lambda config: config["preprocess_cfg"].update(mean={"a": 1})),
        'invalid value for "mean" in preprocess_cfg',
    ),
    "deep": (write("tokenizer.json", "[" * 100_000 + "]" * 100_000), "nested too deeply"),
    "fairly deep": (write("tokenizer.json", "[" * 200 + "]" * 200), "nested too deeply"),
    "a list": (write("open_clip_config.json", []), "is not a JSON object"),
    "wrong section": (lambda folder: edit(folder, lambda config: config.update(model_cfg=3)), "no valid model_cfg"),
    "wrong value": (
        lambda folder: edit(folder, lambda config: config["model_cfg"].update(embed_dim="many")),
        "cannot be loaded",
    ),
    "not JSON": (write("tokenizer_config.json", "import os"), "is not readable JSON"),
    "link out": (link_out, "link out of the model's folder"),
    "linked folder": (link_folder_out, "link out of the model's folder"),
    "linked weights": (link_weights_out, "link out of the model's folder"),
    "pickled weights": (pickled_weights, "cannot be loaded"),
    "TorchScript weights": (script_weights, "is a TorchScript archive"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_folder_is_refused(kind: str, folder: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(marker.parent)
    spoil, message = HOSTILE[kind]
    spoil(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_backbone(f"local-dir:{folder}", device="cpu", precision="float32")
    assert "\n" not in str(caught.value)
    assert not marker.exists(), "code of the model was executed"


def test_a_tokenizer_of_the_hub_cannot_run_code_either(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the guard is for: open_clip's own models take tokenizers from the hub, which nobody checks before."""
    from transformers import AutoTokenizer

    from clip_har.pretrained.guards import no_code

    write("model/tokenizer_config.json", TOKENIZER)(tmp_path)
    write("model/hostile.py", CODE.format(marker=str(marker)))(tmp_path)
    with no_code(), pytest.raises(ValueError, match="asks to run Python code"):
        AutoTokenizer.from_pretrained(str(tmp_path / "model"), trust_remote_code=True)
    assert not marker.exists()


def test_a_word_of_a_vocabulary_is_not_taken_for_a_key(folder: Path, marker: Path) -> None:
    write("vocab.json", {"auto_map": 7, "trust_remote_code": 8})(folder)
    assert load_backbone(f"local-dir:{folder}", device="cpu", precision="float32").info.embed_dim == 24


def test_paths_and_kernels_are_dropped_from_the_copies() -> None:
    content = {"vocab_file": "/etc/passwd", "a": [{"attn_implementation": "x/kernel", "b": 1}], "_name_or_path": "x"}
    assert without_paths(content) == {"a": [{"b": 1}]}
