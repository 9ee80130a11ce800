"""The audit of attacked images: shape, type, range and budget."""

from __future__ import annotations

from bench.contracts import Attack, Images


class AuditError(RuntimeError):
    """An attack broke its own agreement: wrong shape, NaN, outside [0, 1], or outside its budget."""


def audit(attack: Attack, images: Images, adversarial: Images) -> None:
    """Raises AuditError unless every adversarial image is an image within the attack's budget."""
    if adversarial.shape != images.shape:
        raise AuditError(f"expected images of shape {tuple(images.shape)}, but {tuple(adversarial.shape)} came")
    if adversarial.dtype != images.dtype:
        raise AuditError(f"expected images of type {images.dtype}, but {adversarial.dtype} came")
    flat = adversarial.flatten(1)
    for broken, what in (
        (flat.isnan().any(1), "holds NaN"),
        ((flat < 0).any(1) | (flat > 1).any(1), "has values outside [0, 1]"),
        (~attack.allows(images, adversarial), f"is outside the budget ({attack.budget})"),
    ):
        if bool(broken.any()):
            count, first = int(broken.sum()), int(broken.nonzero()[0])
            raise AuditError(f"image {first} of the run {what}, and {count - 1} more of {len(images)}")
