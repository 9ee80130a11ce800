"""Picture files as patches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from bench.contracts import Images


def check_picture(file: Path) -> None:
    """Raises ValueError if the file is not a readable picture."""
    try:
        with Image.open(file) as picture:
            picture.verify()
    except FileNotFoundError:
        raise ValueError(f"Expected a picture file, but there is no picture {str(file)!r}.") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken PNG
        raise ValueError(f"Expected a picture such as a PNG file, but {str(file)!r} cannot be read: {error}") from None


def read_picture(file: Path, images: Images, side: int) -> Float[Tensor, "c s s"]:
    """The picture in [0, 1] at side × side pixels, with the channels, type and device of `images`.

    Transparent parts become mid-grey.
    """
    with Image.open(file) as opened:
        picture = opened.convert("RGBA")
    grey = Image.new("RGBA", picture.size, (128, 128, 128, 255))
    flat = Image.alpha_composite(grey, picture).convert("L" if images.shape[1] == 1 else "RGB")
    values = np.array(flat.resize((side, side), Image.Resampling.LANCZOS)).reshape(side, side, -1)
    return torch.from_numpy(values).permute(2, 0, 1).to(images) / 255
