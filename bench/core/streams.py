"""Random numbers that belong to images: a stream for each (seed, image index), computed for a whole batch at once."""

from __future__ import annotations

import hashlib
from typing import Final

import torch
from jaxtyping import Float, Int
from torch import Tensor

_GOLDEN: Final = 0x9E3779B97F4A7C15
_MASK: Final = (1 << 64) - 1


def _signed(value: int) -> int:
    """A 64-bit word as the int64 that torch stores."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def _shift(words: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's shift of int64 copies the sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _mix(words: Tensor) -> Tensor:
    """The output function of SplitMix64 (Steele, Lea, Flood 2014), elementwise; multiplication wraps."""
    words = (words ^ _shift(words, 30)) * _signed(0xBF58476D1CE4E5B9)
    words = (words ^ _shift(words, 27)) * _signed(0x94D049BB133111EB)
    return words ^ _shift(words, 31)


def _word(label: str | int) -> int:
    return _signed(int.from_bytes(hashlib.sha256(str(label).encode()).digest()[:8], "little"))


class Streams:
    """One stream of random numbers for each image of a batch.

    The numbers of an image depend on the seed, on the image's index in its data set, and on how many were drawn from
    its stream before; never on the batch, its size, the order of the work or the device.

    Indexing gives the streams of some of the images, which continue here: draw further numbers from these or from the
    whole, not from both. `derive` gives new streams that are independent of these.
    """

    def __init__(self, keys: Int[Tensor, "n"], used: int = 0) -> None:
        self._keys = keys
        self._used = used

    @classmethod
    def of(cls, seed: int, indices: Int[Tensor, "n"]) -> Streams:
        """The streams of the images with these indices, on the device of `indices`."""
        return cls(_mix(_mix(indices * _signed(_GOLDEN)) + _word(seed)))

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def device(self) -> torch.device:
        """The device of the numbers."""
        return self._keys.device

    def __getitem__(self, rows: Tensor | slice) -> Streams:
        return Streams(self._keys[rows], self._used)

    def derive(self, label: str | int | Int[Tensor, "n"]) -> Streams:
        """Independent streams, one for each image, for a named purpose or a number for each image."""
        words = _mix(label) if isinstance(label, Tensor) else _word(label)
        return Streams(_mix(self._keys + words))

    def _words(self, shape: tuple[int, ...]) -> Tensor:
        count = 1
        for side in shape:
            count *= side
        steps = torch.arange(self._used + 1, self._used + count + 1, device=self._keys.device)
        self._used += count
        words = _mix(self._keys[:, None] + steps * _signed(_GOLDEN))
        return words.reshape(len(self), *shape)

    def uniform(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Float[Tensor, "n *shape"]:
        """Uniform in [low, high), float32, of shape (n, *shape)."""
        unit = _shift(self._words(shape), 40).to(torch.float32) * 2.0**-24
        return unit if (low, high) == (0.0, 1.0) else unit * (high - low) + low

    def normal(self, *shape: int) -> Float[Tensor, "n *shape"]:
        """Standard normal, float32, of shape (n, *shape)."""
        unit = (_shift(self._words(shape), 11).to(torch.float64) + 0.5) * 2.0**-53
        numbers: Tensor = torch.special.ndtri(unit)
        return numbers.to(torch.float32)

    def integers(self, high: int | Tensor, *shape: int) -> Int[Tensor, "n *shape"]:
        """Uniform in {0, …, high − 1}, int64, of shape (n, *shape); `high` may be a tensor that broadcasts."""
        unit = _shift(self._words(shape), 11).to(torch.float64) * 2.0**-53
        return (unit * high).to(torch.int64)

    def permutations(self, size: int) -> Int[Tensor, "n size"]:
        """A random order of 0 … size − 1 for each image."""
        return self._words((size,)).argsort(dim=1)
