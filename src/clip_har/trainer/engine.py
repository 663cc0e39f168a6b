"""Where and in which arithmetic the steps run: devices, autocast, loss scaling and several processes, by accelerate."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

from clip_har import distributed
from clip_har.errors import ConfigError
from clip_har.losses import CAPTION_LOSSES
from clip_har.methods import Batch, Classifier, GradientMethod, Task
from clip_har.methods.caption_loss import asking_for_embeddings, parts_of_step

MIXED = {"float32": "no", "bfloat16": "bf16", "float16": "fp16", "fp16-pure": "no"}
"""Our names of the arithmetic, and accelerate's. The trained weights stay float32 in all but fp16-pure."""
INITIAL_SCALE = 2.0**14


class Objective(nn.Module):
    """A method's loss as a module, so that data-parallel wrappers see every forward pass."""

    def __init__(self, method: GradientMethod, classifier: Classifier, task: Task) -> None:
        super().__init__()
        self.classifier = classifier
        self._method_and_task = (method, task)  # in a tuple, so that nn.Module does not look into it

    def forward(self, batch: Batch) -> Tensor:
        method, task = self._method_and_task
        return method.loss(self.classifier, batch, task).float()


class Engine:
    """Runs one method's optimizer steps.

    Args:
        method, classifier, task: what is trained; the classifier is moved to `device`.
        device: where this process computes.
        precision: "float32", "bfloat16" or "float16" (with loss scaling): the autocast around float32 weights; or
            "fp16-pure": float16 weights under the optimizer, to reproduce the original results.
        compiled: run the objective through torch.compile.
    """

    def __init__(
        self,
        method: GradientMethod,
        classifier: Classifier,
        task: Task,
        *,
        device: torch.device,
        precision: str = "float32",
        compiled: bool = False,
        fsdp: bool = False,
    ) -> None:
        from accelerate import Accelerator  # slow to import, and predicting does not need it
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs, GradScalerKwargs

        AcceleratorState._reset_state(not distributed.launched())  # each training has its own device and precision
        handlers: list[Any] = [
            DistributedDataParallelKwargs(find_unused_parameters=True),
            GradScalerKwargs(init_scale=INITIAL_SCALE),
        ]
        self.device = device
        self.precision = precision
        self._accelerator = Accelerator(
            mixed_precision=MIXED[precision],
            cpu=device.type == "cpu",
            device_placement=False,
            kwargs_handlers=handlers,
        )
        classifier.to(device)
        if precision == "fp16-pure":
            classifier.half()
        self.classifier = classifier
        self._contrasts = "loss" in method.settings_read() and method.settings.lora.loss in CAPTION_LOSSES
        objective: nn.Module = Objective(method, classifier, task)
        self._sharded, self._scalars = shard(objective, device) if fsdp else ([], [])  # type: ignore[arg-type]
        if compiled:
            objective = cast(nn.Module, torch.compile(objective))
        if not fsdp:
            objective = self._accelerator.prepare_model(objective, device_placement=False)
        self._objective = objective
        groups = method.parameter_groups(classifier)
        optimizer = method.settings.optimizer
        first, second = optimizer.betas
        self.optimizer = torch.optim.AdamW(
            groups, betas=(first, second), eps=optimizer.eps, fused=_can_fuse(groups, precision)
        )
        self._experiment = self._accelerator.prepare_optimizer(self.optimizer, device_placement=False)
        self.trained = [parameter for group in groups for parameter in group["params"]]

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """The loss scaler, where the arithmetic is float16."""
        return self._accelerator.scaler  # type: ignore[no-any-return]

    def accumulate(self, batches: list[Batch]) -> float:
        """Forward and backward passes of one optimizer step; the step's loss over all processes' images."""
        self.classifier.train()
        if self._contrasts and len(batches) > 1:
            batches = list(parts_of_step(batches, self._embeddings(batches)))
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(batches):
            last = number == len(batches) - 1
            with self._gradients_exchanged(last), self._accelerator.autocast():
                loss = self._objective(batch)
                self._accelerator.backward(loss)
            total += loss.detach()
        for scalar in self._scalars:
            if scalar.grad is not None:
                scalar.grad = distributed.mean(scalar.grad)
        values = distributed.gather_objects(total.item()) if distributed.world_size() > 1 else [total.item()]
        return sum(values) / len(values)

    @torch.no_grad()
    def _embeddings(self, batches: list[Batch]) -> list[Tensor]:
        """What a loss within the batch contrasts, of each pass: the passes with gradients draw the same again."""
        buffers = dict(self.classifier.named_buffers()) if self.classifier.has_changing_buffers else {}
        before = {key: buffer.clone() for key, buffer in buffers.items()}
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), self._accelerator.autocast():
            embeddings = [self._objective(asking_for_embeddings(batch)) for batch in batches]
        for key, buffer in buffers.items():
            buffer.copy_(before[key])
        return embeddings

    def step(self, gradient_clip: float) -> bool:
        """Clip and step; False, with the weights untouched, where the gradients are not finite.

        With loss scaling an overflow is part of the search for a scale: the step is skipped and counts as taken.
        """
        if self.scaler:
            self._accelerator.unscale_gradients(self._experiment)
        gradients = [parameter for parameter in self.trained if parameter.grad is not None]
        norm = distributed.whole(torch.nn.utils.clip_grad_norm_(gradients, gradient_clip or math.inf))
        if not self.scaler and not math.isfinite(norm.item()):
            return False
        self._experiment.step()
        return not (
            self.scaler and self.scaler.get_scale() < 1
        )  # no scale helps: the gradients themselves are not finite

    @contextlib.contextmanager
    def whole_weights(self) -> Iterator[None]:
        """Every process has all weights inside the with block, to answer and to save; nothing to do unless sharded."""
        for module in self._sharded:
            module.set_reshard_after_forward(False)
            module.unshard()
        try:
            yield
        finally:
            for module in self._sharded:
                module.set_reshard_after_forward(True)
                module.reshard()

    @contextlib.contextmanager
    def _gradients_exchanged(self, last: bool) -> Iterator[None]:
        """Let the processes exchange gradients in the step's last backward pass alone."""
        for module in self._sharded:
            module.set_requires_gradient_sync(last)
        if last or self._sharded:
            yield
        else:
            with self._accelerator.no_sync(self._objective):
                yield


