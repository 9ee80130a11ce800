"""Several defenses in a row; the first one named sees the image first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.contracts import Artifact, Classifier, Defense, Examples, Images, InputError, Labels, Streams, Transform


@dataclass(frozen=True)
class Chain(Defense):
    """Defenses in a row, such as `jpeg+median`.

    Each part protects the model that the later parts protect already. It learns from images that the transforms before
    it have cleaned, as it will never see others. An attacker's view of the chain is the chain of the parts' views.

    Attributes:
        parts: at least two defenses; the first one sees the image first.
    """

    parts: tuple[Defense, ...]

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise InputError(f"Expected a chain of at least two defenses, but got {len(self.parts)}.")
        certified = [part.title for part in self.parts if part.kind == "certified"]
        if certified:
            raise InputError(f"{certified[0]} is certified and cannot be part of a chain: its proofs would not hold.")
        oracles = [part.title for part in self.parts if part.sees_originals]
        if oracles:
            raise InputError(f"{oracles[0]} needs the original images, which no other part of a chain can pass on.")

    # What a chain says about itself follows from its parts, so these are properties and no class variables.

    @property
    def title(self) -> str:  # type: ignore[override]  # see above
        """The titles with pluses between them."""
        return " + ".join(part.title for part in self.parts)

    @property
    def paper(self) -> str:  # type: ignore[override]  # see above
        """The papers of the parts."""
        return "; ".join(dict.fromkeys(part.paper for part in self.parts if part.paper))

    @property
    def note(self) -> str:  # type: ignore[override]  # see above
        """The remarks on the parts."""
        return "; ".join(f"{part.title}: {part.note}" for part in self.parts if part.note)

    @property
    def ranked(self) -> bool:  # type: ignore[override]  # see above
        """Whether every part is."""
        return all(part.ranked for part in self.parts)

    @property
    def kind(self) -> Any:  # type: ignore[override]  # see above
        """The first of trained, detector and transform that some part is."""
        kinds = {part.kind for part in self.parts}
        return next(kind for kind in ("trained", "detector", "transform", "none") if kind in kinds)

    @property
    def tuned_on(self) -> tuple[str, ...]:  # type: ignore[override]  # see above
        """What any part was tuned on."""
        return tuple(sorted({attack for part in self.parts for attack in part.tuned_on}))

    @property
    def learns(self) -> bool:
        """Whether any part does."""
        return any(part.learns for part in self.parts)

    @property
    def parameters(self) -> dict[str, Any]:
        """The parts with their parameters, as text."""
        return {"parts": [str(part) for part in self.parts]}

    def components(self) -> tuple[Defense, ...]:
        """The parts."""
        return self.parts

    def files(self) -> tuple[Path, ...]:
        """The files of the parts."""
        return tuple(file for part in self.parts for file in part.files())

    def modules(self) -> tuple[str, ...]:
        """The modules of the parts."""
        return tuple(module for part in self.parts for module in part.modules())

    def check(self, image_shape: tuple[int, int, int], num_classes: int) -> None:
        """Checks every part."""
        for part in self.parts:
            part.check(image_shape, num_classes)

    def learn(self, model: Classifier, training: Examples, rng: Streams) -> Artifact:
        """Each part learns on the model that the later parts protect, from images that the earlier ones cleaned."""
        learned: Artifact = {}
        for place in reversed(range(len(self.parts))):
            part = self.parts[place]
            if part.learns:
                earlier = tuple(before for before in self.parts[:place] if isinstance(before, Transform))
                own = rng.derive(f"part {place}")
                artifact = part.learn(model, _Cleaned(training, earlier, own) if earlier else training, own)
                learned |= {f"{place}.{name}": tensor for name, tensor in artifact.items()}
            model = part.protect(model, _of(learned, place))
        return learned

    def protect(self, model: Classifier, learned: Artifact) -> Classifier:
        """The model behind all parts."""
        for place in reversed(range(len(self.parts))):
            model = self.parts[place].protect(model, _of(learned, place))
        return model

    def attacker_views(self, model: Classifier, learned: Artifact) -> dict[str, Classifier]:
        """Every view of a part on every view of the parts behind it."""
        views = {"": model}
        for place in reversed(range(len(self.parts))):
            views = {
                f"{name}+{behind}" if behind else name: view
                for behind, inner in views.items()
                for name, view in self.parts[place].attacker_views(inner, _of(learned, place)).items()
            }
        return views


@dataclass(frozen=True)
class _Cleaned:
    """Examples that the transforms of a chain have cleaned."""

    training: Examples
    transforms: tuple[Transform, ...]
    rng: Streams

    @property
    def labels(self) -> Labels:
        return self.training.labels

    @property
    def checkpoint(self) -> Path | None:
        return self.training.checkpoint

    def progress(self, share: float) -> None:
        self.training.progress(share)

    def load(self, indices: Labels) -> Images:
        images = self.training.load(indices)
        for place, transform in enumerate(self.transforms):
            images = transform.clean(images, self.rng[indices].derive(f"cleaned {place}"))
        return images


def _of(learned: Artifact, place: int) -> Artifact:
    prefix = f"{place}."
    return {name.removeprefix(prefix): tensor for name, tensor in learned.items() if name.startswith(prefix)}
