"""`clip-har models`: the listing, its output as tables and JSON, and its speed measurement."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from clip_har import cli, encoder_speed, model_listing
from clip_har.backbone import load_backbone
from clip_har.config import ModelsConfig
from clip_har.console.model_tables import model_tables
from clip_har.errors import ConfigError, ModelError
from clip_har.model_listing import list_models
from clip_har.pretrained.architectures import listed_weights
from clip_har.pretrained.catalogue import CURATED


def listed(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    """What the command prints as JSON."""
    assert cli.main(["models", "--json", *flags]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys)
    assert set(found) == {"about", "models"}
    assert found["about"]["batch_size"] == 32 and found["about"]["probed_with"] is None
    assert [model["name"] for model in found["models"]] == list(CURATED)
    kinds: dict[str, Any] = {
        "name": str,
        "meaning": str,
        "image_parameters": int,
        "text_parameters": int,
        "embed_dim": int,
        "image_size": int,
        "gflops": float,
        "data": str,
        "licence": str,
        "research_only": (bool, type(None)),
        "gpu_memory_bytes": dict,
        "cpu_memory_bytes": dict,
        "on_disk": bool,
        "weights": (str, type(None)),
        "images_per_second": type(None),
        "encoder_images_per_second": type(None),
    }
    for model in found["models"]:
        assert set(model) == set(kinds)
        assert all(isinstance(model[key], kind) for key, kind in kinds.items())
        gpu, cpu = model["gpu_memory_bytes"], model["cpu_memory_bytes"]
        assert 0 < gpu["cached"] < gpu["lora"] < gpu["full"] <= cpu["full"]
        assert gpu["cached"] < cpu["cached"] < cpu["lora"] < cpu["full"]
        assert model["on_disk"] == (model["name"] == "demo") == (model["weights"] is not None)


def test_particular_models_and_all(capsys: pytest.CaptureFixture[str], tiny_model: str) -> None:
    assert [m["name"] for m in listed(capsys, "--model", f"siglip,{tiny_model}", "--model", "RN50")["models"]] == [
        "siglip",
        tiny_model,
        "RN50",
    ]
    everything = [model["name"] for model in listed(capsys, "--all")["models"]]
    assert everything == list(listed_weights())
    assert len(everything) > 100 and "ViT-B-32:openai" in everything


def test_memory_grows_with_the_batch_except_on_cached_features() -> None:
    small, large = (
        list_models(ModelsConfig(model=("ViT-B/32",), batch_size=size)).models[0].gpu_memory for size in (32, 64)
    )
    assert small.cached == large.cached and small.lora < large.lora and small.full < large.full


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("names", [None, ("coca_ViT-B-32:mscoco_finetuned_laion2b_s13b_b90k",)])
def test_tables_fit_the_terminal(width: int, names: tuple[str, ...] | None) -> None:
    console = Console(file=io.StringIO(), width=width)
    for table in model_tables(list_models(ModelsConfig(model=names))):
        console.print(table)
    stream = console.file
    assert isinstance(stream, io.StringIO)
    lines = stream.getvalue().splitlines()
    assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
    if names is None:
        starts = {line.split()[0] for line in lines if line.strip()}
        assert set(CURATED) <= starts
        (row,) = (line for line in lines if line.startswith("ViT-B/32 ") and "87.8" in line)
        assert row.split()[1:6] == ["87.8", "63.4", "512", "224", "4.4"]


def test_tables_say_what_excludes_commercial_use(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", "--model", "metaclip,mobileclip2,siglip2"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "CC BY-NC 4.0, no commercial use" in text and "research only" in text and "Apache-2.0" in text


def test_the_command_is_quick_and_asks_no_network() -> None:
    program = """
