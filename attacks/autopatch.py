"""AutoPatch: an ensemble with nothing to tune, for one patch anywhere on each image; what AutoAttack is for L∞.

The stages, each on the images that none before it fooled:

    0    LaVAN with 4 rounds of searched places, by the margin
    1–3  the same with 3 rounds, towards the likeliest, second and third likeliest wrong class
    4    Sparse-RS patch with 2,000 queries: scores alone, for models whose gradients mislead (squares only)
    5    LaVAN with 7 rounds: up to 128 starts at the best of 1,024 places

Ours; the idea of a fixed ensemble of attacks that fail differently is that of Croce and Hein (arXiv 2003.01690). The
record says which stage fooled an image first ("stage"). A published number belongs to its `version`; what a
version does never changes.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._cascade import Cascade, Stage
from ._paste import Shape
from .lavan import LaVAN
from .sparse_rs_patch import SparseRSPatch


@dataclass(frozen=True)
class AutoPatch(Cascade):
    """The strongest of several attacks with one patch on each image, anywhere.

    Attributes:
        area: share of the image's pixels that the patch may cover, in (0, 1].
        shape: square or disc.
        version: of the ensemble; 1.
    """

    area: float = 0.05
    shape: Shape = "square"
    version: int = 1

    title = "AutoPatch"
    paper = "ours, after Croce & Hein 2020, Reliable Evaluation of Adversarial Robustness, arXiv 2003.01690"
    access = "gradients"

    def __post_init__(self) -> None:
        check_version(self.version)
        _ = self.stages  # checks the area

    @property
    def stages(self) -> tuple[Stage, ...]:
        """As listed above."""

        def lavan(rounds: int) -> LaVAN:
            return LaVAN(area=self.area, shape=self.shape, rounds=rounds)

        scores = (Stage(SparseRSPatch(area=self.area, queries=2000)),) if self.shape == "square" else ()
        return (Stage(lavan(4)), *(Stage(lavan(3), rank) for rank in (1, 2, 3)), *scores, Stage(lavan(7)))


def check_version(version: int) -> None:
    """Raises ValueError for a version that does not exist."""
    if version != 1:
        raise ValueError(f"version is 1, the only one so far; got {version}.")
