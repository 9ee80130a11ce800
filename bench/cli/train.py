"""`bench train`: trains defenses without judging them."""

from __future__ import annotations

from dataclasses import replace

from rich.console import Console
from rich.progress import Progress

from bench.cli.progress import progress_bar
from bench.contracts import Defense, InputError, NotApplicableError
from bench.engine.protect import learn
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed, testbed_of
from bench.plugins.registry import make_defense
from bench.plugins.specs import split_specs

_UNITS = {"seconds": "s", "peak_mib": "MiB of peak memory", "images": "images", "epochs": "epochs"}


def train_defenses(setting: Setting, defenses: str, seeds: list[int]) -> None:
    """Trains each defense for each seed, or finds it trained, and says so.

    Args:
        setting: data and model; its seed is ignored.
        defenses: their texts, separated by commas.
        seeds: of the training.

    Raises:
        InputError: a defense does not exist or does not fit; nothing has been trained.
    """
    made = {text: make_defense(text) for text in split_specs(defenses)}
    if not made:
        raise InputError("Expected at least one defense, but got none; see 'bench list defenses'.")
    testbed = testbed_of(replace(setting, seed=seeds[0]))
    for text, defense in made.items():
        _check(text, defense, testbed)
    console = Console(highlight=False)
    with progress_bar(Console(stderr=True)) as bar:
        for seed in seeds:
            testbed = testbed_of(replace(setting, seed=seed))
            for text, defense in made.items():
                result = _trained(text, defense, testbed, bar)
                console.print(f"{text} (seed {seed}): {result}", markup=False, soft_wrap=True)


def _check(text: str, defense: Defense, testbed: Testbed) -> None:
    try:
        defense.check(testbed.image_shape, testbed.classes)
    except NotApplicableError as error:
        raise InputError(f"{text} makes no sense here: {error}") from error
    if defense.learns and not len(testbed.dataset.train):
        raise InputError(f"{text} learns from training images, but {testbed.name} has none. Give train=FRACTION.")


def _trained(text: str, defense: Defense, testbed: Testbed, bar: Progress) -> str:
    """Trains one defense; says when it was trained and what it cost."""
    task = bar.add_task(f"{text}: training", total=1)
    now = False

    def on_progress(share: float, doing: str) -> None:
        nonlocal now
        now = True
        bar.update(task, completed=share)

    learned = learn(defense, testbed, on_progress)
    bar.remove_task(task)
    costs = ", ".join(f"{value:.4g} {_UNITS[name]}" for name, value in learned.cost.items())
    return f"trained {'now' if now else 'before'}: {costs}" if learned.cost else "learns nothing"
