"""Contract checks of a plugin: a list of small named checks that anyone can run on an attack or a defense."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, is_dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.contracts import (
    Artifact,
    Attack,
    CertifiedDefense,
    Classifier,
    Defense,
    Goal,
    Images,
    InputError,
    Linf,
    Model,
    NotApplicableError,
    Patch,
    Streams,
    Transform,
    UniversalAttack,
    answers,
)
from bench.registry import Spec, add_file, addresses, make_attack, make_defense

CLASSES, SIDE = 4, 32


class BrokenContractError(Exception):
    """A plugin does not keep the agreement; says what was expected and what came."""


def expect(kept: bool | Tensor, otherwise: str) -> None:
    """Raises BrokenContractError with `otherwise` unless `kept`."""
    if not bool(kept):
        raise BrokenContractError(otherwise)


class ToyClassifier(Classifier):
    """A small smooth network with fixed weights; float64, so that batches do not change its answers' rounding much."""

    num_classes = CLASSES

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(0)
        shape = (8, 3, 5, 5)
        self.filters = nn.Conv2d(3, 8, 5, stride=2, padding=2, bias=False, device="meta")
        self.filters.weight = nn.Parameter(torch.randn(shape, generator=rng, dtype=dtype) / 4, requires_grad=False)
        self.head = nn.Parameter(torch.randn(8 * 16, CLASSES, generator=rng, dtype=dtype), requires_grad=False)

    def forward(self, images: Images, rng: Streams) -> Tensor:
        """Logits of shape (n, 4)."""
        features = self.filters(images.to(self.head.dtype))
        pooled = nn.functional.adaptive_avg_pool2d(torch.tanh(features), 4).flatten(1)
        return (pooled @ self.head) * 2


@dataclass(frozen=True)
class ToyExamples:
    """Random images with the toy classifier's own answers as labels."""

    images: Tensor
    labels: Tensor
    checkpoint: Path | None = None

    def load(self, indices: Tensor) -> Images:
        """The images with these indices."""
        return self.images[indices]

    def progress(self, share: float) -> None:
        """Nobody listens."""


class Case:
    """What the checks of one plugin share: toy images, a toy classifier, and what the plugin made of them."""

    def __init__(self, plugin: Attack | Defense) -> None:
        self.plugin = plugin
        self.classifier = ToyClassifier()
        self.images = smooth_images(6, torch.float64)
        self.streams = Streams.of(0, torch.arange(6))
        self.labels = answers(self.classifier, self.images, self.streams).argmax(1)
        self.labels[-1] = (self.labels[-1] + 1) % CLASSES  # one image that the classifier gets wrong
        self.goal = Goal(self.labels)

    @property
    def attack(self) -> Attack:
        """The plugin, if it is an attack; a universal one has learned."""
        if not isinstance(self.plugin, Attack):
            raise TypeError("a defense is no attack")
        return self.plugin.given(self.artifact) if isinstance(self.plugin, UniversalAttack) else self.plugin

    @property
    def defense(self) -> Defense:
        """The plugin, if it is a defense."""
        if not isinstance(self.plugin, Defense):
            raise TypeError("an attack is no defense")
        return self.plugin

    @cached_property
    def artifact(self) -> Artifact:
        """What a universal attack learns from the toy images that the classifier gets right."""
        attack = self.plugin
        if not isinstance(attack, UniversalAttack):
            return {}
        rng = self.streams[:5].derive("learning")
        return attack.learn(Model(self.classifier, rng), self.images[:5], self.goal[:5], rng)

    @cached_property
    def learned(self) -> Artifact:
        """What a defense learns."""
        images = smooth_images(24, torch.float32)
        labels = answers(self.classifier, images, Streams.of(1, torch.arange(24))).argmax(1)
        return self.defense.learn(self.classifier, ToyExamples(images, labels), Streams.of(0, torch.arange(24)))

    @cached_property
    def defended(self) -> Classifier:
        """The defended toy classifier."""
        return self.defense.protect(self.classifier, self.learned)

    def attacked(self, rows: slice = slice(None), seed: int = 0) -> tuple[Images, Model]:
        """Adversarial images of some of the toy images, and the model that was asked."""
        rng = Streams.of(seed, torch.arange(6))[rows]
        model = Model(self.classifier, rng.derive("model"))
        adversarial = self.attack(model, self.images[rows].clone(), self.goal[rows], rng.derive("attack"))
        return adversarial, model


