"""Names -> classifiers, with their normalisation inside."""

from __future__ import annotations

from bench.models.load import (
    MODELS,
    Net,
    canonical_model,
    load_model,
    logits_of,
    model_fingerprint,
    python_module,
    weights_fingerprint,
)
from bench.models.preparation import preparation_of

__all__ = [
    "MODELS",
    "Net",
    "canonical_model",
    "load_model",
    "logits_of",
    "model_fingerprint",
    "preparation_of",
    "python_module",
    "weights_fingerprint",
]
