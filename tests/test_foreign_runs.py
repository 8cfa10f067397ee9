"""A run's folder may be anyone's: no command runs what it holds, follows where it leads, or hangs on it."""

from __future__ import annotations

import csv
import json
import os
import pickle
import random
import re
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resuming import differences
from test_resuming import game as tiny_game

from wgan_lip.cli import main
from wgan_lip.cli.overrides import literal, quoted, set_aside, spelt
from wgan_lip.runs.checkpoints import read_checkpoint, save_checkpoint
from wgan_lip.runs.folder import read_yaml, yaml_text
from wgan_lip.runs.run import Run, load_run
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.files import read_regular, write_whole
from wgan_lip.utils.terminal import printable

SMALL = [
    "data=moons", "data.test_size=30", "training.steps=4", "training.batch_size=4", "training.critic_steps=1",
    "training.warmup_steps=1", "training.log_every=2", "training.audit_every=2", "training.audit_size=8",
    "training.audit_scores=false", "evaluation.size=8", "evaluation.repeats=1", "evaluation.fit_steps=0",
    "evaluation.classifier_steps=0", "critic.width=8", "critic.depth=1", "generator.width=8", "device=cpu",
    "training.critic_schedule=constant", "training.generator_schedule=constant",
]  # fmt: skip

COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "train": lambda run: ["train", f"resume={run}", "training.steps=6"],
    "inspect": lambda run: ["inspect", f"run={run}", "out=null"],
    "compare": lambda run: ["compare", f"runs=[{run},{run.parent / 'honest'}]", "out=compared"],
    "certify": lambda run: ["certify", f"run={run}"],
    "sample": lambda run: ["sample", f"run={run}", "n=4", "out=samples.png"],
    "export": lambda run: ["export", f"run={run}", "out=exported", "programs=false"],
    "estimate": lambda run: ["estimate", f"x=run:{run}", "y=data/moons", "samples=20", "seconds=1", "critic=null"],
}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """The folder of a finished run on two moons."""
    directory = tmp_path_factory.mktemp("small") / "run"
    before = Path.cwd()
    os.chdir(directory.parent)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("wgan_lip.training.session._draw", lambda *_: None)
        patched.setattr("wgan_lip.training.board.TrainingBoard._show", lambda *_: None)
        assert main(["train", *SMALL, f"hydra.run.dir={directory}"]) == 0
    os.chdir(before)
    return directory


@pytest.fixture
def foreign(small, tmp_path, monkeypatch) -> Path:
    """A copy of the run to be tampered with, beside an honest one, in the working folder; pictures are left out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wgan_lip.training.session._draw", lambda *_: None)
    monkeypatch.setattr("wgan_lip.training.board.TrainingBoard._show", lambda *_: None)
    monkeypatch.setattr("wgan_lip.cli.estimate._figures", lambda *_: {})
    shutil.copytree(small, tmp_path / "honest")
    return Path(shutil.copytree(small, tmp_path / "foreign"))


def one_line_or_none(capsys, status: int) -> str:
    """What a command told on the standard error, where it is all in order."""
    captured = capsys.readouterr()
    assert status in (0, 1, 2), captured.err
    assert "Traceback" not in captured.err + captured.out
    assert "\x1b" not in captured.out + captured.err
    if status:
        assert captured.err.strip().splitlines()[-1].startswith("wgan-lip: ")
    return captured.err


# --- Code -------------------------------------------------------------------------------------------------------------


EVIL = "import pathlib; pathlib.Path({evidence!r}).touch()\nimport torch\nclass Critic(torch.nn.Linear): pass\n"


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def set_config(run: Path, change: Callable[[dict], object]) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    change(config)
    (run / "config.yaml").write_text(yaml.safe_dump(config))


def payload_yaml(run: Path, evidence: str) -> str:
    """A file of Hydra's that would run code, as a path that a choice in a group could name."""
    (run / "payload.yaml").write_text(
        f"# @package _global_\ntrust: [evil]\ncritic: {{_target_: evil.Critic}}\n"
        f"hydra: {{callbacks: {{x: {{_target_: os.mkdir, path: {evidence!r}}}}}, searchpath: [file://{run}]}}\n"
    )
    return f"{'../' * 40}{str(run.resolve()).lstrip('/')}/payload"


