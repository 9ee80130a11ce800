"""SentiNet: rejects images whose salient region also decides the class of other images.

Chou, Tramèr, Pellegrino, "SentiNet: Detecting Localized Universal Attacks Against Deep Learning Systems"
(arXiv 1812.00292).

    ŷ = argmax f(x);  M = {pixels whose Grad-CAM of ŷ is at least `salient` of the largest}
    fooled = share of clean images o with argmax f(o outside M, x inside M) = ŷ
    confidence = mean over o of max softmax f(o outside M, noise inside M)
    score(x) = fooled − curve(confidence)                                     rejected above the threshold

The curve is a parabola through the clean training images that fool most at each confidence; the threshold is the score
that a stated share of clean training images exceeds (the paper bounds the distance to the curve instead). Grad-CAM
(arXiv 1610.02391) needs a feature map: the last output of a module with more than one place. For a model without one,
such as a linear one, it is the absolute input gradient. Not included: proposals from further classes.

Neither the mask nor the share of fooled images has a gradient. An adaptive attacker takes the mask as fixed, counts on
a few of the clean images as the defense does, and in the backward pass replaces the share by the mean probability of ŷ.
Counting matters: with mean probabilities alone, the attack thinks too early that it is undetected (against LaVAN on
`photos`, the defense then kept 46 % instead of 36 %). A mask that follows the image by a sigmoid of its saliency did
not help the attacker further. An attack that counts on a few still stops too early now and then, so what is left goes
through a second view, which follows the same gradient and counts on all of them, at their full cost. Of 9 CIFAR-10
images, ten pixels by GreedyFool leave 3 by the first and 1 by the second (ResNet-20, 8 overlays).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Artifact, Classifier, Defense, Examples, Images, InputError, Logits, Streams

from ._examples import choose
from ._passes import in_passes
from ._ranges import within
from ._rejection import Detecting, Scores, calibrate, check_calibration
from ._substitute import SubstituteGradient

Masks = Bool[Tensor, "n 1 h w"]
BIN = 0.04
"""Width of the bins of confidence, each of which gives the curve its highest images; as in the reference code."""


@dataclass(frozen=True)
class SentiNet(Defense):
    """SentiNet: rejects images whose salient region also decides the class of other images.

    Attributes:
        salient: share of the largest saliency from which a pixel belongs to the region, in (0, 1].
        overlays: number of clean training images to try the region on, at least 1; each costs two passes.
        seen: number of these that an adaptive attacker differentiates, at least 1.
        false_positive_rate: share of clean training images that the threshold rejects, in (0, 1).
        calibration_images: number of training images for curve and threshold, at least 1.
    """

    salient: float = 0.15
    overlays: int = 50
    seen: int = 4
    false_positive_rate: float = 0.05
    calibration_images: int = 300

    title = "SentiNet"
    paper = "Chou et al. 2020, arXiv 1812.00292"
    kind = "detector"
    presets = {"quick": {"overlays": 16, "calibration_images": 100}, "paper": {"overlays": 100}}

    def __post_init__(self) -> None:
        within("a salient share", self.salient, 0.001, 1, "0.15 keeps what is clearly salient")
        within("overlays", self.overlays, 1, 10_000, "the paper's are 100")
        within("seen overlays", self.seen, 1, self.overlays, "it must not exceed overlays")
        check_calibration(self.false_positive_rate, self.calibration_images)

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """Clean images to try regions on, a pattern of noise, the curve, and the threshold."""
        images, _, streams = choose(training, rng, self.overlays + self.calibration_images, "sentinet")
        if len(images) < 2:
            raise InputError("Expected at least 2 training images for sentinet: to try regions on, and to calibrate.")
        count = min(self.overlays, len(images) // 2)
        noise = streams[:1].derive("noise").uniform(*images.shape[1:])[0].to(images)
        learned = {"overlays": images[:count].clone(), "noise": noise}
        images, streams = images[count:], streams[count:]
        confidence, fooled = _Behaviour(self, model, learned).measure(images, streams)
        learned["curve"] = upper_parabola(confidence, fooled)
        return learned | calibrate(fooled - parabola(learned["curve"], confidence), self.false_positive_rate)

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model that rejects."""
        behaviour = _Behaviour(self, model, learned)
        return Detecting(model, behaviour.score, learned, 3 + 2 * len(learned["overlays"]))

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"]:
        """The salient region."""
        return salient_regions(model, images, rng, self.salient)[1][:, 0]

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """The joint loss on a few overlays, with a fixed mask; its gradient under the true answer; the bare model."""
        score = _Behaviour(self, model, learned | {"overlays": learned["overlays"][: self.seen]}).score
        joint = Detecting(model, score, learned, 3 + 2 * self.seen)
        defended = SubstituteGradient(self.protect(model, learned), lambda images, rng, logits: joint(images, rng))
        return {"joint": joint, "defended": defended, "bare": model}


