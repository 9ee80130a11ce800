"""READ FIRST: what a classifier, an attack and a defense are, and everything that the benchmark asks of them.

Images are float32 of shape (n, channels, height, width) with values in [0, 1]. A `Classifier` maps them to logits and
normalises them itself. An attack sees a classifier as a `Model`, which counts queries, and works towards a `Goal`
within a `Budget`. A defense turns a classifier into another one. Random numbers come from `Streams`, one stream for
each image, and never from a global generator.

To write an attack, derive from `Attack`, or from `UniversalAttack` if one artifact serves for all images. To write a
defense, derive from `Transform` if it cleans images, from `CertifiedDefense` if it proves its answers, and else from
`Defense`. Each is a frozen dataclass whose fields are its parameters. `bench check` tests what is written here.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, final, runtime_checkable

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
    "Wrapped",
    "answers",
    "number",
]

Labels = Int[Tensor, "n"]
Logits = Float[Tensor, "n k"]
Artifact = dict[str, Tensor]
"""What was learned from training images: a patch, weights, a threshold. Saved as safetensors."""


@runtime_checkable
class Examples(Protocol):
    """Labelled images to learn from, none of which is evaluated on."""

    @property
    def labels(self) -> Labels:
        """All labels, shape (n,)."""

    def load(self, indices: Labels) -> Images:
        """The images with these indices, float32 NCHW in [0, 1]."""

    def progress(self, share: float) -> None:
        """Call it with the fraction done, from 0 to 1, if learning takes long."""

    @property
    def checkpoint(self) -> Path | None:
        """A folder in which a long training keeps its state, to resume after an interruption."""


class Classifier(nn.Module):
    """Images in [0, 1] -> logits; normalisation is inside, and a defense may be too.

    Attributes:
        num_classes: the number of classes, not counting rejection.
        rejects: whether there is one more logit, the last, that stands for "rejected".
        non_finite_rejects: whether logits that are not finite also mean "rejected". If not, they count as a wrong
            answer, and under attack as a success of the attacker.
        random: whether the logits depend on random numbers, which then come from `rng`, one stream for each image.
        passes: forward passes of the bare network that one image costs.
        trained: False for a network whose weights are still random.
    """

    num_classes: int
    rejects: bool = False
    non_finite_rejects: bool = False
    random: bool = False
    passes: float = 1
    trained: bool = True

    if TYPE_CHECKING:  # nn.Module calls `forward`, but declares no types

        def __call__(self, images: Images, rng: Streams) -> Logits:
            """As `forward`."""

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of shape (n, num_classes), or (n, num_classes + 1) with `rejects`."""
        raise NotImplementedError

    def attention(self, images: Images) -> Float[Tensor, "n 1 h w"] | None:
        """For pictures of what the classifier looks at: a weight for each pixel, or None by default."""
        return None


def answers(classifier: Classifier, images: Images, rng: Streams) -> Logits:
    """Logits of any number of images, without gradients, in batches that fit into memory."""
    with torch.no_grad():
        return in_pieces(lambda part: classifier(images[part], rng[part]), len(images), piece_of(images.shape))


def answers_of_draws(classifier: Classifier, images: Images, rng: Streams, draws: int) -> Float[Tensor, "draws n k"]:
    """As `answers`, for several draws of a random classifier."""
    return torch.stack([answers(classifier, images, rng.derive(f"draw {draw}")) for draw in range(draws)])


