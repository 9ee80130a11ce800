"""How a pretrained model wants its images prepared."""

from __future__ import annotations

import math

import torch

from bench.errors import MissingExtraError
from bench.plugins.specs import Spec


def preparation_of(model: str) -> dict[str, str]:
    """Parameters of `folder:` that prepare images as a pretrained model's own evaluation does; {} if none is known.

    Only for `timm:` with weights of timm's (pretrained=true): resize, crop and interpolation of its data configuration.
    """
    spec = Spec.parse(model)
    parameters = dict(spec.parameters)
    if spec.name != "timm" or not spec.first or parameters.get("pretrained", "").lower() != "true":
        return {}
    try:
        import timm
        from timm.data import resolve_data_config  # type: ignore[attr-defined]  # timm exports it without saying so
    except ImportError as error:
        raise MissingExtraError(f"The model {model}", "timm") from error
    try:
        with torch.device("meta"):
            config = resolve_data_config({}, model=timm.create_model(spec.first))  # type: ignore[no-untyped-call]
    except Exception:  # whatever is wrong with the model is said when it is loaded
        return {}
    side = min(config["input_size"][1:])
    values = {"resize": str(math.floor(side / config["crop_pct"])), "crop": str(side)}
    return values | {"interpolation": config["interpolation"]}
