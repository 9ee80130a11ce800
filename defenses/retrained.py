"""Retrained: the bare architecture after plain training, the control for every defense that trains.

There is no paper. A defense that trains also differs from the bare model by its epochs, their images and their
augmentation. Its merit is what it gains over this control, which follows the same recipe with plain cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._training import Trained


@dataclass(frozen=True)
class Retrained(Trained):
    """Retrained: the bare architecture after plain training; the control for every defense that trains."""

    title = "Retrained (control)"
    paper = "control"
    note = "a control: the same training without a defense"
    presets = {
        "quick": {"epochs": 2},
        "paper": {"start": "scratch", "epochs": 200, "training_images": 50_000, "shift": 4},
    }
