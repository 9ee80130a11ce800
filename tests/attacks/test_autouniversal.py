"""AutoUniversal: one patch for all images, the best of its variants on the training images."""

from __future__ import annotations

import pytest
import torch

from bench.contracts import Goal, InputError, UniversalAttack
from bench.plugins.registry import make_attack

from ..toys import SmoothClassifier, images_of, model_of, streams


def test_the_best_variant_on_training_images_is_one_patch_for_all_images() -> None:
    images, classifier = images_of(12, 3, 6, 6, dtype=torch.float32), SmoothClassifier(108, 4, dtype=torch.float32)
    goal = Goal(classifier(images, streams(12)).argmax(1))
    attack = make_attack("autouniversal:area=0.25")
    assert isinstance(attack, UniversalAttack)
    artifact = attack.learn(model_of(classifier, 12), images, goal, streams(12))
    assert artifact["variant"] == artifact["fooled"].argmax()
    assert artifact["patch"].shape == (3, 3, 3)
    adversarial = attack.given(artifact)(model_of(classifier, 12), images, goal, streams(12))
    assert attack.allows(images, adversarial).all()
    for original, image in zip(images, adversarial, strict=True):
        places = (original != image).any(0).nonzero()
        (top, left), (bottom, right) = places.min(0).values, places.max(0).values
        assert torch.equal(image[:, top : bottom + 1, left : right + 1], artifact["patch"])
    fooled = goal.reached(classifier(adversarial, streams(12))).float().mean()
    assert fooled > 0.5 * artifact["fooled"].max() > 0


@pytest.mark.parametrize("parameters", ["version=2", "area=0", "training_images=0"])
def test_parameters_out_of_range_are_refused(parameters: str) -> None:
    with pytest.raises(InputError):
        make_attack(f"autouniversal:{parameters}")
