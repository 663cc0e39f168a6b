"""What the command line leaves out of open_clip, and that models which need it still get it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clip_har.light_imports import needs_all
from samples import MODEL_CONFIG, write_model

LOAD = """
import json, sys
from clip_har import light_imports
light_imports.enable()
from clip_har.backbone import load_backbone
plain, other = sys.argv[1:]
found = []
for name in (plain, other, plain):
    backbone = load_backbone(name, device="cpu", precision="float32")
    embedding = backbone.encode_text(["a person running"])
    images = __import__("torch").zeros(1, 3, *backbone.info.preprocessing.image_size)
    answer = backbone.encode_images(images).embedding_BD.tolist()
    found.append([light_imports.is_incomplete(), "timm" in sys.modules, answer])
print(json.dumps(found))
"""


def test_a_tower_of_another_library_is_completed_after_a_plain_one(tmp_path: Path, tiny_model: str) -> None:
    config: dict[str, Any] = json.loads(json.dumps(MODEL_CONFIG))
    model = config["model_cfg"]
    vision = {"timm_model_name": "resnet10t", "timm_model_pretrained": False, "timm_pool": "avg", "timm_proj": "linear"}
    model["vision_cfg"] = {**vision, "image_size": model["vision_cfg"]["image_size"]}
    other = write_model(tmp_path, config, seed=1)
    command = [sys.executable, "-c", LOAD, tiny_model, other]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    first, second, third = json.loads(found.stdout)
    assert first[:2] == [True, False] and second[:2] == [False, True] and third[0] is False
    assert first[2] == third[2] != second[2]


@pytest.mark.parametrize(
    ("config", "needed"),
    [
        ({"vision_cfg": {"layers": 2}, "text_cfg": {"hf_tokenizer_name": "x"}}, False),
        ({"vision_cfg": {"timm_model_name": "resnet10t"}, "text_cfg": {}}, True),
        ({"vision_cfg": {}, "text_cfg": {"hf_model_name": "bert"}}, True),
    ],
)
def test_what_a_folder_needs_is_read_from_its_configuration(
    config: dict[str, Any], needed: bool, tmp_path: Path
) -> None:
    path = tmp_path / "open_clip_config.json"
    path.write_text(json.dumps({"model_cfg": config}))
    assert needs_all(f"local-dir:{tmp_path}") is needed
    path.write_text(path.read_text().replace("timm_model", "t\\u0069mm_model"))  # an escape could hide a key
    assert needs_all(f"local-dir:{tmp_path}") is needed


def test_names_are_looked_up_and_doubt_means_everything() -> None:
    assert not needs_all("ViT-B-32") and not needs_all("RN50") and not needs_all("")
    assert needs_all("ViT-B-16-SigLIP") and needs_all("roberta-ViT-B-32") and needs_all("convnext_base")
    assert needs_all("hf-hub:someone/model") and needs_all("no-such-model")


LATER = """
import sys
from clip_har import light_imports
light_imports.enable()
open_clip = light_imports.import_open_clip()
assert not {"huggingface_hub", "torchvision.models", "torchvision.datasets", "timm"} & set(sys.modules)
import huggingface_hub, torchvision.datasets, torchvision.models
huggingface_hub.hf_hub_download = lambda *given, **options: f"{given} {sorted(options)}"
assert open_clip.pretrained.has_hf_hub(True) and torchvision.models.resnet18 and torchvision.datasets.ImageFolder
print(open_clip.pretrained.hf_hub_download("repository", "file", revision="main"))
"""


def test_what_was_left_out_can_be_imported_later() -> None:
    found = subprocess.run([sys.executable, "-c", LATER], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "('repository', 'file') ['library_name', 'library_version', 'revision']"


EXTRAS = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocked())
import clip_har
from clip_har import cli, commands
from clip_har.embedding import command
from clip_har.experiment import predict_files
for name in clip_har.__all__:
    getattr(clip_har, name)
print(sorted(set(sys.argv[2].split(",")) & sys.modules.keys()))
"""
PACKAGES = (
    *("aiohttp", "av", "cleanlab", "faiss", "fastapi", "kagglehub", "mkdocs", "onnx", "onnxruntime", "onnxscript"),
    *("optuna", "pillow_heif", "prometheus_client", "pyarrow", "ray", "s3fs", "sqlalchemy", "tensorboard", "umap"),
    *("uvicorn", "wandb"),
)
"""What the extras install; fsspec and others also come with torch."""


def test_commands_need_no_extra_to_be_imported() -> None:
    names = ",".join(PACKAGES)
    command = [sys.executable, "-c", EXTRAS, names, names]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert found.stdout.strip() == "[]"
