"""What code behind walls can do and cannot do, and that it computes there what it computes elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from bench.benchmarks.named import load_benchmark
from bench.contracts import CertifiedDefense, Patch, Streams, answers
from bench.engine.on_benchmark import Inputs
from bench.engine.testbed import testbed_of
from bench.errors import RefusedError
from bench.plugins import registry
from bench.plugins.registry import add_file, make_defense
from bench.sandbox.boxes import Boxes
from bench.sandbox.client import Remote, RemoteDefense, ViewTraits, remote_defense
from bench.sandbox.process import Box, Limits
from bench.sandbox.system_calls import ALLOWED, MACHINES, OPEN, RESTRICTED, TO_ITSELF
from bench.sandbox.wire import Answer
from bench.submit.verify import verify

from .forging import PLUGIN, QUICK, code, content, inside, packed, walled

PROTECT = {"do": "protect", "defense": "acme-blur", "model": "photos-cnn", "shape": [3, 32, 32], "classes": 10}
AROUND = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
MINE = __file__.encode()
handle = os.open(__file__, os.O_RDONLY)
lock = struct.pack("hhqqi", 1, 0, 0, 0, 0)
FOUND = {
    "socket": libc.socket(2, 1, 0), "socketpair": libc.socketpair(1, 1, 0, ctypes.create_string_buffer(8)),
    "fork": libc.fork(), "exec": libc.execve(b"/bin/true", None, None), "kill": libc.kill(os.getppid(), 0),
    "open outside": libc.open(b"@OUTSIDE@", 0), "write to a package": libc.open(b"@PLUGIN@", 1),
    "write to its code": libc.open(MINE, 1), "truncate": libc.open(MINE, 0o1000),
    "create": libc.open(b"@FOLDER@/new", 0o101, 0o600),
    "write to the shared memory folder": libc.open(b"/dev/shm/bench-x", 0o101, 0o600),
    "ptrace": libc.ptrace(16, os.getppid(), 0, 0),
    "process_vm_readv": libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0),
    "shmget": libc.shmget(77, 4096, 0o1666), "memfd": libc.memfd_create(b"x", 0), "pipe": libc.pipe(lock * 2),
    "eventfd": libc.eventfd(0, 0), "inotify": libc.inotify_init(), "timerfd": libc.timerfd_create(0, 0),
    "chmod": libc.chmod(MINE, 0o777), "fchmod": libc.fchmod(handle, 0o777), "chown": libc.chown(MINE, -1, -1),
    "utime": libc.utimes(MINE, None), "futimens": libc.futimens(handle, None),
    "setxattr": libc.setxattr(MINE, b"user.x", b"1", 1, 0), "getxattr": libc.getxattr(MINE, b"user.x", None, 0),
    "unlink": libc.unlink(MINE), "rename": libc.rename(MINE, MINE + b"x"), "link": libc.link(MINE, MINE + b"x"),
    "flock": libc.flock(handle, 1), "setlk": libc.fcntl(handle, 6, lock), "getlk": libc.fcntl(handle, 5, lock),
    "ofd lock": libc.fcntl(handle, 37, lock), "owner": libc.fcntl(handle, 8, os.getpid()),
    "lease": libc.fcntl(handle, 1024, 0), "notify": libc.fcntl(handle, 1026, 1),
    "setpriority": libc.setpriority(0, 0, 10), "affinity": libc.sched_setaffinity(0, 8, b"\\x01" + bytes(7)),
    "scheduler": libc.sched_setscheduler(0, 0, bytes(8)), "mlock": libc.mlock(ctypes.create_string_buffer(8), 8),
    "prctl": libc.prctl(4, 0, 0, 0, 0), "unshare": libc.unshare(0x20000), "alarm": libc.setitimer(0, bytes(32), None),
    "limits of its parent": libc.prlimit(os.getppid(), 7, None, bytes(16)),
}
THROUGH = {name: value for name, value in FOUND.items() if value >= 0}
if THROUGH:
    raise RuntimeError(f"through: {THROUGH}")
"""


@walled
def test_the_kernel_holds_code_that_goes_around_python(tmp_path: Path) -> None:
    around = AROUND.replace("@OUTSIDE@", str(PLUGIN)).replace("@PLUGIN@", registry.__file__)
    around = around.replace("@FOLDER@", str(tmp_path))
    with Box({"acme_blur.py": PLUGIN.read_bytes() + around.encode()}, QUICK) as box:
        assert box.ask(PROTECT)[0]["defense"]["title"] == "Acme blur"
        assert {"limits", "Landlock", "seccomp"} <= set(box.walls)
    assert not list(tmp_path.iterdir())