def smooth_images(count: int, dtype: torch.dtype) -> Images:
    """Random images on the 8-bit grid with large and small structures, 3×32×32."""
    rng = torch.Generator().manual_seed(7)
    coarse = torch.rand((count, 3, 5, 5), generator=rng, dtype=torch.float64)
    fine = torch.rand((count, 3, SIDE, SIDE), generator=rng, dtype=torch.float64)
    smooth = nn.functional.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
    return ((0.85 * smooth + 0.15 * fine) * 255).round().div(255).to(dtype)


def is_a_frozen_dataclass(case: Case) -> None:
    """Parameters are the fields of a frozen dataclass."""
    plugin: Any = case.plugin
    expect(is_dataclass(plugin), f"expected a dataclass, but {type(plugin).__name__} is none")
    expect(plugin.__dataclass_params__.frozen, f"expected @dataclass(frozen=True) on {type(plugin).__name__}")
    expect(hash(plugin) == hash(plugin), "expected parameters that can be hashed")


def says_what_it_is(case: Case) -> None:
    """It has a title and a first line of its own."""
    plugin = case.plugin
    expect(bool(getattr(plugin, "title", "")), "expected a `title` for the tables")
    expect(bool((type(plugin).__doc__ or "").split("(")[0].strip()), "expected a docstring")
    own = (type(plugin).__doc__ or "").startswith(f"{type(plugin).__name__}(")
    expect(not own, "expected a docstring written by its author; this one is the dataclass's own")


def global_random_numbers_stay_untouched(case: Case) -> None:
    """Randomness comes by argument alone."""
    import numpy as np

    def states() -> list[bytes]:
        numpy_state: Any = np.random.get_state()  # noqa: NPY002  # the global generator is what this is about
        return [
            torch.get_rng_state().numpy().tobytes(),
            numpy_state[1].tobytes() + bytes(str(numpy_state[2:]), "ascii"),
        ]

    before = states()
    if isinstance(case.plugin, Attack):
        case.attacked()
    else:
        answers(case.defense.protect(case.classifier, case.learned), case.images, case.streams)
    for name, old, new in zip(("torch", "NumPy"), before, states(), strict=True):
        expect(old == new, f"expected {name}'s global generator untouched; draw from `rng`")


def gives_images(case: Case) -> None:
    """Adversarial images have the shape and type of the images, and values in [0, 1]."""
    adversarial, _ = case.attacked()
    expect(adversarial.shape == case.images.shape, f"expected {case.images.shape}, but got {adversarial.shape}")
    expect(adversarial.dtype == case.images.dtype, f"expected {case.images.dtype}, but got {adversarial.dtype}")
    inside = (adversarial >= 0).all() & (adversarial <= 1).all()
    expect(inside, "expected values in [0, 1]")


def keeps_its_budget(case: Case) -> None:
    """Every adversarial image passes the attack's own audit."""
    adversarial, _ = case.attacked()
    kept = case.attack.allows(case.images, adversarial)
    expect(kept.all(), f"expected {case.attack.budget}, but image {kept.int().argmin().item()} leaves it")


def leaves_its_inputs_alone(case: Case) -> None:
    """The images given are not changed, nor does the model keep gradients."""
    images = case.images.clone()
    case.attack(Model(case.classifier, case.streams), images, case.goal, case.streams)
    expect(torch.equal(images, case.images), "expected the images given to stay as they are")
    grads = [one for one in case.classifier.parameters() if one.grad is not None]
    expect(not grads, "expected no gradient left in the model's parameters")


