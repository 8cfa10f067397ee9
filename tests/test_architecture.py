"""Imports point one way: the allowed arrows between the rooms of the package, and who may meet which dependency."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from shutil import which

import pytest

import wgan_lip

PACKAGE = "wgan_lip"
ROOT = Path(wgan_lip.__file__).resolve().parent
FACADE = "__init__"  # the package root: public names, loaded when first asked for

# The floors, ground floor first, and what each room imports of the package: exactly that, and only from below.
FLOORS: list[dict[str, set[str]]] = [
    {"utils": set()},
    {
        "lipschitz": {"utils"},
        "transport": {"utils"},
        "data": {"utils"},
        "generators": {"utils"},
        "figures": {"utils"},
    },
    {
        "critics": {"lipschitz", "transport", "utils"},
        "metrics": {"data", "transport", "utils"},
        "runs": {"data", "generators", "lipschitz", "utils"},
    },
    {
        "wasserstein": {"critics", "data", "lipschitz", "metrics", "transport", "utils"},
        "inspection": {"data", "figures", "lipschitz", "metrics", "runs", "transport", "utils"},
    },
    {
        "training": {
            "data",
            "figures",
            "generators",
            "lipschitz",
            "metrics",
            "runs",
            "transport",
            "utils",
            "wasserstein",
        },
    },
    {
        "benchmarks": {
            "critics",
            "data",
            "figures",
            "generators",
            "lipschitz",
            "metrics",
            "runs",
            "training",
            "transport",
            "utils",
            "wasserstein",
        },
    },
    {
        "cli": {
            "benchmarks",
            "data",
            "figures",
            "generators",
            "inspection",
            "lipschitz",
            "runs",
            "training",
            "transport",
            "utils",
            "wasserstein",
        },
    },
]
ARROWS = {room: below for floor in FLOORS for room, below in floor.items()} | {
    "__main__": {"cli", "utils"},
    FACADE: set(),
}

# Heavy or optional dependencies, and exactly the places that import them, lazily or not.
OWNERS: dict[str, set[str]] = {
    "h5py": {"data"},
    "hydra": {"cli"},
    "omegaconf": {"cli"},
    "yaml": {"runs/folder.py", "cli/help.py"},
    "ot": {"transport", "benchmarks"},  # in benchmarks as a peer
    "pyarrow": {"data"},
    "safetensors": {"runs/export.py"},
    "tensorboard": {"runs/tracking"},
    "torch.utils.tensorboard": {"runs/tracking"},
    "wandb": {"runs/tracking"},
    "trackio": {"runs/tracking"},
    "mlflow": {"runs/tracking"},
    "IPython": {"runs/tracking"},
    "torchmetrics": {"metrics/torchmetric.py"},
    "matplotlib": {"figures"},
    "sklearn": {"data", "benchmarks"},  # in benchmarks as a peer
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


@cache
def sources() -> dict[Path, set[str]]:
    """Path of each module → what it imports; parsed once, by the process whose tests need it."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        package = ".".join([PACKAGE, *path.relative_to(ROOT).parts[:-1]])
        found[path] = imported_modules(path.read_text(encoding="utf-8"), package)
    return found


ROOMS = {room_of(path) for path in ROOT.rglob("*.py")}


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
    for path, names in sources().items():
        arrows[room_of(path)] |= rooms_imported(names) - {room_of(path)}
    return arrows


def test_the_parser_sees_lazy_relative_and_dynamic_imports():
    source = """
def late():
    from wgan_lip import transport
    import ot.gpu
    from .. import data
    from ..utils.files import write_whole
    import importlib
    importlib.import_module("wgan_lip.cli")
"""
    names = imported_modules(source, "wgan_lip.cli")
    assert rooms_imported(names) == {"transport", "data", "utils", "cli"}
    assert "ot.gpu" in names


def test_nothing_else_is_kept_at_the_top_level():
    listed = ["git", "ls-files"]
    kept = (
        subprocess.run(listed, cwd=ROOT.parent, capture_output=True, text=True, check=False) if which("git") else None
    )
    if kept is None or kept.returncode or "pyproject.toml" not in kept.stdout.split():
        pytest.skip("not a checkout that git can list")
    top = {line.split("/")[0] for line in kept.stdout.splitlines()}
    visible = {"pyproject.toml", "wgan_lip", "configs", "tests", "outputs", "README.md", "LICENSE"}
    assert {name for name in top if not name.startswith(".")} == visible


def test_every_room_is_in_the_table():
    assert set(ARROWS) == ROOMS, "decide on which floor a new room stands; take those that are gone out"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_exactly_what_the_table_says(room):
    """An arrow that is not in the table is a decision to take; one that nothing uses is a permission to take back."""
    assert graph()[room] == ARROWS[room]


def test_arrows_point_down():
    height = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
    upward = [(room, to) for room in height for to in ARROWS[room] if height[to] >= height[room]]
    assert upward == []


def test_the_facade_imports_no_room_but_knows_where_each_name_lives():
    assert graph()[FACADE] == set()
    for name in wgan_lip.__all__:
        assert getattr(wgan_lip, name) is not None
    assert wgan_lip.certify.__module__ == "wgan_lip.lipschitz.certificates"


@pytest.mark.parametrize("dependency", sorted(OWNERS))
def test_only_its_owners_import_a_dependency(dependency):
    users = {
        path.relative_to(ROOT).as_posix()
        for path, names in sources().items()
        if any(name == dependency or name.startswith(f"{dependency}.") for name in names)
    }
    owner_of = {user: [owner for owner in OWNERS[dependency] if user.startswith(owner)] for user in users}
    assert [user for user, owners in owner_of.items() if not owners] == []
    assert {owner for owners in owner_of.values() for owner in owners} == OWNERS[dependency]


def test_only_these_places_import_by_computed_name():
    dynamic = {path.relative_to(ROOT).as_posix() for path, names in sources().items() if "<dynamic>" in names}
    assert dynamic == {
        "__init__.py",
        "cli/running.py",
        "figures/__init__.py",  # pictures, when they are drawn
        "runs/targets.py",
        "utils/discovery.py",
        "benchmarks/step_cost.py",  # peers that may be missing
        "benchmarks/w1.py",
    }


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
