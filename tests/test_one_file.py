"""A layer, a critic, a data source, a candidate, a suite: each is one class or function in one file, and is found there.

The contract of layers is in `test_contract.py`. Here are those of critics and sources, and the guide's examples, which
are found without another line.
"""

from __future__ import annotations

import copy
import importlib
import inspect
import io
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import wgan_lip
from wgan_lip import certify
from wgan_lip.benchmarks import suites
from wgan_lip.critics.base import Critic
from wgan_lip.data import (
    FiniteSource,
    ImageSource,
    LoaderSource,
    MixtureSource,
    OracleSource,
    Source,
    TensorSource,
    open_samples,
)
from wgan_lip.data.oracles import Shift
from wgan_lip.lipschitz.adversary import enumerate_lipschitz, find_steepest_slope
from wgan_lip.lipschitz.bounds import Norm
from wgan_lip.lipschitz.layers import GradientFlow, Linear, constrain_steps
from wgan_lip.lipschitz.layers.table import layer_table
from wgan_lip.lipschitz.optimizers import parameter_groups
from wgan_lip.transport import solve
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.discovery import concrete_subclasses, import_all
from wgan_lip.wasserstein.candidates import Candidate, critic_names
from wgan_lip.wasserstein.dual import ascend
from wgan_lip.wasserstein.fitting import fit_critic

ROOT = Path(__file__).resolve().parent.parent
GUIDE = ROOT / "wgan_lip/guides/extending.md"
CODES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)


def example(start: str) -> str:
    """The example that defines this class, up to where it begins to use it."""
    (code,) = (code for code in CODES if start in code)
    return re.split(r"\n\n\n(?!class |def )", code.partition(start)[0] + start + code.partition(start)[2])[0] + "\n"


def found(base, package):
    import_all(package)
    return [kind for kind in concrete_subclasses(base) if kind.__module__.startswith(f"{package}.")]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# --- what finds them


class Base: ...


class Middle(Base): ...


class Last(Middle): ...


class Both(Middle, Base): ...


def test_subclasses_of_subclasses_are_found_once():
    kinds = concrete_subclasses(Base)
    assert len(kinds) == 3 and set(kinds) == {Middle, Last, Both}


def test_a_class_that_is_defined_again_counts_as_it_is_now():
    class Kind: ...

    def cell():
        class Ring(Kind): ...

        return Ring

    cells = [cell(), cell()]
    assert concrete_subclasses(Kind) == cells[1:]


# --- a layer


@pytest.fixture
def rotation(tmp_path, monkeypatch):
    """The guide's layer as a file on the path, imported."""
    (tmp_path / "rotation.py").write_text(example("class Rotation(LipschitzLayer)"), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("rotation")
    sys.modules.pop("rotation")


def test_the_readmes_layer_is_a_file_of_40_lines(rotation):
    lines = Path(rotation.__file__).read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) <= 40


def test_the_contract_finds_the_readmes_layer_as_a_file_of_the_room(tmp_path):
    shutil.copytree(ROOT / "wgan_lip", tmp_path / "wgan_lip", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").mkdir()
    for name in ("conftest.py", "test_contract.py"):
        shutil.copy(ROOT / "tests" / name, tmp_path / "tests" / name)
    layer = example("class Rotation(LipschitzLayer)")
    (tmp_path / "wgan_lip/lipschitz/layers/rotation.py").write_text(layer, encoding="utf-8")
    contract = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "Rotation", "tests/test_contract.py"]
    table = "from wgan_lip.lipschitz.layers.table import layer_table; print(layer_table().encode())"

    def told(*arguments):
        environment = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        return done.stdout

    assert int(re.search(r"(\d+) passed", told(*contract)).group(1)) >= 40
    assert "| `Rotation` | turns pairs of coordinates by trained angles | Euclidean | 1 |" in told("-c", table)