class _Behaviour(nn.Module):
    """The effect of an image's salient region on other images."""

    def __init__(self, defense: SentiNet, model: Classifier, learned: Artifact) -> None:
        super().__init__()
        self.defense, self.model, self.learned = defense, model, learned

    def score(self, images: Images, logits: Logits, rng: Streams) -> Scores:
        confidence, fooled = self.measure(images, rng)
        return fooled - parabola(self.learned["curve"].to(fooled), confidence)

    def measure(self, images: Images, rng: Streams) -> tuple[Scores, Scores]:
        """Mean confidence with noise in the region, and share of clean images fooled; each in [0, 1].

        The share has the gradient of the mean probability.
        """
        predicted, masks = salient_regions(self.model, images, rng, self.defense.salient)
        overlays = self.learned["overlays"].to(images)
        count = len(overlays)

        def pasted(part: slice, patterns: Tensor) -> Tensor:
            rows = torch.arange(part.start, part.stop, device=images.device)
            image, overlay = rows // count, rows % count
            mixed = torch.where(masks[image], patterns[image], overlays[overlay])
            return self.model(mixed, rng[image].derive(overlay)).softmax(1)

        rows, shape = len(images) * count, tuple(images.shape[1:])
        noise = self.learned["noise"].to(images).expand_as(images)
        with_region = in_passes(lambda part: pasted(part, images), rows, shape)
        with_noise = in_passes(lambda part: pasted(part, noise), rows, shape)
        size = (len(images), count, with_region.shape[1])
        with_region, with_noise = with_region.reshape(size), with_noise.reshape(size)
        classes = predicted[:, None, None].expand(-1, count, 1)
        probability = with_region.gather(2, classes)
        hits = (with_region.argmax(2, keepdim=True) == classes).to(images.dtype) + (probability - probability.detach())
        return with_noise.amax(2).mean(1), hits.mean((1, 2))


def salient_regions(model: Classifier, images: Images, rng: Streams, share: float) -> tuple[Tensor, Masks]:
    """The predicted classes, and the pixels with at least this share of the image's largest saliency."""
    logits, saliency = grad_cam(model, images, rng)
    largest = saliency.amax((1, 2, 3), keepdim=True)
    return logits.argmax(1), (saliency >= share * largest) & (largest > 0)


def grad_cam(model: Classifier, images: Images, rng: Streams) -> tuple[Logits, Float[Tensor, "n 1 h w"]]:
    """The logits, and Grad-CAM of the predicted class: ReLU(Σ_c mean slope_c · feature_c), at the image's size."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
            maps.append(output)

    hooks = [module.register_forward_hook(keep) for module in model.modules() if module is not model]
    try:
        with torch.enable_grad():
            variable = images.detach().requires_grad_()
            logits = model(variable, rng)
            features = maps[-1] if maps else variable
            (slopes,) = torch.autograd.grad(logits.amax(1).sum(), features)
    finally:
        for hook in hooks:
            hook.remove()
    if maps:
        saliency = (slopes.mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    else:
        saliency = slopes.abs().amax(1, keepdim=True)
    return logits.detach(), F.interpolate(saliency.detach(), images.shape[2:], mode="bilinear")


def upper_parabola(across: Scores, up: Scores) -> Float[Tensor, "3"]:
    """The least-squares fit a + b·x + c·x² to the two highest points in each bin of `across`."""
    bins = (across / BIN).long()
    order = up.argsort(descending=True, stable=True)
    order = order[bins[order].argsort(stable=True)]
    ranked = bins[order]
    rank = torch.arange(len(ranked), device=across.device) - torch.searchsorted(ranked, ranked)
    chosen = order[rank < 2]
    powers = across[chosen, None].double() ** torch.arange(3, device=across.device)
    curve: Tensor = torch.linalg.pinv(powers) @ up[chosen].double()
    return curve.to(across.dtype)


def parabola(curve: Float[Tensor, "3"], across: Scores) -> Scores:
    """A + b·x + c·x² for the curve (a, b, c)."""
    return curve[0] + across * (curve[1] + across * curve[2])
