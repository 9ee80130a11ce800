"""JPEG compression: discards detail that the eye does not see, and with it faint perturbations.

Dziugaite, Ghahramani, Roy 2016 (arXiv 1608.00853); Das et al. 2018 (arXiv 1802.06816); Guo et al. 2018
(arXiv 1711.00117) with quality 75, also the codec's default; Naseer et al. (arXiv 1807.01216) compare with qualities
from 80 down to 10, and with 30.

    JPEG(x) = decode(encode(round(255 x), quality)) / 255        4:2:0, the standard tables, libjpeg

Images are rounded to 8 bits, not truncated, which would darken every adversarial image by half a level. Grey images are
coded as grey. Rounding has no gradient, so the attacker gets the exact forward pass and, backwards, the gradient of a
JPEG with smooth rounding (BPDA with a substitute). The identity, which Athalye et al. and the papers use, is a much
weaker attack: ResNet-20 on CIFAR-10 behind quality 30 keeps 37 % against it and 3 % against the substitute (I-FGSM,
4/255).

OpenCV's libjpeg produces the same bytes and pixels as Pillow's, in two thirds of the time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from bench.contracts import Images, NotApplicableError, Streams, Transform

from ._pixels import for_each, refuse_nan
from ._ranges import within
from ._soft_jpeg import soft_jpeg

LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)


@dataclass(frozen=True)
class JPEG(Transform):
    """JPEG compression: removes fine detail.

    Attributes:
        quality: from 1 (coarse) to 95 (fine).
    """

    quality: int = 75

    title = "JPEG"
    paper = "Dziugaite et al. 2016, arXiv 1608.00853; Guo et al. 2018, arXiv 1711.00117"
    views = ("bpda",)
    presets = {"paper": {"quality": 30}}

    def __post_init__(self) -> None:
        within("a quality", self.quality, 1, 95, "the papers use 10 to 80")

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises NotApplicableError for images that are neither grey nor RGB."""
        if image_shape[0] not in (1, 3):
            raise NotApplicableError(f"JPEG is for images of 1 or 3 channels; these have {image_shape[0]}.")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The images after encoding and decoding; raises ValueError for NaN."""
        refuse_nan(images, "JPEG")
        if not images.numel():
            return images.clone()
        return for_each(self._code, images.detach().float().cpu()).to(images)

    def backward(self, images: Images, gradient: Images) -> Images:
        """The gradient of a smooth JPEG at `images`."""
        with torch.enable_grad():
            variable = images.detach().requires_grad_()
            return torch.autograd.grad(soft_jpeg(variable, self.quality), variable, gradient)[0]

    def _code(self, image: NDArray[np.float32]) -> NDArray[Any]:
        """Encodes and decodes one image, shape (c, h, w), in [0, 1]."""
        channels, _, width = image.shape
        levels = cv2.convertScaleAbs(image.reshape(-1, width), alpha=255).reshape(image.shape)
        # OpenCV expects blue, green, red.
        _, coded = cv2.imencode(".jpg", cv2.merge(list(levels[::-1])), [cv2.IMWRITE_JPEG_QUALITY, self.quality])
        pixels = cv2.imdecode(coded, cv2.IMREAD_COLOR if channels == 3 else cv2.IMREAD_GRAYSCALE)
        values = cv2.LUT(np.asarray(pixels), LEVELS).reshape(*image.shape[1:], channels)
        return values.transpose(2, 0, 1)[::-1]