def test_the_readmes_layer_is_found_by_all_that_asks_layers(rotation):
    class Turned(Critic):
        def __init__(self, dim: int) -> None:
            layers = {"turn": rotation.Rotation(dim), "fold": GradientFlow(dim, 2)}
            super().__init__(dim, {**layers, "readout": Linear(Norm((dim,)), Norm((1,)))})

    critic = Turned(2)
    x, y = torch.randn(300, 2) + torch.tensor([0.0, 3.0]), torch.randn(300, 2)
    critic.start_at(x, y)
    with torch.no_grad():
        shift = critic.turn(x).mean(dim=0) - critic.turn(y).mean(dim=0)
    assert float(shift[0]) == pytest.approx(float((x.mean(0) - y.mean(0)).norm()), rel=1e-5)
    assert float(shift[1]) == pytest.approx(0, abs=1e-5)
    assert critic.renew(x, y) == 0

    certificate = certify(critic)
    assert certificate.lipschitz <= 1 and certificate.layers[1].method == "rotations are isometries"
    exact = enumerate_lipschitz(critic, -5.0, 5.0)
    assert exact.cells > 1 and 0 < exact.lipschitz <= certificate.lipschitz

    rates = {id(p): group["lr"] for group in parameter_groups(critic, lr=0.1) for p in group["params"]}
    assert rates[id(critic.turn.angle)] == pytest.approx(0.1 / 40)
    assert "| `Rotation` | turns pairs of coordinates by trained angles | Euclidean | 1 |" in layer_table("rotation")


def test_a_critic_starts_and_renews_layers_in_order_at_the_states_that_reach_them(rotation):
    seen = []

    class Noted(rotation.Rotation):
        def claim(self):
            return super().claim()

        def start_at(self, x, y, *, keep_distances=False, **_):
            seen.append(("start", x, y, keep_distances))
            super().start_at(x, y)

        def renew(self, x, y):
            seen.append(("renew", x, y))
            return 2

    class Reading(Noted):
        reads_distances = True

        def claim(self):
            return super().claim()

    class Turned(Critic):
        def __init__(self, dim: int) -> None:
            inner = {"first": Noted(dim), "plain": nn.Linear(dim, dim), "second": Reading(dim), "third": Noted(dim)}
            super().__init__(dim, {**inner, "readout": Linear(Norm((dim,)), Norm((1,)))})

    critic, x, y = Turned(2), torch.randn(9, 2) + 1, torch.randn(7, 2)
    critic.start_at(x, y)
    assert [entry[3] for entry in seen] == [True, False, False]
    after = critic.plain(critic.first(critic.flatten(x)))
    assert torch.allclose(seen[1][1], after) and seen[1][2].shape == (7, 2)
    seen.clear()
    assert critic.renew(x, y) == 6
    assert torch.allclose(seen[2][1], critic.second(critic.plain(critic.first(x))))


# --- a critic

CRITICS = {
    f"{kind.__name__} {index}": (kind, index)
    for kind in found(Critic, "wgan_lip.critics")
    for index, _ in enumerate(kind.examples())
}


def assert_critic(make):
    """The contract of critics: certified, whatever happens to it; started at data; saved and loaded."""
    torch.manual_seed(0)
    critic = make()
    assert critic.guarantee in ("certified", "certified, conservative", "not certified")
    at_most = 1.0 if critic.guarantee == "certified" else math.inf
    x, y = torch.randn(40, critic.dim) + 1, 2 * torch.randn(30, critic.dim)
    shape = (40,) if critic.heads == 1 else (40, critic.heads)
    assert critic(x).shape == shape and len(critic(x[:0])) == 0
    assert torch.equal(critic(x), critic(x.view(40, 1, 1, critic.dim)))

    optimizer = torch.optim.Adam(parameter_groups(critic, lr=1.0))
    constrain_steps(optimizer, critic)
    for change in (
        lambda: None,
        lambda: critic.start_at(x, y),
        lambda: [ascend(critic, optimizer, x[:30], y) for _ in range(3)],
        lambda: critic.renew(x, y),
    ):
        change()
        constant = certify(critic).lipschitz
        assert 0 < constant <= at_most
        assert find_steepest_slope(critic, x, starts=32, steps=6).value <= constant
    assert critic.spread != 1.0, "start_at takes the spread of the samples"

    buffer = io.BytesIO()
    torch.save(critic.state_dict(), buffer)
    buffer.seek(0)
    other = make()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    for again in (other, copy.deepcopy(critic)):
        assert torch.equal(again(x), critic(x)) and certify(again) == certify(critic)