def leaves_ineligible_images_alone(case: Case) -> None:
    """An image that is misclassified already is given back bit for bit, without a query."""
    adversarial, model = case.attacked()
    expect(torch.equal(adversarial[-1], case.images[-1]), "expected the misclassified image to come back as it was")
    expect(model.forwards[-1] == 0, f"expected no query for it, but {int(model.forwards[-1])} were made")


def repeats_itself(case: Case) -> None:
    """The same seed gives the same images."""
    expect(torch.equal(case.attacked()[0], case.attacked()[0]), "expected the same images for the same seed")


def does_not_depend_on_the_batch(case: Case) -> None:
    """An image is attacked in the same way alone and among others (float64), unless the attack says otherwise."""
    if isinstance(case.plugin, Attack) and not case.plugin.per_image:
        return
    together = case.attacked()[0]
    apart = torch.cat([case.attacked(slice(0, 2))[0], case.attacked(slice(2, 6))[0]])
    different = (together != apart).flatten(1).any(1)
    expect(not different.any(), f"expected the same images whatever the batch; {int(different.sum())} of 6 differ")


def asks_no_more_than_it_says(case: Case) -> None:
    """`access` is the most it uses."""
    _, model = case.attacked()
    access = case.attack.access
    if access != "gradients":
        expect(model.backwards.sum() == 0, f"expected no gradients from an attack with access={access!r}")
    if access == "none":
        expect(model.forwards.sum() == 0, "expected no queries from an attack with access='none'")


def wants_a_target(case: Case) -> None:
    """A targeted goal is attacked within the budget, too, or refused with NotApplicableError."""
    targets = (case.labels + 1) % CLASSES
    goal = Goal(case.labels, torch.full_like(targets, 1) if isinstance(case.plugin, UniversalAttack) else targets)
    attack = case.attack
    try:
        if isinstance(case.plugin, UniversalAttack):
            rng = case.streams[:5].derive("learning")
            artifact = case.plugin.learn(Model(case.classifier, rng), case.images[:5], goal[:5], rng)
            attack = case.plugin.given(artifact)
        adversarial = attack(Model(case.classifier, case.streams), case.images, goal, case.streams)
    except NotApplicableError:
        return
    expect(attack.allows(case.images, adversarial).all(), f"expected {attack.budget} for targets, too")


def gives_logits(case: Case) -> None:
    """The defended model gives finite logits, one for each class (and one for rejection)."""
    logits = answers(case.defended, case.images, case.streams)
    wanted = (6, CLASSES + case.defended.rejects)
    expect(logits.shape == wanted, f"expected logits of shape {wanted}, but got {tuple(logits.shape)}")
    expect(logits.isfinite().all(), "expected finite logits")


def takes_any_batch(case: Case) -> None:
    """Batches of none and of one image work."""
    for count in (0, 1):
        logits = case.defended(case.images[:count], case.streams[:count])
        expect(len(logits) == count, f"expected {count} rows of logits, but got {len(logits)}")


def bears_extreme_images(case: Case) -> None:
    """Black, grey and white images, and those of nothing but 0 and 1, get finite logits and have finite gradients."""
    images = _extreme(case)
    logits = answers(case.defended, images, case.streams)
    expect(logits.isfinite().all(), "expected finite logits for images of one level, or of 0 and 1 alone")
    for name, view in case.defense.attacker_views(case.classifier, case.learned).items():
        gradient = _gradient(view, case, images)
        expect(gradient.isfinite().all(), f"expected a finite gradient through {name!r} for images of one level")


def refuses_nan_or_keeps_it_apart(case: Case) -> None:
    """NaN in an image is refused by an error that names it, or changes the answers for no other image."""
    broken, others = case.images.clone(), torch.arange(6) != 2
    broken[2, 1, 5, 5] = torch.nan
    try:
        found = answers(case.defended, broken, case.streams)
    except ValueError as error:
        expect("NaN" in str(error), f"expected an error that names NaN, but it says: {error}")
        return
    gap = (found - answers(case.defended, case.images, case.streams))[others].abs().max()
    expect(gap < 1e-3, f"expected NaN to change no other image's logits, but they differ by {float(gap):.2g}")


