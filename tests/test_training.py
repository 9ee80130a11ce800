"""The training room: one loop, its checkpoints, what a training costs, and the command that trains."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from bench import training
from bench.augment import mirrored_shifts
from bench.cli.main import app
from bench.contracts import InputError
from bench.core import checkpoints
from bench.core import peak_memory as peak
from bench.core.one_cycle import set_learning_rate
from bench.data.load import load_dataset
from bench.engine.protect import learn, protect
from bench.engine.run import run_cell
from bench.engine.setting import Setting
from bench.engine.testbed import Testbed
from bench.models import weights_fingerprint
from bench.models.nets import MnistCNN
from bench.plugins.registry import make_defense
from bench.records.schema import Cell
from bench.report import describe
from bench.training import Batch, cross_entropy, fit, private_randomness

from .toys import tool

DIGITS = Setting("digits", "mnist-cnn", images=20)
SMALL = "retrained:start=scratch,epochs=2,training_images=256,batch_size=64,mirror=false"


def digits(count: int = 200) -> tuple[Tensor, Tensor]:
    data = load_dataset("digits").train
    return data.load(torch.arange(count)), data.labels[:count]


def net(seed: int = 0) -> MnistCNN:
    with private_randomness(seed):
        return MnistCNN(10, (1, 8, 8))


def test_a_cpu_learns_as_much_in_bfloat16_and_keeps_its_weights_in_float32() -> None:
    images, labels = digits(400)
    right = {}
    for precision in ("float32", "bfloat16"):
        network = net()
        seen = []

        def loss(network: nn.Module, batch: Batch, seen: list[torch.dtype] = seen) -> Tensor:
            logits = network(batch.images)
            seen.append(logits.dtype)
            return nn.functional.cross_entropy(logits, batch.targets)

        settings = {"epochs": 8, "learning_rate": 3e-3, "seed": 0, "batch_size": 40}
        fit(network, images, labels, loss=loss, precision=precision, **settings)
        assert set(seen) == {getattr(torch, precision)}
        assert all(weight.dtype == torch.float32 and weight.is_contiguous() for weight in network.parameters())
        right[precision] = float((network(images).argmax(1) == labels).float().mean())
    assert min(right.values()) > 0.8
    assert abs(right["float32"] - right["bfloat16"]) < 0.1


def trained(checkpoint: Path | None = None, loss: training.Loss = cross_entropy) -> str:
    """The fingerprint of a net with dropout after two epochs of five steps, shifted at random."""
    images, labels = digits()
    network = net()
    fit(
        network,
        images,
        labels,
        epochs=2,
        learning_rate=1e-3,
        seed=3,
        batch_size=40,
        augment=mirrored_shifts,
        loss=loss,
        checkpoint=checkpoint,
    )
    return weights_fingerprint(network)


class StoppedError(RuntimeError):
    """Somebody pulled the plug."""


def stops_at(step: int) -> training.Loss:
    """The cross-entropy, which ends the training at its n-th call."""
    calls = [0]

    def loss(network: nn.Module, batch: Batch) -> Tensor:
        calls[0] += 1
        if calls[0] > step:
            raise StoppedError
        return cross_entropy(network, batch)

    return loss


class TestCheckpoints:
    @pytest.mark.parametrize("step", [0, 1, 3, 5, 9])
    def test_a_training_that_was_stopped_ends_with_the_weights_of_an_undisturbed_one(
        self, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(checkpoints, "SECONDS", 0.0)
        file = tmp_path / "state.pt"
        with pytest.raises(StoppedError):
            trained(file, stops_at(step))
        assert file.exists() == (step > 0)
        left = 10 - step
        assert trained(file, stops_at(left)) == trained()

    def test_a_finished_training_is_not_done_again(self, tmp_path: Path) -> None:
        file = tmp_path / "state.pt"
        first = trained(file)
        assert trained(file, stops_at(0)) == first

    def test_a_damaged_state_is_no_state(self, tmp_path: Path) -> None:
        file = tmp_path / "state.pt"
        file.write_bytes(b"half of a file")
        assert trained(file) == trained()

    def test_states_are_saved_only_now_and_then(self, tmp_path: Path) -> None:
        with pytest.raises(StoppedError):
            trained(tmp_path / "state.pt", stops_at(4))
        assert not list(tmp_path.iterdir())

    def test_a_folder_that_cannot_be_written_costs_the_state_and_not_the_training(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("no folder")
        assert trained(tmp_path / "file" / "state.pt") == trained()

    def test_a_killed_process_leaves_what_the_next_one_goes_on_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        code = (
            "import os, signal, sys, torch\n"
            "torch.set_num_threads(1)\n"
            "from bench import training\n"
            "from bench.core import checkpoints\n"
            "from bench.engine.protect import learn\n"
            "from bench.plugins.registry import make_defense\n"
            "from bench.engine.setting import Setting\n"
            "from bench.engine.testbed import Testbed\n"
            "checkpoints.SECONDS, real, calls = 0.0, training._Run.step, []\n"
            "def step(run, loss):\n"
            "    real(run, loss)\n"
            "    calls.append(1)\n"
            "    if len(calls) == 6:\n"
            "        os.kill(os.getpid(), signal.SIGKILL)\n"
            "training._Run.step = step\n"
            f"testbed = Testbed(Setting('digits', 'mnist-cnn', images=20))\n"
            f"learn(make_defense({SMALL!r}), testbed, lambda share, doing: None)\n"
        )
        testbed, defense = Testbed(DIGITS), make_defense(SMALL)
        whole = learn(defense, testbed, lambda share, doing: None).artifact

        monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
        killed = subprocess.run([sys.executable, "-c", code], env=os.environ, check=False)
        assert killed.returncode == -signal.SIGKILL
        (states,) = tmp_path.glob("*.training")
        assert {file.name for file in states.glob("*.pt")} > {"spent.pt"}

        shares: list[float] = []
        resumed = learn(defense, testbed, lambda share, doing: shares.append(share)).artifact
        assert shares[1] == 1, "it started from scratch instead of with the second epoch"
        weights = [name for name in whole if name.startswith("net.")]
        assert len(weights) > 5
        assert all(torch.equal(whole[name], resumed[name]) for name in weights)
        assert not list(tmp_path.glob("*.training")), "the state stayed behind"
        assert len(list(tmp_path.glob("learned-*.safetensors"))) == 1


class TestLoop:
    def test_the_rate_and_the_momentum_are_those_of_torch(self) -> None:
        for steps in (3, 12, 37):
            weights = [nn.Parameter(torch.zeros(1))]
            theirs, ours = (torch.optim.AdamW(weights, lr=0.01) for _ in range(2))
            schedule = torch.optim.lr_scheduler.OneCycleLR(theirs, 0.01, total_steps=steps + 1, pct_start=0.1)
            for step in range(steps):
                set_learning_rate(ours, 0.01, step, steps)
                assert ours.param_groups[0]["lr"] == pytest.approx(theirs.param_groups[0]["lr"], rel=1e-9)
                assert ours.param_groups[0]["betas"] == pytest.approx(theirs.param_groups[0]["betas"], rel=1e-9)
                theirs.step()
                schedule.step()

    def test_a_loss_is_told_what_belongs_to_the_images(self) -> None:
        images, labels = digits(30)
        seen: list[tuple[Tensor, Tensor, Tensor, float]] = []

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            seen.append((batch.images, batch.targets, batch.rng[:].uniform(), batch.share))
            return cross_entropy(network, batch)

        fit(net(), images, labels, epochs=2, learning_rate=1e-3, seed=0, batch_size=12, loss=loss)
        assert [round(share, 6) for *_, share in seen] == [round(step / 6, 6) for step in range(6)]
        row_of = {image.numpy().tobytes(): row for row, image in enumerate(images)}
        numbers: list[dict[int, float]] = []
        for epoch in (seen[:3], seen[3:]):
            rows = [row_of[image.numpy().tobytes()] for shown, *_ in epoch for image in shown]
            assert sorted(rows) == list(range(30))
            assert torch.equal(torch.cat([targets for _, targets, *_ in epoch]), labels[rows])
            numbers.append(dict(zip(rows, torch.cat([drawn for *_, drawn, _ in epoch]).tolist(), strict=True)))
        assert not set(numbers[0].values()) & set(numbers[1].values())

    def test_curricula_decide_which_images_make_a_step(self) -> None:
        images, labels = digits(30)
        steps: list[int] = []

        def batches(epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
            return torch.arange(10 * (epoch + 1)).split(10)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            steps.append(len(batch.images))
            assert torch.equal(batch.images[0], images[10 * (len(steps) in (3, 5)) + 20 * (len(steps) == 6)])
            return cross_entropy(network, batch)

        fit(net(), images, labels, epochs=3, learning_rate=1e-3, seed=0, loss=loss, batches=batches)
        assert steps == [10] * 6

    def test_after_a_collapse_the_best_weights_come_back(self) -> None:
        images, labels = digits(60)
        scores = iter([0.4, 0.6, 0.5, 0.2, 0.9])
        seen: list[str] = []

        def guard(network: nn.Module) -> float:
            assert not network.training
            seen.append(weights_fingerprint(network))
            return next(scores)

        network = net()
        assert fit(network, images, labels, epochs=5, learning_rate=1e-3, seed=0, guard=guard) == 2
        assert len(seen) == 4
        assert weights_fingerprint(network) == seen[1]

    def test_without_a_collapse_the_last_weights_stay(self) -> None:
        images, labels = digits(60)
        scores = iter([0.6, 0.4, 0.5])
        network = net()
        assert fit(network, images, labels, epochs=3, learning_rate=1e-3, seed=0, guard=lambda _: next(scores)) == 3

    def test_a_loss_that_is_no_number_ends_the_training_with_a_hint(self) -> None:
        images, labels = digits(20)

        def loss(network: nn.Module, batch: Batch) -> Tensor:
            return cross_entropy(network, batch) * torch.nan

        with pytest.raises(InputError, match="smaller learning_rate"):
            fit(net(), images, labels, epochs=2, learning_rate=1e-3, seed=0, loss=loss)


class TestShifts:
    def test_each_image_is_a_shifted_and_perhaps_mirrored_one(self) -> None:
        images = torch.arange(150 * 36, dtype=torch.float32).reshape(150, 1, 6, 6) / 6000
        shown = mirrored_shifts(images, torch.Generator().manual_seed(0), shift=1)
        padded = nn.functional.pad(images, (1, 1, 1, 1), mode="replicate")
        windows = [padded[..., top : top + 6, left : left + 6] for top in range(3) for left in range(3)]
        possible = torch.stack([way for window in windows for way in (window, window.flip(3))], 1)
        hit = (possible == shown[:, None]).flatten(2).all(2)
        assert (hit.sum(1) == 1).all()
        assert hit.any(0).all(), "a shift never happened"

    def test_nothing_moves_where_nothing_is_asked_for(self) -> None:
        images = torch.rand(5, 3, 4, 7, generator=torch.Generator().manual_seed(0))
        assert torch.equal(mirrored_shifts(images, torch.Generator(), shift=0, mirror=False), images)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of a process")
def test_the_peak_of_memory_is_that_of_the_work_between() -> None:
    code = (  # a process of its own: in one that has held more before, new tensors find room without any growth
        "import torch\n"
        "from bench.core.peak_memory import PeakMemory\n"
        "torch.zeros(100 * 2**18).sum()\n"
        "watch = PeakMemory(torch.device('cpu'))\n"
        "before = watch.mib\n"
        "torch.ones(64 * 2**18).sum()\n"
        "print(before, watch.mib)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, peak_mib = map(float, done.stdout.split())
    assert before < 30
    assert 60 < peak_mib < 120


class TestCosts:
    def test_a_record_says_what_the_training_took(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # What the process holds already is no peak of the training, so a real one may be 0 here: the system is told.
        monkeypatch.setattr(peak, "_resident", lambda name, reset=False: {"VmRSS": 100.0, "VmHWM": 164.0}[name])
        cell = Cell("digits", "mnist-cnn", "fgsm", f"{SMALL},shift=1", "oblivious", images=20)
        outcome = run_cell(cell, DIGITS, lambda share, doing: None).outcome
        assert outcome.training["images"] == 256
        assert outcome.training["epochs"] == 2
        assert outcome.training["peak_mib"] == 64
        assert outcome.training["seconds"] == pytest.approx(outcome.seconds["train"], abs=1e-3)
        assert "Training of the defense:\n  epochs" in describe(outcome)

    def test_what_a_killed_training_took_counts_as_well(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path))

        def kill(share: float, doing: str) -> None:
            if share > 0.4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            protect(Testbed(DIGITS), SMALL, kill)
        (file,) = tmp_path.glob("*.training/spent.pt")
        spent = checkpoints.Checkpoint(file)
        before = spent.load()
        assert before is not None
        assert before["seconds"] > 0
        spent.save(before | {"seconds": 1000.0, "peak_mib": 5000.0})
        cost = protect(Testbed(DIGITS), SMALL, lambda share, doing: None).cost
        assert 1000 < cost["seconds"] < 1100
        assert cost["peak_mib"] == 5000
        assert not list(tmp_path.glob("*.training"))

    def test_a_defense_without_a_training_has_no_costs(self) -> None:
        cell = Cell("digits", "mnist-cnn", "fgsm", "median", "oblivious", images=20)
        outcome = run_cell(cell, DIGITS, lambda share, doing: None).outcome
        assert outcome.training == {}
        assert "Training" not in describe(outcome)


@pytest.fixture
def command() -> Callable[[str], tuple[int, str]]:
    """`bench train` in this process: exit code, and what it says."""

    def call(arguments: str) -> tuple[int, str]:
        told = CliRunner().invoke(app, ["train", *arguments.split()])
        if isinstance(told.exception, InputError):
            return 2, str(told.exception)
        return told.exit_code, told.output

    return call


class TestCommand:
    def test_it_trains_what_is_not_there_yet_for_bench_run(
        self, command: Callable[[str], tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
        where = "--dataset digits --model mnist-cnn"
        code, told = command(f"--defense {SMALL},median {where}")
        assert code == 0
        assert f"{SMALL} (seed 0): trained now: " in told
        assert "256 images" in told
        assert "2 epochs" in told
        assert "median (seed 0): learns nothing" in told
        assert "trained before" in command(f"--defense {SMALL} {where}")[1]
        testbed, shares = Testbed(DIGITS), list[str]()
        protect(testbed, SMALL, lambda share, doing: shares.append(doing))
        assert "training" not in shares

    @pytest.mark.parametrize(
        ("arguments", "hint"),
        [
            ("--defense retraind", "Did you mean 'retrained'"),
            ("--defense retrained:epochs=0", "Expected epochs of 1"),
            ("--defense retrained,smoothed --dataset digits", "smoothed"),
            ("--defense retrained --seed one", "whole number"),
            ("--defense ,", "Expected at least one defense"),
            ("--defense retrained --device moon", "Expected a device"),
        ],
    )
    def test_bad_input_is_refused_before_any_work(
        self,
        command: Callable[[str], tuple[int, str]],
        arguments: str,
        hint: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path))
        code, told = command(arguments)
        assert code == 2
        assert hint in told
        assert not list(tmp_path.iterdir())


class TestClassifiers:
    """tools/train_classifier.py, for other models than the one that ships."""

    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["train_classifier", *arguments])
        tool("train_classifier").main()

    def test_any_model_learns_any_data_set_and_bench_reads_the_weights(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "digits.safetensors"
        self.run(monkeypatch, "mnist-cnn", "--dataset", "digits", "--epochs", "6", "--out", str(file))
        found = re.search(r"evaluation images of digits: ([0-9.]+)%", capsys.readouterr().err)
        assert found
        assert float(found[1]) > 80
        testbed = Testbed(Setting("digits", "mnist-cnn", weights=file))
        right = (testbed.bare_clean.argmax(1) == testbed.labels).double().mean()
        assert 100 * float(right) == pytest.approx(float(found[1]), abs=0.06)

    @pytest.mark.parametrize(
        ("arguments", "hint"),
        [
            (["mnist-cnn"], "--dataset what to train it on"),
            (["mnist-cnn", "--dataset", "digits"], "--out the file"),
            (["mnist-cn", "--dataset", "digits", "--out", "x"], "Did you mean 'mnist-cnn'"),
        ],
    )
    def test_bad_input_is_refused(
        self,
        arguments: list[str],
        hint: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        with pytest.raises(SystemExit) as ended:
            self.run(monkeypatch, *arguments)
        assert ended.value.code == 2
        assert hint in capsys.readouterr().err
