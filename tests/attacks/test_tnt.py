"""TnT: only a latent moves, so the patch is a picture that the generator can make; generators come from a file too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from bench.contracts import Artifact, Classifier, Goal, InputError
from bench.plugins.registry import make_attack

from ..toys import LinearClassifier, SmallConvNet, images_of, model_of, plugin_module, streams

generators: Any = plugin_module("attacks._generators")
training: Any = plugin_module("attacks.train_generator")
CHEAP = "tnt:steps=4,restarts=2,candidates=4,batch_size=4,area=0.2"
RANGE = generators.LIMIT


def latents(count: int, size: int, reach: float = RANGE) -> Tensor:
    drawn: Tensor = streams(count).uniform(size, low=-reach, high=reach)
    return drawn


def learned(text: str, classifier: Classifier, images: Tensor, goal: Goal, seed: int = 0) -> Artifact:
    attack: Any = make_attack(text)
    attack.check(tuple(images.shape[1:]), classifier.num_classes)
    artifact: Artifact = attack.learn(model_of(classifier, len(images)), images, goal, streams(len(images), seed))
    return artifact


def scene(count: int = 12, dtype: torch.dtype = torch.float32) -> tuple[Classifier, Tensor, Goal]:
    classifier = SmallConvNet().to(dtype)
    images = images_of(count, 3, 16, 16, dtype=dtype)
    return classifier, images, Goal(classifier(images, streams(count)).argmax(1))


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    generator = generators.ConvolutionalFlower(latent=5, side=16, width=4)
    generators.save_generator(tmp_path / "flower.safetensors", generator)
    return tmp_path / "flower.safetensors"


def test_every_procedural_flower_is_a_picture_in_range() -> None:
    flower = generators.ProceduralFlower(24)
    drawn = torch.cat([latents(50, flower.latent), RANGE * latents(50, flower.latent).sign()])
    pictures = flower(drawn)
    assert pictures.shape == (100, 3, 24, 24)
    assert pictures.min() >= 0
    assert pictures.max() <= 1


def test_the_procedural_flower_is_smooth_in_every_part_of_its_latent() -> None:
    flower = generators.ProceduralFlower(5)
    drawn = latents(1, flower.latent, 1.9).double().requires_grad_()
    assert torch.autograd.gradcheck(flower, drawn, atol=1e-5)
    (gradient,) = torch.autograd.grad(generators.ProceduralFlower(16)(drawn).square().sum(), drawn)
    assert (gradient.abs() > 1e-9).any(0).all()


@pytest.mark.parametrize("from_file", [False, True])
def test_the_patch_is_what_the_generator_makes_of_the_latent(from_file: bool, trained: Path) -> None:
    classifier, images, goal = scene()
    file = str(trained) if from_file else None
    artifact = learned(CHEAP + (f",generator={file}" if file else ""), classifier, images, goal)
    assert torch.equal(generators.load_generator(file)(artifact["latent"][None])[0], artifact["patch"])
    assert artifact["latent"].abs().max() <= RANGE


def test_learning_leaves_the_generator_and_the_classifier_as_they_were(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier, images, goal = scene()
    generator = generators.load_generator(str(trained))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    monkeypatch.setattr(plugin_module("attacks.tnt"), "load_generator", lambda path: generator)
    learned(CHEAP, classifier, images, goal)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert all(weight.grad is None for weight in [*generator.parameters(), *classifier.parameters()])


def test_the_flower_is_the_same_on_every_image_and_nothing_else_changes() -> None:
    classifier, images, goal = scene()
    text = "tnt:steps=4,restarts=2,candidates=4,batch_size=4,area=49/256,rotation=0,scale=1:1"
    attack: Any = make_attack(text)
    artifact = learned(text, classifier, images, goal)
    adversarial = attack.given(artifact)(model_of(classifier, 12), images, goal, streams(12))
    assert attack.allows(images, adversarial).all()
    changed = (adversarial != images).any(1)
    side = attack.side(16, 16)
    assert (changed.sum((1, 2)) <= side * side).all()
    placement = attack.place(images, streams(12).derive("placement"))
    assert not (changed & ~placement.mask(16, 16)).any()
    flower = attack.fitted(artifact["patch"][None], images.shape[1:])[0]
    for image, (row, column) in zip(adversarial, placement.corners.tolist(), strict=True):
        assert torch.allclose(image[:, row : row + side, column : column + side], flower[:, :side, :side], atol=1e-5)


def test_occlusion_covers_the_same_pixels() -> None:
    images = images_of(20, 3, 16, 16, dtype=torch.float32)
    masks = [
        make_attack(f"{name}:area=0.2,scale=0.6:1,rotation=30").place(images, streams(20)).mask(16, 16)  # type: ignore[attr-defined]  # of Placed
        for name in ("tnt", "occlusion")
    ]
    assert torch.equal(*masks)


def test_one_seed_gives_one_latent_and_another_seed_another() -> None:
    classifier, images, goal = scene()
    first, again = (learned(CHEAP, classifier, images, goal)["latent"] for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, learned(CHEAP, classifier, images, goal, seed=1)["latent"])


def linear_scene() -> tuple[LinearClassifier, Tensor, Goal]:
    """Class 0 loses its lead as the whole image turns red."""
    images = images_of(16, 3, 8, 8, dtype=torch.float64)
    weights = torch.zeros(2, 3, 64, dtype=torch.float64)
    weights[1, 0], weights[1, 1:] = 1, -1
    labels = torch.zeros(16, dtype=torch.int64)
    return LinearClassifier(weights.flatten(1), torch.tensor([40.0, 0.0], dtype=torch.float64)), images, Goal(labels)


def test_small_steps_never_raise_the_loss_of_a_linear_model() -> None:
    tnt: Any = plugin_module("attacks.tnt")
    classifier, images, goal = linear_scene()
    attack: Any = make_attack("tnt:steps=1,step_size=0.005,restarts=3,candidates=3,batch_size=16,loss=margin,area=0.3")
    trial = tnt._Trial(attack, generators.ProceduralFlower(), model_of(classifier, 16), images, goal, streams(16))
    searched = latents(3, 28, 1.5).double()
    before = trial.outcome(searched, "step 0", 16)[0]
    for _ in range(5):
        searched = attack._search(trial, searched)
        after = trial.outcome(searched, "step 0", 16)[0]
        assert (after <= before + 1e-9).all()
        before = after
    assert (searched.abs() <= RANGE).all()


def test_a_searched_flower_is_stronger_than_a_drawn_one() -> None:
    classifier, images, goal = linear_scene()
    values = []
    for steps in (0, 60):
        text = f"tnt:steps={steps},restarts=2,candidates=2,batch_size=8,loss=margin,area=0.5,step_size=0.3"
        attack: Any = make_attack(text)
        artifact = learned(text, classifier, images, goal)
        adversarial = attack.given(artifact)(model_of(classifier, 16), images, goal, streams(16))
        values.append(goal.margin(classifier(adversarial, streams(16))).mean())
    assert values[1] < values[0] - 5


def test_a_targeted_goal_lowers_the_loss_of_that_class() -> None:
    classifier, images, goal = scene(dtype=torch.float64)
    text = "tnt:steps=25,restarts=2,candidates=4,batch_size=12,area=0.4,step_size=0.2"
    attack: Any = make_attack(text)
    target = int((goal.labels[0] + 1) % 10)
    rows = goal.labels != target
    images, labels = images[rows], goal.labels[rows]
    targeted = Goal(labels, torch.full_like(labels, target))
    artifact = learned(text, classifier, images, targeted)
    adversarial = attack.given(artifact)(model_of(classifier, len(images)), images, targeted, streams(len(images)))
    before, after = (targeted.cross_entropy(classifier(x, streams(len(x)))).mean() for x in (images, adversarial))
    assert after < before


def test_memory_that_holds_one_latent_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    classifier, images, goal = linear_scene()
    whole = learned(CHEAP, classifier, images, goal)
    monkeypatch.setattr(plugin_module("attacks.tnt"), "piece_of", lambda shape: 1)
    assert torch.equal(learned(CHEAP, classifier, images, goal)["latent"], whole["latent"])


def test_it_stops_when_a_flower_succeeds_everywhere() -> None:
    classifier, images, goal = linear_scene()
    easy = LinearClassifier(classifier.weights, torch.tensor([-50.0, 0.0], dtype=torch.float64))
    model = model_of(easy, 16)
    make_attack(CHEAP.replace("steps=4", "steps=50")).learn(model, images, goal, streams(16))  # type: ignore[attr-defined]  # universal
    assert int(model.forwards.sum()) == 4 * 8 + 10 * 2 * 4 + 3 * 16


def test_grey_images_get_grey_flowers() -> None:
    images = images_of(4, 1, 12, 12, dtype=torch.float32)
    classifier = LinearClassifier(streams(1).normal(3, 144)[0])
    goal = Goal(classifier(images, streams(4)).argmax(1))
    artifact = learned(CHEAP, classifier, images, goal)
    attack: Any = make_attack(CHEAP)
    assert attack.given(artifact)(model_of(classifier, 4), images, goal, streams(4)).shape == images.shape


def test_the_title_says_what_stands_in_for_what(trained: Path) -> None:
    stand_in, real = make_attack("tnt"), make_attack(f"tnt:generator={trained}")
    assert stand_in.title == "TnT (procedural flower)"
    assert "stands in" in stand_in.note
    assert real.title == "TnT"
    assert "stands in" not in real.note


def test_a_generator_comes_back_from_its_file_to_the_bit(tmp_path: Path) -> None:
    generator = generators.ConvolutionalFlower(latent=6, side=32, width=3)
    generator(latents(8, 6))  # so that the batch norms have seen something
    generators.save_generator(tmp_path / "g.safetensors", generator.eval())
    again = generators.load_generator(str(tmp_path / "g.safetensors"))
    assert torch.equal(again(latents(4, 6)), generator(latents(4, 6)))
    assert not again.training
    assert not any(weight.requires_grad for weight in again.parameters())


@pytest.mark.parametrize("wrong", ["absent", "no safetensors", "no metadata", "another side", "strange architecture"])
def test_a_generator_file_that_does_not_fit_is_an_error_before_any_work(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    weights = generators.ConvolutionalFlower(latent=6, side=32, width=3).state_dict()
    metadata = {"architecture": "convolutional", "latent": "6", "side": "32", "width": "3"}
    if wrong == "no safetensors":
        path.write_bytes(b"flowers")
    elif wrong != "absent":
        changes = {"another side": {"side": "16"}, "strange architecture": {"architecture": "transformer"}}
        save_file(weights, path, None if wrong == "no metadata" else metadata | changes.get(wrong, {}))
    with pytest.raises(InputError, match=r"Expected|do not fit"):
        make_attack(f"tnt:generator={path}").check((3, 32, 32), 10)


@pytest.mark.parametrize(
    "text", ["steps=-1", "restarts=0", "candidates=3", "step_size=0", "stop=0", "area=1.5", "batch_size=0"]
)
def test_wrong_parameters_are_errors_before_any_work(text: str) -> None:
    with pytest.raises(InputError, match="refuses"):
        make_attack(f"tnt:{text}")


def test_images_of_two_channels_are_refused() -> None:
    with pytest.raises(InputError, match="channels"):
        make_attack("tnt").check((2, 32, 32), 10)


def pictures(folder: Path, count: int = 6) -> Path:
    """Red pictures of several sizes, in a subfolder."""
    (folder / "red").mkdir()
    for number in range(count):
        Image.new("RGB", (20 + 3 * number, 17), (230, 20 + number, 25)).save(folder / "red" / f"{number}.png")
    return folder


def test_training_brings_a_generator_near_its_pictures_and_repeats_under_a_seed(tmp_path: Path) -> None:
    read = training.read_pictures(pictures(tmp_path), 8)
    assert read.shape == (6, 3, 8, 8)
    wanted = read.float().mean((0, 2, 3)) / 255
    made = []
    for steps in (1, 30, 30):
        generator = generators.ConvolutionalFlower(latent=4, side=8, width=4)
        training.train(read, generator, steps, seed=3, batch_size=8, rate=5e-3)
        made.append(generator(latents(32, 4)).mean((0, 2, 3)))
    assert torch.equal(made[1], made[2])
    assert (made[1] - wanted).abs().max() < (made[0] - wanted).abs().max() / 2


def test_the_command_writes_a_generator_that_tnt_can_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "flower.safetensors"
    options = f"--pictures {pictures(tmp_path)} --out {out} --side 8 --latent 3 --width 4 --steps 2 --batch-size 4"
    training.main(options.split())
    assert "step 2 of 2" in capsys.readouterr().err
    classifier, images, goal = scene()
    artifact = learned(f"{CHEAP},generator={out}", classifier, images, goal)
    assert artifact["patch"].shape == (3, 8, 8)


@pytest.mark.parametrize("options", ["--pictures EMPTY --out x", "--pictures EMPTY --out no/x --side 8", "--out x"])
def test_the_command_says_what_is_wrong(options: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        training.main(options.replace("EMPTY", str(tmp_path)).split())
    assert "error" in capsys.readouterr().err