def answers_each_image_by_itself(case: Case) -> None:
    """An answer depends on its own image and stream, never on its neighbours."""
    together = answers(case.defended, case.images, case.streams)
    apart = torch.cat(
        [answers(case.defended, case.images[row : row + 1], case.streams[row : row + 1]) for row in range(6)]
    )
    gap = float((together - apart).abs().max())
    expect(gap < 1e-3, f"expected the same logits in any batch, but they differ by {gap:.2g}")


def says_whether_it_is_random(case: Case) -> None:
    """`random` is what the answers show: equal for equal streams; different for others only if random."""
    first = answers(case.defended, case.images, case.streams)
    again = answers(case.defended, case.images, case.streams[:])
    expect(torch.equal(first, again), "expected the same logits for the same streams")
    if not case.defended.random:
        other = answers(case.defended, case.images, case.streams.derive("other"))
        expect(torch.equal(first, other), "expected random = True of a model whose logits depend on its streams")


def cleans_images_to_images(case: Case) -> None:
    """A transform gives images of the same shape and type in [0, 1] and leaves the given ones alone."""
    defense = case.defense
    if not isinstance(defense, Transform):
        return
    images = smooth_images(len(case.images), torch.float32)
    given = images.clone()
    cleaned = defense.clean(given, case.streams[:])
    expect(torch.equal(given, images), "expected the images given to stay as they are")
    expect(cleaned.shape == images.shape, f"expected shape {tuple(images.shape)}, but got {tuple(cleaned.shape)}")
    expect(cleaned.dtype == images.dtype, f"expected {images.dtype}, but got {cleaned.dtype}")
    expect(((cleaned >= 0) & (cleaned <= 1)).all(), "expected values in [0, 1]")
    if "exact" in defense.views:
        gap = float((defense.differentiable(images, case.streams[:]) - cleaned).abs().max())
        expect(
            gap < 2e-3, f"expected `differentiable` to be the same function as `clean`, but they differ by {gap:.2g}"
        )


def has_a_gradient(case: Case) -> None:
    """Through each attacker view there is a gradient that is finite and not zero."""
    for name, view in case.defense.attacker_views(case.classifier, case.learned).items():
        gradient = _gradient(view, case)
        expect(gradient.isfinite().all(), f"expected a finite gradient through the view {name!r}")
        share = float((gradient.flatten(1) != 0).any(1).double().mean())
        expect(share > 0.5, f"expected a gradient through the view {name!r}, but it is zero on most images")


def tells_the_true_gradient(case: Case) -> None:
    """The view `exact` agrees with finite differences along random directions (for most: kinks are allowed)."""
    defense = case.defense
    if not isinstance(defense, Transform) or "exact" not in defense.views or defense.straight_through:
        return
    view = defense.attacker_views(case.classifier, case.learned)["exact"]
    rng = torch.Generator().manual_seed(1)
    noise = torch.rand(case.images.shape, generator=rng, dtype=case.images.dtype)
    images = case.images * 0.8 + 0.1 + 1e-3 * noise  # off the 8-bit grid: equal values are kinks of many filters
    gradient = _gradient(view, case, images)
    agreed = []
    for _ in range(5):
        way = torch.randn(images.shape, generator=rng, dtype=images.dtype)
        step = 1e-7
        ahead, behind = (_loss(view, case, images + sign * step * way) for sign in (1, -1))
        slope = (ahead - behind) / (2 * step)
        told = (gradient * way).flatten(1).sum(1)
        agreed.append((slope - told).abs() <= 0.02 * slope.abs() + 1e-3 * gradient.flatten(1).norm(dim=1) + 1e-6)
    share = float(torch.stack(agreed).double().mean())
    expect(share >= 0.6, f"expected the gradient of finite differences, but only {100 * share:.0f} % of slopes agree")