@pytest.mark.parametrize("name", CRITICS)
def test_a_critic_keeps_the_contract(name):
    kind, index = CRITICS[name]
    assert_critic(lambda: list(kind.examples())[index])


def test_a_critic_that_needs_more_than_a_dimension_is_told_what_to_add():
    kind = type("Bare", (Critic,), {"__init__": lambda self, dim, rank: None})
    with pytest.raises(
        NotImplementedError, match="Bare has no examples, and Bare.3. fails: .*rank.*Write a classmethod"
    ):
        next(kind.examples())


def test_every_critic_has_an_example():
    assert {kind for kind, _ in CRITICS.values()} == set(found(Critic, "wgan_lip.critics"))


def test_the_readmes_critic_keeps_the_contract_as_it_stands():
    names = {"__name__": "sorted_blocks"}
    exec(compile(example("class SortedBlocks(Critic)"), GUIDE.name, "exec"), names)
    kind = names["SortedBlocks"]
    assert kind in concrete_subclasses(Critic)
    assert_critic(lambda: next(kind.examples()))


# --- a data source

BUILT = {  # of classes that need arguments
    FiniteSource: lambda: FiniteSource(torch.randn(60, 3), torch.randn(30, 3)),
    ImageSource: lambda: ImageSource(*torch.randint(256, (90, 1, 4, 5), dtype=torch.uint8).split([60, 30]), flip=True),
    TensorSource: lambda: TensorSource(torch.rand(90, 3)),
    MixtureSource: lambda: MixtureSource(torch.randn(3, 2), std=0.1, test_size=50, seed=0),
    OracleSource: lambda: OracleSource(Shift(dim=3), 1),
}
ELSEWHERE = {LoaderSource, *(kind for kind in found(Source, "wgan_lip.data") if kind.__name__ in (
    "VectorFile", "ImageFolder", "MNIST", "FashionMNIST", "CIFAR10", "CelebA"))}  # fmt: skip
SOURCES = {kind.__name__: make for kind, make in BUILT.items()} | {
    f"{kind.__name__} {index}": lambda kind=kind, index=index: list(kind.examples())[index]
    for kind in found(Source, "wgan_lip.data")
    for index, _ in enumerate(kind.examples() if kind not in BUILT else ())
}


def assert_source(source):
    """The contract of sources: three draws that never share a stream, each fixed by what is said to fix it."""
    state = torch.get_rng_state()
    drawn, again, other = (source.sample(20, rng(seed)) for seed in (1, 1, 2))
    assert drawn.shape == (20, source.dim) and drawn.dtype == torch.float32 and drawn.isfinite().all()
    assert torch.equal(drawn, again) and not torch.equal(drawn, other)
    reference = source.reference(20, seed=1)
    assert reference.shape == (20, source.dim) and reference.device.type == "cpu"
    assert torch.equal(reference, source.reference(20, seed=1))
    assert not torch.equal(reference, source.reference(20, seed=2))
    assert source.test.ndim == 2 and source.test.shape[1] == source.dim and source.test.isfinite().all()
    first = [rows[:20] for rows in (drawn, reference, source.test)]
    assert not any(torch.equal(first[i], first[j]) for i, j in ((0, 1), (0, 2), (1, 2))), "two draws of one stream"
    assert torch.equal(torch.get_rng_state(), state), "torch's own generator was used"

    samples = torch.cat((drawn, reference, source.test))
    labels = len(source.label_shares or ())
    pixels = samples[:, : source.dim - labels]
    assert source.low is None or pixels.amin() >= source.low
    assert source.high is None or pixels.amax() <= source.high
    assert source.image_shape is None or math.prod(source.image_shape) == source.dim - labels
    assert source.sizes["dim"] == source.dim
    assert isinstance(source.units, str) and source.fingerprint() == source.fingerprint()


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_keeps_the_contract(name):
    assert_source(SOURCES[name]())


