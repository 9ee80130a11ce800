"""The flower generators of TnT: a formula that needs no training, or a trained network from a file.

A generator maps latents of shape (r, latent) to pictures of shape (r, 3, side, side) in [0, 1]. Allowed latents are
those with all values in [−`LIMIT`, `LIMIT`]; the usual draw is a standard normal one, clamped to that range.

Generator files are safetensors: weights, and as metadata the name of an architecture and its numbers (`architecture`,
`latent`, `side`, `width`). `train_generator` writes them.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bench.contracts import Images, InputError

LIMIT = 2.0
"""The largest absolute value in a latent."""

Latents = Float[Tensor, "r d"]


class Generator(nn.Module):
    """Latents -> pictures.

    Attributes:
        latent: length of a latent.
        side: side of a picture in pixels.
    """

    latent: int
    side: int

    def forward(self, latents: Latents) -> Images:
        """Pictures of shape (r, 3, side, side), in [0, 1]."""
        raise NotImplementedError


class ProceduralFlower(Generator):
    """A flower from a formula: two whorls of petals and a heart on a plain background.

    Each value of a latent moves one property through its whole range: thirteen of shape, then hue, saturation and
    brightness of the background, the petals' tips and base, the inner whorl, and the heart. The picture is a smooth
    function of all of them, even of the number of petals.
    """

    latent = 28

    def __init__(self, side: int = 32) -> None:
        super().__init__()
        self.side = side

    def forward(self, latents: Latents) -> Images:
        """Petals, inner whorl and heart, each painted over the last with a soft edge."""
        shares = (0.5 + latents / (2 * LIMIT)).clamp(0, 1)
        count, turn, size, depth, point, heart_size, inner_size, inner_turn, vein, ring, rings, right, down = shares[
            :, :13, None, None
        ].unbind(1)
        ground, tip, base, inner, heart = _colours(shares[:, 13:].reshape(-1, 5, 3))[..., None, None].unbind(1)
        radius, turned = self._places(0.5 * right - 0.25, 0.5 * down - 0.25, count)

        outer = (0.6 + 0.8 * size) * (1 - (0.1 + 0.6 * depth) * _gaps(turned, turn, 1 + 2 * point))
        inwards = (0.3 + 0.4 * inner_size) * (0.6 + 0.8 * size) * (1 - 0.5 * _gaps(turned, inner_turn, 1 + 2 * point))
        stripes = 0.25 * vein * (1 + _wave(turned.square(), turn)) + 0.25 * ring * (1 + (20 * rings * radius).cos())
        petals = (base + (tip - base) * (radius / 1.8)[:, None]) * (1 - stripes)[:, None]

        picture = _over(ground, petals, outer - radius)
        picture = _over(picture, inner * (1 - stripes)[:, None], inwards - radius)
        return _over(picture, heart, 0.1 + 0.35 * heart_size - radius).clamp(0, 1)

    def _places(self, right: Tensor, down: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Each pixel's distance from the flower's centre (1 is half a side), and its direction in petals.

        The direction is a complex number that turns once from petal to petal. It mixes the powers that belong to whole
        numbers of petals, so it changes smoothly from one number to the next.
        """
        ticks = (torch.arange(self.side, device=right.device, dtype=right.dtype) + 0.5) * (2 / self.side) - 1
        across = (ticks[None, None, :] - right).expand(-1, self.side, -1)
        along = (ticks[None, :, None] - down).expand(-1, -1, self.side)
        radius = (across.square() + along.square() + 1e-4).sqrt()
        direction = torch.complex(across / radius, along / radius)
        numbers = torch.arange(3, 10, device=right.device, dtype=right.dtype)
        chosen = (-2 * (3 + 6 * count[..., 0] - numbers).square()).softmax(-1)
        powers = [direction]
        while len(powers) < 9:
            powers.append(powers[-1] * direction)
        return radius, (torch.stack(powers[2:], 1) * chosen[..., None, None]).sum(1)


def _wave(turned: Tensor, turn: Tensor) -> Tensor:
    """A wave between −1 and 1 with one period per petal; `turn` in [0, 1] rotates it by up to one petal."""
    angle = 2 * torch.pi * turn
    return turned.real * angle.cos() + turned.imag * angle.sin()


