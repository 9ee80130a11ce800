"""`bench.evaluate` and `bench.attack`: the cells of `bench run`, for a model and images in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from bench.api.defend import DefendedModel
from bench.api.inputs import (
    AnyModel,
    check_gradients,
    checked_images,
    checked_labels,
    classifier_of,
    dataset_of,
    device_of,
    model_name,
    without_weight_gradients,
)
from bench.api.result import Result
from bench.contracts import Images, InputError, Labels
from bench.core.tensor_cache import temporary_cache
from bench.engine.engines import Local
from bench.engine.matrix import compute
from bench.engine.plan import CellTask, Plan, Task, plan
from bench.engine.setting import InMemory, Setting
from bench.engine.testbed import NonFiniteLogitsError, testbed_of
from bench.engine.workers import load_plugins
from bench.plugins.registry import make_attack
from bench.records.schema import TIERS, Effort, Outcome, Tier
from bench.records.store import Store
from bench.report import write_report

_Texts = str | Sequence[str]
Training = tuple[Tensor, Tensor]
"""Images and their labels."""


def evaluate_model(
    model: AnyModel,
    images: Images,
    labels: Labels,
    attack: _Texts,
    defense: _Texts = "none",
    *,
    training: Training | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    tier: Literal["oblivious", "adaptive", "both"] = "both",
    targeted: bool = False,
    target: int | str | None = None,
    effort: Effort = "standard",
    seed: int | Sequence[int] = 0,
    batch_size: int | None = None,
    latency: bool = False,
    plugins: Sequence[str | Path] = (),
    name: str | None = None,
    results: str | Path | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> Result:
    """What defenses of a model are worth against attacks: the cells that `bench run` computes, and their table.

    The bare model is always one of the defenses. A cell that fails does not stop the others; its record says why.
    Everything is computed in this process, on the device of the model.

    Without `results` nothing is kept: crafted images and what defenses learn are in a temporary folder until the call
    ends. With it, records, tables and pages go there, the rest into the cache of `bench run`, and a second call
    computes only what is missing or has changed.

    Args:
        model: a torch module in evaluation mode, or a function: images, float32 in [0, 1] -> logits of shape
            (n, classes), or an object or dict that holds them as `logits`. It comes back as it was.
        images: float32 of shape (n, channels, height, width), in [0, 1]; all of them are attacked.
        labels: their classes, whole numbers of shape (n,).
        attack, defense: such as "lavan:area=0.02" or "jpeg:quality=30+median"; several in a list or with commas
            between them, or "all". `bench list` names them.
        training: other images with their labels, for attacks and defenses that learn; none may be among `images`.
        mean, std: normalisation of images in [0, 1] in front of the model, one number for each channel; by default it
            normalises them itself.
        classes: the names of the classes.
        tier: what the attacker knows: nothing of the defense, all of it, or once each.
        targeted, target: aim at a random other class for each image, or at this class (its number or name).
        effort: which preset of the attacks.
        seed: of every random number; several in a list.
        batch_size: images attacked at once; by default chosen by their size.
        latency: whether to measure how long each defense takes.
        plugins: files with attacks and defenses of your own.
        name: what the records call the model; by default the name of its class.
        results: a folder for the records.
        progress: called with the fraction done (0 … 1) and what is being done.

    Returns:
        The records, the table, a frame and the attacked images.

    Raises:
        InputError: something is wrong with what was passed; nothing has been computed. The text says what to do.

    Example:
        >>> bench.evaluate(model, images, labels, attack=["fgsm", "lavan:area=0.02"], defense="jpeg", tier="adaptive")
    """
    setting = replace(
        _setting(model, images, labels, training, mean, std, classes, name),
        goal=f"targeted:{target}" if target is not None else "targeted" if targeted else "untargeted",
        batch_size=batch_size,
    )
    load_plugins([Path(path) for path in plugins])
    tiers: tuple[Tier, ...] = TIERS if tier == "both" else (tier,)
    seeds = [seed] if isinstance(seed, int) else list(seed)
    with _kept_in(results) as folder, _at_rest(model):
        store = Store(folder)
        planned = plan(setting, _joined(attack), _joined(defense), tiers, seeds, effort, store)
        tasks = [task for task in planned.tasks if latency or isinstance(task, CellTask)]
        _check_model(tasks)
        result = _computed(replace(planned, tasks=tasks), store, progress or (lambda share, doing: None))
        if results is not None:
            write_report(folder)
        return result


def attack_images(
    model: AnyModel,
    images: Images,
    labels: Labels,
    attack: str,
    *,
    defense: str = "none",
    training: Training | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    targeted: bool = False,
    target: int | None = None,
    effort: Effort = "standard",
    seed: int = 0,
    batch_size: int | None = None,
    plugins: Sequence[str | Path] = (),
    progress: Callable[[float, str], None] | None = None,
) -> Images:
    """The images that one attack makes, by an attacker who knows the defense; nothing is kept.

    Images that the defended model already gets wrong come back as they were.

    Args:
        model, images, labels: as for `bench.evaluate`, and so are the options.
        attack: such as "lavan:area=0.02".
        defense: what the attacker attacks through; by default the bare model.

    Returns:
        Shape (n, channels, height, width), float32 in [0, 1], within the attack's budget.

    Raises:
        InputError: as for `bench.evaluate`.
        RuntimeError: the attack failed, or makes no sense here; the text says why.
    """
    result = evaluate_model(
        model, images, labels, attack, defense, training=training, mean=mean, std=std, tier="adaptive",
        targeted=targeted, target=target, effort=effort, seed=seed, batch_size=batch_size, plugins=plugins,
        progress=progress,
    )  # fmt: skip
    outcome = result.cells[-1]
    if len(result.cells) > 1 + (outcome.cell.defense != "none"):
        raise InputError(f"Expected one attack and one defense, but got {attack!r} and {defense!r}.")
    if outcome.status != "ok":
        raise RuntimeError(f"{outcome.cell.attack}: {outcome.status}: {outcome.reason}")
    return result.adversarial[outcome.cell]


def _setting(
    model: AnyModel,
    images: Images,
    labels: Labels,
    training: Training | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    classes: Sequence[str] | None,
    name: str | None,
) -> Setting:
    """Model and images as the engine takes them, everything checked."""
    if isinstance(model, DefendedModel):
        raise InputError(
            f"Expected the bare model, but got one that is defended already. Pass the model and defense={model.text!r}:"
            " an attacker who knows the defense needs both."
        )
    images, device = checked_images(images), device_of(model, images)
    labels = checked_labels(labels, images)
    classifier = classifier_of(model, images.to(device), mean, std)
    count = classifier.num_classes
    labels = checked_labels(labels, images, count)
    if training is not None:
        learned = checked_images(training[0], "training images")
        training = learned, checked_labels(training[1], learned, count, "training labels")
    if classes is not None and len(classes) != count:
        raise InputError(f"Expected a name for each of the model's {count} classes, but got {len(classes)}.")
    dataset = dataset_of(images, labels, training, list(classes or map(str, range(count))))
    text = model_name(model, classifier, images.to(device), name)
    return Setting(dataset.name, text, device=str(device), memory=InMemory(dataset, classifier))


def _joined(texts: _Texts) -> str:
    return texts if isinstance(texts, str) else ",".join(texts)


@contextmanager
def _kept_in(results: str | Path | None) -> Iterator[Path]:
    """The folder for the records: a temporary one, with a cache of its own, if they are not to be kept."""
    with nullcontext(Path(results)) if results is not None else temporary_cache() as folder:
        try:
            yield folder
        finally:
            testbed_of.cache_clear()  # which would keep the model alive


@contextmanager
def _at_rest(model: AnyModel) -> Iterator[None]:
    with without_weight_gradients(model) if isinstance(model, nn.Module) else nullcontext():
        yield


def _check_model(tasks: Sequence[Task]) -> None:
    """Raises InputError if the model does not give what the attacks of the tasks need."""
    if not tasks:
        return
    testbed = testbed_of(tasks[-1].setting)
    try:
        testbed.check_model()
    except NonFiniteLogitsError as error:
        raise InputError(str(error)) from error
    cells = {task.cell.attack: task for task in tasks if isinstance(task, CellTask)}
    made = {text: make_attack(task.setting.local(text), task.cell.effort) for text, task in cells.items()}
    needy = [text for text, attack in made.items() if attack.access == "gradients"]
    if needy:
        check_gradients(testbed.bare, testbed.images, needy)


def _computed(planned: Plan, store: Store, progress: Callable[[float, str], None]) -> Result:
    """Computes the tasks of a plan, one after the other in this process."""
    outcomes, latencies, adversarial = list(planned.done), list(planned.latencies), {}
    places = {task: place for place, task in enumerate(planned.tasks)}

    def on_progress(task: Task, share: float, doing: str) -> None:
        progress((places[task] + share) / len(places), f"{task}: {doing}")

    for done in compute(planned, store, [], Local(0), None, on_progress):
        on_progress(done.task, 1, "done")
        if isinstance(done.record, Outcome):
            outcomes.append(done.record)
            if done.adversarial is not None:
                adversarial[done.record.cell] = done.adversarial
        elif done.record.status == "ok":
            latencies.append(done.record)
    notes = tuple(line for lines in planned.remarks for line in lines)
    return Result(tuple(outcomes), adversarial, tuple(latencies), notes)
