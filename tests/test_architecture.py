"""Imports point one way: the allowed arrows between the rooms of the package, and who may meet which dependency."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import wgan_lip

PACKAGE = "wgan_lip"
ROOT = Path(wgan_lip.__file__).resolve().parent
FACADE = "__init__"  # the package root: public names, loaded when first asked for

# What each room may import of the package. A room that is missing here fails the tests: decide, then add it.
ALLOWED: dict[str, set[str]] = {
    "checks": {"files"},
    "files": {"checks"},
    "checkpoints": {"checks", "files"},
    "bounds": {"checks"},
    "layers": {"bounds", "checks"},
    "critics": {"bounds", "checks", "layers"},
    "certificates": {"bounds", "checks", "files", "layers"},
    "adversary": {"checks", "layers"},
    "population": {"bounds", "certificates", "checks", "transport"},
    "piecewise_affine": {"checks", "critics", "layers", "transport"},
    "duality": {"layers"},
    "transport": {"checks"},
    "wasserstein": {"bounds", "certificates", "checks", "transport"},
    "data": {"checks"},
    "generators": {"checks"},
    "fitting": {"bounds", "certificates", "checks", "critics", "duality", "layers", "transport"},
    "estimation": {"certificates", "checks", "data", "fitting", "population", "transport", "wasserstein"},
    "metrics": {"checks", "data", "transport"},
    "tracking": {"checks", "files"},
    "figures": {"checks", "files"},
    "explorer": {"certificates", "checks", "data", "figures", "transport"},
    "targets": {"checks", "data"},
    "exporting": {"certificates", "checks", "files", "generators", "targets"},
    "findings": set(),
    "comparison": {"checks", "findings", "runs"},
    "inspection": {"certificates", "checks", "data", "findings", "metrics", "runs", "targets"},
    "report": {FACADE, "checks", "comparison", "data", "explorer", "figures", "findings", "inspection", "tracking"},
    "runs": {FACADE, "checkpoints", "checks", "data", "files", "sampling", "targets", "tracking"},
    "sampling": {"generators"},
    "training": {
        "certificates",
        "checks",
        "data",
        "duality",
        "generators",
        "layers",
        "metrics",
        "transport",
        "wasserstein",
    },
    "scoring": {
        "adversary",
        "certificates",
        "checks",
        "data",
        "duality",
        "generators",
        "metrics",
        "runs",
        "transport",
        "wasserstein",
    },
}
ALLOWED["cli"] = {FACADE, *ALLOWED}
ALLOWED["__main__"] = {"cli"}
ALLOWED[FACADE] = set(ALLOWED) - {"cli", "__main__"}

# Heavy or optional dependencies, and the only rooms that may import them, lazily or not.
OWNERS: dict[str, set[str]] = {
    "hydra": {"cli", "runs"},
    "omegaconf": {"cli", "runs"},
    "ot": {"transport", "cli"},  # in cli, only as a peer in a benchmark
    "pyarrow": {"data"},
    "safetensors": {"exporting"},
    "tensorboard": {"tracking"},
    "torch.utils.tensorboard": {"tracking"},
    "matplotlib": {"figures"},
    "sklearn": {"data"},
    "torchvision": {"data"},
}


def imported_modules(source: str, package: str) -> set[str]:
    """Full dotted names of all that `source`, a module inside `package`, imports anywhere, functions included.

    `from a import b` gives `a` and `a.b`, for b may be a module.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            argument = node.args[0]
            if isinstance(argument, ast.Constant):
                names.add(str(argument.value))
            else:
                names.add("<dynamic>")
    return names


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def sources() -> dict[Path, set[str]]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        package = ".".join([PACKAGE, *path.relative_to(ROOT).parts[:-1]])
        found[path] = imported_modules(path.read_text(encoding="utf-8"), package)
    return found


SOURCES = sources()
ROOMS = {room_of(path) for path in SOURCES}


def rooms_imported(names: set[str]) -> set[str]:
    rooms = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != PACKAGE:
            continue
        if len(parts) > 1:
            rooms.add(parts[1] if parts[1] in ROOMS else FACADE)
    return rooms


def graph() -> dict[str, set[str]]:
    arrows: dict[str, set[str]] = {room: set() for room in ROOMS}
    for path, names in SOURCES.items():
        arrows[room_of(path)] |= rooms_imported(names) - {room_of(path)}
    return arrows


def test_the_parser_sees_lazy_relative_and_dynamic_imports():
    source = """
def late():
    from wgan_lip import transport
    import ot.gpu
    from .. import data
    from ..files import write_whole
    import importlib
    importlib.import_module("wgan_lip.cli")
"""
    names = imported_modules(source, "wgan_lip.cli")
    assert rooms_imported(names) == {"transport", "data", "files", "cli"}
    assert "ot.gpu" in names


def test_every_room_is_in_the_table():
    assert set(ALLOWED) >= ROOMS, f"state what {ROOMS - set(ALLOWED)} may import"
    assert set(ALLOWED) - ROOMS <= {"__main__"}, "the table names rooms that do not exist"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_what_the_table_allows(room):
    assert graph()[room] <= ALLOWED.get(room, set())


def test_no_cycles_among_rooms():
    arrows = graph()
    try:
        order = list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(f"cycle: {' -> '.join(error.args[1])}")
    assert order.index("bounds") < order.index("layers") < order.index("certificates") < order.index("wasserstein")


def test_the_facade_imports_no_room_but_knows_where_each_name_lives():
    assert graph()[FACADE] == set()
    for name in wgan_lip.__all__:
        assert getattr(wgan_lip, name) is not None
    assert wgan_lip.certify.__module__ == "wgan_lip.lipschitz.certificates"


def test_only_cli_imports_cli_and_only_it_imports_training():
    arrows = graph()
    assert {room for room in ROOMS if "cli" in arrows[room]} <= {"__main__"}
    assert {room for room in ROOMS if "training" in arrows[room]} <= {"cli", FACADE}


@pytest.mark.parametrize("dependency", sorted(OWNERS))
def test_only_its_owners_import_a_dependency(dependency):
    users = {
        room_of(path)
        for path, names in SOURCES.items()
        if any(name == dependency or name.startswith(f"{dependency}.") for name in names)
    }
    assert users <= OWNERS[dependency]


def test_only_the_facade_and_targets_import_by_computed_name():
    assert {room_of(path) for path, names in SOURCES.items() if "<dynamic>" in names} <= {FACADE, "cli", "targets"}


def test_certifying_a_critic_loads_no_heavy_dependency():
    code = """
import sys
import wgan_lip
from wgan_lip.critics import ResNetCritic
assert wgan_lip.certify(ResNetCritic(2)).lipschitz <= 1
heavy = "hydra omegaconf ot tensorboard matplotlib sklearn torchvision pyarrow".split()
print(",".join(name for name in heavy if name in sys.modules))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_importing_the_package_loads_none_of_its_rooms():
    code = "import sys, wgan_lip; print(','.join(m for m in sys.modules if m.startswith('wgan_lip.')))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent, timeout=120, check=True)
    assert done.stdout.strip() == ""


def test_the_facade_names_what_it_has_where_a_name_is_wrong():
    with pytest.raises(AttributeError, match="no attribute 'ResnetCritic'.*ResNetCritic"):
        wgan_lip.ResnetCritic  # noqa: B018
    assert set(wgan_lip.__all__) <= set(dir(wgan_lip))
