"""Pictures of a cell: clean, adversarial, difference and defended images, and what a universal attack learned."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from bench.contracts import Artifact, Images, Transformed, answers
from bench.outcome import Cell
from bench.run import Computed, run_cell
from bench.scene import Setting

CELL = 128
"""Side of one picture of the grid, in screen pixels."""
TEXT = 30
COLUMNS = ("clean", "adversarial", "difference", "defended")


def patch_png(artifact: Artifact) -> bytes | None:
    """What a universal attack learned as a PNG, or None where it is no picture; `patch:image=FILE` reads it back."""
    patch = artifact.get("patch")
    if patch is None:
        return None
    buffer = io.BytesIO()
    _picture(patch).save(buffer, format="PNG")
    return buffer.getvalue()


def picture_grid(computed: Computed, count: int = 8) -> Image.Image:
    """A grid with one line for each of the first `count` attacked images (those that succeeded come first).

    The difference is shown around mid-grey; where at most 16 pixels differ, they are circled.
    """
    scene, attacked = computed.scene, computed.attacked
    facts = computed.outcome.facts
    order = np.lexsort((-np.asarray(facts.reached), -attacked.eligible.int().cpu().numpy())) if facts else np.arange(0)
    rows = torch.as_tensor(order[:count].copy(), device=scene.device)
    clean, adversarial = scene.images[rows], attacked.adversarial[rows]
    difference = ((adversarial - clean) / 2 + 0.5).clamp(0, 1)
    views = [clean, adversarial, difference, _defended(computed, adversarial, rows)]
    told = [_told(computed, clean, rows), _told(computed, adversarial, rows)]
    grid = Image.new("RGB", (CELL * len(COLUMNS), (CELL + TEXT) * len(rows) + TEXT), "white")
    pen = ImageDraw.Draw(grid)
    for column, name in enumerate(COLUMNS):
        pen.text((column * CELL + 4, 8), name, fill="black")
    for line in range(len(rows)):
        top = TEXT + line * (CELL + TEXT)
        for column, images in enumerate(views):
            picture = _picture(images[line]).resize((CELL, CELL), Image.Resampling.NEAREST)
            grid.paste(picture, (column * CELL, top))
        _circle(pen, clean[line], adversarial[line], top)
        for column, words in enumerate((told[0][line], told[1][line])):
            pen.text((column * CELL + 2, top + CELL + 2), words, fill="black")
    return grid


def pictures(cell: Cell, setting: Setting, folder: Path) -> list[Path]:
    """Writes the grid of a cell, and the patch of a universal attack, into `folder`; returns the files.

    Computes the cell again where its images are no longer in the cache.
    """
    computed = run_cell(cell, setting, lambda share, doing: None)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{cell.slug}.png"]
    picture_grid(computed).save(written[0])
    patch = patch_png(computed.attacked.artifact)
    if patch is not None:
        written.append(folder / f"{cell.slug}-patch.png")
        written[1].write_bytes(patch)
    return written


def _picture(image: Tensor) -> Image.Image:
    """One image (c, h, w) in [0, 1] as a picture; grey becomes RGB."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("RGB")


def _defended(computed: Computed, images: Images, rows: Tensor) -> Images:
    """What the classifier behind a transform gets to see; the images themselves where there is no transform."""
    defended = computed.protected.model
    if not isinstance(defended, Transformed):
        return images
    with torch.no_grad():
        return defended.clean(images, computed.scene.streams[rows].derive("judging").derive("clean"))


def _told(computed: Computed, images: Images, rows: Tensor) -> list[str]:
    """The defended model's answer for each image, with its confidence."""
    classes = (*computed.scene.dataset.classes, "rejected")
    rng = computed.scene.streams[rows].derive("judging")
    confidence, predicted = answers(computed.protected.model, images, rng).softmax(-1).max(-1)
    pairs = zip(predicted.tolist(), confidence.tolist(), strict=True)
    return [f"{classes[number][:14]} {100 * share:.0f} %" for number, share in pairs]


def _circle(pen: ImageDraw.ImageDraw, clean: Tensor, adversarial: Tensor, top: int) -> None:
    """Circles the changed pixels where they are few, in the second column."""
    changed = (clean != adversarial).any(0).nonzero().tolist()
    if not 0 < len(changed) <= 16:
        return
    height, width = clean.shape[1:]
    for row, column in changed:
        x = CELL + (column + 0.5) * CELL / width
        y = top + (row + 0.5) * CELL / height
        pen.ellipse((x - 8, y - 8, x + 8, y + 8), outline="red", width=2)
