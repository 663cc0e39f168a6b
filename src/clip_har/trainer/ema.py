"""An exponential moving average of the trained weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class MovingAverage:
    """mean <- d * mean + (1 - d) * weights after every step (Polyak & Juditsky 1992; as in Tarvainen & Valpola 2017).

    arXiv 1703.01780. The decay d starts small, min(d, (1 + t) / (10 + t)) after t steps, so that the first weights do
    not linger.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters = list(parameters)
        self.means = [parameter.detach().clone() for parameter in self.parameters]
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after optimizer step `step` (1 for the first)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for mean, parameter in zip(self.means, self.parameters, strict=True):
            mean.lerp_(parameter.detach(), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The averaged weights in the place of the trained ones, inside the with block."""
        kept = [parameter.detach().clone() for parameter in self.parameters]
        self._copy(self.means)
        try:
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, values: Sequence[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)
