"""AutoUniversal: one patch for all images, the best of its variants on the training images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bench.contracts import Artifact, Goal, InputError, Model, Streams, UniversalAttack
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


def test_patches_are_judged_on_images_that_they_were_not_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    images, classifier = images_of(12, 3, 6, 6, dtype=torch.float32), SmoothClassifier(108, 4, dtype=torch.float32)
    goal, attack = Goal(classifier(images, streams(12)).argmax(1)), make_attack("autouniversal:area=0.25")
    assert isinstance(attack, UniversalAttack)
    kind = type(attack.variants[0])  # type: ignore[attr-defined]  # a plugin's own attribute
    learn, seen = kind.learn, []

    def watched(self: UniversalAttack, model: Model, images: Tensor, goal: Goal, rng: Streams) -> Artifact:
        seen.append(images)
        return learn(self, model, images, goal, rng)

    monkeypatch.setattr(kind, "learn", watched)
    attack.learn(model_of(classifier, 12), images, goal, streams(12))
    taken = [row for row in range(12) if row % 5]
    assert len(seen) == 3
    assert all(torch.equal(each, images[taken]) for each in seen)


@pytest.mark.parametrize("parameters", ["version=2", "area=0", "training_images=0"])
def test_parameters_out_of_range_are_refused(parameters: str) -> None:
    with pytest.raises(InputError):
        make_attack(f"autouniversal:{parameters}")
