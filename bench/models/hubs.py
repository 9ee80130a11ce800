"""Classifiers of model hubs, each with its preprocessing as far as that is scaling and normalisation."""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import InputError, MissingExtraError
from bench.models.nets import Net
from bench.models.requirements import Requirements
from bench.plugins.specs import check_known

_MODES = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of filters, by which Hugging Face's configurations name them."""


class Resized(nn.Module):
    """A network behind a change of the images' size."""

    def __init__(self, network: nn.Module, size: tuple[int, int], mode: str) -> None:
        super().__init__()
        self.network, self.size, self.mode = network, size, mode

    def forward(self, images: Tensor) -> Any:
        """The answer to the images in the size that the network was trained on."""
        if images.shape[2:] != self.size:
            images = F.interpolate(images, self.size, mode=self.mode, antialias=True)
        return self.network(images)


def huggingface_model(required: Requirements, name: str, revision: str = "main") -> Net:
    """`hf:ORG/NAME`, an image classifier of Hugging Face, or `hf:FOLDER` with its files (extra: hf).

    Only safetensors are read, and no code of the hub runs. Images are scaled to the size that it was trained on.

    Args:
        required: what it must fit.
        name: of the repository, or a folder with config.json, preprocessor_config.json and model.safetensors.
        revision: a branch, a tag or a commit; a commit always means the same weights.
    """
    try:
        from transformers import AutoModelForImageClassification
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise MissingExtraError(f"The model hf:{name}", "hf") from error
    given = {"revision": revision, "trust_remote_code": False}
    try:
        network, loading = AutoModelForImageClassification.from_pretrained(
            name, use_safetensors=True, output_loading_info=True, **given
        )
        settings: dict[str, Any] = ImageProcessingMixin.get_image_processor_dict(name, revision=revision)[0]
    except Exception as error:  # it raises whatever its many parts do
        raise InputError(
            f"transformers cannot load {name!r}: {str(error).partition(chr(10))[0]} Expected an image classifier with "
            "config.json, preprocessor_config.json and model.safetensors; without a network, download it elsewhere and "
            "pass its folder as hf:FOLDER."
        ) from error
    if missing := sorted(loading["missing_keys"]):
        raise InputError(
            f"Expected all weights of an image classifier in hf:{name}, but {len(missing)} tensors are missing, such "
            f"as {missing[0]}; they would be random. Choose a model that was trained to classify."
        )
    if network.config.num_labels != required.num_classes:
        raise InputError(required.refusal(f"hf:{name}", network.config.num_labels))
    mean, std = _normalisation(name, settings)
    scaled = _scaled(network.float(), settings)  # it may be stored in half precision
    return Net(scaled, required.num_classes, mean, std)


def _normalisation(name: str, settings: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of images in [0, 1]; raises InputError if the preprocessing does anything else."""
    factor = settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1 / 255
    normalises = settings.get("do_normalize", settings.get("image_mean") is not None)
    kind = str(settings.get("image_processor_type") or settings.get("feature_extractor_type"))
    flips = settings.get("do_flip_channel_order", kind.startswith("MobileViT"))
    twice = settings.get("include_top", kind.startswith("EfficientNet"))
    unusual = {
        f"multiplies by {factor:.4g} instead of 1/255": not math.isclose(factor, 1 / 255, rel_tol=1e-3),
        "shifts the values (rescale_offset)": settings.get("rescale_offset"),
        "swaps red and blue (do_flip_channel_order)": flips,
        "divides by the standard deviation twice (include_top)": twice,
        "normalises without an image_mean": normalises and settings.get("image_mean") is None,
    }
    for step, taken in unusual.items():
        if taken:
            raise InputError(
                f"The preprocessing of hf:{name} {step}, which is not supported. Wrap the model as "
                "python:MODULE:FUNCTION, with its preprocessing inside."
            )
    if not normalises:
        return (0.0,), (1.0,)
    mean, std = settings["image_mean"], settings["image_std"]
    return (tuple(mean), tuple(std)) if isinstance(mean, list | tuple) else ((mean,), (std,))


def _scaled(network: nn.Module, settings: dict[str, Any]) -> nn.Module:
    """The network behind a change to the size of its own preprocessing."""
    size = settings.get("crop_size") if settings.get("do_center_crop") else settings.get("size")
    if size is None or not settings.get("do_resize", True):
        return network
    if isinstance(size, int):
        size = {"height": size, "width": size}
    side = size.get("shortest_edge")
    height, width = size.get("height", side), size.get("width", side)
    if height is None or width is None:
        return network
    return Resized(network, (height, width), _MODES.get(settings.get("resample", 2), "bilinear"))


def robustbench_model(required: Requirements, name: str, dataset: str = "cifar10", threat_model: str = "Linf") -> Net:
    """`robustbench:NAME`, a model of RobustBench's zoo (extra: robustbench); its weights are downloaded, or --weights.

    Args:
        required: what it must fit; with a file of weights only the architecture comes from RobustBench.
        name: as on RobustBench's board, such as Carmon2019Unlabeled.
        dataset: cifar10, cifar100 or imagenet.
        threat_model: Linf, L2 or corruptions.
    """
    try:
        from robustbench.model_zoo import model_dicts
        from robustbench.utils import load_model as load_from_zoo
    except ImportError as error:
        raise MissingExtraError(f"The model robustbench:{name}", "robustbench") from error
    zoo = {_value(of): {_value(threat): models for threat, models in by.items()} for of, by in model_dicts.items()}
    check_known(dataset, zoo, "data set of RobustBench")
    check_known(threat_model, zoo[dataset], f"threat model of RobustBench's {dataset}")
    check_known(name, zoo[dataset][threat_model], f"model of RobustBench for {dataset} and {threat_model}")
    try:
        if required.weights is not None:
            network = zoo[dataset][threat_model][name]["model"]()
        else:
            network = load_from_zoo(model_name=name, dataset=dataset, threat_model=threat_model)
    except Exception as error:  # it raises whatever its downloads and many constructors do
        raise InputError(
            f"RobustBench cannot make {name!r}: {type(error).__name__}: {error}. Without a network, download the "
            "weights elsewhere and give the file as the model's weights."
        ) from error
    return Net(network, required.num_classes, trained=required.weights is None)


def _value(key: Any) -> str:
    """RobustBench's keys are members of enumerations."""
    return str(getattr(key, "value", key))
