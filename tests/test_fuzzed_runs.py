"""Run folders as accidents and strangers leave them: every command ends well, or with one clear line."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_foreign_runs import MARKUP, SMALL, STEERING, Payload, small  # noqa: F401 - a fixture

from wgan_lip.cli import main

ROUNDS = int(os.environ.get("WGAN_LIP_FUZZ", 60))
STRANGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e-308, 1e308, -1e308, float("nan"),
    float("inf"), -float("inf"), "", "x", "x" * 5000, STEERING, MARKUP, "NaN", "1e3", "${oc.env:HOME}", "???", "=1+1",
    "../..", "\n\n", [], {}, [[]], [1, "a", None], {"a": {"b": []}}, {"": 0}, {"_target_": "os.system"},
)  # fmt: skip
COMMANDS: dict[str, list[str]] = {
    "inspect": ["inspect", "run=run", "out=null"],
    "compare": ["compare", "runs=[run,other]", "out=compared"],
    "certify": ["certify", "run=run"],
    "sample": ["sample", "run=run", "n=3", "out=rows.npy"],
    "resume": ["train", "resume=run"],
    "resume=auto": ["train", *SMALL, "resume=auto", "hydra.run.dir=new"],
    "page": ["inspect", "run=run"],
}
WEIGHTS = (6, 3, 4, 4, 8, 4, 1)  # a page takes as long as ten other commands


def places(content: Any, path: tuple = ()) -> list[tuple]:
    """Every place inside plain data."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path, *(place for key, value in inner for place in places(value, (*path, key)))]


def strangely(content: Any, rng: random.Random) -> Any:
    """Plain data with something else in one of its places, with one place less, or with one more."""
    *way, last = rng.choice(places(content)[1:] or [("a",)])
    inside = content
    for key in way:
        inside = inside[key]
    deed = rng.randrange(4)
    if deed == 0 and isinstance(inside, dict):
        inside.pop(last, None)
    elif deed == 1 and isinstance(inside, dict):
        inside[str(rng.choice(STRANGE))[:50]] = rng.choice(STRANGE)
    else:
        inside[last] = rng.choice(STRANGE)
    return content


def flipped(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 3, 30))):
        if content:
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def truncated(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)])


def exchanged(path: Path, rng: random.Random) -> None:
    """What belongs elsewhere, or nowhere."""
    others = [other.read_bytes() for other in path.parent.iterdir() if other.is_file()]
    nothing = (b"", b"\n", b"[]", b"{}", b"null", b"{}\n{}\n", rng.randbytes(300), MARKUP.encode(), b"\xff\xfe" * 9,
               b"[" * 100_000, b'{"a":' * 50_000, pickle.dumps(Payload("evidence")))  # fmt: skip
    path.write_bytes(rng.choice([*others, *nothing]))


def replaced(path: Path, rng: random.Random) -> None:
    """Something that is no file."""
    path.unlink()
    deed = rng.randrange(5)
    if deed == 0:
        path.mkdir()
    elif deed == 1:
        os.mkfifo(path)
    elif deed < 4:
        path.symlink_to(("/dev/zero", path.name)[deed - 2])


def strange(path: Path, rng: random.Random) -> None:
    """A file of its kind that says what none says."""
    if path.suffix == ".json":
        path.write_text(json.dumps(strangely(json.loads(path.read_text()), rng)))
    elif path.suffix == ".jsonl":
        records = [json.loads(line) for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(record) + "\n" for record in strangely(records, rng)))
    elif path.suffix == ".yaml":
        path.write_text(yaml.safe_dump(strangely(yaml.safe_load(path.read_text()), rng), sort_keys=False))
    elif path.suffix == ".pt":
        content = torch.load(path, weights_only=True)
        *way, last = rng.choice(places(content)[1:])
        inside = content
        for key in way:
            inside = inside[key]
        tensors = [
            torch.tensor([]),
            torch.zeros(3),
            torch.full((2, 2), float("nan")),
            torch.zeros(4, dtype=torch.uint8),
        ]
        inside[last] = rng.choice([*STRANGE, *tensors])
        torch.save(content, path)
    else:
        exchanged(path, rng)


DEEDS: dict[Callable[[Path, random.Random], None], int] = {
    flipped: 3,
    truncated: 2,
    exchanged: 2,
    replaced: 2,
    strange: 8,
}


@pytest.fixture
def pair(small, tmp_path, monkeypatch) -> tuple[Path, Path]:  # noqa: F811
    """An interrupted run to go on with, and a finished one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wgan_lip.training.session._draw", lambda *_: None)
    monkeypatch.setattr("wgan_lip.training.board.TrainingBoard._show", lambda *_: None)
    monkeypatch.setattr("socket.socket.connect", lambda *_: Path("evidence").touch())
    shutil.copytree(small, "other")
    shutil.copytree(small, "finished")
    status = json.loads((small / "status.json").read_text())
    shutil.copytree(small, "interrupted")
    Path("interrupted/status.json").write_text(json.dumps(status | {"state": "interrupted", "step": 2}))
    Path("interrupted/checkpoint-2.pt").replace("interrupted/checkpoint.pt")
    return Path("interrupted"), Path("finished")


def late(*_: object) -> None:
    raise TimeoutError("a command hangs")


def test_no_folder_leads_a_command_astray(pair, capsys):
    """Seeded; WGAN_LIP_FUZZ is the number of rounds, one file and one command each."""
    signal.signal(signal.SIGALRM, late)
    rng, first = random.Random(17), int(os.environ.get("WGAN_LIP_FUZZ_FIRST", 0))
    for number in range(ROUNDS):
        (command,), folder = rng.choices(list(COMMANDS), WEIGHTS), pair[rng.random() < 0.3]
        names = sorted(path.name for path in folder.iterdir() if path.suffix != ".png")
        (deed,) = rng.choices(list(DEEDS), DEEDS.values())
        name, seed = rng.choice(names), rng.randrange(2**32)
        if number < first:
            continue
        shutil.copytree(folder, "run")
        deed(Path("run") / name, random.Random(seed))
        what = f"round {number}: {command} of {folder} with {name} {deed.__name__}, seed {seed}"
        signal.alarm(300)
        try:
            status = main(COMMANDS[command])
        except BaseException as error:
            raise AssertionError(what) from error
        finally:
            signal.alarm(0)
        captured = capsys.readouterr()
        assert status in (0, 1, 2), what
        assert not Path("evidence").exists(), what
        assert "\x1b" not in captured.out + captured.err and "Traceback" not in captured.out + captured.err, what
        if status:
            assert captured.err.splitlines()[-1].startswith("wgan-lip: "), f"{what}: {captured.err}"
        for left in ("run", "new", "compared"):
            shutil.rmtree(left, ignore_errors=True)
        Path("rows.npy").unlink(missing_ok=True)
    assert "evil" not in sys.modules
