"""AdamW on the one-cycle schedule, by torch's functional AdamW.

``torch.optim.AdamW`` computes the same (a test compares them, and the schedule with
``OneCycleLR``), but imports torch's compiler, which takes longer than a fifth of the training.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch.optim.adamw import adamw

BETA2, EPSILON = 0.999, 1e-8  # the defaults of torch's AdamW
# Those of OneCycleLR (Smith and Topin 2017): the rate rises for the first part of the steps and
# falls for the rest, along a cosine; the momentum goes the other way.
RISING, START, END = 0.3, 1 / 25, 1 / 25e4
MOMENTUM = (0.85, 0.95)


def one_cycle(step: int, total: int, learning_rate: float) -> tuple[float, float]:
    """Return learning rate and momentum (beta1) of a step, counted from 0.

    Parameters
    ----------
    total
        Steps of the whole cycle.
    learning_rate
        The highest rate.
    """
    low, high = MOMENTUM
    rise = RISING * total - 1
    if step <= rise:
        return (
            _cosine(START * learning_rate, learning_rate, step / rise),
            _cosine(high, low, step / rise),
        )
    share = (step - rise) / (total - 1 - rise)
    return _cosine(learning_rate, END * learning_rate, share), _cosine(low, high, share)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


class AdamW:
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) whose rate follows ``one_cycle``.

    Parameters
    ----------
    parameters
        What is trained.
    total
        Steps of the schedule.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        learning_rate: float,
        weight_decay: float,
        total: int,
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate, self.weight_decay, self.total = learning_rate, weight_decay, total
        self.done = 0
        self.mean = [torch.zeros_like(p) for p in self.parameters]
        self.square = [torch.zeros_like(p) for p in self.parameters]
        self.count = [torch.zeros(()) for _ in self.parameters]

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change every parameter that has a gradient."""
        rate, beta1 = one_cycle(self.done, self.total, self.learning_rate)
        used = [i for i, p in enumerate(self.parameters) if p.grad is not None]
        adamw(
            [self.parameters[i] for i in used],
            [g for i in used if (g := self.parameters[i].grad) is not None],
            [self.mean[i] for i in used],
            [self.square[i] for i in used],
            [],
            [self.count[i] for i in used],
            foreach=True,
            amsgrad=False,
            beta1=beta1,
            beta2=BETA2,
            lr=rate,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )
        self.done += 1
