"""Readable names of data sets and models; the exact text of a record stays beside them."""

from __future__ import annotations

import re

from bench.core.identity import without_hashes
from bench.core.text import plain

_DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "imagenet": "ImageNet", "mnist": "MNIST"}
_DATASETS |= {"digits": "Digits", "photos": "Photographs"}
_WORDS = {"resnet": "ResNet-", "vgg": "VGG-", "densenet": "DenseNet-", "wide_resnet": "WideResNet-"}
_MODELS = {"photos-cnn": "small CNN", "mnist-cnn": "small CNN"}


def readable_dataset(text: str) -> str:
    """A data set as people call it, such as "CIFAR-10 (jpeg)" for `folder:cifar10-jpeg@1a2b3c4d,train=0.3`."""
    name = without_hashes(text).removeprefix("folder:").partition(",")[0].partition(":")[0]
    for word in sorted(_DATASETS, key=len, reverse=True):
        if name.startswith(word):
            rest = name.removeprefix(word).strip("-_ ")
            return plain(f"{_DATASETS[word]} ({rest})" if rest else _DATASETS[word])
    return plain(name) or plain(text)


def readable_model(text: str) -> str:
    """A model as people call it, such as "ResNet-20" for `resnet20:weights=FILE`."""
    name = re.split(r"[,:](?=\w+=)", without_hashes(text))[0].rpartition(":")[2]
    if name in _MODELS:
        return _MODELS[name]
    known = re.fullmatch(r"([a-z_]+?)(\d+)", name)
    if known and known[1] in _WORDS:
        return f"{_WORDS[known[1]]}{known[2]}"
    if mobile := re.fullmatch(r"mobilenet_?v(\d)(?:_(\d)(\d\d))?", name):
        return f"MobileNetV{mobile[1]}"
    return plain(name) or plain(text)


def readable(dataset: str, model: str) -> str:
    """Both in one line."""
    return f"{readable_dataset(dataset)} · {readable_model(model)}"
