"""APG: replaces attacked pixels by robust principal components, found by an accelerated proximal gradient method.

Husnoo, Anwar, "Do not get fooled: defense against the one-pixel attack to protect IoT-enabled deep learning systems"
(Ad Hoc Networks 2021). Only a summary of one sentence was available, not the paper. The solver is that of Lin et al.
2009 (UILU-ENG-09-2214), for each channel X of an image:

    min ½‖A + E − X‖² + μ‖A‖* + μ·sparsity·‖E‖₁,  μ ← 0.9 μ in each of `steps` steps

A has low rank and E is sparse. A pixel with |E| > `threshold` in any channel is replaced by that of A in all channels;
the others do not change. Replacing the whole image by A would ruin it, especially with the usual sparsity of 1/√size.
The attacker's gradient is that of the identity (BPDA).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bench.contracts import Images, Streams, Transform

from ._pixels import refuse_nan
from ._ranges import within

DECAY = 0.9
Matrices = Float[Tensor, "n c h w"]


@dataclass(frozen=True)
class APG(Transform):
    """Low rank plus sparse: replaces pixels that do not fit a low-rank image.

    Attributes:
        sparsity: weight of the sparse part relative to the low-rank part, above 0.
        threshold: sparse part above which a pixel is replaced, in [0, 1].
        steps: steps of the solver, at least 10.
    """

    sparsity: float = 0.3
    threshold: float = 0.2
    steps: int = 60

    title = "APG"
    paper = "Husnoo and Anwar 2021 (after a summary)"
    views = ("bpda",)

    def __post_init__(self) -> None:
        within("a sparsity", self.sparsity, 1e-3, 10, "0.3 finds single pixels of a 32×32 image")
        within("a threshold", self.threshold, 0, 1, "0.2 is the default")
        within("a number of steps", self.steps, 10, 10_000, "60 is the default")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The repaired images; raises ValueError for NaN."""
        refuse_nan(images, "apg")
        if not images.numel():
            return images.clone()
        images = images.detach()
        low_rank, sparse = self._separate(images)
        attacked = (sparse.abs() > self.threshold).any(1, keepdim=True)
        return torch.where(attacked, low_rank.clamp(0, 1), images)

    def _separate(self, images: Matrices) -> tuple[Matrices, Matrices]:
        low = low_before = sparse = sparse_before = torch.zeros_like(images)
        strength = 0.99 * torch.linalg.matrix_norm(images, 2)[..., None, None]
        t = t_before = 1.0
        for _ in range(self.steps):
            momentum = (t_before - 1) / t
            low_ahead = low + momentum * (low - low_before)
            sparse_ahead = sparse + momentum * (sparse - sparse_before)
            half = (low_ahead + sparse_ahead - images) / 2
            low_before, sparse_before = low, sparse
            low = _shrink_singular_values(low_ahead - half, strength[..., 0] / 2)
            sparse = _shrink(sparse_ahead - half, self.sparsity * strength / 2)
            t_before, t = t, (1 + (1 + 4 * t**2) ** 0.5) / 2
            strength = strength * DECAY
        return low, sparse


def _shrink(values: Tensor, by: Tensor) -> Tensor:
    return values.sign() * (values.abs() - by).clamp_min(0)


def _shrink_singular_values(matrices: Matrices, by: Tensor) -> Matrices:
    if matrices.shape[-2] < matrices.shape[-1]:
        return _shrink_singular_values(matrices.mT, by).mT
    exact = matrices.double()  # squares in float32 would lose the small values; still faster than an SVD
    squares, vectors = torch.linalg.eigh(exact.mT @ exact)
    values = squares.clamp_min(0).sqrt()
    left = (values - by).clamp_min(0) / values.clamp_min(torch.finfo(values.dtype).tiny)
    return torch.matmul(matrices, ((vectors * left[..., None, :]) @ vectors.mT).to(matrices.dtype))