def overridden(run: Path, evidence: str) -> None:
    path = payload_yaml(run, evidence)
    saved = [
        f"experiment={path}", f"+experiment={path}", f"critic={path}", f"data@hydra.callbacks={path}", "trust=[evil]",
        "+hydra.callbacks.x._target_=os.mkdir", f"+hydra.callbacks.x.path={evidence}", "critic._target_=evil.Critic",
        f"hydra.searchpath=[file://{run.resolve()}]", "hydra/launcher=payload", f"--config-dir={run.resolve()}",
    ]  # fmt: skip
    (run / "overrides.json").write_text(json.dumps(saved))


def configured(run: Path, evidence: str) -> None:
    set_config(run, lambda config: config.update(
        trust=["evil"], defaults=["payload"], experiment=payload_yaml(run, evidence),
        hydra={"callbacks": {"x": {"_target_": "os.mkdir", "path": evidence}}, "run": {"dir": evidence}},
    ))  # fmt: skip


def targeted(run: Path, evidence: str) -> None:
    set_config(run, lambda config: (config.update(trust=["evil"]), config["critic"].update(_target_="evil.Critic")))


def called(run: Path, evidence: str) -> None:
    set_config(run, lambda config: config.update(data={"_target_": "os.mkdir", "path": evidence}))


def nested(run: Path, evidence: str) -> None:
    inner = {"_target_": "os.mkdir", "path": evidence, "_args_": [evidence]}
    set_config(run, lambda config: [config[name].update(width=inner) for name in ("critic", "generator")])


def tagged(run: Path, evidence: str) -> None:
    path = run / "config.yaml"
    path.write_text(f"{path.read_text()}x: !!python/object/apply:os.mkdir [{evidence!r}]\n")


def interpolated(run: Path, evidence: str) -> None:
    set_config(run, lambda config: config.update(device="${oc.env:SECRET}", seed="${oc.decode:'1'}"))
    set_config(run, lambda config: config["data"].update(noise="${groups:}"))


def pickled(run: Path, evidence: str) -> None:
    for name in ("checkpoint.pt", "checkpoint-2.pt", "best.pt"):
        (run / name).unlink(missing_ok=True)
        torch.save({"sizes": {}, "game": Payload(evidence)}, run / name)


def bare_pickles(run: Path, evidence: str) -> None:
    for name in ("checkpoint.pt", "checkpoint-2.pt", "best.pt", "status.json", "summary.json", "metrics.jsonl", "overrides.json",
                 "certificate.json"):  # fmt: skip
        (run / name).unlink(missing_ok=True)
        (run / name).write_bytes(pickle.dumps(Payload(evidence)))


def downloading(run: Path, evidence: str) -> None:
    set_config(run, lambda config: config.update(
        critic={"_target_": "wgan_lip.data.MNIST", "root": evidence, "download": True}
    ))  # fmt: skip


def data_to_download(run: Path, evidence: str) -> None:
    set_config(run, lambda config: config.update(data={"_target_": "wgan_lip.data.MNIST", "root": evidence}))


ATTACKS = (overridden, configured, targeted, called, nested, tagged, interpolated, pickled, bare_pickles, downloading)
REFUSED = {*ATTACKS} - {overridden}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_no_command_runs_what_a_folder_holds(foreign, attack, command, tmp_path, monkeypatch, capsys):
    evidence = tmp_path / "code_ran"
    for folder in (foreign, tmp_path):
        (folder / "evil.py").write_text(EVIL.format(evidence=str(evidence)))
    monkeypatch.setenv("SECRET", "cpu")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr("socket.socket.connect", lambda *_: evidence.touch())
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *_, **__: evidence.touch())
    attack(foreign, str(evidence))
    before = {path.name for path in tmp_path.iterdir()}
    status = main(COMMANDS[command](foreign))
    told = one_line_or_none(capsys, status)
    assert not evidence.exists(), told
    assert "evil" not in sys.modules
    made = {path.name for path in tmp_path.iterdir()} - before
    assert made <= {"compared", "samples.png", "exported", "outputs", ".pytest_cache", "__pycache__"}
    if command == "train":
        assert status == (2 if attack in REFUSED else 0), told
        assert not (foreign / ".hydra").exists()


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_nothing_but_a_training_downloads(foreign, command, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("a download"))
    data_to_download(foreign, str(tmp_path / "made"))
    one_line_or_none(capsys, main(COMMANDS[command](foreign)))
    assert not (tmp_path / "made").exists()


