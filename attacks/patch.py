"""Adversarial patch: one picture that fools the model wherever it lies (Brown et al. 2017, arXiv 1712.09665).
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from bench.contracts import Artifact, Goal, Images, Model, Streams, UniversalAttack

from ._paste import Placed, paste
from ._steps import Loss, losses
from ._update import Mover, Update


@dataclass(frozen=True)
class AdversarialPatch(Placed, UniversalAttack):
    """One learned picture that fools the model wherever it lies.
    """

    steps: int = 200
    batch_size: int = 64
    update: Update = "sign"
    step_size: float = 0.05
    momentum: float = 0.9
    loss: Loss = "cross-entropy"
    restarts: int = 1
    training_images: int = 500
    smoothness: float = 0.0
    confidence: float = 1e9
    init: float = 0.5
    decay: float=1.0

    title = "Patch"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}}
    access = "gradients"

    def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Artifact:
        side = self.side(*images.shape[2:])
        g=rng[:1].derive("init").uniform(images.shape[1],side,side)[0].to(images.dtype)
        patch = .5+ (g-.5)*self.init
        mover = Mover(self.update, self.step_size, self.momentum)
        order = torch.cat([rng[:1].derive(e).permutations(len(images))[0] for e in range(1+self.steps*self.batch_size//len(images))])
        for step in range(self.steps):
            rows = order[step*self.batch_size:(step+1)*self.batch_size]
            streams = rng[rows].derive(f"step {step}")
            variable = patch.detach().requires_grad_()
            pasted = paste(images[rows], variable, self.place(images[rows], streams))
            logits = model[rows](pasted)
            l = losses(self.loss, goal[rows], logits)
            loss = l.clamp(min=-self.confidence).mean()
            (gradient,) = torch.autograd.grad(loss, variable)
            t=step/self.steps
            patch = mover(patch, gradient, 1-self.decay*t)
        return {"patch": patch}

    def apply(self, artifact: Artifact, images: Images, goal: Goal, rng: Streams) -> Images:
        return paste(images, artifact["patch"].to(images), self.place(images, rng.derive("placement")))
