"""Help: every key as it is typed, with the default that is composed, and what may have been meant by a wrong one."""

import os
import re
import subprocess
import sys

import pytest
import yaml

from wgan_lip.benchmarks import suites
from wgan_lip.cli import COMMANDS, config_directory, guides, main
from wgan_lip.cli.help import all_keys, command_help, keys_of, nearest_keys, reference

RECIPES = [path.stem for path in sorted((config_directory() / "experiment").glob("*.yaml"))]


def helped(capsys, *arguments):
    assert main([*arguments, "--help"]) == 0
    return capsys.readouterr().out


def composed(capsys, *arguments):
    """The settings, flat, as YAML writes them."""
    assert main([*arguments, "--cfg", "job"]) == 0
    return dict(_flat(yaml.safe_load(capsys.readouterr().out)))


def _flat(section, within=""):
    for name, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_every_key_of_a_command_is_told_with_its_default(command, capsys):
    text = helped(capsys, command)
    keys = keys_of(config_directory(command) / f"{command}.yaml")
    assert keys and all(f"{key.name}={key.default}" in text or key.default == "???" for key in keys)
    assert max(map(len, text.splitlines())) <= 120
    told = {key.name: yaml.safe_load(key.default) for key in keys}
    if "???" not in told.values() and "${" not in str(told.values()):
        assert told == composed(capsys, command)


@pytest.mark.parametrize("choices", [(), ("critic=mean",), ("critic=cones_plane", "data=moons"), ("generator=dcgan",)])
def test_the_keys_of_the_chosen_groups_are_those_that_are_composed(choices, capsys):
    text = helped(capsys, "train", *choices)
    listed = dict(re.findall(r"^  ([\w.]+)=(.*?)(?:  .*)?$", text, re.MULTILINE))
    for name, value in composed(capsys, "train", *choices).items():
        if "_target_" not in name:
            told = yaml.safe_load(listed[name])
            assert (float(told) if isinstance(value, float) else told) == value, name


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_shows_the_choices_that_it_makes(recipe, capsys):
    text = helped(capsys, "train", f"experiment={recipe}")
    settings = composed(capsys, "train", f"experiment={recipe}")
    for group in ("data", "critic", "generator"):
        (chosen,) = [line.split("=")[1] for line in text.splitlines() if line.startswith(f"  {group}, of {group}=")]
        assert f"  * {chosen}" in text
        while True:  # down to the file that names the class
            content = yaml.safe_load((config_directory() / group / f"{chosen}.yaml").read_text())
            if "_target_" in content:
                break
            (chosen,) = content["defaults"]
        assert content["_target_"] == settings[f"{group}._target_"]


def test_every_choice_and_every_suite_is_told_in_words(capsys):
    text = helped(capsys, "train")
    for group in ("critic", "data", "generator", "optimizer", "experiment", "recipe"):
        for path in (config_directory() / group).glob("*.yaml"):
            line = next(line for line in text.splitlines() if line[4:].split(" ")[0] == path.stem)
            assert path.stem in line
    text = helped(capsys, "benchmark")
    assert all(f"  {suite}  " in text for suite in suites())


def test_help_is_there_without_torch():
    code = "import sys; from wgan_lip.cli import main; main(['train', '--help']); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines()[-1] == "False"


def test_what_was_meant():
    known = all_keys("train", config_directory())
    assert nearest_keys("batch_size", known) == ["training.batch_size"]
    assert nearest_keys("training.setps", known)[0] == "training.steps"
    assert "critic.width" in nearest_keys("width", known)
    assert nearest_keys("zebra", known) == []


def test_a_comment_of_several_lines_keeps_them(tmp_path):
    (tmp_path / "x.yaml").write_text("hydra: {help: {template: $CONFIG}}\na: 1 # one\n     # two\nb:\n  c: [2, 3]\n")
    keys = keys_of(tmp_path / "x.yaml")
    assert keys == [("a", "1", "one\ntwo"), ("b.c", "[2, 3]", "")]
    text = command_help("x", tmp_path)
    assert [line.strip() for line in text.splitlines()] == ["a=1                             one", "two", "b.c=[2, 3]"]


def test_guides_are_listed_and_printed(capsys):
    assert main(["guide"]) == 0
    listed = capsys.readouterr().out
    assert "  estimating    Estimating W1" in listed and "  theory" in listed
    assert main(["guide", "theory"]) == 0
    assert capsys.readouterr().out.startswith("# Theory")
    assert main(["guide", "algebra"]) == 2 and main(["guide", "../README"]) == 2
    assert "There is no guide 'algebra'. Guides: certificates, configuration" in capsys.readouterr().err


def test_the_guide_to_the_configuration_is_what_the_files_say():
    """Where it is not, put the output of `reference` there."""
    assert guides()["configuration"].read_text(encoding="utf-8") == reference(config_directory(), COMMANDS)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("wgan-lip tr", ["train"]),
        ("wgan-lip guide th", ["theory"]),
        ("wgan-lip train training.critic_s", ["training.critic_schedule=", "training.critic_steps="]),
        (
            "wgan-lip train critic=co",
            [
                "critic=cones",
                "critic=cones_plane",
                "critic=convolutional",
                "critic=convolutional_labels",
                "critic=convolutional_small",
            ],
        ),
        ("wgan-lip train --multirun critic=resnet,fixed", ["critic=resnet,fixed_width"]),
        ("wgan-lip train optimizer@critic_optimizer=mu", ["optimizer@critic_optimizer=muon"]),
        ("wgan-lip train experiment=moo", ["experiment=moons"]),
        ("wgan-lip train --m", ["--multirun"]),
        ("wgan-lip estimate st", ["standardise=", "stream="]),
        ("wgan-lip inspect run=outputs", []),
        ("wgan-lip nothing a", []),
    ],
)
def test_words_are_completed(typed, words, capsys):
    assert main(["completion", typed]) == 0
    assert capsys.readouterr().out.split() == words


def test_bash_completes_what_follows_the_equals_sign(tmp_path):
    program = tmp_path / "wgan-lip"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m wgan_lip "$@"\n')
    program.chmod(0o755)
    script = (
        'eval "$(wgan-lip completion)"; COMP_LINE="wgan-lip train critic=co"; COMP_POINT=${#COMP_LINE}; '
        'COMP_WORDS=(wgan-lip train critic = co); _wgan_lip; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert ended.stdout.split() == [
        "cones",
        "cones_plane",
        "convolutional",
        "convolutional_labels",
        "convolutional_small",
    ]