# --- Links, pipes, bombs ----------------------------------------------------------------------------------------------


def test_nothing_is_written_through_a_link_in_a_folder(foreign, tmp_path, capsys):
    precious = tmp_path / "precious"
    precious.write_text("keep me")
    names = ("status.json", "config.yaml", "overrides.json", "summary.json", "certificate.json", "checkpoint.pt",
             "metrics.jsonl", "report.html", ".lock")  # fmt: skip
    for name in names:
        for temporary in (f".{name}.{os.getpid()}.tmp", name):
            path = foreign / temporary
            if temporary != name or name in (".lock", "metrics.jsonl", "report.html", "certificate.json"):
                path.unlink(missing_ok=True)
                path.symlink_to(precious)
    one_line_or_none(capsys, main(["inspect", f"run={foreign}"]))
    for command in ("certify", "train"):
        one_line_or_none(capsys, main(COMMANDS[command](foreign)))
    assert precious.read_text() == "keep me"


FILES = ("config.yaml", "status.json", "overrides.json", "summary.json", "metrics.jsonl", "checkpoint.pt", "best.pt",
         "certificate.json", ".lock")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_the_place_of_a_file_is_refused(foreign, name, capsys):
    for command in ("inspect", "compare", "certify", "sample", "train"):
        (foreign / name).unlink(missing_ok=True)
        os.mkfifo(foreign / name)
        one_line_or_none(capsys, main(COMMANDS[command](foreign)))


@pytest.mark.parametrize("setting", ["pictures=critic", "out=pages/report.html", "out=report.html"])
def test_nothing_is_written_where_a_link_in_a_folder_leads(foreign, setting, tmp_path, capsys):
    (tmp_path / "precious").mkdir()
    for name in ("critic", "pages", "report.html"):
        (foreign / name).unlink(missing_ok=True)
        (foreign / name).symlink_to(tmp_path / "precious")
    assert main(["inspect", f"run={foreign}", "out=null", setting]) == 2
    assert f"is a link to {tmp_path / 'precious'}" in capsys.readouterr().err
    assert not list((tmp_path / "precious").iterdir())
    assert main(["inspect", f"run={foreign}", f"out={tmp_path / 'precious' / 'mine.html'}"]) == 0  # no link in it


def test_a_file_of_any_length_in_the_place_of_records_is_refused_unread(foreign, capsys):
    os.truncate(foreign / "metrics.jsonl", 2**40)  # of which the disk holds nothing but the beginning
    for command in ("inspect", "compare", "train"):
        assert main(COMMANDS[command](foreign)) == 2
        assert "more than 1073741824" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("sizes", "told"),
    [
        ({"image_shape": "abc"}, "its image_shape is 'abc'"),
        ({"image_shape": [1, 2]}, "its image_shape is [1, 2]"),
        ({"image_shape": [1, 1, 10**9]}, "in dimension 2"),
        ({"image_shape": [1, 2, -1]}, "its image_shape is [1, 2, -1]"),
        ({"dim": "2"}, "its dim is '2'"),
        ({"dim": 0}, "its dim is 0"),
        ({"low": float("nan")}, "its low is nan"),
        ({"high": "1"}, "its high is '1'"),
    ],
)
def test_sizes_that_no_data_have_are_told(foreign, sizes, told, capsys):
    saved = torch.load(foreign / "checkpoint.pt", weights_only=True)
    torch.save({**saved, "sizes": saved["sizes"] | sizes}, foreign / "checkpoint.pt")
    assert main(COMMANDS["sample"](foreign)) == 2
    assert f"{told}. Restore it" in capsys.readouterr().err


