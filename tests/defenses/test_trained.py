"""Defenses that train: each part does what its formula says, attacks leave networks alone, views have gradients."""

from __future__ import annotations

import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from bench.contracts import Classifier, Goal, InputError, Model, Patch, Streams, answers
from bench.data.load import load_dataset
from bench.engine.pictures import panels
from bench.engine.run import run_cell
from bench.engine.setting import Setting
from bench.models.nets import MnistCNN, Net, SmallResNet
from bench.plugins.registry import make_attack, make_defense
from bench.records.schema import Cell
from bench.training import Batch, private_randomness

from ..toys import LinearClassifier, ToyExamples, plugin_module, streams

ascent, autoencoder, one_pixel, squares, vax_a_net = (
    plugin_module(f"defenses.{name}") for name in ("_ascent", "autoencoder", "_one_pixel", "_squares", "vax_a_net")
)
TRAINED = ["retrained", "adversarial-training", "distillation", "autoencoder", "apr", "vax-a-net-style"]


def pictures(count: int, side: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noise, brighter in one of three channels: that is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = 0.3 + 0.3 * torch.rand(count, 3, side, side, generator=generator)
    images[torch.arange(count), labels] += 0.3
    return images, labels


def small(classes: int = 3, seed: int = 0) -> Net:
    """With batch norms."""
    with private_randomness(seed):
        return Net(SmallResNet(classes), classes, (0.5,), (0.25,)).eval().requires_grad_(False)


def batch_of(images: Tensor, labels: Tensor) -> Batch:
    return Batch(images, labels, streams(len(images)), 0.0)


def digits(rows: slice, side: int = 8) -> tuple[Tensor, Tensor]:
    split = load_dataset(f"digits:size={side}").train
    return split.load(torch.arange(len(split))[rows]), split.labels[rows]


def state(network: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def same(network: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def right(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    return float((answers(classifier, images, streams(len(images))).argmax(1) == labels).double().mean())


@pytest.mark.parametrize("name", TRAINED)
def test_the_bare_model_stays_as_it_is_and_training_repeats_itself(name: str) -> None:
    model = small()
    before = state(model)
    images, labels = pictures(24)
    defense = make_defense(f"{name}:quick,batch_size=8")
    first, again = (defense.learn(model, ToyExamples(images, labels), streams(24)) for _ in range(2))
    assert same(model, before)
    assert not any(weight.requires_grad or weight.grad is not None for weight in model.parameters())
    assert all(torch.equal(first[key], again[key]) for key in first)
    other = defense.learn(model, ToyExamples(images, labels), streams(24, seed=1))
    assert any(not torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize("name", [*TRAINED, "smoothed-vit"])
def test_without_training_images_the_error_says_what_to_do(name: str) -> None:
    if name == "smoothed-vit":
        pytest.importorskip("timm")
    with pytest.raises(InputError, match="train=FRACTION"):
        make_defense(name).learn(small(), ToyExamples(torch.zeros(0, 3, 16, 16), torch.zeros(0).long()), streams(0))


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("retrained:epochs=0", "epochs of 1"),
        ("retrained:batch_size=1", "batch size of 2"),
        ("retrained:start=middle", "'scratch'"),
        ("adversarial-training:eps=2", "eps of 0 to 1"),
        ("adversarial-training:held_out=4000", "remain to train on"),
        ("adversarial-training:attack=patch,area=0", "area"),
        ("distillation:temperature=0.5", "temperature of 1"),
        ("apr:clean_share=1.5", "clean images"),
        ("apr:regularisation=-1", "regularisation"),
        ("autoencoder:weight=-1", "weight"),
        ("vax-a-net-style:area=2", "area"),
    ],
)
def test_a_wrong_parameter_is_refused_with_a_hint(text: str, hint: str) -> None:
    with pytest.raises(InputError, match=hint):
        make_defense(text)


class TestRetrained:
    def test_from_scratch_nothing_is_left_of_the_bare_weights(self) -> None:
        images, labels = pictures(24)
        defense = make_defense("retrained:start=scratch,epochs=1,learning_rate=0")
        one, two = (defense.learn(small(seed=seed), ToyExamples(images, labels), streams(24)) for seed in (0, 1))
        kernels = [key for key, value in one.items() if value.is_floating_point() and value.dim() == 4]
        assert kernels
        assert all(torch.equal(one[key], two[key]) for key in kernels)
        bare = small(seed=0).state_dict()
        assert not any(torch.equal(one[key], bare[key.removeprefix("net.")]) for key in kernels)

    def test_from_the_bare_model_it_begins_there(self) -> None:
        images, labels = pictures(24)
        defense = make_defense("retrained:epochs=1,learning_rate=0")
        learned = defense.learn(small(), ToyExamples(images, labels), streams(24))
        bare = dict(small().named_parameters())
        assert all(torch.equal(learned[f"net.{key}"], weight) for key, weight in bare.items())

    def test_it_learns_what_the_bare_model_did_not_know(self) -> None:
        images, labels = pictures(96)
        defense = make_defense("retrained:start=scratch,epochs=4,batch_size=16,learning_rate=0.003")
        defended = defense.protect(small(), defense.learn(small(), ToyExamples(images, labels), streams(96)))
        fresh, truth = pictures(30, seed=5)
        assert right(defended, fresh, truth) > 0.9 > right(small(), fresh, truth)

    def test_weights_that_cannot_be_redrawn_are_an_error_with_a_way_out(self) -> None:
        class Own(Classifier):
            num_classes = 3

            def __init__(self) -> None:
                super().__init__()
                self.scale = nn.Parameter(torch.ones(3))

            def forward(self, images: Tensor, rng: Streams) -> Tensor:
                return images.mean((2, 3)) * self.scale

        images, labels = pictures(12)
        with pytest.raises(InputError, match=r"Own has not.*start=bare"):
            make_defense("retrained:start=scratch").learn(Own(), ToyExamples(images, labels), streams(12))
        assert make_defense("retrained:epochs=1").learn(Own(), ToyExamples(images, labels), streams(12))


class TestAscent:
    def perturbed(self, network: Classifier, **settings: Any) -> tuple[Tensor, Tensor]:
        images, labels = pictures(6)
        reached = ascent.ascend(network, images, labels, streams(6), **settings)
        return images, reached

    def test_one_step_is_fgsm(self) -> None:
        network = small()
        images, reached = self.perturbed(network, eps=0.03, steps=1, step_size=0.03)
        watched = images.clone().requires_grad_()
        loss = F.cross_entropy(network(watched), torch.arange(6) % 3, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, watched)
        assert torch.allclose(reached, (images + 0.03 * gradient.sign()).clamp(0, 1), atol=1e-6)

    @pytest.mark.parametrize("random_start", [False, True])
    def test_many_steps_stay_within_eps_and_the_range(self, random_start: bool) -> None:
        images, reached = self.perturbed(small(), eps=0.3, steps=4, step_size=0.2, random_start=random_start)
        assert (reached - images).abs().max() <= 0.3 + 1e-6
        assert (reached - images).abs().max() > 0.25
        assert reached.min() >= 0
        assert reached.max() <= 1

    def test_the_network_is_left_as_it_was(self) -> None:
        network = small().train().requires_grad_(True)
        before = state(network)
        self.perturbed(network, eps=0.1, steps=2, step_size=0.1)
        assert network.training
        assert same(network, before), "the attack moved a weight or a batch norm"
        assert all(weight.grad is None for weight in network.parameters())

    def test_a_mask_keeps_every_other_pixel(self) -> None:
        images, _ = pictures(6)
        mask = squares.squares(images, streams(6).derive("place"), 0.1)
        assert (mask.sum((1, 2, 3)) == 25).all()
        _, reached = self.perturbed(small(), eps=1.0, steps=3, step_size=0.4, random_start=True, mask=mask)
        changed = (reached != images).any(1, keepdim=True)
        assert not (changed & ~mask).any()
        assert (changed & mask).sum() > 0.9 * mask.sum()


class TestSquares:
    def test_a_patch_lies_in_its_square_and_nowhere_else(self) -> None:
        images, _ = pictures(200)
        patches = torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(0)) + 2
        pasted = squares.pasted(images, patches, streams(200), 16 / 256)
        covered = (pasted > 1.5).all(1)
        assert torch.equal(pasted.masked_fill(covered[:, None], 0), images.masked_fill(covered[:, None], 0))
        for image, patch, where in zip(pasted[:20], patches, covered, strict=False):
            rows, columns = where.any(1).nonzero()[:, 0], where.any(0).nonzero()[:, 0]
            assert rows.tolist() == list(range(int(rows[0]), int(rows[0]) + 4))
            found = image[:, rows[0] : rows[0] + 4, columns[0] : columns[0] + 4]
            assert torch.allclose(found, patch, atol=1e-5)
        assert covered.any(0).all(), "somewhere no patch ever lies"

    def test_gradients_pass_into_the_patch(self) -> None:
        images, _ = pictures(4)
        patches = torch.full((4, 3, 32, 32), 0.5, requires_grad=True)
        (gradient,) = torch.autograd.grad(squares.pasted(images, patches, streams(4), 0.2).sum(), patches)
        assert (gradient.flatten(1).sum(1) > 1).all()


class TestAdversarialTraining:
    @pytest.mark.parametrize("attack", ["fgsm", "rs-fgsm", "n-fgsm", "pgd"])
    def test_at_eps_zero_it_is_a_plain_training(self, attack: str) -> None:
        images, labels = pictures(12)
        network = small().train().requires_grad_(True)
        loss = make_defense(f"adversarial-training:attack={attack},eps=0").loss(network, batch_of(images, labels))
        assert torch.allclose(loss, F.cross_entropy(small().train()(images), labels), atol=1e-5)

    def test_the_share_of_clean_images_weighs_them(self) -> None:
        images, labels = pictures(12)
        losses = [
            float(
                make_defense(f"adversarial-training:eps=0.2,clean_share={share}").loss(
                    small(), batch_of(images, labels)
                )
            )
            for share in (0, 0.25, 1)
        ]
        assert losses[2] == pytest.approx(float(F.cross_entropy(small()(images), labels)), rel=1e-4)
        assert losses[1] == pytest.approx(0.75 * losses[0] + 0.25 * losses[2], rel=1e-4)
        assert losses[0] > losses[2]

    def test_a_training_that_collapses_ends_with_its_best_weights(self, monkeypatch: pytest.MonkeyPatch) -> None:
        images, labels = pictures(40)
        asked: list[int] = []

        def fooled(self: Any, network: Any, shown: Tensor, *_: Any) -> Tensor:
            """No attack at first; from the third look on every image becomes the same, and most answers wrong."""
            if len(shown) != 8:
                return shown
            asked.append(1)
            return shown if len(asked) < 3 else torch.zeros_like(shown)

        monkeypatch.setattr(type(make_defense("adversarial-training")), "attacked", fooled)
        defense = make_defense(
            "adversarial-training:epochs=9,batch_size=16,held_out=8,learning_rate=0.003,start=scratch"
        )
        learned = defense.learn(small(), ToyExamples(images, labels), streams(40))
        assert learned["epochs_kept"] < 9

    def test_a_patch_that_searches_stays_whole_and_finds_a_place_where_the_loss_is_larger(self) -> None:
        images, labels = pictures(24)
        network, rng = small(), streams(24)
        losses = []
        for search in (False, True):
            defense = make_defense(f"adversarial-training:attack=patch,area=0.05,search={search}")
            attacked = defense.attacked(network, images, labels, rng, 12)
            assert ((attacked >= 0) & (attacked <= 1)).all()
            changed = (attacked != images).any(1)
            assert (changed.sum((1, 2)) <= 49).all()
            for where in changed:
                rows, columns = where.any(1).nonzero()[:, 0], where.any(0).nonzero()[:, 0]
                assert max(rows[-1] - rows[0], columns[-1] - columns[0]) < 7
            losses.append(float(F.cross_entropy(network(attacked), labels)))
        assert losses[1] > losses[0]

    def test_n_fgsm_goes_beyond_eps_and_stays_in_the_range_of_images(self) -> None:
        images, labels = pictures(12)
        attacked = make_defense("adversarial-training:attack=n-fgsm,eps=0.1").attacked(
            small(), images, labels, streams(12)
        )
        assert 0.25 < (attacked - images).abs().max() <= 0.3 + 1e-6
        assert 0 <= attacked.min() <= attacked.max() <= 1

    def test_it_says_what_it_was_tuned_on(self) -> None:
        assert make_defense("adversarial-training").tuned_on == ("linf",)
        assert make_defense("adversarial-training:patch").tuned_on == ("patch",)

    def test_digits_withstand_what_they_were_trained_against(self) -> None:
        images, labels = digits(slice(0, 800))
        shown, truth = digits(slice(900, 1200))
        with private_randomness(0):
            model = Net(MnistCNN(10, (1, 8, 8)), 10)
        common = "start=scratch,epochs=6,learning_rate=0.003,batch_size=32,shift=0,mirror=false"
        attack, goal = make_attack("fgsm:eps=0.2"), Goal(truth)
        found = {}
        for name in ("retrained", "adversarial-training:eps=0.2,held_out=60"):
            defense = make_defense(f"{name}{',' if ':' in name else ':'}{common}")
            learned = defense.learn(model, ToyExamples(images, labels), streams(800))
            defended = defense.protect(model, learned)
            rng = streams(300)
            found[name.partition(":")[0]] = right(defended, attack(Model(defended, rng), shown, goal, rng), truth)
        assert learned["epochs_kept"] == 6
        assert found["adversarial-training"] > found["retrained"] + 0.15


@pytest.fixture(scope="module")
def distilled() -> tuple[Any, Net, dict[str, Tensor]]:
    """Distillation after it has learned digits, its bare model, and what it learned."""
    images, labels = digits(slice(0, 800))
    with private_randomness(0):
        model = Net(MnistCNN(10, (1, 8, 8)), 10)
    common = "epochs=6,learning_rate=0.003,batch_size=32,shift=0,mirror=false"
    defense = make_defense(f"distillation:start=scratch,{common}")
    return defense, model, defense.learn(model, ToyExamples(images, labels), streams(800))


class TestDistillation:
    def test_it_reads_digits(self, distilled: tuple[Any, Net, dict[str, Tensor]]) -> None:
        defense, model, learned = distilled
        assert right(defense.protect(model, learned), *digits(slice(900, 1200))) > 0.85

    def test_the_answer_is_that_at_the_temperature_a_hundredfold(
        self, distilled: tuple[Any, Net, dict[str, Tensor]]
    ) -> None:
        defense, model, learned = distilled
        images, rng = digits(slice(900, 910))[0], streams(10)
        views = defense.attacker_views(model, learned)
        assert list(views) == ["defended", "tempered", "margin"]
        logits = {name: answers(view, images, rng) for name, view in views.items()}
        assert torch.allclose(logits["defended"], 100 * logits["tempered"])
        best = logits["margin"].topk(2).values
        assert torch.allclose(best[:, 0] - best[:, 1], torch.ones(10), rtol=1e-3)
        assert torch.equal(logits["margin"].argmax(1), logits["defended"].argmax(1))

    def test_fgsm_finds_no_gradient_until_the_temperature_is_taken_out(
        self, distilled: tuple[Any, Net, dict[str, Tensor]]
    ) -> None:
        defense, model, learned = distilled
        images, labels = digits(slice(900, 1100))
        rng, attack, goal = streams(200), make_attack("fgsm:eps=0.2"), Goal(labels)
        defended = defense.protect(model, learned)
        found = {}
        for name, view in defense.attacker_views(model, learned).items():
            asked = Model(view, rng)
            adversarial = attack(asked, images, goal, rng)
            vanished = float((asked.zero_gradients > 0).double().mean())
            found[name] = vanished, right(defended, adversarial, labels)
        assert found["defended"][0] > 0.5
        assert found["tempered"][0] == found["margin"][0] == 0
        assert found["tempered"][1] < found["defended"][1] - 0.2
        assert found["margin"][1] < found["defended"][1] - 0.2

    def test_the_papers_attacker_has_the_plain_view_alone(self) -> None:
        defense = make_defense("distillation:attacker=plain")
        learned = {f"net.{name}": value for name, value in small().state_dict().items()}
        assert list(defense.attacker_views(small(), learned)) == ["defended"]

    def test_soft_labels_that_are_certain_are_hard_ones(self) -> None:
        images, labels = pictures(6)
        defense = make_defense("distillation")
        hard = defense.loss(small(), batch_of(images, labels))
        soft = defense.loss(small(), batch_of(images, F.one_hot(labels, 3).float()))
        assert torch.allclose(hard, soft, atol=1e-6)


class TestAutoencoder:
    def test_its_levels_have_the_shapes_of_the_papers_table(self) -> None:
        net = autoencoder.Repairer(1)
        shapes: dict[str, tuple[int, ...]] = {}
        for name, layer in net.named_modules():
            layer.register_forward_hook(lambda m, i, out, name=name: shapes.update({name: tuple(out.shape[1:])}))
        with torch.no_grad():
            net(torch.zeros(1, 1, 224, 224))
        down = [(32, 112, 112), (64, 56, 56), (128, 28, 28), (256, 14, 14)]
        assert [shapes[f"down.{level}"] for level in range(4)] == down
        assert shapes["hidden"] == (14, 14, 256)
        assert [shapes[f"up.{level}"] for level in range(4)] == [*down[-2::-1], (1, 224, 224)]

    @pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 28, 20), (0, 3, 16, 16)])
    def test_it_begins_as_the_identity_at_any_size(self, shape: tuple[int, int, int, int]) -> None:
        images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            assert torch.allclose(autoencoder.Repairer(shape[1])(images), images)

    def test_the_result_is_an_image_whatever_comes_out(self) -> None:
        net = autoencoder.Repairer(3)
        with torch.no_grad():
            net.up[-1].bias += torch.tensor([5.0, -5.0, 0.0])
            repaired = net(pictures(2)[0])
            assert repaired.min() == 0
            assert repaired.max() == 1
            assert net.unbounded(pictures(2)[0]).max() > 1

    def test_eight_images_are_repaired_by_heart(self) -> None:
        images, labels = pictures(8)
        model = small()
        defense = make_defense(
            "autoencoder:epochs=80,learning_rate=0.005,batch_size=8,eps=0.1,shift=0,mirror=false,weight=0"
        )
        repairer = defense.protect(model, defense.learn(model, ToyExamples(images, labels), streams(8))).repairer
        attacked = ascent.ascend(model, images, labels, streams(8), eps=0.1, steps=1, step_size=0.1)
        assert F.mse_loss(repairer(attacked), images) < 0.3 * F.mse_loss(attacked, images)

    def test_the_loss_is_restoration_and_classification_of_clean_and_attacked_images(self) -> None:
        images, labels = pictures(6)
        model, net = small(), autoencoder.Repairer(3)
        attacked = ascent.ascend(model, images, labels, streams(6), eps=0.1, steps=1, step_size=0.1)
        for weight in (0.0, 2.0):
            with torch.no_grad():
                loss = make_defense(f"autoencoder:eps=0.1,weight={weight}").loss(net, model, batch_of(images, labels))
            restoration = (attacked - images).square().mean() / 2
            both = F.cross_entropy(model(torch.cat([images, attacked])), labels.repeat(2))
            assert float(loss) == pytest.approx(float(restoration + weight * both), rel=1e-3)


