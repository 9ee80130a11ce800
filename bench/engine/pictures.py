"""Pictures of a cell: clean, attacked and defended images, what was changed, and what the model looks at."""

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


def views(computed: Computed, rows: Labels) -> dict[str, Images]:
    """What there is to see of some images of a cell: name -> images, in [0, 1].

    The difference is shown around mid-grey; the mask is white where a pixel differs; the gradient is how much each
    pixel of the attacked image matters to the loss of the model without the defense, bright at its largest. Where the
    defended model has an `attention` (images -> a weight for each pixel), it is that on the attacked image, from its
    least, black, to its most.
    """
    testbed = computed.testbed
    clean, attacked = testbed.images[rows], computed.attacked.adversarial[rows]
    shown = {
        "clean": clean,
        "attacked": attacked,
        "difference": ((attacked - clean) / 2 + 0.5).clamp(0, 1),
        "mask": (attacked != clean).any(1, keepdim=True).to(clean),
        "defended": _defended(computed, attacked, rows),
        "gradient": _gradient(computed, attacked, rows),
    }
    attention = computed.protected.model.attention(attacked)
    return shown if attention is None else shown | {"attention": _stretched(attention.detach())}


def first(computed: Computed, count: int) -> Labels:
    """Places of the first `count` attacked images; those that the attack turned come first."""
    facts, eligible = computed.outcome.facts, computed.attacked.eligible.int().cpu().numpy()
    order = np.lexsort((-np.asarray(facts.reached), -eligible)) if facts else np.arange(0)
    return torch.as_tensor(order[:count].copy(), device=computed.testbed.device)


def picture_grid(computed: Computed, count: int = 8) -> Image.Image:
    """A grid with one line for each of some images, with the defended model's answers.

    Where at most 16 pixels differ, they are circled.
    """
    rows = first(computed, count)
    shown = views(computed, rows)
    told = [_told(computed, shown[name], rows) for name in ("clean", "attacked")]
    grid = Image.new("RGB", (CELL * len(shown), (CELL + TEXT) * len(rows) + TEXT), "white")
    pen = ImageDraw.Draw(grid)
    for column, (name, images) in enumerate(shown.items()):
        pen.text((column * CELL + 4, 8), name, fill="black")
        for line, image in enumerate(images):
            picture = _picture(image).resize((CELL, CELL), Image.Resampling.NEAREST)
            grid.paste(picture, (column * CELL, TEXT + line * (CELL + TEXT)))
    for line in range(len(rows)):
        top = TEXT + line * (CELL + TEXT)
        _circle(pen, shown["clean"][line], shown["attacked"][line], top)
        for column, words in enumerate((told[0][line], told[1][line])):
            pen.text((column * CELL + 2, top + CELL + 2), words, fill="black")
    return grid


def pictures(record: Outcome, setting: Setting, folder: Path) -> list[Path]:
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


def sheets(
    store: Store, words: str, count: int, dataset: str | None, weights: Path | None, device: str
) -> Iterator[str]:
    """Makes the site's pictures of cells that have numbers, and tells what it does.

    Args:
        store: where records and pictures lie.
        words: which cells, as `Store.select`; only those of this data set and these weights.
        count: images of each cell.
        dataset, weights: where they lie, if not in the package; photos by default.
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
    """The images of a cell side by side as a WebP file, and what is to be told of them."""
    rows = first(computed, count)
    shown = views(computed, rows)
    small = {name: _small(images, name == "mask") for name, images in shown.items()}
    height, width = small["clean"].shape[2:]
    picture = Image.new("RGB", (width * len(small), height * len(rows)))
    for column, images in enumerate(small.values()):
        for line, image in enumerate(images):
            picture.paste(_picture(image), (column * width, line * height))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=82, method=6)
    pairs = zip(_told(computed, shown["clean"], rows), _told(computed, shown["attacked"], rows), strict=True)
    told = tuple(f"{before} → {after}" for before, after in pairs)
    fingerprints = computed.outcome.fingerprints
    return Sheet(tuple(small), told, picture.width, picture.height, fingerprints), buffer.getvalue()


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
    """What the classifier behind a transform gets to see; the images themselves where there is no transform."""
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


def _stretched(maps: Images) -> Images:
    """Each map from 0 to 1."""
    low, high = (bound((2, 3), keepdim=True) for bound in (maps.amin, maps.amax))
    return (maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)


def _told(computed: Computed, images: Images, rows: Labels) -> list[str]:
    """The defended model's answer for each image, with its confidence."""
    classes = (*computed.testbed.dataset.classes, "rejected")
    rng = computed.testbed.streams[rows].derive("judging")
    confidence, predicted = answers(computed.protected.model, images, rng).softmax(-1).max(-1)
    pairs = zip(predicted.tolist(), confidence.tolist(), strict=True)
    return [f"{classes[number][:14]} {100 * share:.0f} %" for number, share in pairs]


def _circle(pen: ImageDraw.ImageDraw, clean: Tensor, attacked: Tensor, top: int) -> None:
    """Circles the changed pixels where they are few, in the second column."""
    changed = (clean != attacked).any(0).nonzero().tolist()
    if not 0 < len(changed) <= 16:
        return
    height, width = clean.shape[1:]
    for row, column in changed:
        x = CELL + (column + 0.5) * CELL / width
        y = top + (row + 0.5) * CELL / height
        pen.ellipse((x - 8, y - 8, x + 8, y + 8), outline="red", width=2)
