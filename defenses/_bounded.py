"""Images cut to [0, 1] with a gradient everywhere."""

from __future__ import annotations

from bench.contracts import BPDA, Images


def bounded(images: Images) -> Images:
    """The values cut to [0, 1]; backwards as if nothing had been cut.

    torch's own cut has no gradient at 0 and 1, where half of a digit's pixels lie: an attacker would not move them.
    """
    return BPDA.apply(images, lambda values: values.clamp(0, 1), lambda values, gradient: gradient)  # type: ignore[no-any-return]  # torch has no types for apply