class TestAPR:
    def test_attention_begins_near_one_and_stays_below(self) -> None:
        images, labels = pictures(24)
        defense = make_defense("apr:quick")
        begins = defense.initial_network(small(), images, streams(24))
        first = begins.attention(images)
        assert first.shape == (24, 1, 16, 16)
        assert torch.allclose(first, torch.tensor(2.0).sigmoid())
        defended = defense.protect(small(), defense.learn(small(), ToyExamples(images, labels), streams(24)))
        assert 0 < defended.attention(images).min() < defended.attention(images).max() < 1
        assert not torch.allclose(defended.attention(images), first, atol=1e-4)
        weighed = images * defended.attention(images)
        assert torch.allclose(defended(images, streams(24)), defended.model(weighed, streams(24)))

    def test_its_attention_is_among_the_pictures_of_a_cell(self) -> None:
        text = "apr:epochs=1,training_images=64,adversarial=false"
        cell = Cell("photos", "photos-cnn", "fgsm", text, "oblivious", images=6)
        computed = run_cell(cell, Setting("photos", "photos-cnn", images=6), lambda share, doing: None)
        rows = torch.arange(2)
        shown = panels(computed, rows)
        weights = computed.protected.model.attention(computed.attacked.adversarial[rows])
        assert shown["attention"].shape == (2, 1, 32, 32)
        assert torch.equal(shown["attention"].flatten(1).argsort(stable=True), weights.flatten(1).argsort(stable=True))
        assert shown["attention"].amin((1, 2, 3)).tolist() == [0, 0]
        assert shown["attention"].amax((1, 2, 3)).tolist() == [1, 1]

    def test_without_its_three_parts_it_is_a_plain_training(self) -> None:
        images, labels = pictures(12)
        defense = make_defense("apr:attention=false,adversarial=false,regularisation=0")
        network = defense.initial_network(small(), images, streams(12))
        assert type(network) is Net
        plain = F.cross_entropy(network(images), labels)
        assert torch.allclose(defense.loss(network, batch_of(images, labels)), plain)
        weighed = make_defense("apr:attention=false,clean_share=1,regularisation=0")
        assert torch.allclose(weighed.loss(network, batch_of(images, labels)), plain, atol=1e-5)

    def test_the_penalty_is_the_squared_norm_of_the_jacobian(self) -> None:
        weights = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
        network, count = LinearClassifier(weights), 20_000
        images = torch.full((count, 3, 2, 2), 0.5)
        labels, rng = torch.zeros(count).long(), streams(count)
        estimate = make_defense("apr:penalty=logits").steepness(network, images, labels, rng).detach()
        assert float(estimate) == pytest.approx(float(weights.square().sum()), rel=0.03)
        odds = network(images[:1], rng[:1]).softmax(1)[0]
        jacobian = (torch.diag(odds) - torch.outer(odds, odds)) @ weights
        of_odds = make_defense("apr").steepness(network, images, labels, rng).detach()
        assert float(of_odds) == pytest.approx(float(jacobian.square().sum()), rel=0.03)
        of_loss = make_defense("apr:penalty=loss").steepness(network, images, labels, rng).detach()
        residual = network(images[:1], rng[:1]).softmax(1)[0] - F.one_hot(labels[0], 3)
        assert float(of_loss) == pytest.approx(float((residual @ weights).square().sum()), rel=1e-4)

    def test_the_penalty_reaches_the_weights(self) -> None:
        images, labels = pictures(6)
        network = small().train().requires_grad_(True)
        before = state(network)
        steepness = make_defense("apr").steepness(network, images, labels, streams(6))
        assert network.training
        assert same(network, before), "the penalty moved a batch norm"
        gradients = torch.autograd.grad(steepness, list(network.parameters()), allow_unused=True)
        assert sum(float(one.abs().sum()) > 0 for one in gradients if one is not None) > 5

    @pytest.mark.parametrize("search", ["greedy", "random", "de"])
    def test_the_training_attack_changes_one_pixel(self, search: str) -> None:
        images, labels = pictures(10)
        network = small().train()
        before = state(network)
        attacked = one_pixel.one_pixel(network, images, labels, streams(10), search, 4)
        assert ((attacked != images).any(1).sum((1, 2)) == 1).all()
        assert attacked.min() >= 0
        assert attacked.max() <= 1
        assert network.training
        assert same(network, before)

    def test_on_a_linear_network_greedy_finds_the_worst_pixel_there_is(self) -> None:
        weights = torch.randn(2, 27, generator=torch.Generator().manual_seed(1))
        network = LinearClassifier(weights)
        images = torch.rand(5, 3, 3, 3, generator=torch.Generator().manual_seed(2))
        labels = torch.tensor([0, 1, 0, 1, 0])
        attacked = one_pixel.one_pixel(network, images, labels, streams(5), "greedy", 1)
        places = torch.arange(9).repeat_interleave(8)[None].expand(5, -1)
        corners = torch.tensor([[i >> 2 & 1, i >> 1 & 1, i & 1] for i in range(8)]).float().repeat(9, 1)
        every = one_pixel.painted(images, places, corners.expand(5, -1, -1))
        logits = network(every.flatten(0, 1), streams(360)).reshape(5, 72, 2)
        worst = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(72), reduction="none").reshape(5, 72)
        found = F.cross_entropy(network(attacked, streams(5)), labels, reduction="none")
        assert torch.allclose(found, worst.amax(1), rtol=1e-4)

    def test_evolution_does_better_than_a_random_pixel(self) -> None:
        images, labels = pictures(30)
        network = small()
        losses = {}
        for search in ("random", "de"):
            attacked = one_pixel.one_pixel(network, images, labels, streams(30), search, 1)
            losses[search] = float(F.cross_entropy(network(attacked), labels))
        assert losses["de"] > losses["random"]


