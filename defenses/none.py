"""No defense: the bare model, the control for all others."""

from __future__ import annotations

from dataclasses import dataclass

from bench.contracts import Artifact, Classifier, Defense


@dataclass(frozen=True)
class NoDefense(Defense):
    """The bare model."""

    title = "none"
    kind = "none"

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model itself, not a copy."""
        return model
