"""Pictures of a cell: clean, attacked and defended images, what was changed, and what the model attends to."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional as F

from bench.contracts import Goal, Images, Labels, Transformed, UniversalAttack, answers
from bench.core.goals import NO_CLASS, predicted
from bench.core.identity import without_hashes
from bench.data.load import load_dataset
from bench.engine.run import Computed, run_cell
from bench.engine.setting import Setting, has_weights, setting_of
from bench.errors import InputError
from bench.records.schema import Outcome
from bench.records.sheets import Sheet, save_sheet
from bench.records.store import Store

CELL = 128
"""Side of one picture of the grid, in screen pixels."""
TEXT = 30
SIDE = 112
"""Largest side of one image of a sheet for the site, in pixels."""


def patch_png(computed: Computed) -> bytes | None:
    """What a universal attack learned as a PNG, or None if it is no picture; `patch:image=FILE` reads it back."""
    attack = computed.attack
    patch = attack.picture(computed.attacked.artifact) if isinstance(attack, UniversalAttack) else None
    if patch is None:
        return None
    buffer = io.BytesIO()
    _picture(patch).save(buffer, format="PNG")
    return buffer.getvalue()


def panels(computed: Computed, rows: Labels) -> dict[str, Images]:
    """The pictures of some images of a cell: name -> images, in [0, 1].

    The difference is centred on grey; the mask is white where a pixel differs; the gradient says how much each pixel of
    the attacked image matters to the loss of the bare model, bright where it is largest. If the defended model has an
    `attention`, its weights for the attacked image go from black, the smallest, to white.
    """
    testbed = computed.testbed
    clean, attacked = testbed.images[rows], computed.attacked.adversarial[rows]
    pictures = {
        "clean": clean,
        "attacked": attacked,
        "difference": ((attacked - clean) / 2 + 0.5).clamp(0, 1),
        "mask": (attacked != clean).any(1, keepdim=True).to(clean),
        "defended": _defended(computed, attacked, rows),
        "gradient": _gradient(computed, attacked, rows),
    }
    attention = computed.protected.model.attention(attacked)
    return pictures if attention is None else pictures | {"attention": _normalized(attention.detach())}


def rows_to_show(computed: Computed, count: int) -> Labels:
    """Up to `count` rows of the cell's images: first those that the attack turned, then others that it attacked."""
    facts, eligible = computed.outcome.facts, computed.attacked.eligible.int().cpu().numpy()
    order = np.lexsort((-np.asarray(facts.reached), -eligible)) if facts else np.arange(0)
    return torch.as_tensor(order[:count].copy(), device=computed.testbed.device)


def picture_grid(computed: Computed, count: int = 8) -> Image.Image:
    """A grid of pictures, a line for each of some images, with the defended model's answers.

    Changed pixels are circled if there are at most 16.
    """
    rows = rows_to_show(computed, count)
    pictures = panels(computed, rows)
    captions = [_captions(computed, pictures[name], rows) for name in ("clean", "attacked")]
    grid = Image.new("RGB", (CELL * len(pictures), (CELL + TEXT) * len(rows) + TEXT), "white")
    pen = ImageDraw.Draw(grid)
    for column, (name, images) in enumerate(pictures.items()):
        pen.text((column * CELL + 4, 8), name, fill="black")
        for line, image in enumerate(images):
            picture = _picture(image).resize((CELL, CELL), Image.Resampling.NEAREST)
            grid.paste(picture, (column * CELL, TEXT + line * (CELL + TEXT)))
    for line in range(len(rows)):
        top = TEXT + line * (CELL + TEXT)
        _circle(pen, pictures["clean"][line], pictures["attacked"][line], top)
        for column, texts in enumerate(captions):
            pen.text((column * CELL + 2, top + CELL + 2), texts[line], fill="black")
    return grid


def write_pictures(record: Outcome, setting: Setting, folder: Path) -> list[Path]:
    """Writes the grid of a cell, and the patch of a universal attack, into `folder`; returns the files.

    Computes the cell again if its images are no longer in the cache. Raises InputError if the setting has other images
    or another model than the record.
    """
    cell, computed = record.cell, run_cell(record.cell, setting, lambda share, doing: None)
    for name in ("data", "weights"):
        if record.fingerprints.get(name) not in (None, computed.outcome.fingerprints[name]):
            raise InputError(f"Expected the {name} that {cell} was computed with, but got others of the same name.")
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / f"{cell.slug}.png"]
    picture_grid(computed).save(written[0])
    patch = patch_png(computed)
    if patch is not None:
        written.append(folder / f"{cell.slug}-patch.png")
        written[1].write_bytes(patch)
    return written


