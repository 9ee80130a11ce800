"""READ FIRST: what a classifier, a model under attack, an attack and a defense are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bench.core.bpda import BPDA
from bench.core.budgets import L2, Budget, Images, Linf, Patch, Pixels, number
from bench.core.goals import Goal
from bench.core.streams import Streams
from bench.errors import InputError, MissingExtraError, NotApplicableError
from bench.memory import in_pieces, piece_of

__all__ = [
    "BPDA",
    "L2",
    "Artifact",
    "Attack",
    "Budget",
    "CertifiedDefense",
    "Classifier",
    "Defense",
    "Examples",
    "Goal",
    "Images",
    "InputError",
    "Labels",
    "Linf",
    "Logits",
    "MissingExtraError",
    "Model",
    "NotApplicableError",
    "Patch",
    "Pixels",
    "Streams",
    "Transform",
    "Transformed",
    "UniversalAttack",
    "answers",
    "number",
]

Labels = Int[Tensor, "n"]
Logits = Float[Tensor, "n k"]
Artifact = dict[str, Tensor]
"""What was learned from training images: a patch, weights, a threshold. Saved as safetensors."""


@runtime_checkable
class Examples(Protocol):
    """Labelled images to learn from; never those that are evaluated on."""

    @property
    def labels(self) -> Labels:
        """All labels, shape (n,)."""

    def load(self, indices: Labels) -> Images:
        """The images with these indices, float32 NCHW in [0, 1]."""

    def progress(self, share: float) -> None:
        """To be told which share of the learning is done (0 … 1), where it takes long."""

    @property
    def checkpoint(self) -> Path | None:
        """A folder of its own where a long training may keep its state, to go on from after a kill."""


class Classifier(nn.Module):
    """Images (float32 NCHW in [0, 1]) -> logits. Normalisation is inside; a defense may be too.

    Attributes:
        num_classes: how many classes there are, rejection not counted.
        rejects: whether a further, last logit stands for "rejected".
        non_finite_rejects: whether logits that are not finite mean "rejected", too. Otherwise they count as a wrong
            answer, and under attack as a success of the attacker.
        random: whether the logits depend on random numbers; they then come from `rng`, one stream a row.
        passes: forward passes of the bare network that one image costs.
    """

    num_classes: int
    rejects: bool = False
    non_finite_rejects: bool = False
    random: bool = False
    passes: float = 1

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of shape (n, num_classes), or one more with `rejects`."""
        raise NotImplementedError


def answers(classifier: Classifier, images: Images, rng: Streams) -> Logits:
    """Logits of any number of images, without gradients, in pieces that fit into memory."""
    with torch.no_grad():
        return in_pieces(lambda part: classifier(images[part], rng[part]), len(images), piece_of(images.shape))


def drawn(classifier: Classifier, images: Images, rng: Streams, draws: int) -> Float[Tensor, "draws n k"]:
    """Logits of any number of images, as `answers` gives them, for each of several draws of a random classifier."""
    return torch.stack([answers(classifier, images, rng.derive(f"draw {draw}")) for draw in range(draws)])