class TestVaxANetStyle:
    def test_neither_network_learns_from_the_others_loss(self) -> None:
        images, labels = pictures(8)
        defense, classifier = make_defense("vax-a-net-style"), small().train().requires_grad_(True)
        with private_randomness(0):
            generator = vax_a_net.PatchGenerator(3, 3)
        batch = batch_of(images, labels)

        def gradients(held: str = "") -> tuple[list[Tensor], list[Tensor]]:
            """Those of both networks' weights; the weights of the held one are fixed."""
            networks = {"classifier": copy.deepcopy(classifier), "generator": copy.deepcopy(generator)}
            if held:
                networks[held].requires_grad_(False)
            loss = defense.contest_loss(networks["classifier"], networks["generator"], batch)
            loss.backward()
            return tuple([one.grad for one in network.parameters()] for network in networks.values())

        both = gradients()
        for one, two in zip(both[0], gradients(held="generator")[0], strict=True):
            assert torch.allclose(one, two, atol=1e-6)
        for one, two in zip(both[1], gradients(held="classifier")[1], strict=True):
            assert torch.allclose(one, two, atol=1e-6)
        assert all(float(one.abs().max()) > 0 for part in both for one in part[:1])

    def test_the_generator_learns_to_make_patches_that_work(self) -> None:
        images, labels = pictures(96)
        control = make_defense("retrained:start=scratch,epochs=3,batch_size=16,learning_rate=0.003")
        model = control.protect(small(), control.learn(small(), ToyExamples(images, labels), streams(96)))
        defense = make_defense("vax-a-net-style:area=0.3,clean_share=1")
        with private_randomness(0):
            generator = vax_a_net.PatchGenerator(3, 3)
        optimiser = torch.optim.Adam(generator.parameters(), 0.01)
        losses = []
        for step in range(25):
            batch = Batch(images, labels, streams(96).derive(step), 0.0)
            loss = defense.contest_loss(model, generator, batch) - F.cross_entropy(model(images, batch.rng), labels)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        assert sum(losses[-3:]) < 0.7 * sum(losses[:3])