def test_a_player_larger_than_memory_is_refused_before_it_is_built(foreign, capsys):
    set_config(
        foreign, lambda config: config["generator"].update(latent_dim=10**10)
    )  # the system kills what fills that
    for command in ("certify", "sample", "export", "estimate", "train"):
        assert main(COMMANDS[command](foreign)) == 2
        assert "not enough memory for the weights of MLPGenerator" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["samples.png", "samples.npy"])
def test_samples_that_are_no_numbers_are_not_written(foreign, out, tmp_path, capsys):
    saved = torch.load(foreign / "checkpoint.pt", weights_only=True)
    next(iter(saved["game"]["ema"].values())).fill_(float("nan"))
    torch.save(saved, foreign / "checkpoint.pt")
    assert main(["sample", f"run={foreign}", "n=4", f"out={out}"]) == 2
    assert "produces NaN or infinity" in capsys.readouterr().err and not (tmp_path / out).exists()


def test_only_files_are_read_and_only_so_much_of_them(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", limit=5) == b"12345"
    with pytest.raises(OSError, match="more than 4"):
        read_regular(tmp_path / "file", limit=4)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "zero").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "zero", "absent"):
        with pytest.raises(OSError):
            read_regular(tmp_path / name)


def test_a_temporary_file_is_new(tmp_path, monkeypatch):
    drawn = iter(["a", "b"])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(drawn))
    (tmp_path / ".file.a.tmp").symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        write_whole(tmp_path / "file", b"content")
    assert write_whole(tmp_path / "file", b"content").read_bytes() == b"content"
    assert not (tmp_path / "precious").exists() and (tmp_path / ".file.a.tmp").is_symlink()
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


BOMBS = {
    "aliases": "a: &a [x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi")),
    "itself": "a: &a [*a]\n",
    "deep lists": "a: " + "[" * 100_000,
    "deep mappings": "a: " + "{a: " * 5000,
    "large": "a: " + "x" * 300_000,
    "a set": "a: !!set {b, c}\n",
    "bytes": "a: !!binary aGk=\n",
    "an object": "a: !!python/object:os.system {}\n",
    "its own tag": "a: !mine 3\n",
    "a number as a key": "1: 2\n",
    "a list as a key": "[1, 2]: 3\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "nothing": "",
    "a list": "[1]\n",
    "no text": "a: \x00\n",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_that_is_no_plain_mapping_is_refused(name, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(BOMBS[name])
    with pytest.raises(InputError, match=r"config\.yaml in .* is damaged: .+\. Restore it"):
        read_yaml(path)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), PLAIN, max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_configuration_comes_back_from_yaml_as_it_was(tmp_path_factory, config):
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(yaml_text(config), encoding="utf-8")
    assert read_yaml(path) == config


# --- Bits -------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_with_a_flipped_bit_is_refused_or_loads_what_was_saved(tmp_path):
    *_, record = tiny_game(steps=2, log_every=1, audit_every=2)
    path = save_checkpoint(tmp_path, record.game.state_dict(), {"dim": 2, "image_shape": None})
    content, saved, rng, refused = path.read_bytes(), read_checkpoint(path), random.Random(14), 0
    for _ in range(300):
        flipped, place = bytearray(content), rng.randrange(8 * len(content))
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            assert differences(read_checkpoint(path), saved) == []
        except InputError as error:
            assert "is damaged" in str(error)
            refused += 1
    assert refused > 200  # the rest lies between what is stored


def test_an_archive_that_torch_does_not_write_is_refused(tmp_path):
    path = save_checkpoint(tmp_path, {"step": 1}, {"image_shape": None})
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:  # which may hold any amount of zeros
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match="larger than the file, or compressed"):
        read_checkpoint(path)
    pickled = {"sizes": {"image_shape": None}, "game": {"step": 1}}
    torch.save(pickled, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="File is not a zip file"):
        read_checkpoint(path)


