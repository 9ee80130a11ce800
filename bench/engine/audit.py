"""The audit of what plugins return: attacked images, and what was learned."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from bench.contracts import Artifact, Attack, Budget, Images


class AuditError(RuntimeError):
    """An attack broke its own agreement: wrong shape or type, not finite, outside [0, 1], or outside its budget."""


def audit(limits: Attack | Budget, images: Images, adversarial: Images, indices: Sequence[int]) -> None:
    """Raises AuditError unless every adversarial image is an image within the budget.

    Args:
        limits: says which changes are allowed.
        images, adversarial: clean and attacked images, in the same order.
        indices: the places of these images in their data set; the error names the first broken one by it.
    """
    if adversarial.shape != images.shape:
        raise AuditError(f"expected images of shape {tuple(images.shape)}, but got {tuple(adversarial.shape)}")
    if adversarial.dtype != images.dtype:
        raise AuditError(f"expected images of type {images.dtype}, but got {adversarial.dtype}")
    flat = adversarial.flatten(1)
    budget = limits.budget if isinstance(limits, Attack) else limits
    for broken, fault in (
        (~flat.isfinite().all(1), "holds NaN or infinity"),
        ((flat < 0).any(1) | (flat > 1).any(1), "has values outside [0, 1]"),
        (~limits.allows(images, adversarial), f"is outside the budget ({budget})"),
    ):
        if bool(broken.any()):
            count, first = int(broken.sum()), indices[int(broken.nonzero()[0])]
            raise AuditError(f"image {first} {fault}, and {count - 1} more of {len(images)}")


def audit_artifact(artifact: object) -> Artifact:
    """What a plugin learned, if it is a dict of names and tensors; raises TypeError if not."""
    if not isinstance(artifact, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in artifact.items()
    ):
        raise TypeError(f"expected `learn` to return a dict of names and tensors, but got {artifact!r:.200}")
    return artifact