def write_sheets(
    store: Store, words: str, count: int, dataset: str | None, weights: Path | None, device: str
) -> Iterator[str]:
    """Makes the site's pictures of cells that have numbers; yields a line for each.

    Args:
        store: for records and pictures.
        words: which cells, as `Store.select`; only those of this data set and these weights.
        count: images of each cell.
        dataset, weights: where they are, if not in the package; photos by default.
        device: where torch computes.
    """
    name = load_dataset(dataset or "photos").name
    names = (name, without_hashes(name))
    for record in store.select(words):
        if record.status != "ok" or record.cell.dataset not in names or not has_weights(record.cell.model, weights):
            continue
        setting = setting_of(record.cell, dataset, weights, device)
        computed = run_cell(record.cell, setting, lambda share, doing: None)
        if _changed(record, computed.outcome):
            yield f"no pictures of {record.cell}: it is stale, compute it again first"
            continue
        sheet, picture = sheet_of(computed, count)
        yield f"wrote {save_sheet(store, record.cell, sheet, picture)}"


def _changed(record: Outcome, now: Outcome) -> bool:
    return any(now.fingerprints.get(name) != value for name, value in record.fingerprints.items())


def sheet_of(computed: Computed, count: int) -> tuple[Sheet, bytes]:
    """The images of a cell side by side as a WebP file, with their captions."""
    rows = rows_to_show(computed, count)
    pictures = panels(computed, rows)
    small = {name: _small(images, name == "mask") for name, images in pictures.items()}
    height, width = small["clean"].shape[2:]
    picture = Image.new("RGB", (width * len(small), height * len(rows)))
    for column, images in enumerate(small.values()):
        for line, image in enumerate(images):
            picture.paste(_picture(image), (column * width, line * height))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=82, method=6)
    before, after = (_captions(computed, pictures[name], rows) for name in ("clean", "attacked"))
    captions = tuple(f"{clean} → {attacked}" for clean, attacked in zip(before, after, strict=True))
    fingerprints = computed.outcome.fingerprints
    return Sheet(tuple(small), captions, picture.width, picture.height, fingerprints), buffer.getvalue()


def _small(images: Images, mask: bool) -> Images:
    """At most SIDE pixels high and wide; in a mask a single pixel stays visible."""
    height, width = images.shape[2:]
    if max(height, width) <= SIDE:
        return images
    size = [max(1, side * SIDE // max(height, width)) for side in (height, width)]
    if mask:
        return F.adaptive_max_pool2d(images, size)
    return F.interpolate(images, size, mode="bilinear", antialias=True).clamp(0, 1)


def _picture(image: Tensor) -> Image.Image:
    """One image (c, h, w) in [0, 1] as a picture; grey becomes RGB."""
    pixels = (image.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).convert("RGB")


def _defended(computed: Computed, images: Images, rows: Labels) -> Images:
    """The images as a transform cleans them; other defenses leave them as they are."""
    defended = computed.protected.model
    if not isinstance(defended, Transformed):
        return images
    with torch.no_grad():
        return defended.clean(images, computed.testbed.streams[rows].derive("judging").derive("clean"))


def _gradient(computed: Computed, images: Images, rows: Labels) -> Float[Tensor, "n 1 h w"]:
    """The largest gradient over the colours, as a share of the image's largest."""
    testbed = computed.testbed
    leaf = images.detach().clone().requires_grad_()
    loss = Goal(testbed.labels[rows]).cross_entropy(testbed.bare(leaf, testbed.streams[rows])).sum()
    (gradient,) = torch.autograd.grad(loss, leaf)
    strength = gradient.abs().amax(1, keepdim=True)
    return strength / strength.amax((2, 3), keepdim=True).clamp_min(torch.finfo(strength.dtype).tiny)


def _normalized(maps: Images) -> Images:
    """Each map stretched to [0, 1]."""
    low, high = (bound((2, 3), keepdim=True) for bound in (maps.amin, maps.amax))
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def _captions(computed: Computed, images: Images, rows: Labels) -> list[str]:
    """The defended model's answer for each image, with its confidence."""
    classes = (*computed.testbed.dataset.classes, "rejected")
    logits = answers(computed.protected.model, images, computed.testbed.streams[rows].derive("judging"))
    pairs = zip(predicted(logits).tolist(), logits.softmax(-1).amax(-1).tolist(), strict=True)
    return [
        "no answer" if number == NO_CLASS else f"{classes[number][:14]} {100 * share:.0f} %" for number, share in pairs
    ]


def _circle(pen: ImageDraw.ImageDraw, clean: Tensor, attacked: Tensor, top: int) -> None:
    """Circles the changed pixels in the second column if they are few."""
    changed = (clean != attacked).any(0).nonzero().tolist()
    if not 0 < len(changed) <= 16:
        return
    height, width = clean.shape[1:]
    for row, column in changed:
        x = CELL + (column + 0.5) * CELL / width
        y = top + (row + 0.5) * CELL / height
        pen.ellipse((x - 8, y - 8, x + 8, y + 8), outline="red", width=2)
