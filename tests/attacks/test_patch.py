"""Patches: pasted exactly, over exactly their area; learned with fresh gradients; the same masks for the controls."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench.contracts import Artifact, Classifier, Goal, InputError, Model, Patch, Streams, UniversalAttack
from bench.core.checkpoints import Checkpoint
from bench.engine.craft import craft
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.models import load_model
from bench.plugins.fingerprints import plugin_key
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmoothClassifier, images_of, model_of, streams

pasting: Any = importlib.import_module("bench.attacks._paste")
Placed, paste, side_of = pasting.Placed, pasting.paste, pasting.side_of
UPRIGHT = {"rotation": 0.0, "scale": (1.0, 1.0)}


@pytest.mark.parametrize("size", [(32, 32), (17, 40)])
@pytest.mark.parametrize("shape", ["square", "disc"])
@pytest.mark.parametrize("location", ["random", "border", "corner"])
@pytest.mark.parametrize(("rotation", "scale"), [(0.0, (1.0, 1.0)), (45.0, (0.5, 1.0)), (180.0, (0.9, 0.9))])
@pytest.mark.parametrize("area", [1 / 1024, 0.0625, 0.2])
def test_every_patch_covers_exactly_its_pixels_and_nothing_else_changes(
    size: tuple[int, int], shape: str, location: str, rotation: float, scale: tuple[float, float], area: float
) -> None:
    images = images_of(100, 3, *size, dtype=torch.float32)
    placed = Placed(area, shape, rotation, scale, location)
    placement = placed.place(images, streams(100))
    side = placed.side(*size)
    adversarial = paste(images, torch.ones(3, side, side), placement)
    changed = (adversarial != images).any(1)
    assert torch.equal(changed.sum((1, 2)), placement.pixels)
    assert torch.equal(changed, placement.mask(*size))
    assert placement.pixels.max() <= Patch(area).pixels(*size)
    if scale == (1.0, 1.0):
        assert (placement.pixels == Patch(area).pixels(*size)).all()
    assert placed.budget.allows(images, adversarial).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [1, 2, 5, 7, 8, 10, 16])
def test_an_upright_square_arrives_pixel_for_pixel(side: int, dtype: torch.dtype) -> None:
    images, patch = images_of(20, 3, 16, 18, dtype=dtype), streams(1).uniform(3, side, side)[0].to(dtype)
    placement = Placed(side**2 / (16 * 18), **UPRIGHT).place(images, streams(20))
    adversarial = paste(images, patch, placement)
    for image, (row, column) in zip(adversarial, placement.corners.tolist(), strict=True):
        assert torch.equal(image[:, row : row + side, column : column + side], patch)


def test_every_offset_is_reached_equally_often() -> None:
    images = images_of(8000, 1, 4, 4, dtype=torch.float32)
    corners = Placed(4 / 16, **UPRIGHT).place(images, streams(8000)).corners
    counts = torch.bincount(corners[:, 0] * 3 + corners[:, 1], minlength=9).double()
    assert len(counts) == 9
    assert ((counts - 8000 / 9) ** 2 / (8000 / 9)).sum() < 26.1  # chi-square of 8 degrees, p = 0.001


@pytest.mark.parametrize("rotation", [0.0, 30.0, 180.0])
@pytest.mark.parametrize("shape", ["square", "disc"])
def test_the_box_stays_inside_the_image(shape: str, rotation: float) -> None:
    images = images_of(1000, 1, 20, 30, dtype=torch.float32)
    placement = Placed(0.1, shape, rotation, (0.5, 1.0)).place(images, streams(1000))
    assert (placement.corners >= 0).all()
    assert (placement.corners + placement.boxes <= torch.tensor([20, 30])).all()
    assert (placement.corners == 0).any(0).all()
    assert (placement.corners + placement.boxes == torch.tensor([20, 30])).any(0).all()


def test_a_patch_along_the_border_touches_it_and_reaches_all_four_sides() -> None:
    images = images_of(400, 1, 12, 20, dtype=torch.float32)
    mask = Placed(9 / 240, location="border", **UPRIGHT).place(images, streams(400)).mask(12, 20)
    touches = torch.stack([mask[:, 0].any(1), mask[:, -1].any(1), mask[:, :, 0].any(1), mask[:, :, -1].any(1)], 1)
    assert touches.any(1).all()
    assert (touches.sum(0) > 60).all()
    assert mask[touches[:, 0]].any(0)[0].all()  # along the upper side every column is reached


def test_a_patch_in_a_corner_covers_it_and_reaches_all_four() -> None:
    images = images_of(200, 1, 12, 20, dtype=torch.float32)
    mask = Placed(9 / 240, location="corner", **UPRIGHT).place(images, streams(200)).mask(12, 20)
    corners = mask[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners.sum(1) == 1).all()
    assert (corners.sum(0) > 25).all()


def test_a_fixed_patch_lies_where_it_was_put() -> None:
    images = images_of(3, 1, 12, 20, dtype=torch.float32)
    attack = make_attack("occlusion:location=fixed,at=9:17,area=0.0375,rotation=0,scale=1:1,grey=1")
    adversarial = attack.perturb(model_of(SmoothClassifier(240, 2), 3), images, Goal(torch.zeros(3).long()), streams(3))
    assert (adversarial[:, 0, 9:, 17:] == 1).all()
    assert torch.equal(adversarial[:, 0, :9], images[:, 0, :9])


def test_a_disc_is_round() -> None:
    images = images_of(1, 1, 64, 64, dtype=torch.float32)
    mask = Placed(0.1, "disc", **UPRIGHT).place(images, streams(1)).mask(64, 64)[0]
    rows, columns = mask.nonzero().unbind(1)
    radius = torch.hypot(rows - rows.double().mean(), columns - columns.double().mean()).max()
    assert 3.14159 * radius**2 == pytest.approx(0.1 * 64 * 64, rel=0.12)


def test_the_gradient_at_the_patch_is_that_of_finite_differences() -> None:
    images, net = images_of(5, 2, 9, 9), SmoothClassifier(162, 3)
    placement = Placed(0.2, rotation=30.0, scale=(0.7, 1.0)).place(images, streams(5))
    goal = Goal(torch.tensor([0, 1, 2, 0, 1]))

    def loss(patch: Tensor) -> Tensor:
        return goal.cross_entropy(net(paste(images, patch, placement), streams(5))).sum()

    assert torch.autograd.gradcheck(loss, images_of(1, 2, 4, 4)[0].requires_grad_())


def linear_setting(count: int = 6) -> tuple[LinearClassifier, Tensor, Goal]:
    """Class 0 against class 1, told apart by `weights` · image; images of class 0."""
    weights = images_of(1, 3 * 36, seed=3)[0] - 0.5
    net = LinearClassifier(torch.stack([weights, torch.zeros_like(weights)]), torch.tensor([3.0, 0.0]).double())
    return net, images_of(count, 3, 6, 6), Goal(torch.zeros(count, dtype=torch.int64))


def learned(text: str, net: Any, images: Tensor, goal: Goal, seed: int = 0) -> tuple[UniversalAttack, Artifact]:
    attack = make_attack(f"patch:{text}")
    assert isinstance(attack, UniversalAttack)
    model = Model(net, streams(len(images), 7))
    return attack, attack.learn(model, images, goal, streams(len(images), seed))


STILL = "area=0.25,restarts=1,rotation=0,scale=1:1,location=fixed,at=2:1,batch_size=6,loss=margin"


def test_the_gradient_of_a_step_is_fresh() -> None:
    net, images, goal = linear_setting()
    start = learned(f"{STILL},update=gradient,momentum=0,decay=false,step_size=1e-12,steps=1", net, images, goal)[1][
        "patch"
    ]
    patches = [
        learned(f"{STILL},update=gradient,momentum=0,decay=false,step_size=0.01,steps={steps}", net, images, goal)[1][
            "patch"
        ]
        for steps in (1, 2, 3)
    ]
    true = net.weights[0].reshape(3, 6, 6)[:, 2:5, 1:4]  # the margin's gradient is the same at each step
    for steps, patch in enumerate(patches, start=1):
        torch.testing.assert_close(start - patch, 0.01 * steps * true)


def test_a_still_patch_reaches_the_optimum_of_a_linear_model() -> None:
    net, images, goal = linear_setting()
    true = net.weights[0].reshape(3, 6, 6)[:, 2:5, 1:4]
    for rule in ("update=sign", "update=sign,momentum=0", "update=adam"):
        _, artifact = learned(f"{STILL},{rule},steps=60", net, images, goal)
        assert torch.equal(artifact["patch"], (true < 0).double()), rule


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(
    "rule", ["update=sign,step_size=0.5", "update=gradient,step_size=9", "update=adam,step_size=1"]
)
def test_the_learned_patch_stays_in_range_and_lowers_the_loss(rule: str, targeted: bool) -> None:
    net, images = SmoothClassifier(108, 4), images_of(16, 3, 6, 6)
    labels = net(images, streams(16)).argmax(1)
    goal = Goal(labels, torch.full_like(labels, 2) if targeted else None)
    attack, artifact = learned(f"area=0.25,{rule},steps=20", net, images, goal)
    patch = artifact["patch"]
    assert patch.shape == (3, 3, 3)
    assert patch.min() >= 0
    assert patch.max() <= 1
    grey = attack.apply({"patch": torch.full_like(patch, 0.5)}, images, goal, streams(16, 5))
    adversarial = attack.apply(artifact, images, goal, streams(16, 5))
    before, after = (goal.cross_entropy(net(one, streams(16))).mean() for one in (grey, adversarial))
    assert after < before


def test_all_images_get_the_same_patch() -> None:
    images, attack = (
        images_of(10, 3, 16, 16, dtype=torch.float32),
        make_attack("patch:area=0.0625,rotation=0,scale=1:1"),
    )
    assert isinstance(attack, UniversalAttack)
    patch = streams(1).uniform(3, 4, 4)[0]
    adversarial = attack.apply({"patch": patch}, images, Goal(torch.zeros(10).long()), streams(10))
    mask = (adversarial != images).any(1)
    assert all(
        torch.equal(image[:, where].reshape(3, 4, 4), patch) for image, where in zip(adversarial, mask, strict=True)
    )


def test_learning_twice_gives_the_same_patch_and_another_seed_another() -> None:
    net, images, goal = linear_setting()
    first, again, other = (learned("steps=5,area=0.25", net, images, goal, seed)[1]["patch"] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("text", ["occlusion", "random-patch", "patch"])
def test_a_patch_is_the_same_in_any_batch(text: str) -> None:
    net, images = SmoothClassifier(300, 3), images_of(8, 3, 10, 10)
    labels = net(images, streams(8)).argmax(1)
    attack, goal = make_attack(text), Goal(labels)
    if isinstance(attack, UniversalAttack):
        attack = attack.given({"patch": images_of(1, 3, 3, 3)[0]})
    whole = attack(model_of(net, 8), images, goal, streams(8))
    parts = [
        attack(model_of(net, 8)[part], images[part], goal[part], streams(8)[part])
        for part in (slice(0, 3), slice(3, 8))
    ]
    assert torch.equal(whole, torch.cat(parts))
    assert attack.allows(images, whole).all()


@pytest.mark.parametrize("parameters", ["", ":location=border", ":shape=disc,area=0.2", ":rotation=90,scale=0.3:0.9"])
def test_the_controls_cover_the_same_pixels_as_the_patch(parameters: str) -> None:
    images, goal = images_of(30, 3, 16, 16, dtype=torch.float32), Goal(torch.zeros(30).long())
    model = model_of(SmoothClassifier(768, 2), 30)
    patch = make_attack("patch" + parameters)
    assert isinstance(patch, UniversalAttack)
    masks = [
        (attack.perturb(model, images, goal, streams(30)) != images).any(1)
        for attack in (
            patch.given({"patch": torch.ones(3, 5, 5)}),
            make_attack("occlusion" + parameters),
            make_attack("random-patch" + parameters),
        )
    ]
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[0], masks[2])


def test_smoothness_gives_smoother_patches_and_disguise_a_look(tmp_path: Path) -> None:
    roughness = importlib.import_module("bench.attacks._update").roughness
    net, images, goal = linear_setting()
    plain, smooth = (
        learned(f"{STILL},steps=40,smoothness={weight}", net, images, goal)[1]["patch"] for weight in (0, 100)
    )
    assert roughness(smooth) < 0.2 * roughness(plain)
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "red.png")
    look = f"disguise={tmp_path / 'red.png'},disguise_weight=100"
    red = learned(f"{STILL},steps=60,{look}", net, images, goal)[1]["patch"]
    torch.testing.assert_close(red.mean((1, 2)), torch.tensor([1.0, 0.0, 0.0]).double(), atol=0.1, rtol=0)


def test_the_worse_half_of_the_starts_is_given_up_until_one_is_left() -> None:
    net, images = SmoothClassifier(108, 4), images_of(16, 3, 6, 6)
    goal = Goal(net(images, streams(16)).argmax(1))
    told: list[float] = []
    attack = make_attack("patch:area=0.25,steps=20,restarts=3")
    assert isinstance(attack, UniversalAttack)
    model = Model(net, streams(16), progress=told.append)
    artifact = attack.learn(model, images, goal, streams(16))
    assert artifact["patch"].shape == (3, 3, 3)
    assert model.forwards.sum() == 16 * (1 + 3 * 2 + 2 * 2 + 16)  # a look at the classes, 3 starts, 2, and the best
    assert told == sorted(told)
    assert told[-1] == 1


def test_starts_that_aim_at_other_classes_get_past_the_nearest_one() -> None:
    class Valley(Classifier):
        """Grey images pull towards class 1, which never wins; class 2 is far away and wins."""

        num_classes = 3

        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            mean = images.mean((1, 2, 3))
            return torch.stack([torch.ones_like(mean), 0.9 - 20 * (mean - 0.45) ** 2, 8 * mean - 6], dim=1)

    images, goal, net = images_of(4, 3, 6, 6), Goal(torch.zeros(4, dtype=torch.int64)), Valley()
    reached = []
    for restarts in (1, 2):
        covered = f"area=1,rotation=0,scale=1:1,steps=30,step_size=0.2,restarts={restarts}"
        attack, artifact = learned(covered, net, images, goal)
        reached.append(goal.reached(net(attack.apply(artifact, images, goal, streams(4)), streams(4))).all())
    assert reached == [False, True]


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> tuple[LinearClassifier, LinearClassifier]:
    """Two linear models of the same images that look at different things; `python:two:first` and `:second`."""
    first, second = (
        LinearClassifier(torch.stack([weights, torch.zeros_like(weights)]), torch.tensor([1.0, 0.0]).double())
        for weights in images_of(2, 3 * 36, seed=4) - 0.5
    )
    module = ModuleType("two")
    module.first, module.second = (lambda: first), (lambda: second)  # type: ignore[attr-defined]  # made here
    monkeypatch.setitem(sys.modules, "two", module)
    return first, second


def test_a_patch_learned_on_two_models_in_turn_works_on_both(two: tuple[LinearClassifier, LinearClassifier]) -> None:
    images, goal = images_of(6, 3, 6, 6), Goal(torch.zeros(6, dtype=torch.int64))
    patches = {}
    for models in ("victim", "victim;python:two:second"):
        attack, patches[models] = learned(f"{STILL},steps=60,models={models}", two[0], images, goal)
    alone, both = (
        [goal.margin(net(attack.apply(patch, images, goal, streams(6)), streams(6))) for net in two]
        for patch in patches.values()
    )
    assert (alone[0] < 0).all()
    assert (both[0] < 0).all()
    assert (both[1] < alone[1]).all()
    summed = (two[0].weights + two[1].weights)[0].reshape(3, 6, 6)[:, 2:5, 1:4]  # what both margins together follow
    clear = summed.abs() > 0.05
    assert torch.equal(patches["victim;python:two:second"]["patch"][clear], (summed < 0).double()[clear])


def test_in_the_transfer_setting_the_victim_is_asked_nothing_and_the_patch_is_that_of_the_other_model(
    two: tuple[LinearClassifier, LinearClassifier],
) -> None:
    images, goal = images_of(6, 3, 6, 6), Goal(torch.zeros(6, dtype=torch.int64))
    attack = make_attack(f"patch:{STILL},steps=9,models=python:two:second")
    assert isinstance(attack, UniversalAttack)
    assert (attack.access, attack.title) == ("none", "Patch (transfer)")
    victim = Model(two[0], streams(6))
    transferred = attack.learn(victim, images, Goal(goal.labels, rejects=True), streams(6))
    assert victim.forwards.sum() == 0
    _, own = learned(f"{STILL},steps=9", two[1], images, goal)
    assert torch.equal(transferred["patch"], own["patch"])


def test_the_steps_are_shared_out_among_the_models(two: tuple[LinearClassifier, LinearClassifier]) -> None:
    images, goal = images_of(6, 3, 6, 6), Goal(torch.zeros(6, dtype=torch.int64))
    attack = make_attack(f"patch:{STILL},steps=10,models=python:two:first;python:two:second;victim")
    assert isinstance(attack, UniversalAttack)
    assert attack.access == "gradients"
    victim = Model(two[0], streams(6))
    attack.learn(victim, images, goal, streams(6))
    assert victim.forwards.sum() == 6 * 3  # steps 2, 5 and 8


def test_other_models_come_with_parameters_and_weights_and_the_cache_knows_their_content(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    text = f"patch:area=0.25,models=victim;mnist-cnn:mean=0.5&std=0.25@{file}"
    keys = []
    for seed in (0, 1):
        net: Any = load_model("mnist-cnn", num_classes=2, image_shape=(1, 8, 8), seed=seed)
        save_file(net.network.state_dict(), file)
        make_attack(text).check((1, 8, 8), 2)
        keys.append(plugin_key(make_attack(text)))
    assert keys[0] != keys[1]
    with pytest.raises(InputError, match="cannot be learned on 'mnist-cnn"):
        make_attack(text).check((1, 8, 8), 3)
    with pytest.raises(InputError, match="no file"):
        make_attack("patch:models=resnet20@gone.safetensors").check((3, 32, 32), 10)


def test_a_run_in_the_transfer_setting_learns_without_a_look_at_the_victim(shared_run: Any) -> None:
    testbed, asked = shared_run
    attack = make_attack("patch:steps=2,restarts=1,training_images=20,models=photos-cnn:trained=false")
    crafted = craft(attack, asked, testbed, testbed.rows, 1, lambda share, doing: None, Checkpoint(None))
    assert asked.rows == 2 * len(testbed)  # which images are eligible, and what became of them
    assert crafted.artifact["patch"].shape[0] == 3


@pytest.fixture
def shared_run() -> tuple[Testbed, Any]:
    testbed = testbed_of(Setting("photos", "photos-cnn", images=10))

    class Asked(Classifier):
        rows, num_classes = 0, testbed.classes

        def forward(self, images: Tensor, rng: Streams) -> Tensor:
            self.rows += len(images)
            logits: Tensor = testbed.bare(images, rng)
            return logits

    return testbed, Asked()


def test_a_given_picture_is_the_patch_and_nothing_is_asked(tmp_path: Path) -> None:
    net, images, goal = linear_setting()
    pixels = torch.randint(0, 256, (3, 3, 3), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "sticker.png")
    attack = make_attack(f"patch:area=0.25,image={tmp_path / 'sticker.png'}")
    assert isinstance(attack, UniversalAttack)
    model = Model(net, streams(6))
    patch = attack.learn(model, images, goal, streams(6))["patch"]
    assert torch.equal(patch, pixels.double() / 255)
    assert model.forwards.sum() == 0
    assert attack.access == "none"


def test_what_is_transparent_in_a_picture_becomes_grey(tmp_path: Path) -> None:
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    read = importlib.import_module("bench.attacks._picture").read_picture
    values = read(tmp_path / "clear.png", images_of(1, 3, 6, 6), 3)
    torch.testing.assert_close(values, torch.full((3, 3, 3), 128 / 255).double())


def test_a_missing_or_broken_picture_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no picture"):
        make_attack(f"patch:image={tmp_path / 'none.png'}")
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match="cannot be read"):
        make_attack(f"patch:disguise={tmp_path / 'text.png'}")


@pytest.mark.parametrize(
    "parameters",
    [
        "area=0", "area=1.2", "rotation=-1", "scale=0:1", "scale=0.5:1.5", "scale=1:0.5", "at=-1:0", "location=sky",
        "shape=star", "steps=0", "batch_size=0", "step_size=0", "momentum=1", "restarts=0", "training_images=0",
        "smoothness=-1", "disguise_weight=-1", "models=", "models=victim;",
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(parameters: str) -> None:
    with pytest.raises(InputError):
        make_attack(f"patch:{parameters}")


def test_a_patch_that_does_not_fit_is_refused_before_any_work() -> None:
    with pytest.raises(InputError, match="does not fit"):
        make_attack("patch:area=0.5").check((3, 16, 64), 10)
    with pytest.raises(InputError, match="leaves the 16×16 image"):
        make_attack("occlusion:location=fixed,at=14:0").check((3, 16, 16), 10)
    make_attack("patch:area=1").check((3, 32, 32), 10)


def test_the_sources_settings_are_presets() -> None:
    brown, uva = make_attack("patch:brown2017"), make_attack("patch:uva")
    assert (brown.shape, brown.rotation, brown.update) == ("disc", 22.5, "gradient")  # type: ignore[attr-defined]
    assert (uva.shape, uva.rotation, uva.momentum) == ("square", 0.0, 0.8)  # type: ignore[attr-defined]
    assert make_attack("patch", effort="paper") == brown
    assert side_of(make_attack("patch:uva").budget.pixels(224, 224), "square") == 64  # type: ignore[attr-defined]
