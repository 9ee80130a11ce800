"""Trains a flower generator for TnT, as a WGAN-GP (Gulrajani et al., arXiv 1704.00028), on a folder of pictures.

    python -m bench.attacks.train_generator --pictures FOLDER --out flowers.safetensors
    python -m bench.attacks.train_generator --flowers102 FOLDER --download --out flowers.safetensors

A critic C learns to tell real pictures x from generated ones G(z) by minimising
    E C(G(z)) − E C(x) + 10 · E (‖∇C(x̂)‖ − 1)²   with x̂ between a real and a generated picture,
and after every five of its steps the generator takes one on −E C(G(z)). Both use Adam with β = (0, 0.9). Latents are
standard normal, clamped to the range that TnT searches.
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
    """Pictures -> one number each, higher for real ones. No batch norm, since the penalty is per picture."""

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
    """The central square of every picture in a folder and its subfolders, at `side` pixels.

    Raises:
        InputError: the folder has no pictures.
    """
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise InputError(f"Expected a folder of pictures ({', '.join(sorted(_SUFFIXES))}), but {folder} has none.")
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
    progress: Callable[[int, float], None] = lambda step, distance: None,
) -> None:
    """Trains `generator` in place, on its own device, and leaves it in evaluation mode.

    Args:
        pictures: training pictures of the generator's side.
        generator: reinitialised before training.
        steps: steps of the generator; the critic takes five for each.
        seed: seed of all random numbers.
        batch_size: pictures per step.
        rate: learning rate of both networks.
        progress: called after each step with its number and the critic's distance between real and generated pictures.
    """
    device = next(generator.parameters()).device
    random = torch.Generator(device).manual_seed(seed)
    critic = Critic(generator.side, generator.width).to(device)
    for net in (generator, critic):
        _initialise(net, random)
    optimizers = [torch.optim.Adam(net.parameters(), rate, (0.0, 0.9)) for net in (generator, critic)]
    batches = _batches(pictures.to(device), batch_size, random)

    def generated() -> Images:
        latents = torch.randn(batch_size, generator.latent, generator=random, device=device)
        return generator(latents.clamp(-LIMIT, LIMIT))  # type: ignore[no-any-return]  # nn.Module

    generator.train()
    for step in range(steps):
        for _ in range(_CRITIC_STEPS):
            real = next(batches)
            with torch.no_grad():
                fake = generated()
            distance = critic(real).mean() - critic(fake).mean()
            _step(optimizers[1], _PENALTY * _gradient_penalty(critic, real, fake, random) - distance)
        _step(optimizers[0], -critic(generated()).mean())
        progress(step, float(distance.detach()))
    generator.eval()


def _initialise(net: nn.Module, random: torch.Generator) -> None:
    """Small random kernels, batch norm scales 1, biases 0."""
    for name, weights in net.named_parameters():
        if weights.dim() > 1:
            nn.init.normal_(weights, 0, 0.02, random)
        else:
            nn.init.constant_(weights, 0 if name.endswith("bias") else 1)


def _gradient_penalty(critic: Critic, real: Images, fake: Images, random: torch.Generator) -> Tensor:
    """Squared difference from 1 of the critic's gradient norm between real and generated pictures."""
    share = torch.rand(len(real), 1, 1, 1, generator=random, device=real.device)
    between = torch.lerp(real, fake, share).requires_grad_()
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    excess: Tensor = slope.flatten(1).norm(dim=1) - 1
    return excess.square().mean()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
        weight.grad = gradient
    optimizer.step()


def _batches(pictures: Pictures, size: int, random: torch.Generator) -> Iterator[Images]:
    """An endless stream of random pictures, half of them mirrored."""
    while True:
        rows = torch.randint(len(pictures), (size,), generator=random, device=pictures.device)
        mirrored = torch.rand(size, 1, 1, 1, generator=random, device=pictures.device) < 0.5
        chosen = pictures[rows].float() / 255
        yield torch.where(mirrored, chosen.flip(3), chosen)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; see the module's docstring."""
    parser = argparse.ArgumentParser("train_generator", description="Train a flower generator for TnT (WGAN-GP).")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--pictures", type=Path, help="folder of flower pictures, with subfolders")
    source.add_argument("--flowers102", type=Path, help="folder of Flowers-102, as stored by torchvision")
    parser.add_argument("--download", action="store_true", help="download Flowers-102 to that folder first")
    parser.add_argument("--out", type=Path, required=True, help="file to write the generator to (.safetensors)")
    parser.add_argument("--side", type=int, default=64, help="side of a picture: 8, 16, 32, 64 or 128 pixels")
    parser.add_argument("--latent", type=int, default=64, help="length of a latent")
    parser.add_argument("--width", type=int, default=32, help="channels of the last hidden layer")
    parser.add_argument("--steps", type=int, default=20_000, help="generator steps; the critic takes five for each")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures per step")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="device to train on, such as cuda")
    chosen = parser.parse_args(arguments)
    try:
        _command(chosen)
    except ValueError as error:
        parser.error(str(error))


def _command(chosen: argparse.Namespace) -> None:
    generator = ConvolutionalFlower(chosen.latent, chosen.side, chosen.width).to(chosen.device)
    if not chosen.out.parent.is_dir():
        raise InputError(f"Expected an existing folder for the generator, but there is no {chosen.out.parent}.")
    if chosen.flowers102 and chosen.download:
        from torchvision.datasets import Flowers102

        Flowers102(chosen.flowers102, download=True)
    pictures = read_pictures(chosen.pictures or chosen.flowers102, chosen.side)

    def progress(step: int, distance: float) -> None:
        if step % 50 == 0 or step == chosen.steps - 1:
            sys.stderr.write(f"step {step + 1} of {chosen.steps}, critic's distance {distance:.3f}\n")

    train(pictures, generator, chosen.steps, chosen.seed, chosen.batch_size, progress=progress)
    save_generator(chosen.out, generator.cpu())
    sys.stderr.write(f"{chosen.out}: trained on {len(pictures)} pictures; use it as tnt:generator={chosen.out}\n")


if __name__ == "__main__":
    main()