def banded(extra: str = "") -> Any:
    return make_defense(f"smoothed-vit:size=4,stride=2,epochs=1{extra}")


@pytest.fixture(scope="module")
def learned() -> dict[str, Tensor]:
    """What a smoothed ViT learned from few images."""
    images, labels = pictures(12)
    found: dict[str, Tensor] = banded().learn(small(), ToyExamples(images, labels), streams(12))
    return found


@pytest.mark.skipif(find_spec("timm") is None, reason="needs the extra timm")
class TestSmoothedViT:
    def test_a_band_sees_its_columns_and_no_others(self, learned: dict[str, Tensor]) -> None:
        voting = banded().protect(small(), learned)
        images = pictures(1)[0].expand(8, -1, -1, -1).clone().requires_grad_()
        which = torch.arange(8)
        logits = voting.net(voting.ablations.apply(images, which))
        (gradient,) = torch.autograd.grad(logits.square().sum(), images)
        touched = (gradient != 0).any(1)
        assert torch.equal(touched, voting.ablations.retains())
        assert (touched.any(1).sum(1) == 4).all()
        assert touched[7].any(0).nonzero()[:, 0].tolist() == [0, 1, 14, 15]

    def test_it_keeps_few_tokens(self, learned: dict[str, Tensor]) -> None:
        voting = banded().protect(small(), learned)
        shapes: list[int] = []
        voting.net.vit.norm.register_forward_hook(lambda m, i, out: shapes.append(out.shape[1]))
        voting.net(voting.ablations.apply(pictures(2)[0], torch.tensor([0, 7])))
        assert shapes == [1 + 2 * 4], "expected the class token and two of four columns of tokens"

    def test_every_band_votes_once_for_its_best_class(self, learned: dict[str, Tensor]) -> None:
        images, _ = pictures(5)
        voting = banded().protect(small(), learned)
        with torch.no_grad():
            votes = voting.votes(voting.probabilities(images))
            shares = voting(images, streams(5))
        assert (votes.sum(2) == 1).all()
        assert torch.equal(shares.argmax(1), (votes.double().mean(1) + 1e-6 * shares).argmax(1))

    def test_what_it_proves_is_at_least_the_papers_gap(self, learned: dict[str, Tensor]) -> None:
        images, labels = pictures(12)
        defense = banded()
        voting = defense.protect(small(), learned)
        with torch.no_grad():
            counts = voting.votes(voting.probabilities(images)).sum(1)
        budget = Patch(0.01, turned=False)
        rivals = counts.scatter(1, labels[:, None], -1).amax(1)
        reach = -(-(2 + 4 - 1) // 2)  # ⌈(m + s − 1) / stride⌉, where a patch of 0.01 is m = 2 wide
        by_gap = counts.gather(1, labels[:, None])[:, 0] >= rivals + 2 * reach + 1
        proven = defense.certify(small(), learned, images, labels, budget)
        assert (proven | ~by_gap).all()

    def test_given_weights_are_loaded_and_nothing_is_trained(self, learned: dict[str, Tensor], tmp_path: Path) -> None:
        file = tmp_path / "vit.safetensors"
        given = {key.removeprefix("net.vit."): value for key, value in learned.items() if key.startswith("net.vit.")}
        save_file(given, file)
        defense = banded(f",weights={file}")
        assert defense.epochs == 0
        images, labels = pictures(3)
        again = defense.learn(small(), ToyExamples(images, labels), streams(3))
        assert all(torch.equal(again[f"net.vit.{key}"], value) for key, value in given.items())

    def test_weights_that_do_not_fit_are_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "other.safetensors"
        save_file({"conv.weight": torch.zeros(3)}, file)
        images, labels = pictures(3)
        with pytest.raises(InputError, match="do not fit this network"):
            banded(f",weights={file}").learn(small(), ToyExamples(images, labels), streams(3))

    @pytest.mark.parametrize(
        ("extra", "shape", "hint"),
        [
            (",side=50", (3, 16, 16), "side that 16"),
            ("", (3, 4, 4), "narrower than the image"),
            (",architecture=deit_tiny_patch99", (3, 16, 16), "timm cannot build"),
            (",architecture=vit_small_patch32_224", (3, 16, 16), "tokens of 16 pixels"),
        ],
    )
    def test_what_does_not_fit_is_an_error_with_a_hint(
        self, extra: str, shape: tuple[int, int, int], hint: str
    ) -> None:
        def tried() -> None:
            defense = banded(extra)
            defense.check(shape, 3)
            defense.learn(small(), ToyExamples(*pictures(3)), streams(3))

        with pytest.raises(InputError, match=hint):
            tried()
