from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from bench.contracts import (
    BPDA,
    Attack,
    Classifier,
    Goal,
    Images,
    Linf,
    Model,
    Streams,
    Transform,
    Transformed,
    UniversalAttack,
)
from bench.memory import in_pieces, out_of_memory


class Sums(Classifier):
    """Two logits: the sum of an image's values, and a constant."""

    num_classes = 2

    def forward(self, images: Images, rng: Streams) -> Tensor:
        total = images.flatten(1).sum(1)
        return torch.stack([total, torch.full_like(total, 6.0)], dim=1)


class Noisy(Sums):
    """The same with noise from the streams."""

    random = True

    def forward(self, images: Images, rng: Streams) -> Tensor:
        return super().forward(images, rng) + rng.normal(2)


@dataclass(frozen=True)
class Darken(Attack):
    """Subtracts eps."""

    title: ClassVar[str] = "darken"
    access = "gradients"

    @property
    def budget(self) -> Linf:
        return Linf(1.0)

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        inputs = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(goal.margin(model(inputs)).sum(), inputs)
        return (images - gradient.sign()).clamp(0, 1)


def scene(classifier: Classifier, count: int = 4) -> tuple[Model, Images, Goal, Streams]:
    rng = Streams.of(0, torch.arange(count))
    images = torch.linspace(0.1, 0.9, count)[:, None, None, None].expand(count, 3, 2, 2).clone()
    labels = classifier(images, rng).argmax(1)
    return Model(classifier, rng), images, Goal(labels), rng


def test_queries_are_counted_for_each_image_forward_and_backward_apart() -> None:
    model, images, _, _ = scene(Sums())
    some = model[torch.tensor([1, 3])]
    some(images[[1, 1, 3]], of=torch.tensor([0, 0, 1]))
    inputs = images.clone().requires_grad_()
    torch.autograd.grad(model(inputs).sum(), inputs)
    assert model.forwards.tolist() == [1, 3, 1, 2]
    assert model.backwards.tolist() == [1, 1, 1, 1]


def test_a_model_refuses_rows_whose_images_it_cannot_know() -> None:
    model, images, _, _ = scene(Sums())
    with pytest.raises(ValueError, match="each of 4 images, but got 2 rows"):
        model(images[:2])


def test_gradients_that_are_zero_everywhere_are_counted() -> None:
    model, images, _, _ = scene(Sums())
    inputs = images.clone().requires_grad_()
    torch.autograd.grad((model(inputs)[:, 0] * torch.tensor([0.0, 1, 1, 0])).sum(), inputs)
    assert model.zero_gradients.tolist() == [1, 0, 0, 1]


def test_an_attack_leaves_ineligible_images_alone_and_asks_nothing_for_them() -> None:
    model, images, goal, rng = scene(Sums())
    labels = goal.labels.clone()
    labels[0] = 1 - labels[0]
    adversarial = Darken()(model, images, Goal(labels), rng)
    assert torch.equal(adversarial[0], images[0])
    assert model.forwards[0] == 0
    assert model.eligible.tolist() == [False, True, True, True]
    assert (adversarial[1:] != images[1:]).any()


def test_an_image_that_a_random_model_gets_right_now_and_then_is_attacked() -> None:
    rng = Streams.of(0, torch.arange(400))
    images = torch.full((400, 3, 2, 2), 5 / 12)  # right in about one answer of four
    attacked = []
    for draws in (1, 20):
        model = Model(Noisy(), rng, draws)
        Darken()(model, images, Goal(torch.zeros(400, dtype=torch.int64)), rng)
        attacked.append(int(model.eligible.sum()))
        assert torch.equal(model.eligible, model.forwards > 0)
    assert 60 < attacked[0] < 140
    assert attacked[1] > 390


def test_notes_of_some_images_stand_with_those_images() -> None:
    model, _, _, _ = scene(Sums())
    model[torch.tensor([2, 0])].note("pixels", torch.tensor([5, 7]))
    found = model.facts["pixels"]
    assert found[[2, 0]].tolist() == [5, 7]
    assert found[[1, 3]].isnan().all()


def test_a_random_model_draws_anew_at_every_query_and_alike_in_any_batch() -> None:
    model, images, _, _ = scene(Noisy())
    first, second = model(images), model(images)
    assert not torch.equal(first, second)
    again, _, _, _ = scene(Noisy())
    doubled = again(images.repeat(2, 1, 1, 1), of=torch.arange(4).repeat(2))
    assert torch.equal(doubled, torch.cat([first, second]))


