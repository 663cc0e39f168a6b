"""LoRA in the encoders (--placement attention or all), through PEFT: training it, and PEFT's own files of it.

Which layers get it is in lora_targets.py, their faster forward pass in lora_attention.py, and LoRA on the output
embeddings in embedding_lora.py.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from clip_har.backbone import Backbone
from clip_har.config import AugmentSettings, Defaults, LoraSettings, OptimizerSettings, Settings, TrainConfig
from clip_har.errors import ConfigError
from clip_har.methods.base import OF_GRADIENT_METHODS, Batch, Classifier, ClassifierContext, GradientMethod, Task
from clip_har.methods.labelled_images import InputKind
from clip_har.methods.learning_rates import tower_groups
from clip_har.methods.lora_targets import ADAPTER, Targets, find_targets, fused_layers
from clip_har.methods.sigmoid_loss import start_bias
from clip_har.methods.towers import Towers, default_lr, towers_loss

if TYPE_CHECKING:
    from peft import LoraConfig

_PREFIX = "base_model.model."
"""Before every name in a file of PEFT's."""


class TowerLora(GradientMethod):
    """W x + s B A x in the towers' layers, W frozen (Hu et al. 2021, arXiv 2106.09685, eq. 3), s = alpha / sqrt(r).

    As CLIP-LoRA (Zanella & Ben Ayed 2024, arXiv 2405.18541): rank 2 on query, key and value of every layer of both
    towers, B starts at zero, and the images are classified by the prompts. It has an A for each of the three, which is
    --separate-qkv here, and takes s = 1 / sqrt(2), dropout 0.25, lr 2e-4 and 500 steps per shot, as the preset
    clip-lora does; the scale and learning rates here cover as much ground in a few hundred steps.
    """

    name = "lora"
    refits = True
    refits_by_default = False
    cheaper_rival = "linear-probe"
    source = "arXiv 2106.09685, 2405.18541"
    weights_file = "adapter_model.safetensors"

    @classmethod
    def defaults(cls, given: TrainConfig, backbone: Backbone) -> Defaults:
        towers = given.lora.towers or LoraSettings().towers
        return Defaults(
            lora=LoraSettings(rank=2, alpha=4.0, dropout=0.0, rslora=True),
            optimizer=OptimizerSettings(
                epochs=10,
                batch_size=32,
                lr=default_lr(backbone, transformer=5e-4, convolutional=6e-3),
                warmup_epochs=0.5,
            ),
            augmentation=AugmentSettings(augment="light", text_augment="text" in towers),
        )

    @classmethod
    def reads(cls, config: TrainConfig | Settings) -> InputKind:
        del config
        return "image"

    @classmethod
    def settings_read(cls) -> frozenset[str]:
        own = {item.name for item in dataclasses.fields(LoraSettings)} - {"renormalise"}
        return OF_GRADIENT_METHODS - {"views"} | own

    def shown_settings(self) -> dict[str, Any]:
        return {"placement": self.settings.lora.placement, "loss": self.settings.lora.loss}

    def build(self, task: Task) -> Towers:
        from clip_har.methods.lora_attention import make_attention_separate, make_readable  # peft takes seconds

        classifier, targets = self._towers(task)
        if self.settings.lora.loss == "sigmoid":
            classifier.sigmoid_bias = start_bias(task)
        self._inject(classifier.model, targets.called + targets.read)
        if self.settings.lora.separate_qkv:
            make_attention_separate(classifier.model)
        make_readable(classifier.model, targets.read)
        generator = torch.Generator().manual_seed(task.seed)
        for name, parameter in classifier.model.named_parameters():
            if ".lora_A." in name:  # as PEFT draws it, but from the run's seed
                drawn = nn.init.kaiming_uniform_(torch.empty(parameter.shape), a=math.sqrt(5), generator=generator)
                parameter.data.copy_(drawn)
        return classifier

    def restore(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> Towers:
        classifier = self._empty(frame)
        own = self.tensors(classifier)
        if different := sorted(own.keys() ^ tensors.keys()):
            raise KeyError(f"not the tensors of this adapter: {different[0]}")
        state = classifier.state_dict()
        for key, tensor in tensors.items():
            if own[key].shape != tensor.shape:
                raise RuntimeError(f"{key} has the shape {tuple(tensor.shape)}, not {tuple(own[key].shape)}")
            if ".base_layer.out_proj.lora_B." in key and tensor.any():
                raise RuntimeError(f"{key} is not zero")  # FastAttention says why it has to be
            state[self.state_key(key)].copy_(tensor)
        return classifier

    def parameter_groups(self, classifier: Classifier) -> list[dict[str, Any]]:
        assert isinstance(classifier, Towers)
        return tower_groups(classifier.model, self.settings.optimizer)

    def loss(self, classifier: Classifier, batch: Batch, task: Task) -> Tensor:
        assert isinstance(classifier, Towers)
        return towers_loss(classifier, batch, self.settings)

    def tensors(self, classifier: Classifier) -> dict[str, Tensor]:
        """What PEFT saves: A and B, and whole the merged weights of linear layers that are read but never called.

        PEFT has no low-rank form for those that its own forward pass would heed.
        """
        from clip_har.methods.lora_attention import SeparateAttention, block_diagonal

        assert isinstance(classifier, Towers)
        model = classifier.model
        read = _saved_whole(model)
        inside_read = tuple(f"{name}." for name in read)
        saved: dict[str, Tensor] = {
            _without_adapter(name): parameter
            for name, parameter in model.named_parameters()
            if ".lora_" in name and not name.startswith(inside_read)
        }
        for name, module in model.named_modules():
            if isinstance(module, SeparateAttention):
                saved[f"{name}.lora_B.weight"] = block_diagonal(module.lora_B[ADAPTER].weight)
        for name in read:
            layer = cast(nn.Linear, model.get_submodule(name))
            saved |= {f"{name}.weight": layer.weight}
            saved |= {f"{name}.bias": layer.bias} if layer.bias is not None else {}
        return {_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in saved.items()}

    def model_state(self, classifier: Classifier) -> dict[str, Tensor]:
        """With W + s B A in place of each adapted weight W."""
        from clip_har.methods.lora_attention import merged_state

        assert isinstance(classifier, Towers)
        return merged_state(classifier.model)

    def state_key(self, key: str) -> str:
        own = re.sub(r"(\.lora_[AB])\.weight$", rf"\1.{ADAPTER}.weight", key.removeprefix(_PREFIX))
        return "model." + re.sub(r"(\.lora_magnitude_vector)$", rf"\1.{ADAPTER}.weight", own)

    def extra_files(self, classifier: Classifier, backbone_name: str) -> dict[str, Mapping[str, Any]]:
        """PEFT's adapter_config.json: the adapter fits the backbone as open_clip loads it."""
        assert isinstance(classifier, Towers)
        model = classifier.model
        read = _saved_whole(model)
        adapted = [name for name, module in model.named_modules() if hasattr(module, "lora_A")]
        config = {**_config(model).to_dict(), "base_model_name_or_path": backbone_name, "inference_mode": True}
        config["target_modules"] = _pattern([n for n in adapted if n not in read and ".base_layer." not in n])
        config["modules_to_save"] = read or None
        return {"adapter_config.json": {key: list(v) if isinstance(v, set) else v for key, v in config.items()}}

    def zero_shot_tensors(self, frame: ClassifierContext, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The same A, B = 0 and the backbone's own weights: on the way there the update shrinks evenly."""
        start = self.tensors(self._empty(frame))
        return {key: tensors[key] if ".lora_A." in key else tensor for key, tensor in start.items()}

    def _empty(self, frame: ClassifierContext) -> Towers:
        """A classifier to load saved tensors into: layers that are saved whole have no adapter."""
        classifier, targets = self._towers(frame)
        self._inject(classifier.model, targets.called)
        _config(classifier.model).modules_to_save = targets.read or None
        return classifier

    def _towers(self, frame: ClassifierContext) -> tuple[Towers, Targets]:
        """The towers before any adapter, and which of their layers get one."""
        towers = self.settings.lora.towers
        backbone = frame.load_backbone()
        train_batchnorm = self.settings.optimizer.train_batchnorm
        classifier = Towers(frame, backbone, train_text="text" in towers, train_batchnorm=train_batchnorm)
        targets = find_targets(
            classifier,
            backbone.info.preprocessing.image_size,
            towers=towers,
            placement=self.settings.lora.placement,
            layers=self.settings.lora.layers,
        )
        self._require_fitting_rank(classifier.model, targets)
        merged = [n for n in targets.called if isinstance(classifier.model.get_submodule(n), nn.MultiheadAttention)]
        if self.settings.lora.dora and (merged or targets.read):
            name = (merged + targets.read)[0]
            raise ConfigError(f"PEFT has no DoRA for layers such as {name}", remedy="Remove --dora.")
        if self.settings.lora.separate_qkv and (fused := fused_layers(classifier.model, targets)):
            raise ConfigError(
                f"--separate-qkv cannot separate {fused[0]}, a linear layer for query, key and value",
                remedy="Remove --separate-qkv, or use a model of open_clip's own architecture such as ViT-B/32.",
            )
        return classifier, targets

    def _require_fitting_rank(self, model: nn.Module, targets: Targets) -> None:
        """An update of a rank above a layer's width costs memory and adds nothing."""
        modules = [model.get_submodule(name) for name in (*targets.called, *targets.read)]
        shapes = [tuple(p.shape) for module in modules for p in module.parameters(recurse=False) if p.ndim > 1]
        widest = max((min(shape[0], math.prod(shape[1:])) for shape in shapes), default=0)
        rank = self.settings.lora.rank
        if widest and rank > widest:
            raise ConfigError(
                f"--rank {rank} exceeds the width of the widest adapted layer, {widest}",
                remedy="Use a smaller --rank.",
            )

    def _inject(self, model: nn.Module, names: Sequence[str]) -> None:
        import peft

        from clip_har.methods.lora_attention import make_attention_fast

        lora = self.settings.lora
        merged = [name for name in names if isinstance(model.get_submodule(name), nn.MultiheadAttention)]
        tripled = _pattern(merged) if lora.separate_qkv and merged else None  # to PEFT one pair of rank 3r, s the same
        config = peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            use_rslora=lora.rslora,
            use_dora=lora.dora,
            rank_pattern={tripled: 3 * lora.rank} if tripled else {},
            alpha_pattern={tripled: lora.alpha * (math.sqrt(3) if lora.rslora else 3)} if tripled else {},
            target_modules=_pattern(names),
        )
        peft.inject_adapter_in_model(config, model, ADAPTER)
        make_attention_fast(model)


def _config(model: nn.Module) -> LoraConfig:
    return cast(Any, model).peft_config[ADAPTER]


def _saved_whole(model: nn.Module) -> list[str]:
    """Names of the layers whose merged weights are saved: adapted ones before, plain ones after loading."""
    from clip_har.methods.lora_attention import ReadableLinear

    adapted = [name for name, module in model.named_modules() if isinstance(module, ReadableLinear)]
    return adapted or list(_config(model).modules_to_save or [])


def _without_adapter(name: str) -> str:
    """PEFT's name of a parameter in its files."""
    return name.replace(f".lora_magnitude_vector.{ADAPTER}.weight", ".lora_magnitude_vector").replace(
        f".{ADAPTER}.", "."
    )


def _pattern(names: Sequence[str]) -> str:
    """A regular expression for exactly these modules: in a list, PEFT would take each name for an ending too."""
    return "|".join(map(re.escape, names))
