"""Trains a flower generator for TnT: WGAN-GP (Gulrajani et al., arXiv 1704.00028) on a folder of pictures.

    python -m bench.attacks.train_generator --pictures FOLDER --out flowers.safetensors
    python -m bench.attacks.train_generator --flowers102 FOLDER --download --out flowers.safetensors

A critic C learns to tell pictures x from generated ones G(z), by
    E C(G(z)) − E C(x) + 10 · E (‖∇C(x̂)‖ − 1)²   with x̂ between a picture and a generated one,
and after every five of its steps the generator takes one, on −E C(G(z)). Adam with β = (0, 0.9).
The latents are standard normal, cut where TnT stops searching.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor, nn

from bench.contracts import Images, InputError

from ._generators import LIMIT, ConvolutionalFlower, save_generator

Pictures = UInt8[Tensor, "n 3 s s"]
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}
_CRITIC_STEPS = 5
_PENALTY = 10.0


class Critic(nn.Module):
    """Pictures -> one number each, higher for real ones. Without batch norm: the penalty is for single pictures."""

    def __init__(self, side: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        channels, side = width, side // 2
        while side > 4:
            layers += [nn.Conv2d(channels, 2 * channels, 4, 2, 1), nn.LeakyReLU(0.2)]
            channels, side = 2 * channels, side // 2
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4), nn.Flatten(0))

    def forward(self, pictures: Images) -> Tensor:
        """Shape (n,)."""
        scores: Tensor = self.layers(2 * pictures - 1)
        return scores


def read_pictures(folder: Path, side: int) -> Pictures:
    """All pictures in a folder and its subfolders: the square in the middle, at `side` pixels.

    Raises:
        InputError: there is no picture.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InputError(f"Expected a folder with pictures ({', '.join(sorted(_SUFFIXES))}), but {folder} has none.")
    return torch.from_numpy(np.stack([_square(path, side) for path in paths])).permute(0, 3, 1, 2).contiguous()


def _square(path: Path, side: int) -> np.ndarray:
    with Image.open(path) as file:
        picture = file.convert("RGB")
    short = min(picture.size)
    left, upper = (picture.width - short) // 2, (picture.height - short) // 2
    box = (left, upper, left + short, upper + short)
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS, box))


def train(
    pictures: Pictures,
    generator: ConvolutionalFlower,
    steps: int,
    seed: int,
    batch_size: int = 64,
    rate: float = 1e-4,
    tell: Callable[[int, float], None] = lambda step, distance: None,
) -> None:
    """Trains `generator` in place, on the device that it is on, and leaves it in evaluation mode.

    Args:
        pictures: what to learn from, at the generator's side.
        generator: its weights are drawn anew.
        steps: steps of the generator; the critic takes five for each.
        seed: of every random number.
        batch_size: pictures a step.
        rate: learning rate of both networks.
        tell: told after each step its number and the critic's distance between real and generated pictures.
    """
    device = next(generator.parameters()).device
    random = torch.Generator(device).manual_seed(seed)
    critic = Critic(generator.side, generator.width).to(device)
    for net in (generator, critic):
        _start(net, random)
    moves = [torch.optim.Adam(net.parameters(), rate, (0.0, 0.9)) for net in (generator, critic)]
    batches = _batches(pictures.to(device), batch_size, random)

    def generated() -> Images:
        latents = torch.randn(batch_size, generator.latent, generator=random, device=device)
        made: Images = generator(latents.clamp(-LIMIT, LIMIT))
        return made

    generator.train()
    for step in range(steps):
        for _ in range(_CRITIC_STEPS):
            real = next(batches)
            with torch.no_grad():
                fake = generated()
            distance = critic(real).mean() - critic(fake).mean()
            _move(moves[1], _PENALTY * _steepness(critic, real, fake, random) - distance)
        _move(moves[0], -critic(generated()).mean())
        tell(step, float(distance.detach()))
    generator.eval()


def _start(net: nn.Module, random: torch.Generator) -> None:
    """Small random kernels; the scales of batch norm 1, and whatever is added 0."""
    for name, weights in net.named_parameters():
        if weights.dim() > 1:
            nn.init.normal_(weights, 0, 0.02, random)
        else:
            nn.init.constant_(weights, 0 if name.endswith("bias") else 1)


def _steepness(critic: Critic, real: Images, fake: Images, random: torch.Generator) -> Tensor:
    """How far the critic's slope between real and generated pictures is from 1, squared."""
    share = torch.rand(len(real), 1, 1, 1, generator=random, device=real.device)
    between = torch.lerp(real, fake, share).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    too_steep: Tensor = slope.flatten(1).norm(dim=1) - 1
    return too_steep.square().mean()


def _move(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    optimizer.step()


def _batches(pictures: Pictures, size: int, random: torch.Generator) -> Iterator[Images]:
    """Random pictures without end, half of them mirrored."""
    while True:
        rows = torch.randint(len(pictures), (size,), generator=random, device=pictures.device)
        mirrored = torch.rand(size, 1, 1, 1, generator=random, device=pictures.device) < 0.5
        chosen = pictures[rows].float() / 255
        yield torch.where(mirrored, chosen.flip(3), chosen)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser("train_generator", description="Trains a flower generator for TnT (WGAN-GP).")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pictures", type=Path, help="folder of flower pictures, with subfolders")
    source.add_argument("--flowers102", type=Path, help="folder where Flowers-102 lies, as torchvision stores it")
    parser.add_argument("--download", action="store_true", help="download Flowers-102 there first")
    parser.add_argument("--out", type=Path, required=True, help="the generator (.safetensors) to write")
    parser.add_argument("--side", type=int, default=64, help="of a picture in pixels: 8 … 128, a power of two")
    parser.add_argument("--latent", type=int, default=64, help="numbers in a latent")
    parser.add_argument(
        "--width", type=int, default=32, help="channels of the last hidden layer; they double with each before it"
    )
    parser.add_argument("--steps", type=int, default=20_000, help="of the generator; the critic takes five for each")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures a step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="where torch computes, such as cuda")
    chosen = parser.parse_args(arguments)
    try:
        _command(chosen)
    except ValueError as error:
        parser.error(str(error))


def _command(chosen: argparse.Namespace) -> None:
    generator = ConvolutionalFlower(chosen.latent, chosen.side, chosen.width).to(chosen.device)
    if not chosen.out.parent.is_dir():
        raise InputError(f"Expected a folder for the generator, but there is no {chosen.out.parent}.")
    if chosen.flowers102 and chosen.download:
        from torchvision.datasets import Flowers102

        Flowers102(chosen.flowers102, download=True)
    pictures = read_pictures(chosen.pictures or chosen.flowers102, chosen.side)

    def tell(step: int, distance: float) -> None:
        if step % 50 == 0 or step == chosen.steps - 1:
            sys.stderr.write(f"step {step + 1} of {chosen.steps}, critic's distance {distance:.3f}\n")

    train(pictures, generator, chosen.steps, chosen.seed, chosen.batch_size, tell=tell)
    save_generator(chosen.out, generator.cpu())
    sys.stderr.write(f"{chosen.out}: learned from {len(pictures)} pictures; use it with tnt:generator={chosen.out}\n")


if __name__ == "__main__":
    main()