class Model:
    """A classifier as an attack sees it: for one batch of images, with a count of the queries for each of them.

    To drop images that are finished, an attack goes on with `model[rows]`, `goal[rows]` and `rng[rows]`.

    Attributes:
        forwards, backwards: queries for each image, int64 of shape (n,); each draw counts.
        zero_gradients: for each image, how many of its gradients were zero everywhere.
        facts: what the attack noted about each image (`note`), NaN where it noted nothing.
        eligible: which images are worth attacking; set when an attack is called.
    """

    eligible: Bool[Tensor, "n"]

    def __init__(
        self,
        classifier: Classifier,
        rng: Streams,
        draws: int = 1,
        progress: Callable[[float], None] | None = None,
    ) -> None:
        """Wraps a classifier for the images that `rng` has streams for.

        Args:
            classifier: what is attacked.
            rng: the random numbers of a random classifier.
            draws: how many answers of a random classifier count as one (EOT, arXiv 1707.07397).
            progress: called with the fraction done by attacks that take long.
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
        """Logits of `images`, with a leading axis of draws if `draws` > 1, which `Goal` understands.

        Args:
            images: shape (m, c, h, w); without gradients they may be more than fit into memory at once.
            of: shape (m,), for each row the image of this batch that it is a variant of; by default row i is a
                variant of image i.
        """
        owners = self._images if of is None else self._images[of]
        if len(owners) != len(images):
            raise ValueError(f"Expected a row for each of {len(owners)} images, but got {len(images)} rows; pass `of`.")
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
        """Puts one number for each image into the record, such as "unconverged": 0 or 1."""
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
    """For each row, how many earlier rows belong to the same image."""
    order = owners.argsort(stable=True)
    ranked = owners[order]
    rank = torch.arange(len(owners), device=owners.device) - torch.searchsorted(ranked, ranked)
    return torch.empty_like(rank).scatter_(0, order, rank)


class Plugin:
    """What attacks and defenses share. Subclasses are frozen dataclasses whose fields are the parameters.

    Attributes:
        name: what it is called if it comes from a file (`--plugin`); by default its class's name in lower case.
        title: the name in tables, such as "I-FGSM".
        paper: its source, with the arXiv id.
        note: a remark that belongs beside each of its numbers, such as how it departs from the paper.
        presets: named parameters; `quick` and `paper` are chosen by the effort of a run.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    paper: ClassVar[str] = ""
    note: ClassVar[str] = ""
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @property
    def parameters(self) -> dict[str, Any]:
        """Name -> value of every field, but of fields that do not take part in comparisons."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.compare}  # type: ignore[arg-type]  # subclasses are dataclasses

    def files(self) -> tuple[Path, ...]:
        """The files that its results depend on: with another content they are other results.

        By default the parameters that are paths, and the texts that name a file.
        """
        values = self.parameters.values()
        paths = (value for value in values if isinstance(value, Path))
        texts = (value for value in values if isinstance(value, str))
        return (*paths, *(Path(text) for text in texts if os.path.isfile(text)))  # noqa: PTH113  # it takes any text

    def modules(self) -> tuple[str, ...]:
        """Python modules that its parameters name, and on whose code its results depend."""
        return ()

    def components(self) -> tuple[Plugin, ...]:
        """The plugins that it is made of, such as the defenses of a chain."""
        return ()

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Checks the parameters against images of shape (c, h, w) and a number of classes.

        Raises:
            InputError: the parameters do not fit.
            NotApplicableError: the plugin makes no sense for such images or classes, whatever its parameters.
        """