def test_every_source_has_an_example_or_is_built_here():
    covered = {name.partition(" ")[0] for name in SOURCES} | {kind.__name__ for kind in ELSEWHERE}
    missing = {kind.__name__ for kind in found(Source, "wgan_lip.data")} - covered
    assert not missing, f"write a classmethod examples of {missing}, or add it to BUILT"


def test_the_readmes_source_keeps_the_contract_and_opens_by_its_name():
    names = {"__name__": "ring"}
    exec(compile(example("class Ring(Source)"), GUIDE.name, "exec"), names)
    (source,) = names["Ring"].examples()
    assert_source(source)
    drawn = open_samples("data/ring:noise:0.0").law.draw(50, rng())
    assert torch.allclose(drawn.norm(dim=1), torch.ones(50, dtype=drawn.dtype), atol=1e-6)
    with pytest.raises(InputError, match="noise of data/ring must be of type float, not 'much'"):
        open_samples("data/ring:noise:much")


def test_no_class_of_ones_own_hides_a_source_of_the_package():
    class Mine(Source):
        name, dim = "moons", 2
        sample = reference = lambda self, n, _: torch.zeros(n, 2)

        def __init__(self) -> None:
            self.test = torch.zeros(5, 2)

    assert open_samples("data/moons").law.draw(9, rng()).any()


# --- a candidate


def test_a_candidate_of_ones_own_is_found_by_its_family():
    class Axis(Candidate):
        """The first coordinate."""

        family = "axis"

        @classmethod
        def proposed(cls, start):
            one = cls()
            layer = Linear(Norm.euclidean(start.dim), Norm((1,)))
            with torch.no_grad():
                layer.weight.copy_(torch.eye(1, start.dim))
            one.name, one.units = cls.family, start.units
            one.module = nn.Sequential(layer.requires_grad_(False), wgan_lip.lipschitz.layers.Squeeze())
            yield one

    assert "axis" in critic_names()
    x = torch.randn(60, 2, generator=rng(1)) + torch.tensor([3.0, 0.0])
    y = torch.randn(60, 2, generator=rng(2))
    fit = fit_critic(x[:40], y[:40], x_validation=x[40:], y_validation=y[40:], critic="axis", steps=2)
    shift = float(x[:40, 0].mean() - y[:40, 0].mean())
    assert fit.name == "axis" and fit.train_value == pytest.approx(shift, rel=1e-5)
    assert fit.train_value <= solve(x[:40], y[:40]).value
    with pytest.raises(InputError, match="axis"):
        fit_critic(x, y, x_validation=x, y_validation=y, critic="axes")


# --- a suite


def test_every_suite_takes_what_the_command_gives():
    for name, measure in suites().items():
        parameters = inspect.signature(measure).parameters.keys()
        assert {"seeds", "out"} <= parameters <= {"seeds", "out", "overrides", "stage", "minutes"}, name
        assert (inspect.getdoc(measure) or "").strip(), name


def test_a_suite_is_found_in_a_file_of_the_room(tmp_path, monkeypatch):
    import wgan_lip.benchmarks as room

    (tmp_path / "mine.py").write_text(
        "def measure_twice(seeds, out):\n    return str(2 * seeds[0])\n", encoding="utf-8"
    )
    monkeypatch.setattr(room, "__path__", [*room.__path__, str(tmp_path)])
    assert room.benchmark("mine_twice", [21], [], str(tmp_path / "out")) == "42"
    sys.modules.pop("wgan_lip.benchmarks.mine")
