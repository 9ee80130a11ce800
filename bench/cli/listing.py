"""What there is to choose from, told without importing what computes."""

from __future__ import annotations

from typing import Final

from bench.plugins.registry import Kind, addresses, first_line
from bench.plugins.specs import lookup

DATASETS: Final = {
    "photos": "crops of ten photographs, a class each (embedded, the default)",
    "digits": "handwritten digits of scikit-learn, grey 8×8 (embedded)",
    "folder": "folder:PATH, any folder of class folders; resize=, crop=, train=FRACTION or train=FOLDER",
    "cifar10": "CIFAR-10 through torchvision",
    "cifar100": "CIFAR-100 through torchvision",
    "mnist": "MNIST through torchvision",
    "fashion-mnist": "Fashion-MNIST through torchvision",
    "imagenet": "ImageNet through torchvision; root=FOLDER",
    "gtsrb": "German traffic signs through torchvision",
    "pcam": "PatchCamelyon histology through torchvision",
    "flowers102": "Oxford 102 flowers through torchvision",
}
MODELS: Final = {
    "photos-cnn": "small residual net, trained on photos (the default)",
    "mnist-cnn": "two convolutions and two linear layers, for 28×28 grey images; --weights",
    "resnet20": "ResNet-20 for CIFAR with option-A shortcuts; --weights",
    "torchvision": "torchvision:NAME, weights=DEFAULT or a named entry",
    "timm": "timm:NAME with its constructor's parameters (extra: timm)",
    "python": "python:package.module:callable, a network of your own",
}
SECTIONS: Final = ("attacks", "defenses", "datasets", "models")


def text(what: str) -> str:
    """One section, or `everything`; raises InputError for another word."""
    if what != "everything":
        lookup(what, SECTIONS, "list")
    return "\n\n".join(_section(name) for name in SECTIONS if what in (name, "everything"))


def _section(name: str) -> str:
    if name == "datasets":
        lines = DATASETS
    elif name == "models":
        lines = MODELS
    else:
        lines = plugins("attack" if name == "attacks" else "defense")
    width = max(len(one) for one in lines)
    return "\n".join([f"{name}:", *(f"  {one:<{width}}  {told}" for one, told in lines.items())])


def plugins(kind: Kind) -> dict[str, str]:
    """Name -> the first line of its docstring, in the order of the names."""
    return {name: first_line(address) for name, address in sorted(addresses(kind).items())}
