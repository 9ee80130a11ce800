"""Trains the classifier that ships with this project, or any other model on any data set.

python tools/train_classifier.py photos-cnn
python tools/train_classifier.py mnist-cnn --dataset digits --out digits.safetensors
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from bench.augment import mirrored_shifts, scaled_crops
from bench.contracts import InputError, Streams, answers
from bench.data.load import load_dataset
from bench.models import load_model
from bench.models.nets import Net
from bench.models.requirements import Requirements
from bench.models.zoo import photos_cnn as small_net
from bench.training import fit, private_randomness

CROPS = "photos:crop=48,train=500,test=1"
"""Crops of the left parts of the photographs, somewhat larger than the inputs of the net."""

SIZE = 32
EPOCHS = 20


def photos_cnn(seed: int, progress: Callable[[float, float], None]) -> Net:
    """A net trained on random crops of `CROPS`, of `SIZE` pixels, at random scales and in different light."""
    data = load_dataset(CROPS)
    with private_randomness(seed):
        net = small_net(Requirements(len(data.classes), (3, SIZE, SIZE)), trained=False)
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


def classifier(
    model: str, dataset: str, epochs: int, mirror: bool, seed: int, progress: Callable[[float, float], None]
) -> Net:
    """A model trained from scratch on all training images of a data set, with small shifts.

    Raises:
        InputError: the model or the data set does not exist, they do not fit, or there are no training images.
    """
    data = load_dataset(dataset)
    if not len(data.train):
        raise InputError(
            f"Expected training images in {dataset}, but there are none. For a folder, give train=FRACTION."
        )
    images = data.train.load(torch.arange(len(data.train)))
    shape = (images.shape[1], images.shape[2], images.shape[3])
    net = load_model(model, num_classes=len(data.classes), image_shape=shape, seed=seed)
    if not isinstance(net, Net):
        raise InputError(f"Expected a model whose weights can be saved, but {model} makes a finished classifier.")
    fit(
        net,
        images,
        data.train.labels,
        epochs=epochs,
        learning_rate=3e-3,
        seed=seed,
        augment=partial(mirrored_shifts, shift=max(1, shape[1] // 16), mirror=mirror),
        progress=progress,
    )
    return net


def accuracy(net: Net, dataset: str) -> float:
    """The fraction of the evaluation images that are classified correctly."""
    test = load_dataset(dataset).test
    rng = Streams.of(0, torch.arange(len(test)))
    logits = answers(net, test.load(torch.arange(len(test))), rng)
    return float((logits.argmax(1) == test.labels).float().mean())


def main() -> None:
    """Trains, prints the accuracy, and writes the weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="photos-cnn, or with --dataset any model of 'bench list models'")
    parser.add_argument("--dataset", help="what to learn, as in 'bench run'; by default larger crops of photos")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="with --dataset")
    parser.add_argument("--mirror", action="store_true", help="mirror half of the images, with --dataset")
    parser.add_argument("--seed", type=int, default=0, help="of the initialisation and the training")
    parser.add_argument("--out", type=Path, help="the file to write (default: the one that ships)")
    arguments = parser.parse_args()
    shipped = arguments.dataset is None
    if shipped and arguments.model != "photos-cnn":
        parser.error("name with --dataset what to train it on")
    if not shipped and arguments.out is None:
        parser.error("name with --out the file for the weights")
    try:
        net = (
            photos_cnn(arguments.seed, _report)
            if shipped
            else classifier(
                arguments.model, arguments.dataset, arguments.epochs, arguments.mirror, arguments.seed, _report
            )
        )
    except InputError as error:
        parser.error(str(error))
    evaluated = arguments.dataset or "photos"
    _print(f"\naccuracy on the evaluation images of {evaluated}: {accuracy(net, evaluated):.1%}\n")
    out = arguments.out or Path(__file__).parent.parent / "bench" / "weights" / "photos-cnn.safetensors"
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file(net.network.state_dict(), out)
    _print(f"written: {out}\n")


def _report(share: float, loss: float) -> None:
    _print(f"\r{share:4.0%}  loss {loss:.3f}")


def _print(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


if __name__ == "__main__":
    main()
