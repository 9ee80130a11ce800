"""Experiment files as their authors meet them: run, overridden, kept, and refused with reasons."""

from __future__ import annotations

import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
import typer

from bench.benchmarks.experiment import Experiment, load_experiment, schema_text
from bench.cli import forecast
from bench.cli.main import app, main
from bench.cli.options import seeds_of
from bench.engine.estimate import Forecast
from bench.engine.plan import Plan
from bench.plugins import registry
from bench.records.store import Store

ROOT = Path(__file__).parent.parent.parent
SMALL = """
dataset = "photos:crop=16,train=2,test=20"
attack = ["fgsm", "ifgsm:steps=2"]
defense = ["lgs", "jpeg:quality=30"]
tier = "oblivious"
seed = [0, 1]
images = 10
workers = 0
"""
FAULTY = {
    "no TOML": ("attack = fgsm", "is not TOML: Invalid value (at line 1, column 10)"),
    "a key twice": ('attack = "fgsm"\nattack = "pgd"', "at line 2"),
    "a key in the plural": (
        '\nattacks = "fgsm"',
        "line 2, attacks: No key of an experiment named 'attacks'. Did",
    ),
    "a number too long": ("images = 1" + 5000 * "0", "is not TOML: Exceeds the limit"),
    "too many brackets": ("images = " + 5000 * "[", "is not TOML: maximum recursion depth exceeded"),
    "a word for a number": ('images = "many"', "line 1, images: expected a valid integer or 'all', but got 'many'"),
    "no image": ("# few\nimages = 0", "line 2, images: expected greater than 0 or 'all', but got 0"),
    "a negative seed": ("seed = [0, -1]", "line 1, seed: expected greater than or equal to 0, but got -1"),
    "another tier": ('tier = "aware"', "line 1, tier: expected 'oblivious', 'adaptive' or 'both', but got 'aware'"),
    "a number for a name": ("defense = [3]", "line 1, defense: expected a valid string, but got 3"),
    "an empty list": ("attack = []", "line 1, attack: expected at least 1 item, but got []"),
    "an unknown attack": (
        'effort = "quick"\nattack = ["fgsm", "pacth"]',
        "line 2, attack: No attack named 'pacth'",
    ),
    "a wrong parameter": ('attack = "patch:area=1.5"', "line 1, attack: "),
    "an unknown defense": ('\n\ndefense = "lgs+jpg"', "line 3, defense: No defense named 'jpg'. Did you mean 'jpeg'"),
    "an unknown data set": (
        'dataset = ["photos", "fotos"]',
        "line 1, dataset: No data set named 'fotos'. Did",
    ),
    "an unknown model": ('model = "resnet99"', "line 1, model: No model named 'resnet99'"),
    "no such device": ('device = "abacus"', "line 1, device: Expected a device that torch has here"),
    "too many images": ("images = 1000000", "In experiment.toml: Expected a number of images from 1 to 1000"),
    "weights for two models": (
        'model = ["photos-cnn", "resnet20"]\nweights = "w.pt"',
        "In experiment.toml: Expected one model with --weights w.pt, but got 2",
    ),
    "an unknown word about a benchmark": ('[benchmark]\ntitel = "x"', "line 2, benchmark.titel: No key of [benchmark]"),
    "too little about a benchmark": ('[benchmark]\ntitle = "x"', "expected benchmark.threat, but it is missing"),
}


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """Calls the bench in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiment.toml").write_text(SMALL)
    return tmp_path


@pytest.mark.parametrize("fault", FAULTY)
def test_a_faulty_file_is_refused_before_any_work_and_its_line_or_key_is_named(
    fault: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = FAULTY[fault]
    (folder / "experiment.toml").write_text(text)
    assert run(monkeypatch, "run", "experiment.toml", "--results", "results") == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not list(folder.rglob("*.json"))
    assert not (folder / "results" / "experiments").exists()


def test_the_lists_of_a_file_are_crossed_and_what_was_run_is_written_beside_the_results(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "run", "experiment.toml") == 0
    cells = [record.cell for record in Store(folder / "results").outcomes()]
    assert len(cells) == 2 * 3 * 2
    assert {cell.images for cell in cells} == {10}
    written = folder / "results" / "experiments" / "experiment.toml"
    values = tomllib.loads(written.read_text())
    assert values["defense"] == ["none", "lgs", "jpeg:quality=30"]
    assert values["seed"] == [0, 1]
    before = {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()}
    for file in (written, folder / "experiment.toml"):
        assert run(monkeypatch, "show", str(file)) == 0
        shown = capsys.readouterr().out
        assert "ifgsm:steps=2" in shown
        assert "Records of its cells in results: 12 ok." in shown
    assert run(monkeypatch, "run", str(written)) == 0
    assert {path: path.read_bytes() for path in (folder / "results").rglob("*") if path.is_file()} == before


def test_an_experiment_with_an_attack_of_a_plugin_is_shown_with_that_plugin(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_from_files", dict(registry._from_files))
    (folder / "experiment.toml").write_text('attack = "counted"')
    plugin = str(ROOT / "tests" / "plugin" / "counted.py")
    assert run(monkeypatch, "show", "experiment.toml", "--plugin", plugin) == 0
    assert "Records of its cells in results: none." in capsys.readouterr().out


def test_a_seed_given_twice_is_computed_once() -> None:
    assert seeds_of("1,0,1") == [1, 0]


def test_an_option_goes_before_the_file_even_if_what_the_file_says_is_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "experiment.toml").write_text(SMALL.replace('"fgsm"', '"fsgm"'))
    words = ["--attack", "fgsm", "--defense", "none", "--seed", "3", "--images", "5"]
    assert run(monkeypatch, "run", *words, "experiment.toml") == 0
    (cell,) = [record.cell for record in Store(folder / "results").outcomes()]
    assert (cell.attack, cell.defense, cell.seed, cell.images) == ("fgsm", "none", 3, 5)


def test_data_sets_and_models_are_crossed_and_weights_may_stand_with_their_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    from bench.models import load_model

    network = load_model("resnet20", num_classes=10, image_shape=(3, 16, 16)).network
    state = {key: value.contiguous() for key, value in network.state_dict().items()}  # type: ignore[operator]
    save_file(state, folder / "w.safetensors")
    models = 'model = ["photos-cnn", "resnet20:weights=w.safetensors"]\n'
    datasets = SMALL.replace('"photos:crop=16,train=2,test=20"', '["photos:crop=16,test=20", "photos:crop=20,test=20"]')
    (folder / "experiment.toml").write_text(models + datasets)
    assert run(monkeypatch, "run", "experiment.toml", "--attack", "fgsm", "--defense", "none", "--seed", "0") == 0
    cells = [record.cell for record in Store(folder / "results").outcomes()]
    assert {cell.dataset for cell in cells} == {"photos:crop=16,test=20", "photos:crop=20,test=20"}
    models = {cell.model.partition("@")[0] for cell in cells}
    assert models == {"photos-cnn", "resnet20:weights=w.safetensors"}
    assert len(cells) == 4


def test_every_key_is_an_option_of_bench_run() -> None:
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]  # a group has them
    options = {parameter.name for parameter in command.params}
    keys = {field.name for field in fields(Experiment)} - {"benchmark"}
    assert keys <= options
    assert options - keys == {"experiment", "benchmark", "results", "dry_run"}


def test_the_published_schema_is_that_of_the_code() -> None:
    how = "python -c 'from bench.benchmarks.experiment import schema_text as s; print(s(), end=\"\")'"
    path = ROOT / "docs" / "experiment.schema.json"
    assert path.read_text() == schema_text(), f"{how} > {path.name}"


def test_a_file_of_every_key_is_read(tmp_path: Path) -> None:
    path = tmp_path / "all.toml"
    path.write_text(
        SMALL + 'model = "photos-cnn"\nweights = "w.pt"\nmean = "0.5"\nstd = "0.5"\ntargeted = true\ntarget = "cat"\n'
        'effort = "quick"\nprecision = "float32"\ndevice = "cpu"\ntimeout = 9\nbatch_size = 4\n'
        'time_limit = "2h"\nretry = "all"\nverbose = true\nplugin = "a.py"\n'
        'engine = "slurm"\ncells_per_job = 5\ngpus_per_node = 1\ncpus_per_task = 4\nmemory = 8\njobs = 9\n'
        'job_minutes = 60\npartition = "gpu"\naccount = "us"\nqos = "low"\naddress = "auto"\n'
        '[benchmark]\ntitle = "t"\nthreat = "x"\ncounts = "y"\ndata = "photos*"\nweights = "z"\n'
    )
    experiment = load_experiment(path).experiment
    assert [field.name for field in fields(experiment) if getattr(experiment, field.name) is None] == []
    assert experiment.options()["plugin"] == ["a.py"]
    assert experiment.options()["seed"] == "0,1"


def test_a_dry_run_says_what_there_is_to_do_and_does_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "run", "experiment.toml", "--dry-run") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "12 cells: 0 done, 12 to do" in printed
    assert "MiB a worker" in printed
    assert not list(folder.rglob("*.json"))
    assert not (folder / "results" / "experiments").exists()
    assert run(monkeypatch, "run", "experiment.toml", "--attack", "fgsm", "--seed", "0") == 0
    capsys.readouterr()
    assert run(monkeypatch, "run", "experiment.toml", "--dry-run") == 0
    assert "12 cells: 3 done, 9 to do" in " ".join(capsys.readouterr().out.split())


def test_a_time_limit_begins_no_cell_that_would_not_end_in_time_and_the_next_run_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "experiment.toml", "--attack", "fgsm", "--defense", "none", "--seed", "0"]
    hour = Forecaster(3601.0)
    monkeypatch.setattr(forecast, "estimate", hour)
    assert run(monkeypatch, *words, "--time-limit", "1h") == 1
    assert "2 tasks were not started" in capsys.readouterr().err
    assert not list((folder / "results" / "records").rglob("*.json"))
    assert run(monkeypatch, *words, "--time-limit", "1h30m") == 0
    assert len(list((folder / "results" / "records").rglob("*.json"))) == 2


class Forecaster:
    """Says of every task that it takes so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, plan: Plan, store: Store) -> Forecast:
        times = dict.fromkeys(plan.tasks, self.seconds)
        return Forecast(times, times, {}, frozenset(), 0.0, 0.0)


@pytest.mark.parametrize("text", ["soon", "2", "0h", "1h2h", "h", 400 * "9" + "h"])
def test_a_time_that_is_none_is_refused(
    text: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "run", "--time-limit", text) == 2
    assert "Expected a time such as 2h, 90m or 1h30m" in capsys.readouterr().err


def test_a_log_says_when_each_task_began_and_how_it_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["run", "experiment.toml", "--attack", "fgsm", "--defense", "none", "--seed", "0"]
    assert run(monkeypatch, *words, "--verbose") == 0
    (log,) = (folder / "results" / "logs").glob("*.log")
    text = log.read_text()
    for line in ("bench run experiment.toml", "2 tasks are to do", "fgsm × none, oblivious: ok", "took", "latency"):
        assert line in text
