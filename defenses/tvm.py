"""Total variation minimisation: the image of least total variation that is still close to the given one.

Rudin, Osher, Fatemi 1992, used as a defense by Guo et al. (arXiv 1711.00117) and Naseer et al. (arXiv 1807.01216).

    tvm      u = argmin TV(u) + weight/2 · ‖u − x‖²
    tvm-guo  u = argmin TV(u) + weight/2 · ‖kept ⊙ (u − x)‖²,  each value kept with probability 1 − dropout

`tvm` is that of Naseer et al.: plain denoising without dropped pixels and a weight of 10, 20 or 30, where a larger
weight smooths less. `tvm-guo` is that of Guo et al.: half of the values are dropped at random, in each channel
independently, and the weight is 1/0.03. Their networks are trained on such images; here the model is the one to defend.

Both solve the minimisation itself, by a primal-dual method, while the papers stop a split Bregman iteration after about
twenty sweeps; scikit-image's Bregman also smooths the corner of |∇u|. On average, results differ by one or two levels
of 255.

The attacker's gradient: the Jacobian of such a minimiser is (H + weight · kept)⁻¹ · weight · kept with a symmetric H,
so its transpose is kept ⊙ the same minimiser's response to a small change of all of its data, a difference quotient
(view `jacobian`). The view `bpda` uses the gradient of the identity. Neither is always stronger.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import BPDA, Artifact, Classifier, Images, Streams, Transform, Transformed

from ._ranges import within
from ._total_variation import minimise

NUDGE = 0.01
"""The largest change of the data in the difference quotient: small, but far above rounding."""


class _Minimisation(Transform):
    """Subclasses are frozen dataclasses with these fields.

    Attributes:
        weight: weight of closeness to the image, above 0; a larger one smooths less.
        steps: steps of the solver, at least 1.
    """

    views = ("bpda",)
    weight: float
    steps: int

    def __post_init__(self) -> None:
        within("a weight", self.weight, 1e-3, 1e6, "the papers' are 10 to 33")
        within("a number of steps", self.steps, 1, 1e5, "30 are enough without dropout, 100 with it")

    def clean(self, images: Images, rng: Streams) -> Images:
        """The minimiser, without a gradient of its own."""
        return self._minimiser(images.detach(), self._kept(images, rng)).clamp(0, 1)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """In addition `jacobian`, with the Jacobian of the minimiser."""
        views = super().attacker_views(model, learned)
        return {"jacobian": Transformed(model, self._with_jacobian, self.random), **views}

    def _kept(self, images: Images, rng: Streams) -> Images | None:
        """1 for values that are kept and 0 for those that are dropped; None if all are kept."""
        return None

    def _minimiser(self, data: Images, kept: Images | None) -> Images:
        return minimise(data if kept is None else data * kept, kept, self.weight, self.steps)

    def _with_jacobian(self, images: Images, rng: Streams) -> Images:
        kept = self._kept(images, rng)

        def backward(x: Images, gradient: Images) -> Images:
            nudge = NUDGE / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30)
            data = x if kept is None else x * kept
            moved = minimise(data + gradient * nudge, kept, self.weight, self.steps)
            change = (moved - self._minimiser(x, kept)) / nudge
            return change if kept is None else change * kept

        return BPDA.apply(images, lambda x: self._minimiser(x, kept).clamp(0, 1), backward)  # type: ignore[no-any-return]  # torch has no types for apply


@dataclass(frozen=True)
class TVM(_Minimisation):
    """Total variation minimisation: flattens texture, keeps edges."""

    weight: float = 10.0
    steps: int = 30

    title = "TVM"
    paper = "Guo et al. 2018, arXiv 1711.00117; Naseer et al. 2019, arXiv 1807.01216"
    presets = {"paper": {"weight": 10.0}}


@dataclass(frozen=True)
class TVMGuo(_Minimisation):
    """Total variation minimisation after values were dropped at random.

    Attributes:
        dropout: share of the values to drop, in [0, 1).
    """

    dropout: float = 0.5
    weight: float = 1 / 0.03
    steps: int = 100

    title = "TVM (Guo)"
    paper = "Guo et al. 2018, arXiv 1711.00117"
    random = True
    presets = {"quick": {"steps": 30}, "paper": {"dropout": 0.5, "weight": 1 / 0.03}}

    def __post_init__(self) -> None:
        super().__post_init__()
        within("a dropout", self.dropout, 0, 1 - 1e-6, "the paper's is 0.5")

    def _kept(self, images: Images, rng: Streams) -> Images:
        return (rng.uniform(*images.shape[1:]) >= self.dropout).to(images.dtype)
