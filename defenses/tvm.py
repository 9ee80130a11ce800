"""Total variation minimisation: the image with the least total variation that is still close.

Rudin, Osher, Fatemi 1992, used as a defense by Guo et al. (arXiv 1711.00117) and Naseer et al. (arXiv 1807.01216).

    tvm      u = argmin TV(u) + weight/2 · ‖u − x‖²
    tvm-guo  u = argmin TV(u) + weight/2 · ‖kept ⊙ (u − x)‖²,  each value kept with probability 1 − dropout

`tvm` is Naseer et al.'s: plain denoising without dropped pixels and a weight of 10, 20 or 30, larger meaning less
smoothing. `tvm-guo` is Guo et al.'s: half of the values are dropped at random, each channel on its own, and the weight
is 1/0.03. Their networks are trained on such images; here the model is the one that is defended.

Both solve the minimisation itself, by a primal-dual method, where the papers stop a split Bregman iteration after about
twenty sweeps; scikit-image's Bregman also smooths the corner of |∇u|. Means differ by one or two levels of 255.

The attacker's gradient: the Jacobian of such a minimiser is (H + weight · kept)⁻¹ · weight · kept with a symmetric H,
so its transpose is kept ⊙ the same minimisation's answer to a small change of all of its data, a difference quotient
(view `jacobian`). The view `bpda` passes the minimisation by as if it were the identity. Neither is always stronger.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import BPDA, Artifact, Classifier, Images, Streams, Transform, Transformed

from ._ranges import within
from ._total_variation import minimise

NUDGE = 0.01
"""How far the difference quotient moves the data at the most: little, but far above rounding."""


@dataclass(frozen=True)
class TVM(Transform):
    """Total variation minimisation: flattens texture, keeps edges.

    Attributes:
        weight: of closeness to the image, above 0; the larger, the less is smoothed. 10 to 30 in the paper.
        steps: of the solver, at least 1.
    """

    weight: float = 10.0
    steps: int = 30

    title = "TVM"
    paper = "Guo et al. 2018, arXiv 1711.00117; Naseer et al. 2019, arXiv 1807.01216"
    views = ("bpda",)
    presets = {"paper": {"weight": 10.0}}

    def __post_init__(self) -> None:
        within("a weight", self.weight, 1e-3, 1e6, "the paper's are 10, 20 and 30")
        within("a number of steps", self.steps, 1, 1e5, "30 come nearer to the limit than scikit-image does")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The minimiser, without a gradient of its own."""
        return minimise(images.detach(), None, self.weight, self.steps).clamp(0, 1)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """Besides `bpda` one with the Jacobian of the minimiser."""
        views = super().attacker_views(model, learned)
        return {"jacobian": Transformed(model, self._with_jacobian), **views}

    def _with_jacobian(self, images: Images, rng: Streams) -> Images:
        return _with_jacobian(images, None, self.weight, self.steps)


@dataclass(frozen=True)
class TVMGuo(Transform):
    """Total variation minimisation after values were dropped at random.

    Attributes:
        dropout: share of the values that are dropped, in [0, 1).
        weight: of closeness to the kept values, above 0; the larger, the less is smoothed.
        steps: of the solver, at least 1.
    """

    dropout: float = 0.5
    weight: float = 1 / 0.03
    steps: int = 100

    title = "TVM (Guo)"
    paper = "Guo et al. 2018, arXiv 1711.00117"
    views = ("bpda",)
    random = True
    presets = {
        "quick": {"steps": 30},
        "paper": {"dropout": 0.5, "weight": 1 / 0.03},
    }

    def __post_init__(self) -> None:
        within("a dropout", self.dropout, 0, 1 - 1e-6, "the paper's is 0.5")
        within("a weight", self.weight, 1e-3, 1e6, "the paper's is 1/0.03")
        within("a number of steps", self.steps, 1, 1e5, "100 come within 5 % of the least energy")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The minimiser, without a gradient of its own."""
        kept = self._kept(images, rng)
        return minimise(images.detach() * kept, kept, self.weight, self.steps).clamp(0, 1)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """Besides `bpda` one with the Jacobian of the minimiser."""
        views = super().attacker_views(model, learned)
        return {"jacobian": Transformed(model, self._with_jacobian, random=True), **views}

    def _with_jacobian(self, images: Images, rng: Streams) -> Images:
        return _with_jacobian(images, self._kept(images, rng), self.weight, self.steps)

    def _kept(self, images: Images, rng: Streams) -> Images:
        return (rng.uniform(*images.shape[1:]) >= self.dropout).to(images.dtype)


def _with_jacobian(images: Images, kept: Images | None, weight: float, steps: int) -> Images:
    mask = 1 if kept is None else kept

    def forward(x: Images) -> Images:
        return minimise(x * mask, kept, weight, steps).clamp(0, 1)

    def backward(x: Images, gradient: Images) -> Images:
        largest = gradient.abs().amax((1, 2, 3), keepdim=True)
        nudge = NUDGE / largest.clamp_min(1e-30)
        moved = minimise(x * mask + gradient * nudge, kept, weight, steps)
        return (moved - minimise(x * mask, kept, weight, steps)) / nudge * mask

    return BPDA.apply(images, forward, backward)  # type: ignore[no-any-return]  # torch has no types for apply