def _can_fuse(groups: list[dict[str, Any]], precision: str) -> bool:
    kinds = {parameter.device.type for group in groups for parameter in group["params"]}
    return kinds <= {"cpu", "cuda", "mps"} and precision != "fp16-pure"


def shard(objective: Objective, device: torch.device) -> tuple[list[Any], list[nn.Parameter]]:
    """Spread an objective's weights over the processes, layer by layer (FSDP: Zhao et al. 2023, arXiv 2304.11277).

    Returns:
        The modules that gather their weights when they are called, and the scalars, which every process keeps whole.

    Raises:
        ConfigError: there is only this process, or nothing worth sharding.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if distributed.world_size() == 1 or objective.classifier.small:
        alone = distributed.world_size() == 1
        raise ConfigError(
            "--fsdp requires more than one process" if alone else "--fsdp has nothing to shard for this method",
            remedy="Launch with torchrun or accelerate launch, or remove --fsdp."
            if alone
            else "Remove it; it is for methods that train the encoders.",
        )
    for parameter in objective.parameters():  # sharding cuts rows, so channels-last weights are put back
        parameter.data = parameter.data.contiguous()
    scalars = [parameter for parameter in objective.parameters() if parameter.ndim == 0]
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    containers = [module for module in objective.modules() if isinstance(module, nn.ModuleList)]
    for layer in (layer for container in reversed(containers) for layer in container):
        if not isinstance(layer, nn.ModuleList):
            fully_shard(layer, mesh=mesh)
    fully_shard(objective, mesh=mesh, ignored_params=set(scalars))
    return [module for module in objective.modules() if isinstance(module, FSDPModule)], scalars