def _gaps(turned: Tensor, turn: Tensor, point: Tensor) -> Tensor:
    """0 in the middle of a petal and 1 between petals; a larger `point` makes them narrower."""
    return 1 - (0.5 + 0.4999 * _wave(turned, turn)) ** point


def _over(below: Tensor, above: Tensor, inside: Tensor) -> Images:
    """`above` where `inside` is positive, with an edge about a tenth as wide as the flower."""
    return below + (above - below) * (inside / 0.04).sigmoid()[:, None]


def _colours(shares: Float[Tensor, "r m 3"]) -> Float[Tensor, "r m 3"]:
    """Hue (cyclic), saturation and brightness, each in [0, 1] -> red, green, blue in [0, 1]."""
    hue, saturation, brightness = shares.unbind(-1)
    thirds = torch.arange(3, device=shares.device, dtype=shares.dtype) / 3
    waves = 0.5 + 0.5 * (2 * torch.pi * (hue[..., None] - thirds)).cos()
    return brightness[..., None] * (1 - saturation[..., None] * (1 - waves))


class ConvolutionalFlower(Generator):
    """Transposed convolutions from 4×4 up, as in DCGAN (arXiv 1511.06434); `train_generator` trains it.

    Args:
        latent: length of a latent.
        side: side of a picture in pixels: 8, 16, 32, 64 or 128.
        width: channels of the last hidden layer; each layer before it has twice as many as the next.
    """

    def __init__(self, latent: int = 64, side: int = 64, width: int = 32) -> None:
        super().__init__()
        if latent < 1 or width < 1 or side not in (8, 16, 32, 64, 128):
            raise ValueError(
                f"Expected side 8, 16, 32, 64 or 128, latent ≥ 1, width ≥ 1; got {side}, {latent}, {width}."
            )
        self.latent, self.side, self.width = latent, side, width
        doublings = side.bit_length() - 3
        channels = [width << (doublings - 1 - layer) for layer in range(doublings)]
        layers: list[nn.Module] = [nn.ConvTranspose2d(latent, channels[0], 4, bias=False)]
        for inputs, outputs in pairwise(channels):
            layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Sigmoid()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Latents) -> Images:
        """Pictures of shape (r, 3, side, side), in [0, 1]."""
        return self.layers(latents[:, :, None, None])  # type: ignore[no-any-return]  # nn.Module


ARCHITECTURES = {"convolutional": ConvolutionalFlower}
_SIZES = ("latent", "side", "width")


def save_generator(path: Path, generator: ConvolutionalFlower) -> None:
    """Writes weights and architecture to a safetensors file."""
    sizes = {name: str(getattr(generator, name)) for name in _SIZES}
    save_file(generator.state_dict(), path, {"architecture": "convolutional", **sizes})


def load_generator(path: str | None) -> Generator:
    """The generator in a file, frozen and in evaluation mode; the procedural flower for None.

    Raises:
        InputError: the file does not exist, is not a generator, or its weights do not fit its architecture.
    """
    if path is None:
        return ProceduralFlower()
    generator = _untrained(Path(path))
    try:
        generator.load_state_dict(load_file(path))
    except RuntimeError as error:
        raise InputError(f"The weights in {path} do not fit its architecture: {error}") from error
    return generator.eval().requires_grad_(False)


def _untrained(path: Path) -> Generator:
    """A generator of the architecture named in the file, with random weights."""
    if not path.is_file():
        raise InputError(f"Expected a generator (.safetensors), but there is no file {path}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise InputError(f"Expected a generator in safetensors format, but cannot read {path}: {error}") from error
    try:
        return ARCHITECTURES[metadata["architecture"]](**{name: int(metadata[name]) for name in _SIZES})
    except (KeyError, ValueError) as error:
        raise InputError(
            f"Expected {path} to have the metadata architecture ({', '.join(ARCHITECTURES)}), {', '.join(_SIZES)}, but "
            f"got {metadata}. To make such a file: python -m bench.attacks.train_generator --help"
        ) from error