import socket, sys
def refuse(*_): raise AssertionError("the network was asked")
socket.socket.connect = socket.getaddrinfo = refuse
from clip_har import cli
code = cli.main(["models", "--all"])
sys.exit(code or bool({"torch", "open_clip", "transformers"} & set(sys.modules)))
"""
    assert subprocess.run([sys.executable, "-c", program], stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "sigl1p"], "Unknown model 'sigl1p'. Did you mean siglip?"),
        (["--model", "hf-hub:someone/thing"], "Nothing is known of hf-hub:someone/thing before it is downloaded"),
        (["--model", "local-dir:/no/such"], "contains no open_clip model"),
        (["--batch-size", "0"], "--batch-size must be"),
        (["--model", "demo", "--probe", "--device", "telepathy"], "--device telepathy cannot be used"),
        (["--modl", "demo"], "--modl"),
    ],
)
def test_errors_are_one_line(flags: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["models", *flags]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and len(printed.err.strip().splitlines()) == 1 and printed.out == ""


# --- speed ------------------------------------------------------------------------------------------------


def test_the_probe_measures_what_is_on_disk(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(model_listing, "PROBE_SECONDS", 0.01)
    flags = ("--probe", "--device", "cpu", "--precision", "float32", "--model", f"{tiny_model},siglip")
    found = listed(capsys, *flags)
    tiny, absent = found["models"]
    assert tiny["images_per_second"] > 0 and absent["images_per_second"] is None
    assert found["about"]["probed_with"] == "cpu, float32"


def test_the_default_model_is_probed_with_random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    probed = []

    def random_backbone(architecture: str, **settings: Any) -> Any:
        probed.append((architecture, settings["precision"]))
        return load_backbone("demo", device="cpu", precision="float32")

    monkeypatch.setattr(model_listing, "PROBE_SECONDS", 0.01)
    monkeypatch.setattr(encoder_speed, "random_backbone", random_backbone)
    monkeypatch.setattr(encoder_speed, "worker_count", lambda _: 0)
    config = ModelsConfig(model=("ViT-B/32", "RN50"), probe=True, device="cpu", precision="float32")
    first, second = list_models(config).models
    assert probed == [("ViT-B-32", "float32")]
    assert first.images_per_second is not None and first.encoder_images_per_second is not None
    assert second.images_per_second is None and second.encoder_images_per_second is None


def test_a_model_that_cannot_be_loaded_is_a_warning(
    tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(tiny_model.partition(":")[2])
    for name in ("open_clip_config.json", "tokenizer.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "open_clip_model.safetensors").write_bytes(b"damaged")
    assert cli.main(["models", "--probe", "--device", "cpu", "--json", "--model", f"local-dir:{tmp_path}"]) == 0
    printed = capsys.readouterr()
    assert "cannot be loaded" in printed.err
    assert json.loads(printed.out)["models"][0]["images_per_second"] is None


def test_the_rate_counts_the_images_that_were_encoded(tiny_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(tiny_model, device="cpu", precision="float32")
    clock, sizes, encode = [0.0], [], backbone.encode_images

    def slow(images_BCHW: torch.Tensor) -> Any:
        sizes.append(len(images_BCHW))
        clock[0] += len(images_BCHW) / 40  # a machine that encodes 40 images a second
        return encode(images_BCHW)

    monkeypatch.setattr(backbone, "encode_images", slow)
    monkeypatch.setattr("clip_har.encoder_speed.time.perf_counter", lambda: clock[0])
    assert encoder_speed.images_per_second(backbone) == pytest.approx(40)
    assert sizes == [2, 16, 16]
    sizes.clear()
    assert encoder_speed.images_per_second(backbone, seconds=1.9) == pytest.approx(40)
    assert sizes == [16] * 6, "the first pass is not counted"


def test_the_rate_from_files_counts_what_is_read_after_the_batches_decoded_in_advance(
    tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(tiny_model, device="cpu", precision="float32")
    clock, sizes, encode = [0.0], [], backbone.encode_images

    def slow(images_BCHW: torch.Tensor) -> Any:
        sizes.append(len(images_BCHW))
        clock[0] += len(images_BCHW) / (400 if len(sizes) < 5 else 40)  # the first four were decoded before
        return encode(images_BCHW)

    monkeypatch.setattr(backbone, "encode_images", slow)
    monkeypatch.setattr("clip_har.encoder_speed.time.perf_counter", lambda: clock[0])
    rate = encoder_speed.file_images_per_second(backbone, file_size=(40, 30), seconds=1.0, workers=2)
    assert rate == pytest.approx(40)
    assert sizes == [16] * 7


def test_a_random_encoder_has_the_shape_of_the_architecture() -> None:
    backbone = encoder_speed.random_backbone("ViT-B-32", device="cpu", precision="float32")
    assert backbone.info.preprocessing.image_size == (224, 224)
    assert backbone.encode_images(torch.zeros(1, 3, 224, 224)).embedding_BD.shape == (1, 512)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="--batch-size must be"):
        list_models(ModelsConfig(batch_size=0))
    with pytest.raises(ModelError, match="Unknown model"):
        list_models(ModelsConfig(model=("nothing-like-it",)))