class Model:
    """A classifier as an attack sees it: a batch of images under attack, and a count of what was asked.

    Indexing gives the same model for some of the images: `model[rows]`, beside `goal[rows]` and `rng[rows]`,
    is how an attack drops images that are finished.

    Attributes:
        forwards, backwards: queries for each image, int64 of shape (n,); each draw counts.
        zero_gradients: for each image, how many of its gradients were exactly zero everywhere.
        facts: what an attack noted about each image (`note`), NaN where it noted nothing.
        eligible: which images there is something to gain on; set by the call of an attack.
    """

    eligible: Bool[Tensor, "n"]

    def __init__(
        self,
        classifier: Classifier,
        rng: Streams,
        draws: int = 1,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Wraps `classifier` for the images that `rng` has streams for.

        Args:
            classifier: what is attacked.
            rng: the streams that a random classifier takes its randomness from.
            draws: how many times a random classifier is asked for one answer (EOT, arXiv 1707.07397).
            progress: told which share of the work is done, by attacks that take long.
        """
        self.classifier = classifier
        self.num_classes = classifier.num_classes
        self.draws = draws if classifier.random else 1
        self.progress = progress or (lambda share: None)
        self._rng = rng
        device = rng.device
        self._images = torch.arange(len(rng), device=device)
        zeros = torch.zeros(len(rng), dtype=torch.int64, device=device)
        self.forwards, self.backwards, self.zero_gradients = zeros, zeros.clone(), zeros.clone()
        self.facts: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: Tensor | slice) -> Model:
        part = object.__new__(Model)
        part.__dict__.update(self.__dict__)
        part._images = self._images[rows]
        return part

    def __call__(self, images: Images, of: Labels | None = None) -> Float[Tensor, "*draws n k"]:
        """Logits of `images`, with a leading axis of draws if `draws` > 1; `Goal` knows what to do with it.

        Args:
            images: shape (m, c, h, w); where no gradient is wanted they may be more than memory holds at once.
            of: for each row the image of this batch that it is a variant of, shape (m,); may be left out
                where row i is a variant of image i.
        """
        owners = self._images if of is None else self._images[of]
        if len(owners) != len(images):
            raise ValueError(f"{len(images)} rows came for {len(owners)} images; say with `of` whose they are.")
        if self.draws > 1:
            images = images.repeat(self.draws, 1, 1, 1)
            owners = owners.repeat(self.draws)
        rng = self._rng[owners]
        if self.classifier.random:
            rng = rng.derive(self.forwards[owners] + _occurrence(owners))
        _count(self.forwards, owners)
        if torch.is_grad_enabled() and images.requires_grad:
            images = self._watched(images, owners)
            logits: Tensor = self.classifier(images, rng)
        else:
            logits = answers(self.classifier, images, rng)
        return logits.reshape(self.draws, len(logits) // self.draws, -1) if self.draws > 1 else logits

    def note(self, name: str, values: Tensor) -> None:
        """Keeps one number for each image of this model (such as "unconverged": 0 or 1) for the record."""
        everyone = self.facts.setdefault(name, torch.full(self.forwards.shape, torch.nan, device=values.device))
        everyone[self._images] = values.to(everyone.dtype)

    def _watched(self, images: Images, owners: Tensor) -> Images:
        watched = images.view_as(images)

        def seen(gradient: Tensor) -> None:
            _count(self.backwards, owners)
            zero = (gradient == 0).flatten(1).all(1)
            self.zero_gradients.index_add_(0, owners, zero.to(torch.int64))

        watched.register_hook(seen)  # type: ignore[no-untyped-call]  # torch has no types here
        return watched


def _count(counts: Tensor, owners: Tensor) -> None:
    counts.index_add_(0, owners, torch.ones_like(owners))


def _occurrence(owners: Tensor) -> Tensor:
    """For each row, how many rows of the same image stand before it."""
    order = owners.argsort(stable=True)
    ranked = owners[order]
    rank = torch.arange(len(owners), device=owners.device) - torch.searchsorted(ranked, ranked)
    return torch.empty_like(rank).scatter_(0, order, rank)


class Plugin(ABC):
    """What attacks and defenses share. Subclasses are frozen dataclasses whose fields are the parameters.

    Attributes:
        title: the name in tables, such as "I-FGSM".
        paper: where it comes from, with its arXiv id.
        presets: named settings; `quick` and `paper` are chosen by the effort of a run.
        note: a remark that belongs beside every number of it, such as what stands in for what.
    """

    title: ClassVar[str]
    paper: ClassVar[str] = ""
    note: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Raises InputError where the parameters do not fit such images (c, h, w) or classes.

        Raises NotApplicableError where it makes no sense for them at all.
        """


class Attack(Plugin):
    """images -> adversarial images, within a budget.

    Attributes:
        access: the most that it asks of a model: input gradients, scores, labels, or nothing.
        per_image: False where an image's result depends on the batch it sits in (some libraries draw for a batch).
    """

    access: ClassVar[Literal["gradients", "scores", "labels", "none"]]
    per_image: ClassVar[bool] = True

    @property
    @abstractmethod
    def budget(self) -> Budget:
        """What it may change."""

    @abstractmethod
    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """New adversarial images for eligible images; `model`, `goal` and `rng` are for the same batch."""

    @final
    def __call__(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """Attacks the eligible images and gives the others back as they are, without a query for them.

        Args:
            model: the model under attack, for these images.
            images: shape (n, c, h, w), in [0, 1]; not changed.
            goal: what is wanted, for these images.
            rng: one stream for each image.
        """
        goal = Goal(goal.labels, goal.targets, model.classifier.rejects)
        # Asked past the count, since these are no attack queries. An image that a random model gets right now and
        # then is worth an attack.
        clean = drawn(model.classifier, images, model._rng[model._images].derive("clean"), model.draws)
        model.eligible = goal.eligible(clean)
        rows = model.eligible.nonzero()[:, 0]
        adversarial = images.clone()
        if len(rows):
            adversarial[rows] = self.perturb(model[rows], images[rows], goal[rows], rng[rows]).detach()
        return adversarial

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Which images keep the budget."""
        return self.budget.allows(images, adversarial)


class UniversalAttack(Attack):
    """First learns one artifact (a patch) from training images, then applies it to any image.

    Attributes:
        training_images: how many images it learns from at the most; a parameter like the others.
    """

    training_images: int

    @property
    def learns(self) -> bool:
        """Whether it asks for training images with these parameters (a given picture needs none)."""
        return True

    @abstractmethod
    def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Artifact:
        """Learns from training images, which `model`, `goal` and `rng` are for; tells `model.progress`."""

    @abstractmethod
    def apply(self, artifact: Artifact, images: Images, goal: Goal, rng: Streams) -> Images:
        """Applies what was learned; asks nothing of a model."""

    @final
    def given(self, artifact: Artifact) -> Attack:
        """The attack that applies this artifact."""
        return _Given(self, artifact)

    @final
    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """Never on its own: an artifact comes first."""
        raise TypeError(f"{type(self).__name__} is universal: attack with `given(learn(...))`.")


class _Given(Attack):
    access = "none"

    def __init__(self, attack: UniversalAttack, artifact: Artifact) -> None:
        self._attack, self._artifact = attack, artifact

    @property
    def budget(self) -> Budget:
        return self._attack.budget

    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        return self._attack.apply(self._artifact, images, goal, rng)


class Defense(Plugin):
    """model -> defended model.

    Attributes:
        kind: how it defends.
        tuned_on: the attacks (or families) that it was trained or tuned with, if any.
        ranked: False for an upper bound that no real defender reaches.
        sees_originals: True for an oracle that is shown, behind each attacked image's channels, its original's.
    """

    kind: ClassVar[Literal["none", "transform", "detector", "trained", "certified"]]
    tuned_on: ClassVar[tuple[str, ...]] = ()
    ranked: ClassVar[bool] = True
    sees_originals: ClassVar[bool] = False

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """Trains or calibrates on training images (`rng` has a stream for each); by default there is nothing to.

        What it returns is cached by the content of model, images, parameters and code.
        """
        return {}

    @property
    def learns(self) -> bool:
        """Whether there is anything to learn before it can protect."""
        return type(self).learn is not Defense.learn

    @abstractmethod
    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The defended model."""

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """What an informed gradient attacker differentiates; each is tried, and the strongest counts.

        The defended model itself, unless it has no useful gradient and there is a substitute.
        """
        return {"defended": self.protect(model, learned)}


class CertifiedDefense(Defense):
    """A defense that can prove that no attack within a budget changes its answer."""

    @abstractmethod
    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which clean images are classified rightly whatever an attack within `budget` does."""


class Transform(Defense):
    """A defense that cleans the images and leaves the model alone.

    Attributes:
        views: the gradients an informed attacker uses. `exact`: autograd through `clean` (or through
            `differentiable`, the same function where `clean` has a faster way without gradients);
            `bpda`: the exact forward pass, and backwards `backward` instead (arXiv 1802.00420).
        random: whether `clean` draws random numbers.
        straight_through: whether `differentiable` departs from the true gradient on purpose, to help the attacker.
    """

    kind = "transform"
    views: ClassVar[tuple[Literal["exact", "bpda"], ...]] = ("exact",)
    random: ClassVar[bool] = False
    straight_through: ClassVar[bool] = False

    @abstractmethod
    def clean(self, images: Images, rng: Streams) -> Images:
        """The cleaned images: same shape, in [0, 1]; each depends on its own image and stream alone."""

    def differentiable(self, images: Images, rng: Streams) -> Images:
        """As `clean`, in operations that autograd follows."""
        return self.clean(images, rng)

    def backward(self, images: Images, gradient: Images) -> Images:
        """For `bpda`: the gradient at `images`, given the one at the cleaned images. Identity by default."""
        return gradient

    @final
    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind `clean`."""
        return Transformed(model, self.clean, self.random)

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """One classifier for each of `views`."""
        ways = {
            "exact": self.differentiable,
            "bpda": lambda images, rng: BPDA.apply(images, lambda x: self.clean(x, rng), self.backward),
        }
        return {view: Transformed(model, ways[view], self.random) for view in self.views}


class Transformed(Classifier):
    """A classifier behind a function of the images."""

    def __init__(self, model: Classifier, clean: Callable[[Images, Streams], Images], random: bool = False) -> None:
        super().__init__()
        self.model, self.clean = model, clean
        self.num_classes, self.rejects, self.passes = model.num_classes, model.rejects, model.passes
        self.non_finite_rejects = model.non_finite_rejects
        self.random = random or model.random

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of the cleaned images."""
        return self.model(self.clean(images, rng.derive("clean")), rng)  # type: ignore[no-any-return]  # nn.Module
