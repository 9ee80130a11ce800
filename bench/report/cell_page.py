"""One cell as a page tells it: what its numbers are called, and where it stands."""

from __future__ import annotations

from dataclasses import dataclass

from bench.records.schema import Cell
from bench.report.board import Board, Entry, Key
from bench.report.grouping import Sample
from bench.report.urls import cell_page

MEASURES = {
    "clean_accuracy": ("clean", "when nobody attacks"),
    "attacked_accuracy": ("attacked", "of all images"),
    "delta": ("δ", "clean − attacked, in points"),
    "beta": ("β", "of the images lost without a defense"),
    "attack_success": ("ASR", "eligible images on which the attack succeeds"),
    "accuracy_8bit": ("8-bit", "attacked, rounded to 8 bits"),
    "adversarial_effect": ("beyond occlusion", "with grey in the attack's place − attacked, in points"),
    "rejection_clean": ("rejects clean", "these count as wrong"),
    "rejection_attacked": ("rejects attacked", "these count as defended where they were changed"),
    "certified_accuracy": ("certified", "proven within the budget"),
}
"""Measure -> its heading, and what it means."""


@dataclass(frozen=True)
class Page:
    """One cell, all its seeds, and where it stands.

    Attributes:
        key: (defense, attack, tier).
        entry: its numbers.
        board: where it stands, None where its attack could never be made.
    """

    key: Key
    entry: Entry
    board: Board | None

    @property
    def sample(self) -> Sample:
        """Its records."""
        if self.entry.sample is None:  # worst cases have no page
            raise ValueError("Expected an entry with records.")
        return self.entry.sample

    @property
    def cell(self) -> Cell:
        """The cell of its first seed."""
        return self.sample.outcomes[0].cell

    @property
    def address(self) -> str:
        """The file of its page."""
        return cell_page(self.cell)
