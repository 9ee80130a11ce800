"""Trains the weights that ship with this project: python -m bench.train_classifier photos-cnn."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from bench.augment import scaled_crops
from bench.datasets import load_dataset
from bench.nets import Net
from bench.training import fit, private_randomness
from bench.zoo import Wanted
from bench.zoo import photos_cnn as untrained

CROPS = "photos:crop=48,train=500,test=1"
"""Crops of the left parts of the photographs, somewhat larger than those that the net reads."""

SIZE = 32
EPOCHS = 20


def photos_cnn(seed: int, progress: Callable[[float, float], None]) -> Net:
    """A net trained on `CROPS`, cut down to `SIZE` at random places and scales, in different lights."""
    data = load_dataset(CROPS)
    with private_randomness(seed):
        net = untrained(Wanted(len(data.classes), (3, SIZE, SIZE)), trained=False)
    fit(
        net,
        data.train.load(torch.arange(len(data.train))),
        data.train.labels,
        epochs=EPOCHS,
        learning_rate=4e-3,
        seed=seed,
        augment=partial(scaled_crops, size=SIZE),
        progress=progress,
    )
    return net


def accuracy(net: Net) -> float:
    """Share of the evaluation crops of `photos` that are classified rightly."""
    test = load_dataset("photos").test
    with torch.no_grad():
        logits = net(test.load(torch.arange(len(test))))
    return float((logits.argmax(1) == test.labels).float().mean())


def main() -> None:
    """Trains, says how good the result is, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["photos-cnn"])
    parser.add_argument("--seed", type=int, default=0, help="of the initialisation and the training")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "weights" / "photos-cnn.safetensors",
        help="the file to write (default: the one that ships)",
    )
    arguments = parser.parse_args()
    net = photos_cnn(arguments.seed, lambda share, loss: _say(f"\r{share:4.0%}  loss {loss:.3f}"))
    _say(f"\naccuracy on the evaluation crops of photos: {accuracy(net):.1%}\n")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(net.network.state_dict(), arguments.out)
    _say(f"written: {arguments.out}\n")


def _say(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