LIBRARIES = """
import tempfile
import torch._dynamo
import torch._inductor.codecache
from torch._inductor.runtime.cache_dir_utils import cache_dir
cache_dir(), tempfile.gettempdir()
"""


@walled
def test_libraries_that_want_folders_to_write_to_can_be_imported() -> None:
    with Box({"acme_blur.py": PLUGIN.read_bytes() + LIBRARIES.encode()}, QUICK) as box:
        assert box.ask(PROTECT)[0]["views"]


MEMORY = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
PIECE, pieces = 2**25, []
for flags in (0x22, 0x21):  # private, shared
    while (piece := libc.mmap(None, PIECE, 3, flags, -1, 0)) != 2**64 - 1 and len(pieces) < 99:
        pieces.append(piece)
if len(pieces) * PIECE > 2**29:
    raise RuntimeError(f"{len(pieces)} pieces")
for piece in pieces:
    libc.munmap(piece, PIECE)
"""


@walled
def test_memory_has_a_limit_whatever_it_is_called() -> None:
    with Box({"acme_blur.py": PLUGIN.read_bytes() + MEMORY.encode()}, Limits(memory=2**29)) as box:
        assert box.ask(PROTECT)[0]["views"]


@walled
def test_two_processes_never_live_at_the_same_time_and_leave_nothing_to_each_other(tmp_path: Path) -> None:
    with Box({"acme_blur.py": PLUGIN.read_bytes()}, QUICK) as first:
        folder = Path(first._folder.name)
        assert folder.is_dir()
        with pytest.raises(RuntimeError, match="at the same time"):
            Box({"acme_blur.py": PLUGIN.read_bytes()}, QUICK)
        assert first.ask(PROTECT)
    assert not folder.exists()
    assert first._ended is not None
    with Box({"acme_blur.py": PLUGIN.read_bytes()}, QUICK) as second:
        assert second._folder.name != first._folder.name
        assert second.ask(PROTECT)


@walled
def test_a_defense_has_a_limit_for_all_its_answers_together(bundle: Path, tmp_path: Path) -> None:
    text = inside("import time; time.sleep(0.5)")
    path = packed(tmp_path / "b.zip", code(content(bundle), text))
    verdict = verify(path, limits=Limits(total=2, memory=2**30))
    assert verdict.status == "refused"
    assert "seconds" in verdict.reason


def test_the_tables_of_system_calls_have_a_number_for_each_machine_and_no_number_twice() -> None:
    numbers = [*ALLOWED.values(), *(entry[0] for entry in (*RESTRICTED.values(), *TO_ITSELF.values(), *OPEN.values()))]
    for column, _ in MACHINES.values():
        used = [pair[column] for pair in numbers if pair[column] >= 0]
        assert len(used) == len(set(used))
    assert all(pair[0] >= 0 for pair in numbers)


def walls(source: dict[str, bytes], text: str) -> RemoteDefense:
    """A defense of this code behind walls, for the images of the benchmark smoke."""
    return remote_defense(
        source, QUICK, text=text, checksum="x", model="photos-cnn", shape=(3, 32, 32), classes=10, learned={}
    )


RANDOM = '''
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from safetensors.torch import load_file
from bench.contracts import Transform

@dataclass(frozen=True)
class Noise(Transform):
    """Adds noise."""
    name: ClassVar[str] = "noise"
    title: ClassVar[str] = "noise"
    random: ClassVar[bool] = True
    def clean(self, images, rng):
        size = load_file(Path(__file__).with_name("size.safetensors"))["size"]
        return (images + size * rng.normal(*images.shape[1:])).clamp(0, 1)
'''


@walled
def test_a_defense_behind_walls_answers_as_it_would_in_the_open() -> None:
    images, streams = (
        torch.rand(9, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        Streams.of(0, torch.arange(9)),
    )
    bare = testbed_of(Inputs().setting(load_benchmark("smoke"), 0)).bare
    add_file(PLUGIN)
    here = make_defense("acme-blur:size=5").protect(bare, {})
    remote = walls({"acme_blur.py": PLUGIN.read_bytes()}, "acme-blur:size=5")
    with remote.boxes:
        there = remote.attacker_views(bare, {})["exact"]
        torch.testing.assert_close(there(images, streams), here(images, streams), rtol=0, atol=1e-5)
        gradients = []
        for model in (here, there):
            leaf = images.clone().requires_grad_()
            gradients.append(torch.autograd.grad(model(leaf, streams).square().sum(), leaf)[0])
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)
    remote = walls({"noise.py": RANDOM.encode(), "size.safetensors": save({"size": torch.tensor(0.5)})}, "noise")
    with remote.boxes:
        noisy = remote.protect(bare, {})
        assert noisy.random
        first = noisy(images, streams)
        torch.testing.assert_close(noisy.unused()(images[3:], streams[3:]), first[3:], rtol=0, atol=1e-5)
        assert not torch.allclose(noisy(images, streams.derive("again")), first, atol=0.1)


MASKS = """
from dataclasses import dataclass
from typing import ClassVar
from bench.defenses.patchcleanser import PatchCleanser