def test_draws_are_a_leading_axis_and_each_counts_as_a_query() -> None:
    rng = Streams.of(0, torch.arange(4))
    model = Model(Noisy(), rng, draws=5)
    logits = model(torch.zeros(4, 3, 2, 2))
    assert logits.shape == (5, 4, 2)
    assert model.forwards.tolist() == [5, 5, 5, 5]
    assert len(logits[:, 0, 0].unique()) == 5
    assert Model(Sums(), rng, draws=5)(torch.zeros(4, 3, 2, 2)).shape == (4, 2)


def test_the_mean_gradient_over_draws_is_unbiased() -> None:
    class Scaled(Sums):
        random = True

        def forward(self, images: Images, rng: Streams) -> Tensor:
            return super().forward(images * rng.uniform(1, 1, 1, low=0.0, high=2.0), rng)

    rng = Streams.of(0, torch.arange(1))
    inputs = torch.ones(1, 3, 2, 2, requires_grad=True)
    loss = Goal(torch.tensor([0])).margin(Model(Scaled(), rng, draws=4000)(inputs))
    (gradient,) = torch.autograd.grad(loss.sum(), inputs)
    assert torch.allclose(gradient, torch.ones_like(gradient), atol=0.05)


def test_a_universal_attack_does_not_attack_before_it_has_learned() -> None:
    @dataclass(frozen=True)
    class Universal(UniversalAttack):
        """Sets all values."""

        training_images: int = 1
        title: ClassVar[str] = "set"
        access = "none"

        @property
        def budget(self) -> Linf:
            return Linf(1.0)

        def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> dict[str, Tensor]:
            return {"value": torch.tensor(0.25)}

        def apply(self, artifact: dict[str, Tensor], images: Images, goal: Goal, rng: Streams) -> Images:
            return torch.full_like(images, float(artifact["value"]))

    model, images, goal, rng = scene(Sums())
    with pytest.raises(TypeError, match="is universal"):
        Universal()(model, images, goal, rng)
    artifact = Universal().learn(model, images, goal, rng)
    assert (Universal().given(artifact)(model, images, goal, rng) == 0.25).all()
    assert model.forwards.sum() == 0


def test_bpda_goes_forward_to_the_bit_and_backward_by_the_substitute() -> None:
    images = torch.rand(2, 3, 4, 4, requires_grad=True)
    out = BPDA.apply(images, lambda x: 0.3 * x, lambda x, gradient: gradient)
    assert torch.equal(out, 0.3 * images.detach())
    weights = torch.rand_like(out)
    (identity,) = torch.autograd.grad((out * weights).sum(), images)
    assert torch.equal(identity, weights)
    out = BPDA.apply(images, lambda x: 0.3 * x, lambda x, gradient: gradient * x)
    (custom,) = torch.autograd.grad((out * weights).sum(), images)
    assert torch.equal(custom, weights * images.detach())


def test_bpda_gets_through_a_rounding_that_has_no_gradient() -> None:
    @dataclass(frozen=True)
    class Levels(Transform):
        """Eight levels."""

        title: ClassVar[str] = "levels"
        views = ("exact", "bpda")

        def clean(self, images: Images, rng: Streams) -> Images:
            return (images * 7).round() / 7

    views = Levels().attacker_views(Sums(), {})
    assert list(views) == ["exact", "bpda"]
    for name, view in views.items():
        model, images, _, rng = scene(view)
        Darken()(model, images, Goal(view(images, rng).argmax(1)), rng)
        assert model.zero_gradients.sum() == (4 if name == "exact" else 0)


def test_transforms_stand_before_the_model() -> None:
    behind = Transformed(Sums(), lambda images, rng: images * 0)
    assert behind(torch.ones(1, 3, 2, 2), Streams.of(0, torch.arange(1)))[0, 0] == 0


def test_pieces_that_do_not_fit_are_halved_and_the_result_stays() -> None:
    asked: list[int] = []

    def work(part: slice) -> Tensor:
        asked.append(part.stop - part.start)
        if part.stop - part.start > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return torch.arange(part.start, part.stop)

    assert torch.equal(in_pieces(work, 10, 8), torch.arange(10))
    assert max(asked) == 8
    assert out_of_memory(MemoryError())
    assert not out_of_memory(RuntimeError("shape mismatch"))


def test_an_error_that_is_not_about_memory_is_not_swallowed() -> None:
    def work(part: slice) -> Tensor:
        raise RuntimeError("no such thing")

    with pytest.raises(RuntimeError, match="no such thing"):
        in_pieces(work, 4, 2)
