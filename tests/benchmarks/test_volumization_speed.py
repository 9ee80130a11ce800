"""Cost of volumes on two threads: ranking the slices of an image, and a 3D network relative to its 2D origin.

The figures go to `extra_info`. Goal, on an idle machine: 0.5 ms per 32×32 image by mutual information. Compare the
ratio of the networks with that of their multiplications: a kernel of depth d takes d times as many.
"""

import importlib
from collections.abc import Callable, Iterator
from statistics import median
from time import perf_counter

import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from torch.utils.flop_counter import FlopCounterMode

from bench.contracts import Streams
from bench.models.nets import Net, SmallResNet

COUNT, SIDE = 64, 32
volume, inflating = (importlib.import_module(f"bench.defenses.{name}") for name in ("_volume", "_inflate"))


@pytest.fixture(autouse=True)
def two_threads(benchmark: BenchmarkFixture) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2 if benchmark.enabled else 1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(COUNT, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)).mul(255).round() / 255


def seconds(work: Callable[[], object], repeats: int = 9) -> float:
    times = []
    for _ in range(repeats):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return median(times)


@pytest.mark.parametrize("bins", [256, 16])
@pytest.mark.parametrize("size", [8, 16])
def test_speed_of_a_volume_by_mutual_information(
    benchmark: BenchmarkFixture, images: torch.Tensor, size: int, bins: int
) -> None:
    volumizer = volume.Volumizer(volume.Slicing(size), volume.Ranking("mutual-information", bins))
    rng = Streams.of(0, torch.arange(COUNT))
    stacked = benchmark(lambda: volumizer.volume(images, rng))
    assert stacked.shape == (COUNT, 3, (SIDE // size) ** 2, size, size)
    if benchmark.enabled:
        benchmark.extra_info["ms_per_image"] = 1000 * seconds(lambda: volumizer.volume(images, rng)) / COUNT
        benchmark.extra_info["goal_ms_per_image"] = 0.5


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("size", [8, 16])
def test_speed_of_a_3d_network_beside_its_origin(
    benchmark: BenchmarkFixture, images: torch.Tensor, size: int, depth: int
) -> None:
    flat = Net(SmallResNet(10), 10).eval().requires_grad_(False)
    slices = (SIDE // size) ** 2
    solid = inflating.inflate(flat, (3, slices, size), depth).eval().requires_grad_(False)
    rng = Streams.of(0, torch.arange(COUNT))
    stacked = volume.Volumizer(volume.Slicing(size), "raster").volume(images, rng)
    operations = []
    for work in (lambda: solid(stacked, rng), lambda: flat(images, rng)):
        with FlopCounterMode(display=False) as counted:
            work()
        operations.append(counted.get_total_flops())
    logits = benchmark(lambda: solid(stacked, rng))
    assert logits.shape == (COUNT, slices, 10)
    assert operations[0] / operations[1] == pytest.approx(depth, rel=0.01)
    if benchmark.enabled:
        own, origin = seconds(lambda: solid(stacked, rng)), seconds(lambda: flat(images, rng))
        benchmark.extra_info |= {"ratio": own / origin, "ratio_of_operations": operations[0] / operations[1]}
        benchmark.extra_info["ms_per_image"] = 1000 * own / COUNT