@dataclass(frozen=True)
class Masks(PatchCleanser):
    name: ClassVar[str] = "masks"
"""


@walled
def test_a_certificate_behind_walls_is_the_one_in_the_open() -> None:
    testbed, budget = testbed_of(Inputs().setting(load_benchmark("smoke"), 0)), Patch(0.01, turned=False)
    defense = make_defense("patchcleanser")
    assert isinstance(defense, CertifiedDefense)
    images, labels = testbed.images[3:6], testbed.labels[3:6]  # one without a certificate, two with one
    here = defense.certify(testbed.bare, {}, images, labels, budget)
    remote = walls({"masks.py": MASKS.encode()}, "masks")
    with remote.boxes:
        assert isinstance(remote, CertifiedDefense)
        there = remote.certify(testbed.bare, {}, images, labels, budget)
        wrong = remote.certify(testbed.bare, {}, images, (labels + 1) % 10, budget)
    assert here.any()
    assert torch.equal(there, here)
    assert not wrong[here].any()


@walled
def test_a_certificate_that_an_attack_breaks_is_refused(bundle: Path, tmp_path: Path) -> None:
    text = PLUGIN.read_text().replace("Streams, Transform", "CertifiedDefense, Streams, Transform")
    text = text.replace("class Blur(Transform)", "class Blur(Transform, CertifiedDefense)")
    text += "\n    def certify(self, model, learned, images, labels, budget):\n        return labels >= 0\n"
    verdict = verify(packed(tmp_path / "b.zip", code(content(bundle), text)), limits=QUICK)
    assert verdict.status == "refused", verdict.reason
    assert "the certificate is broken" in verdict.reason


class FakeBoxes(Boxes):
    """Remembers what it is asked, and by whom."""

    def __init__(self, answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.asked: list[Mapping[str, torch.Tensor]] = []
        self.askers: list[object] = []
        self.answer = answer

    def ask(self, asker: object, message: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> Answer:
        self.askers.append(asker)
        self.asked.append(tensors)
        return {}, {"logits": self.answer(tensors["images"])}


def means(images: torch.Tensor) -> torch.Tensor:
    return images.mean((2, 3))


def fake(boxes: FakeBoxes, random: bool = False) -> Remote:
    return Remote(boxes, "", ViewTraits(False, False, random, 1), 3)


def test_neither_the_order_of_the_rows_nor_the_streams_tell_which_image_it_is() -> None:
    images, streams = torch.rand(50, 3, 4, 4), Streams.of(0, torch.arange(50))
    for random in (False, True):
        boxes = FakeBoxes(means)
        torch.testing.assert_close(fake(boxes, random)(images, streams), means(images))
        (asked,) = boxes.asked
        assert not torch.equal(asked["images"], images)
        assert torch.equal(asked["images"].sum((1, 2, 3)).sort().values, images.sum((1, 2, 3)).sort().values)
        keys = asked["keys"].tolist()
        assert len(set(keys)) == (50 if random else 1)
        assert not set(keys) & set(streams._keys.tolist())


def test_a_judge_never_asks_a_process_twice_about_an_image_and_shares_none_with_attackers() -> None:
    boxes, images, streams = FakeBoxes(means), torch.rand(200, 3, 4, 4), Streams.of(0, torch.arange(200))
    model = fake(boxes)
    answers(model, images, streams)
    assert len(set(boxes.askers)) == 1
    judge, askers = model.unused(), set(boxes.askers)
    for _ in range(3):  # such as clean, attacked and rounded images
        boxes.askers = []
        answers(judge, images, streams)
        assert len(set(boxes.askers)) == 1
        assert not askers & set(boxes.askers)
        askers |= set(boxes.askers)


@pytest.mark.parametrize(
    "answer", [lambda images: images, lambda images: means(images)[:1], lambda images: means(images).int()]
)
def test_answers_of_another_shape_or_type_are_refused(answer: Callable[[torch.Tensor], torch.Tensor]) -> None:
    with pytest.raises(RefusedError):
        fake(FakeBoxes(answer))(torch.rand(2, 3, 4, 4), Streams.of(0, torch.arange(2)))
