"""The networks that this project defines itself, and the normalisation in front of any network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bench.contracts import Classifier, Logits, Streams
from bench.core.budgets import Images
from bench.errors import InputError

Features = Float[Tensor, "n features h w"]
Smaller = Float[Tensor, "n new_features new_h new_w"]


class Net(Classifier):
    """A network behind its normalisation.

    With three means, a grey image gets three channels, so that a network for colour images can read it.

    Attributes:
        network: normalised images -> logits.
        mean, std: for each channel, of images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        num_classes: int,
        mean: tuple[float, ...] = (0.0,),
        std: tuple[float, ...] = (1.0,),
        trained: bool = True,
    ) -> None:
        """Wraps `network`.

        Args:
            network: normalised images -> logits of shape (n, num_classes).
            num_classes: the number of classes.
            mean, std: of images in [0, 1], one number for each channel or one for all.
            trained: False if the weights are still random.

        Raises:
            InputError: mean or std is not a list of finite numbers up to 1, or a std is not positive.
        """
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.trained = trained
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        if not (self.mean.isfinite().all() and self.std.isfinite().all() and (self.std > 0).all()):
            raise InputError(f"Expected finite mean= and positive std=, but got {mean} and {std}.")
        if max(*mean, *std) > 1:
            raise InputError(
                f"Expected mean= and std= of images in [0, 1], but got {mean} and {std}. Divide by 255 if they are for "
                "images with values from 0 to 255."
            )

    def forward(self, images: Images, rng: Streams | None = None) -> Logits:
        """Logits of shape (n, num_classes); draws no random numbers."""
        return logits_of(self.network((images - self.mean) / self.std))


def logits_of(answer: Any) -> Tensor:
    """The logits in what a network returns: a tensor, or `logits` in an object or a dict, as in Hugging Face's."""
    if isinstance(answer, Mapping):
        answer = answer.get("logits")
    answer = getattr(answer, "logits", answer)
    if not isinstance(answer, Tensor):
        raise TypeError(f"expected logits as a tensor, or under the name logits, but got {type(answer).__name__}")
    return answer


class _Halved(nn.Module):
    """Every other pixel, and zeros in the new channels: the shortcut without weights ("option A")."""

    def __init__(self, padding: int) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, features: Features) -> Smaller:
        return F.pad(features[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class _Projected(nn.Sequential):
    """A strided 1×1 convolution: the shortcut with weights ("option B")."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(nn.Conv2d(inputs, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al., arXiv 1512.03385).

    With a shortcut it halves the image; without one its shortcut is the identity.
    """

    def __init__(self, inputs: int, outputs: int, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        stride = 1 if shortcut is None else 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = shortcut or nn.Identity()

    def forward(self, features: Features) -> Smaller:
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(features)))))
        return F.relu(residual + self.shortcut(features))


class SmallResNet(nn.Module):
    """A residual net for images from 16 pixels a side: 0.30 M weights, 11 M multiplications for 3×32×32.

    A 3×3 convolution at full size, three blocks that each halve the image and double the channels (16-32-64-128), and
    the mean over all positions.
    """

    def __init__(self, num_classes: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16, 32, 64)
        self.blocks = nn.Sequential(*(_Block(width, 2 * width, _Projected(width, 2 * width)) for width in widths))
        self.linear = nn.Linear(128, num_classes)

    def forward(self, images: Images) -> Logits:
        """Logits of shape (n, num_classes); images of shape (n, channels, h, w), of any size."""
        features = self.blocks(F.relu(self.bn1(self.conv1(images))))
        return cast("Tensor", self.linear(features.mean((2, 3))))


class ResNet20(nn.Module):
    """ResNet-20 for CIFAR (He et al., arXiv 1512.03385, section 4.2): three stages of three blocks, 0.27 M weights.

    Shortcuts are of option A: where the image is halved they take every other pixel, and pad the channels with zeros,
    half of them on each side.
    """

    def __init__(self, num_classes: int, channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(_Block(16, 16) for _ in range(3)))
        self.layer2 = nn.Sequential(_Block(16, 32, _Halved(8)), _Block(32, 32), _Block(32, 32))
        self.layer3 = nn.Sequential(_Block(32, 64, _Halved(16)), _Block(64, 64), _Block(64, 64))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: Images) -> Logits:
        """Logits of shape (n, num_classes); images of shape (n, channels, h, w), of any size."""
        features = self.layer1(F.relu(self.bn1(self.conv1(images))))
        features = self.layer3(self.layer2(features))
        return cast("Tensor", self.linear(features.mean((2, 3))))


class MnistCNN(nn.Module):
    """Two 3×3 convolutions (32, 64), pooling, and two linear layers (128, classes), with dropout of 25 and 50 %.

    The first linear layer has 9216 inputs for 28×28 images, and fewer or more for other sizes.
    """

    def __init__(self, num_classes: int, image_shape: tuple[int, int, int] = (1, 28, 28)) -> None:
        super().__init__()
        channels, height, width = image_shape
        positions = ((height - 4) // 2) * ((width - 4) // 2)
        self.conv1 = nn.Conv2d(channels, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.dropout1 = nn.Dropout(0.25)
        self.linear1 = nn.Linear(64 * positions, 128)
        self.dropout2 = nn.Dropout(0.5)
        self.linear2 = nn.Linear(128, num_classes)

    def forward(self, images: Images) -> Logits:
        """Logits of shape (n, num_classes)."""
        features = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(images)))), 2)
        features = F.relu(self.linear1(self.dropout1(features).flatten(1)))
        return cast("Tensor", self.linear2(self.dropout2(features)))