def survives_its_own_certificate(case: Case) -> None:
    """Certified images are classified rightly, and certificates are said for known budgets."""
    defense = case.defense
    if not isinstance(defense, CertifiedDefense):
        return
    right = answers(case.defended, case.images, case.streams)[:, :CLASSES].argmax(1) == case.labels
    for budget in (Patch(0.02), Linf(1 / 255)):
        sure = defense.certify(case.classifier, case.learned, case.images, case.labels, budget)
        expect(sure.shape == right.shape, f"expected one verdict an image, but got shape {tuple(sure.shape)}")
        expect((~sure | right).all(), f"expected certified images ({budget}) to be classified rightly")


def _extreme(case: Case) -> Images:
    """Black, grey and white images, and three of nothing but 0 and 1."""
    images = case.images.round()
    images[:3] = torch.tensor([0, 0.5, 1], dtype=images.dtype)[:, None, None, None]
    return images


def _loss(view: Classifier, case: Case, images: Images) -> Tensor:
    goal = Goal(case.labels, None, view.rejects)
    return goal.margin(view(images, case.streams))


def _gradient(view: Classifier, case: Case, images: Images | None = None) -> Tensor:
    images = (case.images if images is None else images).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(_loss(view, case, images).sum(), images)
    return gradient


COMMON: list[Callable[[Case], None]] = [
    is_a_frozen_dataclass,
    says_what_it_is,
    global_random_numbers_stay_untouched,
]
OF_ATTACKS: list[Callable[[Case], None]] = [
    *COMMON,
    gives_images,
    keeps_its_budget,
    leaves_its_inputs_alone,
    leaves_ineligible_images_alone,
    repeats_itself,
    does_not_depend_on_the_batch,
    asks_no_more_than_it_says,
    wants_a_target,
]
OF_DEFENSES: list[Callable[[Case], None]] = [
    *COMMON,
    gives_logits,
    takes_any_batch,
    bears_extreme_images,
    refuses_nan_or_keeps_it_apart,
    answers_each_image_by_itself,
    says_whether_it_is_random,
    cleans_images_to_images,
    has_a_gradient,
    tells_the_true_gradient,
    survives_its_own_certificate,
]


def checks_of(plugin: Attack | Defense) -> list[Callable[[Case], None]]:
    """The checks that a plugin has to pass."""
    return OF_ATTACKS if isinstance(plugin, Attack) else OF_DEFENSES


def results(plugin: Attack | Defense) -> Iterator[tuple[str, str | None]]:
    """Runs every check; gives its name, and None or what is broken."""
    case = Case(plugin)
    for check in checks_of(plugin):
        try:
            check(case)
            yield check.__name__, None
        except Exception as error:  # a plugin may fail in any way, and each way is a finding
            told = str(error) if isinstance(error, BrokenContractError) else f"{type(error).__name__}: {error}"
            yield check.__name__, told


def plugins(name: str) -> list[tuple[str, Attack | Defense]]:
    """The plugins that a text or a file names; attacks at their `quick` preset, which suffices for a contract."""
    names = [Spec(one) for one in add_file(Path(name))] if name.endswith(".py") else [Spec.parse(name)]
    found: list[tuple[str, Attack | Defense]] = []
    for spec in names:
        if spec.name in addresses("attack"):
            found.append((str(spec), make_attack(str(spec), "quick")))
        elif spec.name.split("+")[0] in addresses("defense"):
            found.append((str(spec), make_defense(str(spec))))
        else:
            known = sorted({*addresses("attack"), *addresses("defense")})
            raise InputError(f"No attack and no defense named {spec.name!r}. Known: {', '.join(known)}.")
    return found


def report(name: str) -> int:
    """Prints the result of every check; returns the exit code, 1 where one failed."""
    from rich.console import Console

    console = Console(highlight=False)
    broken = 0
    for text, plugin in plugins(name):
        console.print(f"{text}:", style="bold", markup=False)
        for check, told in results(plugin):
            broken += told is not None
            line = f"  {'broken' if told else 'kept  '}  {check.replace('_', ' ')}" + (f": {told}" if told else "")
            console.print(line, style="red" if told else None, markup=False)
    return 1 if broken else 0
