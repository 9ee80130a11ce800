"""Volumization: networks made three-dimensional, what they learn, how slices decide, and what that proves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.vgg import VGG, make_layers

from bench import training
from bench.contracts import Classifier, InputError, Streams
from bench.models.nets import MnistCNN, Net, ResNet20, SmallResNet

from ..toys import LinearClassifier, plugin_module, streams

inflating, volume, deciding, curricula = (
    plugin_module(f"defenses.{name}") for name in ("_inflate", "_volume", "_slices", "_curriculum")
)
RULES = ("mean-prob", "mean-logprob", "vote", "trimmed-mean")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def awake(network: nn.Module, seed: int = 0) -> Net:
    """The network in evaluation mode, with weights and statistics that are not those of a fresh one."""
    generator = torch.Generator().manual_seed(seed)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for name, one in network.state_dict().items():
            if one.is_floating_point():
                spread = torch.rand(one.shape, generator=generator)
                fan = one[0].numel() ** 0.5 if one.ndim > 1 else 1
                one.copy_(spread + 0.5 if "var" in name else (spread - 0.5) * 3.5 / fan)
    return Net(network, 10, (0.5,), (0.25,)).eval().requires_grad_(False)


def tiny_vgg() -> nn.Module:
    net = VGG(make_layers([8, "M", 16, "M", 16, "M"], batch_norm=True), init_weights=False)
    net.classifier = nn.Linear(16 * 49, 10)
    return net


NETS = {
    "small": lambda: SmallResNet(10),
    "resnet20": lambda: ResNet20(10),
    "vgg": tiny_vgg,
    "resnet18": lambda: torchvision.models.resnet18(num_classes=10),
    "efficientnet": lambda: torchvision.models.efficientnet_b0(num_classes=10),
    "inception": lambda: torchvision.models.inception_v3(num_classes=10, init_weights=False),
}
SIDES = {"inception": 75, "vgg": 8}
SLOW = [("inception", 1), ("inception", 2), ("efficientnet", 1)]


def each_slice(net: Net, volumes: Tensor) -> Tensor:
    """The 2D network's logits of every slice."""
    rows = volumes.transpose(1, 2).flatten(0, 1)
    return torch.stack([net(row[None])[0] for row in rows]).reshape(len(volumes), -1, 10)


# ------------------------------------------------------------------ networks


@pytest.mark.parametrize(
    ("name", "depth"), [(name, depth) for name in NETS for depth in (1, 2, 3) if (name, depth) not in SLOW]
)
def test_a_centrally_inflated_network_is_the_old_one_on_each_slice(name: str, depth: int) -> None:
    with torch.device("meta"):
        net = NETS[name]()
    net, side = awake(net), SIDES.get(name, 16)
    found = inflating.inflate(net, (3, 2, side), depth).eval()(volumes := noise(2, 3, 2, side, side), streams(2))
    wanted = each_slice(net, volumes)
    assert wanted.std() > 1e-3
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max().clamp_min(1)


