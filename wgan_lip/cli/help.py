"""`wgan-lip COMMAND --help`: every key with its default and its comment, read from the configuration files.

Nothing is composed and torch is not imported, so help appears at once.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import yaml

__all__ = [
    "Key",
    "all_keys",
    "choices_of",
    "command_help",
    "group_names",
    "keys_of",
    "nearest_choices",
    "nearest_keys",
    "reference",
    "sections_of",
]

WIDTH = 110
COLUMN = 34  # where comments begin
LINE = re.compile(r"^(?P<indent> *)(?P<name>[\w@/]+):(?: (?P<value>[^#].*?))?(?: +# ?(?P<comment>.*))?$")
MORE = re.compile(r"^ +# ?(?P<comment>.*)$")
OWN = ("defaults", "hydra", "_target_")  # entries of a file that are not settings
PACKAGE = re.compile(r"^# @package (?P<package>\S+)")


class Key(NamedTuple):
    """A setting: its name as typed, its default as written, and its comment."""

    name: str
    default: str
    comment: str


def keys_of(path: Path, within: str = "") -> list[Key]:
    """The settings of a configuration file in order, each name prefixed by `within`.

    The files have one key per line, nested by two spaces, with a comment after the value or below it.
    """
    keys: list[Key] = []
    sections: list[str] = []
    skipped = False
    for line in path.read_text(encoding="utf-8").splitlines():
        if not skipped and keys and (more := MORE.match(line)):
            keys[-1] = keys[-1]._replace(comment="\n".join(filter(None, (keys[-1].comment, more["comment"]))))
            continue
        if not (found := LINE.match(line)):
            continue
        depth = len(found["indent"]) // 2
        if depth == 0:
            skipped = found["name"] in OWN
        if skipped:
            continue
        sections = [*sections[:depth], found["name"]]
        keys.append(Key(".".join([*filter(None, [within]), *sections]), found["value"] or "", found["comment"] or ""))
    return [key for key in keys if key.default]


def command_help(command: str, configs: Path, overrides: Sequence[str] = ()) -> str:
    """The help of a command: its template with a list of its keys; for train, groups, choices and keys.

    Arguments:
        command: One of `wgan_lip.cli.COMMANDS`.
        configs: The folder of its configuration.
        overrides: What was typed along with `--help`; choices of groups decide whose keys are listed.
    """
    path = configs / f"{command}.yaml"
    told = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["help"]
    if command != "train":
        listed = {"$CONFIG": lambda: _listed(keys_of(path)), "$SUITES": _suites}
        text = told["template"]
        for name, lines in listed.items():
            text = text.replace(name, "\n".join(lines()) if name in text else "")
        return text.rstrip() + "\n"
    chosen = _chosen(configs, overrides)
    marked = {(group.partition("@")[0], choice) for group, choice in chosen.items()}
    parts = [told["header"], "", "Groups, chosen by group=choice; * is chosen here"]
    for group in _groups(configs):
        parts += ["", f"  {group}="]
        for choice in choices_of(configs / group):
            mark = "*" if (group, choice) in marked else " "
            parts += _wrapped(f"  {mark} {choice}", _first_comment(configs / group / f"{choice}.yaml"), 22)
    own = {key.name: key for key in keys_of(path)}
    sections = dict(_sections(configs, chosen))
    plain = [key for key in own.values() if key.name.partition(".")[0] not in sections]
    parts += ["", "Keys, with their defaults", "", *_listed(plain)]
    for section, file in sections.items():
        if keys := [own.get(key.name, key) for key in _inherited(file, section)]:
            parts += ["", f"  {section}, of {file.parent.name}={file.stem}", *_listed(keys)]
    for recipe in ("recipe", "experiment"):
        if recipe in chosen and (keys := keys_of(configs / recipe / f"{chosen[recipe]}.yaml")):
            parts += ["", f"  Changed by {recipe}={chosen[recipe]}", *_listed(keys)]
    return "\n".join([*parts, "", told["footer"]]) + "\n"


def reference(configs: Path, commands: Mapping[str, str]) -> str:
    """The guide `configuration`: every key of every command and choice, as Markdown.

    Arguments:
        configs: The folder of train's configuration.
        commands: What each command is for.
    """
    lines = ["# Every configuration key", "", "Generated from `configs/` by `wgan_lip.cli.help.reference`.", ""]
    for command, what in commands.items():
        path = (configs if command == "train" else configs / "commands") / f"{command}.yaml"
        lines += [f"## wgan-lip {command}: {what}", ""]
        told = yaml.safe_load(path.read_text(encoding="utf-8"))["hydra"]["help"].get("template", "$CONFIG")
        lines += _as_table(keys_of(path)) if "$CONFIG" in told else ["```text", told.rstrip(), "```", ""]
    for group in _groups(configs):
        lines += [f"## {group}=", ""]
        for choice in choices_of(configs / group):
            file = configs / group / f"{choice}.yaml"
            comment = _first_comment(file)
            lines += [f"**{choice}**{f': {comment}' if comment else ''}", ""]
            own = keys_of(file) if group in ("experiment", "recipe") else _inherited(file, "")
            lines += _as_table(own) if own else []
    return "\n".join(lines).rstrip() + "\n"


def _as_table(keys: Iterable[Key]) -> list[str]:
    rows = []
    for key in keys:
        comment = " ".join(key.comment.split()).replace(" | ", ", ")
        rows.append(f"| `{key.name}` | `{key.default.strip()}` | {comment} |")
    return ["| key | default | |", "| --- | --- | --- |", *rows, ""]


def nearest_keys(name: str, known: Iterable[str]) -> list[str]:
    """What an unknown key may have meant: a key with the same last name on another path, or a similar spelling."""
    known = list(known)
    ends = [key for key in known if key.rpartition(".")[2] == name and key != name]
    return ends or difflib.get_close_matches(name, known, n=2, cutoff=0.75)


def nearest_choices(group: str, choice: str, configs: Path) -> str:
    """What an unknown choice may have meant, and all choices there are."""
    choices = choices_of(configs / group)
    near = difflib.get_close_matches(choice, choices, n=2)
    meant = f" Did you mean {' or '.join(f'{group}={name}' for name in near)}?" if near else ""
    return f"There is no {group}={choice}.{meant} Choices: {', '.join(choices)}."


def sections_of(group: str, configs: Path) -> list[str]:
    """How to type the choice of a group that fills several sections: `optimizer@critic_optimizer`."""
    return [full for full in _chosen(configs, ()) if full.partition("@")[0] == group and "@" in full]


def all_keys(command: str, configs: Path) -> list[str]:
    """The names of all keys of a command, whatever is chosen."""
    keys = [key.name for key in keys_of(configs / f"{command}.yaml")]
    if command == "train":
        for group in _chosen(configs, ()):
            for choice in choices_of(configs / group.partition("@")[0]):
                for section, file in _sections(configs, {group: choice}):
                    keys += [key.name for key in _inherited(file, section)]
    return list(dict.fromkeys(keys))


# --- groups of train, and suites --------------------------------------------------------------------------------------


def _suites() -> Iterator[str]:
    """Each suite of measurements, from the first line of its module."""
    for path in sorted((Path(__file__).resolve().parent.parent / "benchmarks").glob("*.py")):
        with path.open(encoding="utf-8") as file:
            found = re.match(r'"""Suites? (?P<names>[\w ]+?): (?P<what>.*?)\.?(?:""")?$', file.readline().strip())
        if found:
            for name in found["names"].split(" and "):
                yield from _wrapped(f"  {name}", found["what"], 18)


def _groups(configs: Path) -> list[str]:
    return sorted(path.name for path in configs.iterdir() if path.is_dir() and path.name != "commands")


def choices_of(group: Path) -> list[str]:
    """The names of the choices in a group's folder."""
    return [path.stem for path in sorted(group.glob("*.yaml"))]


def group_names(configs: Path) -> dict[str, str]:
    """A group of train as it is typed, such as `critic` or `optimizer@critic_optimizer` → its folder."""
    return {full: full.partition("@")[0] for full in [*_chosen(configs, ()), "experiment"]}


def _defaults(path: Path) -> list[tuple[str, str]]:
    """The files that a file builds on: (group, choice), with an empty group for one in the same group."""
    entries = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("defaults", [])
    found = []
    for entry in entries:
        ((group, choice),) = entry.items() if isinstance(entry, dict) else [entry.rpartition("/")[::2]]
        found.append((group.removeprefix("override ").strip("/"), choice))
    return [(group, choice) for group, choice in found if choice and choice != "_self_" and "hydra" not in group]


def _chosen(configs: Path, overrides: Sequence[str]) -> dict[str, str]:
    """Group → choice, by default, by recipe or as typed; the group is `group@section` where the names differ."""
    typed = dict(override.split("=", 1) for override in overrides if "=" in override)
    typed = {
        group: choice
        for group, choice in typed.items()
        if (configs / group.partition("@")[0] / f"{choice}.yaml").is_file()
    }
    chosen = dict(_defaults(configs / "train.yaml"))
    if "experiment" in typed:
        chosen |= _of_recipe(configs, configs / "experiment" / f"{typed['experiment']}.yaml")
    return chosen | typed


def _of_recipe(configs: Path, path: Path) -> dict[str, str]:
    """The choices of a recipe and of those it builds on."""
    found: dict[str, str] = {}
    for group, choice in _defaults(path):
        if group in ("", "recipe"):
            found |= _of_recipe(configs, configs / (group or path.parent.name) / f"{choice}.yaml")
        if group:
            found[group] = choice
    return found


def _sections(configs: Path, chosen: Mapping[str, str]) -> Iterator[tuple[str, Path]]:
    """The section of the configuration that each choice fills, and its file."""
    for group, choice in chosen.items():
        folder, _, section = group.partition("@")
        if folder not in ("experiment", "recipe"):
            yield section or folder, configs / folder / f"{choice}.yaml"


def _inherited(path: Path, within: str) -> list[Key]:
    """The settings of a file and of those it builds on; the file's values win."""
    keys: dict[str, Key] = {}
    for group, choice in _defaults(path):
        folder, _, package = group.partition("@")
        base = path.parent.parent / folder / f"{choice}.yaml" if folder else path.parent / f"{choice}.yaml"
        keys |= {key.name: key for key in _inherited(base, ".".join(filter(None, [within, package])))}
    for key in keys_of(path, within):
        known = keys.get(key.name)
        keys[key.name] = key if key.comment or known is None else key._replace(comment=known.comment)
    return list(keys.values())


def _first_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    comments = [line.lstrip("# ") for line in lines[:2] if line.startswith("#") and not PACKAGE.match(line)]
    return comments[0] if comments else ""


# --- lines ------------------------------------------------------------------------------------------------------------


def _listed(keys: Iterable[Key]) -> Iterator[str]:
    for key in keys:
        yield from _wrapped(f"  {key.name}={key.default.strip()}", key.comment, COLUMN)


def _wrapped(left: str, comment: str, column: int) -> list[str]:
    """A name and its comment, which starts at a column; on the next line where the name is longer."""
    told = [line for part in comment.splitlines() for line in textwrap.wrap(part, WIDTH - column)] or [""]
    if len(left) + 2 > column:
        return [left, *(f"{'':{column}}{line}" for line in told if line)]
    first, *rest = told
    return [f"{left:{column}}{first}".rstrip(), *(f"{'':{column}}{line}" for line in rest)]