class Attack(Plugin, ABC):
    """images -> adversarial images, within a budget.

    Attributes:
        access: the most that it asks of a model: input gradients, scores, labels, or nothing.
        family: attacks of one family differ only in how hard they try, as FGSM and PGD do; by default an attack
            is a family of its own.
        steps: the number of steps, 0 if it has none; usually a parameter.
        per_image: False if an image's result depends on the batch that it is in (some libraries draw for a batch).
    """

    access: ClassVar[Literal["gradients", "scores", "labels", "none"]]
    family: ClassVar[str] = ""
    steps: int = 0
    per_image: ClassVar[bool] = True

    @property
    @abstractmethod
    def budget(self) -> Budget:
        """What it may change."""

    @abstractmethod
    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """New adversarial images; all images are eligible, and `model`, `goal` and `rng` are for the same batch."""

    @final
    def __call__(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """Attacks the eligible images and returns the others as they are, without a query.

        Args:
            model: the model under attack, for these images.
            images: shape (n, c, h, w), in [0, 1]; not changed.
            goal: what the attacker wants, for these images.
            rng: one stream for each image.
        """
        goal = Goal(goal.labels, goal.targets, model.classifier.rejects)
        # These are not queries of the attack and do not count. An image that a random model classifies correctly
        # only sometimes is worth attacking.
        clean = answers_of_draws(model.classifier, images, model._rng[model._images].derive("clean"), model.draws)
        model.eligible = goal.eligible(clean)
        rows = model.eligible.nonzero()[:, 0]
        adversarial = images.clone()
        if len(rows):
            adversarial[rows] = self.perturb(model[rows], images[rows], goal[rows], rng[rows]).detach()
        return adversarial

    def allows(self, images: Images, adversarial: Images) -> Bool[Tensor, "n"]:
        """Which adversarial images are within the budget."""
        return self.budget.allows(images, adversarial)


class UniversalAttack(Attack):
    """Learns one artifact (such as a patch) from training images, and applies it to any image.

    Attributes:
        training_images: the largest number of images to learn from; a parameter.
    """

    training_images: int

    @property
    def learns(self) -> bool:
        """Whether it needs training images; with some parameters, such as a given picture, it does not."""
        return True

    @abstractmethod
    def learn(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Artifact:
        """Learns from training images, which `model`, `goal` and `rng` are for; may call `model.progress`."""

    @abstractmethod
    def apply(self, artifact: Artifact, images: Images, goal: Goal, rng: Streams) -> Images:
        """Applies what was learned, without a query."""

    def picture(self, artifact: Artifact) -> Float[Tensor, "c h w"] | None:
        """What was learned as a picture in [0, 1], or None if it is none; by default the tensor named `patch`."""
        return artifact.get("patch")

    @final
    def given(self, artifact: Artifact) -> Attack:
        """The attack that applies this artifact."""
        return _Given(self, artifact)

    @final
    def perturb(self, model: Model, images: Images, goal: Goal, rng: Streams) -> Images:
        """Raises TypeError, since the artifact is missing."""
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


class Defense(Plugin, ABC):
    """model -> defended model.

    Attributes:
        kind: how it defends.
        tuned_on: the attacks, families or threat models that it was trained or tuned with.
        ranked: False for an upper bound that no real defender reaches.
        sees_originals: True for an oracle that gets each attacked image with its original behind it, as further
            channels.
        epochs: how often training sees each image, None if it does not count; usually a parameter.
        false_positive_rate: the fraction of clean images that a detector was calibrated to reject, None for other
            defenses; usually a parameter.
    """

    kind: ClassVar[Literal["none", "transform", "detector", "trained", "certified"]]
    tuned_on: ClassVar[tuple[str, ...]] = ()
    ranked: ClassVar[bool] = True
    sees_originals: ClassVar[bool] = False
    epochs: int | None = None
    false_positive_rate: float | None = None

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """Trains or calibrates on training images (`rng` has a stream for each); by default it learns nothing.

        The result is cached: it must depend on nothing but the arguments, the parameters, the code and `files`.
        """
        return {}

    @property
    def learns(self) -> bool:
        """Whether it must learn before it can protect."""
        return type(self).learn is not Defense.learn

    @abstractmethod
    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The defended model."""

    def mask(self, model: Classifier, learned: Artifact, images: Images, rng: Streams) -> Bool[Tensor, "n h w"] | None:
        """Which pixels it takes for attacked, so that a report can say how well it finds them; None if it finds none.

        Args:
            model, learned: as for `protect`.
            images: attacked images.
            rng: one stream for each image.
        """
        return None

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """What an adaptive attacker differentiates: name -> model.

        They are attacked in turn, each with the images that are still right on the defended model; best first.
        By default the defended model. A defense without a useful gradient offers a substitute that has one.
        """
        return {"defended": self.protect(model, learned)}


class CertifiedDefense(Defense):
    """A defense that can prove that no attack within a budget changes its answer."""

    @abstractmethod
    def certify(
        self, model: Classifier, learned: Artifact, images: Images, labels: Labels, budget: Budget
    ) -> Bool[Tensor, "n"]:
        """Which clean images are classified correctly, and provably remain so under any attack within `budget`."""


class Transform(Defense):
    """A defense that cleans the images and leaves the model alone.

    Attributes:
        views: the gradients that an adaptive attacker uses. `exact`: autograd through `differentiable`;
            `bpda`: `clean` forwards and `backward` backwards (arXiv 1802.00420).
        random: whether `clean` draws random numbers.
        straight_through: whether `differentiable` departs from the true gradient on purpose, to help the attacker.
    """

    kind = "transform"
    views: ClassVar[tuple[Literal["exact", "bpda"], ...]] = ("exact",)
    random: ClassVar[bool] = False
    straight_through: ClassVar[bool] = False

    @abstractmethod
    def clean(self, images: Images, rng: Streams) -> Images:
        """The cleaned images, of the same shape, in [0, 1]; each depends only on its own image and stream."""

    def differentiable(self, images: Images, rng: Streams) -> Images:
        """The same function in operations that autograd can follow; by default `clean` itself."""
        return self.clean(images, rng)

    def backward(self, images: Images, gradient: Images) -> Images:
        """For `bpda`: the gradient at `images`, given that at the cleaned images; by default the same."""
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


class Wrapped(Classifier):
    """A classifier around another one: with its classes and rejection, and at `passes` times its cost."""

    def __init__(self, model: Classifier, passes: float = 1, random: bool = False) -> None:
        super().__init__()
        self.model = model
        self.num_classes, self.rejects = model.num_classes, model.rejects
        self.non_finite_rejects = model.non_finite_rejects
        self.passes, self.random = passes * model.passes, random or model.random


class Transformed(Wrapped):
    """A classifier behind a function of the images."""

    def __init__(self, model: Classifier, clean: Callable[[Images, Streams], Images], random: bool = False) -> None:
        super().__init__(model, random=random)
        self.clean = clean

    def forward(self, images: Images, rng: Streams) -> Logits:
        """Logits of the cleaned images."""
        return self.model(self.clean(images, rng.derive("clean")), rng)