@pytest.mark.parametrize("name", ["small", "vgg"])
def test_mean_inflation_is_the_old_network_inside_of_equal_slices(name: str) -> None:
    with torch.device("meta"):
        net = NETS[name]()
    net = awake(net)
    volumes = noise(1, 3, 1, 8, 8).expand(1, 3, 16, 8, 8)
    found = inflating.inflate(net, (3, 16, 8), 3, "mean")(volumes, streams(1))
    wanted = each_slice(net, volumes)
    assert (found - wanted)[:, 7:9].abs().max() < 1e-5  # further from both ends than there are layers
    assert (found - wanted)[:, 0].abs().max() > 1e-3


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_the_layers_are_those_of_torch_for_volumes(depth: int) -> None:
    flat = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1, groups=3), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2))
    flat = nn.Sequential(*flat, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 10))
    made = inflating.inflate(Net(flat, 10), (3, 4, 8), depth, "mean").train()
    layer = made.classifier.network[0]
    with torch.no_grad():
        layer.weight += 0.2 * noise(*layer.weight.shape)
    solid = nn.Sequential(
        nn.Conv3d(3, 6, (depth, 3, 3), (1, 2, 2), (0, 1, 1), groups=3), nn.BatchNorm3d(6), nn.ReLU(),
        nn.MaxPool3d((1, 2, 2)), nn.AdaptiveAvgPool3d((None, 1, 1)),
    )  # fmt: skip
    solid[0].load_state_dict(layer.state_dict())
    volumes = noise(2, 3, 4, 8, 8)
    features = solid(F.pad(volumes, (0, 0, 0, 0, (depth - 1) // 2, depth // 2)))
    wanted = flat[-1](features.flatten(2).transpose(1, 2))
    assert (made(volumes, streams(2)) - wanted).abs().max() < 1e-5
    kept = made.classifier.network[1]
    assert (kept.running_var - solid[1].running_var * 1).abs().max() < 1e-6


FAMILIES = {"vgg19": 183.71, "resnet50": 72.47, "inception_v3": 67.34, "efficientnet_b0": 13.20}
"""Weights in millions of a torchvision network whose every kernel has depth 3."""


@pytest.mark.parametrize(("slices", "side"), [(4, 16), (16, 8)])
@pytest.mark.parametrize("name", FAMILIES)
def test_four_families_of_depth_3_answer_for_every_slice_and_have_the_known_number_of_weights(
    name: str, slices: int, side: int
) -> None:
    with torch.device("meta"):
        net = getattr(torchvision.models, name)(**({"init_weights": False} if name == "inception_v3" else {}))
    made = inflating.inflate(Net(net, 1000), (3, slices, side), 3).eval()
    rng = Streams.of(0, torch.arange(2, device="meta"))
    logits = made.to("meta")(torch.zeros(2, 3, slices, side, side, device="meta"), rng)
    assert logits.shape == (2, slices, 1000)
    assert round(sum(one.numel() for one in made.parameters()) / 1e6, 2) == FAMILIES[name]


def test_slices_of_depth_1_are_independent_and_deeper_kernels_mix_them() -> None:
    net = Net(SmallResNet(10), 10).eval()
    volumes, order = noise(1, 3, 5, 8, 8), torch.tensor([3, 1, 4, 0, 2])
    apart = inflating.inflate(net, (3, 5, 8), 1)
    assert (apart(volumes[:, :, order], streams(1)) - apart(volumes, streams(1))[:, order]).abs().max() < 1e-6
    for depth, alone in ((1, True), (3, False)):
        made = inflating.inflate(net, (3, 5, 8), depth, "mean")
        watched = volumes.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(made(watched, streams(1))[0, 2].sum(), watched)
        reached = gradient.ne(0).flatten(3).any(3).any(1)[0]
        assert torch.equal(reached, torch.arange(5) == 2 if alone else torch.ones(5, dtype=torch.bool))


class Maps(Classifier):
    """Answers with images."""

    num_classes = 10

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 10, 3)

    def forward(self, images: Tensor, rng: Streams) -> Tensor:
        maps: Tensor = self.layer(images)
        return maps


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (LinearClassifier(torch.ones(10, 12)), "nn.Conv2d"),
        (Net(MnistCNN(10), 10), "global pooling"),
        (Net(nn.Sequential(nn.Conv2d(3, 4, 3, padding="same"), nn.Flatten()), 10), "padding of zeros"),
        (Net(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")), 10), "padding of zeros"),
        (Maps(), "cannot turn"),
    ],
)
def test_the_error_says_why_a_network_cannot_be_converted(net: Classifier, said: str) -> None:
    with pytest.raises(InputError, match=said):
        inflating.inflate(net, (3, 4, 8), 3)


def test_the_given_network_stays_as_it_is() -> None:
    net = Net(SmallResNet(10), 10)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    state = torch.get_rng_state()
    inflating.inflate(net, (3, 4, 8), 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert before.keys() == net.state_dict().keys()
    assert all(torch.equal(one, before[name]) for name, one in net.state_dict().items())


def test_a_gpu_gets_2d_kernels_with_channels_last_and_3d_kernels_as_they_are() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv3d(3, 4, 3))
    training._laid_out(net, torch.channels_last)
    assert net[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert net[1].weight.is_contiguous()


# ------------------------------------------------------------------ PAL and the decision


def test_pal_is_the_sum_or_the_mean_of_cross_entropies() -> None:
    logits, labels = noise(6, 5, 4) * 9, torch.tensor([0, 1, 2, 3, 0, 1])
    each = [F.cross_entropy(logits[:, place], labels) for place in range(5)]
    assert deciding.pal(logits, labels, "sum") == pytest.approx(float(sum(each)), rel=1e-6)
    assert deciding.pal(logits, labels, "mean") == pytest.approx(float(sum(each)) / 5, rel=1e-6)
    assert torch.equal(deciding.pal(logits[:, :1], labels, "sum"), each[0])


@pytest.mark.parametrize("rule", RULES)
def test_equal_slices_decide_as_one_of_them(rule: str) -> None:
    logits = noise(6, 1, 4, seed=1) * 9
    found = deciding.aggregated(logits.expand(6, 8, 4), rule)
    assert torch.equal(found.argmax(1), logits[:, 0].argmax(1))
    if rule != "vote":
        assert (found.softmax(1) - logits[:, 0].softmax(1)).abs().max() < 1e-6


def test_the_rules_are_the_means_that_they_are_named_for() -> None:
    logits = noise(6, 8, 4, seed=2) * 9
    each = logits.softmax(2)
    assert (deciding.aggregated(logits, "mean-prob").exp() - each.mean(1)).abs().max() < 1e-6
    assert (deciding.aggregated(logits, "mean-logprob") - each.log().mean(1)).abs().max() < 1e-5
    trimmed = each.sort(dim=1).values[:, 2:6].mean(1)
    assert (deciding.aggregated(logits, "trimmed-mean").exp() - trimmed).abs().max() < 1e-6
    counts = F.one_hot(each.argmax(2), 4).float().mean(1)
    assert (deciding.aggregated(logits, "vote") - counts).abs().max() <= 1 / 16


@pytest.mark.parametrize("rule", RULES)
def test_one_slice_moves_a_probability_by_its_share_and_vetoes_only_the_mean_of_logarithms(rule: str) -> None:
    logits = torch.zeros(1, 8, 3)
    logits[:, :, 0] = 4
    attacked = logits.clone()
    attacked[:, 5, 0] = -1e4
    answer = deciding.aggregated(attacked, rule).argmax(1)
    assert bool((answer == 0).all()) == (rule != "mean-logprob")


# ------------------------------------------------------------------ curricula


def lessons(syllabus: str, **more: Any) -> Any:
    images = noise(70, 3, 8, 8, seed=4) * noise(70, 1, 1, 1, seed=5)
    given = {"batch_size": 8, "epochs": 6, "macro": 3} | more
    return curricula.Curriculum(syllabus, volume.Ranking("entropy", 16), images, **given)


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("syllabus", ["none", "batch", "macro"])
def test_every_image_comes_once_in_every_epoch_and_at_another_place_in_the_next(syllabus: str) -> None:
    course, generator = lessons(syllabus), drawn()
    first, second = (torch.cat(list(course.batches(epoch, generator))) for epoch in range(2))
    assert torch.equal(first.sort().values, torch.arange(70))
    assert torch.equal(second.sort().values, torch.arange(70))
    assert not torch.equal(first, second)
    assert [len(one) for one in course.batches(0, drawn())] == [8] * 8 + [6]


def test_a_macro_batch_goes_from_simple_to_complex_across_its_minibatches() -> None:
    course = lessons("macro")
    scores = plugin_module("defenses._measures").score("entropy", course.images.flatten(1)[None], None, 16)[0]
    means = torch.tensor([scores[one].mean() for one in course.batches(0, drawn())])
    for macro in means.split(3):
        assert (macro.diff() >= 0).all()
    assert means[3] < means[2]
    rows = torch.cat(list(course.batches(0, drawn())))[:24]
    assert not torch.equal(rows.sort().values, torch.arange(24))


def test_the_reference_of_a_macro_batch_is_its_image_of_least_entropy() -> None:
    course = replace(lessons("macro"), ranking=volume.Ranking("mutual-information", 16))
    scores = plugin_module("defenses._measures").score("entropy", course.images.flatten(1)[None], None, 16)[0]
    for rows in torch.cat(list(course.batches(0, drawn()))).split(24):
        assert rows[0] == rows[scores[rows].argmin()]


def test_pacing_unlocks_from_the_easiest_and_keeps_the_number_of_steps() -> None:
    course = lessons("pacing")
    assert [round(course.share(epoch), 2) for epoch in range(5)] == [0.33, 0.55, 0.78, 1.0, 1.0]
    easiest = course.ranked(torch.arange(70))
    for epoch in range(6):
        batches = course.batches(epoch, drawn(epoch))
        seen = torch.cat(list(batches))
        assert [len(one) for one in batches] == [8] * 8 + [6]
        assert set(seen.tolist()) <= set(easiest[: -int(-70 * course.share(epoch) // 1)].tolist())
    assert torch.equal(seen.sort().values, torch.arange(70))


def test_ordering_inside_a_minibatch_leaves_the_gradient_as_it_was() -> None:
    """The syllabus as printed: nothing that one optimiser step could notice."""
    course = replace(lessons("batch"), images=noise(16, 3, 16, 16))
    made = inflating.inflate(Net(SmallResNet(4), 4), (3, 4, 8), 3).train().double()
    labels = torch.arange(16) % 4

    def gradient(rows: Tensor) -> Tensor:
        volumes = volume.Volumizer(volume.Slicing(8), "raster").volume(course.images[rows].double(), streams(len(rows)))
        loss = deciding.pal(made(volumes, streams(len(rows))), labels[rows], "mean")
        return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(made.parameters()))])

    (ordered, *_), (shuffled, *_) = (replace(course, syllabus=one).batches(0, drawn()) for one in ("batch", "none"))
    assert torch.equal(ordered.sort().values, shuffled.sort().values)
    assert not torch.equal(ordered, shuffled)
    assert (gradient(ordered) - gradient(shuffled)).abs().max() <= 1e-6