def test_a_flipped_bit_gives_way_to_the_checkpoint_before(foreign, capsys):
    content = bytearray((foreign / "checkpoint.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (foreign / "checkpoint.pt").write_bytes(content)
    assert main(["certify", "run=foreign"]) == 2
    assert "checkpoint.pt in foreign is damaged: BadZipFile" in capsys.readouterr().err
    assert main(["train", "resume=foreign", "training.steps=6"]) == 0
    told = capsys.readouterr().err
    assert "Using the checkpoint before it" in told and "resuming foreign at step 2" in told
    assert load_run("foreign").step == 6


# --- Words ------------------------------------------------------------------------------------------------------------


@given(st.text())
def test_nothing_printed_steers_a_terminal(text):
    shown = printable(text)
    assert all(c == "\n" or c.isprintable() for c in shown)
    assert printable(shown) == shown
    if all(c.isprintable() for c in text):
        assert shown == text


STEERING = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\r\x08\ud800"


def test_words_out_of_a_folder_are_printed_without_steering(foreign, capsys):
    status = json.loads((foreign / "status.json").read_text())
    forged = f"{STEERING}\n  Certified critic      Lip(f) <= 0.5"
    (foreign / "status.json").write_text(json.dumps(status | {"state": "failed", "reason": forged}))
    set_config(foreign, lambda config: config.update(seed=STEERING.replace("\ud800", "")))
    for command in ("inspect", "compare", "train"):
        assert main(COMMANDS[command](foreign)) in (0, 2)
        captured = capsys.readouterr()
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800]", captured.out + captured.err)
        assert not any(line.startswith("  Certified critic      Lip(f) <=") for line in captured.out.splitlines())


def test_a_table_of_runs_holds_no_formulas(foreign, capsys):
    evil = '=HYPERLINK("http://evil";"click")'
    set_config(foreign, lambda config: (config.update(seed="=1+1"), config["critic"].update(_target_=evil)))
    folder = foreign.rename(foreign.with_name("@SUM(A1)"))
    assert main(["compare", f"runs=[{literal(str(folder.name))},honest]", "out=compared"]) == 0
    rows = list(csv.reader(Path("compared/compare.csv").read_text().splitlines()))
    assert any(cell.startswith("'=") for row in rows for cell in row)
    assert not any(re.match(r"\s*[=+@]|\s*-(?![\d.])", cell) for row in rows for cell in row)


MARKUP = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'><svg onload=alert(1)>"


def test_pages_hold_no_markup_out_of_a_folder(foreign):
    status = json.loads((foreign / "status.json").read_text())
    status.update(reason=MARKUP, versions={MARKUP: MARKUP})
    (foreign / "status.json").write_text(json.dumps(status))
    (foreign / "overrides.json").write_text(json.dumps([MARKUP]))
    set_config(foreign, lambda config: config.update({"seed": MARKUP, MARKUP: MARKUP, "x": {MARKUP: [MARKUP]}}))
    with (foreign / "metrics.jsonl").open("a") as stream:
        stream.write(json.dumps({"step": 9, MARKUP: 1.0}) + "\n")
    assert main(["inspect", f"run={foreign}"]) == 0 and main(COMMANDS["compare"](foreign)) == 0
    for page in (foreign / "report.html", Path("compared/compare.html")):
        text = page.read_text()
        assert "alert(1)&lt;/script&gt;" in text
        assert not re.search(r"<script>alert|<img src=x|<svg onload|onerror=alert\(1\)>\"", text)


# --- Going on with a run from its configuration -----------------------------------------------------------------------


def told_of(capsys, *arguments: str) -> str:
    """The last line of a training that is refused."""
    capsys.readouterr()
    assert main(["train", *arguments]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_what_is_given_beside_resume_goes_on_top_of_the_saved_configuration(foreign, capsys):
    assert main(["train", "resume=foreign", "training.steps=6", "checkpoint.keep=3"]) == 0
    config, before = Run("foreign").config, Run("honest").config
    assert config["training"] == before["training"] | {"steps": 6}
    assert config["checkpoint"] == before["checkpoint"] | {"keep": 3}
    assert {name: config[name] for name in ("data", "critic", "generator")} == {
        name: before[name] for name in ("data", "critic", "generator")
    }
    assert load_run("foreign").step == 6
    assert Run("foreign").overrides == [
        *(override for override in SMALL if override != "training.steps=4"), "training.steps=6", "checkpoint.keep=3",
    ]  # fmt: skip


def test_the_whole_command_may_be_given_again(foreign, capsys):
    assert main(["train", *SMALL, "training.steps=6", "resume=foreign"]) == 0
    assert load_run("foreign").step == 6


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (["seed=1"], "seed was 0, now 1"),
        (["critic.width=16"], "critic.width was 8, now 16"),
        (["critic=fixed_width"], "critic._target_ was 'wgan_lip.critics.ResNetCritic', now 'wgan_lip.critics.FixedWidth"),
        (["optimizer@critic_optimizer=sgd"], "critic_optimizer._target_ was 'torch.optim.Adam', now 'torch.optim.SGD'"),
        (["experiment=gaussians8"], "data._target_ was 'wgan_lip.data.Moons', now 'wgan_lip.data.Gaussians8'"),
        (["data.label_scale=1"], "There is no key data.label_scale"),
        (["training.stepz=3"], "There is no key training.stepz"),
        (["nothing=3"], "There is no key nothing"),
        (["training.steps=six"], "training.steps must be of type int, not 'six'"),
        (["critic=nowhere"], "There is no critic=nowhere"),
        (["critic=../../foreign/payload"], "Could not find"),
        (["seed=1,2"], "A resumed run needs one value of seed"),
        (["~critic"], "A resumed run needs one value of critic"),
        (["seed.x=1"], "seed"),
        (["training=3"], "training"),
        (["--cfg", "job"], "foreign/config.yaml"),
    ],
)  # fmt: skip
def test_what_does_not_go_with_a_run_is_told(foreign, given, line, capsys):
    before = {path.name: path.read_bytes() for path in foreign.iterdir()}
    assert line in told_of(capsys, "resume=foreign", *given)
    assert before == {path.name: path.read_bytes() for path in foreign.iterdir() if path.name != ".lock"} | {
        ".lock": before[".lock"]
    }


