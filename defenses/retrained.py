"""Retrained: the bare architecture after a plain training, the control for every defense that trains.

No paper: a defense that trains for some epochs also differs from the bare model by these epochs, their images and
their augmentation. What it is worth is what it has more than this, which is trained by the same recipe with the plain
cross-entropy.
"""

from __future__ import annotations

from dataclasses import dataclass

from ._training import Trained


@dataclass(frozen=True)
class Retrained(Trained):
    """Retrained: the bare architecture after a plain training; the control for every defense that trains."""

    title = "Retrained (control)"
    paper = "control"
    note = "a control: the same training without a defense"
    presets = {
        "quick": {"epochs": 2},
        "paper": {"start": "scratch", "epochs": 200, "training_images": 50_000, "shift": 4},
    }
