"""Names to classifiers, with normalisation inside."""

from __future__ import annotations

from bench.models.load import MODELS, Net, load_model, model_fingerprint, python_module, weights_fingerprint

__all__ = ["MODELS", "Net", "load_model", "model_fingerprint", "python_module", "weights_fingerprint"]