def test_hydra_composes_nothing_of_a_run(foreign):
    given = [
        "resume=foreign",
        "seed=3",
        "hydra.verbose=true",
        "trust=[a]",
        "+critic.x=1",
        "--config-dir",
        "mine",
        "~seed",
    ]
    kept, aside = set_aside(given)
    assert kept == [f'hydra.run.dir="{foreign.resolve()}"', "resume=foreign", "hydra.verbose=true", "trust=[a]",
                    "--config-dir", "mine"]  # fmt: skip
    assert aside == ["seed=3", "+critic.x=1", "~seed"]
    for none in ([], ["resume=auto"], ["resume=null"], ["resume="]):
        assert set_aside([*none, "seed=3"]) == ([*none, "seed=3"], None)


NAMES = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(NAMES)
@settings(max_examples=300, deadline=None)
def test_any_name_is_spelt_so_that_it_comes_back(name):
    import shlex

    from hydra.core.override_parser.overrides_parser import OverridesParser
    from omegaconf import OmegaConf

    for override in (f"run={literal(name)}", quoted(*shlex.split(spelt("run", name)))):
        value = OverridesParser.create().parse_override(override).value()
        assert OmegaConf.to_container(OmegaConf.create({"run": value}), resolve=True)["run"] == name


@pytest.mark.parametrize("name", ["[a]", "{a}", "a 'b' \"c\"", "2023", "x=1,2", "a(b)", "é #;~", "null"])
def test_a_run_in_a_folder_of_any_name_is_resumed_by_the_line_that_names_it(foreign, name, capsys):
    import shlex

    folder = foreign.rename(foreign.with_name(name))
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "interrupted"}))
    (folder / "summary.json").unlink()
    assert main(["train", *shlex.split(spelt("resume", name))]) == 0
    assert Run(folder).status["state"] == "finished" and Run(folder).summary is not None
