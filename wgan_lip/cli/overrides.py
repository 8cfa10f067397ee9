"""Overrides of the command line as the user means them: quoted, started afresh, or put on top of a run's settings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from wgan_lip.runs.run import Run
from wgan_lip.runs.targets import ROLES
from wgan_lip.utils.checks import InputError
from wgan_lip.utils.terminal import warn

OF_THE_COMMAND = ("trust", "hydra", "resume")
"""Keys that every command states itself: a run's folder never sets them."""


def set_aside(overrides: list[str]) -> tuple[list[str], list[str] | None]:
    """With `resume=RUN`, splits the overrides: those that Hydra composes with, and those for :func:`resumed`.

    Hydra then composes only the defaults, in the run's folder. Without `resume`, returns all of them and None.
    """
    wanted = next((_value(override) for override in reversed(overrides) if _key(override) == "resume"), None)
    if wanted in (None, "", "auto") or not isinstance(wanted, str):
        return overrides, None
    if {"--multirun", "-m"} & set(overrides):
        raise InputError(f"resume={wanted} continues a single run, not a sweep. Use resume=auto with --multirun.")
    if any(override.partition("=")[0] in ("--cfg", "-c") for override in overrides):
        raise InputError(f"The settings of a resumed run are in its folder: see {Path(wanted) / 'config.yaml'}.")
    aside = [override for override in overrides
             if ("=" in override or override.startswith("~")) and not override.startswith("-")
             and re.split(r"[./@:]", _key(override))[0] not in OF_THE_COMMAND]  # fmt: skip
    kept = [override for override in overrides if override not in aside]
    folder = str(Run(wanted).directory.resolve())
    return [f"hydra.run.dir={literal(folder)}", *kept], aside  # before the flags among them: see arranged


def resumed(config: DictConfig, given: Sequence[str]) -> DictConfig:
    """The settings of the run that `config.resume` names, with the overrides of this command on top.

    The run's `config.yaml` is plain data: nothing in it is composed, resolved or looked up, and it never sets
    :data:`OF_THE_COMMAND`. A key it lacks was added after the run began; its default leaves the run unchanged.

    Arguments:
        config: What Hydra composed: the defaults, and the keys of this command.
        given: The other overrides of this command. A choice in a group stands for the section it makes.

    Raises:
        InputError: The run lacks a section it needs, or an override makes no sense here.
    """
    from hydra import compose
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser

    run = Run(config.resume)
    if missing := [name for name in ROLES if name not in run.config]:
        raise InputError(f"config.yaml in {run.directory} is incomplete: the section {missing[0]} is missing.")
    defaults = plain(config)
    saved = {name: value for name, value in run.config.items() if name not in OF_THE_COMMAND}
    merged = _over(defaults, saved)
    overrides = [OverridesParser.create().parse_override(override) for override in given]
    loader = GlobalHydra.instance().config_loader()
    choices = [override for override in overrides if loader.get_group_options(override.key_or_group)]
    if choices:
        named = {override.package or override.key_or_group for override in choices}
        composed = plain(compose("train", [line for line, override in zip(given, overrides) if override in choices]))
        chosen = {name: section for name, section in composed.items()
                  if name not in OF_THE_COMMAND and (name in named or section != defaults.get(name))}  # fmt: skip
        merged = _over(merged, _news(defaults, chosen))
    settings = OmegaConf.create({name: _literals(value) for name, value in merged.items()})
    for override in overrides:
        if override.is_sweep_override() or override.is_delete():
            raise InputError(f"A resumed run needs one value of {override.key_or_group}, not {override.input_line}.")
        if override not in choices:
            OmegaConf.update(settings, override.key_or_group, override.value(), force_add=True)
    return settings


def plain(config: DictConfig) -> dict[str, Any]:
    """A configuration, resolved, as dictionaries, lists and scalars. Raises OmegaConf's errors."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with others on top: key by key, but a section that names a class is replaced as a whole."""
    merged = {name: below[name] | value
              for name, value in above.items()
              if name not in ROLES and isinstance(value, dict) and isinstance(below.get(name), dict)}  # fmt: skip
    return {**below, **above, **merged}


def _news(defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Where choices in groups differ from the defaults."""
    return {
        name: {key: value for key, value in section.items() if defaults[name].get(key) != value}
        if name not in ROLES and isinstance(section, dict)
        else section
        for name, section in chosen.items()
    }


def _literals(value: Any) -> Any:
    """Plain data in which OmegaConf sees no interpolations."""
    if isinstance(value, dict):
        return {name: _literals(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_literals(entry) for entry in value]
    return uninterpolated(value) if isinstance(value, str) else value


def uninterpolated(text: str) -> str:
    """Text that OmegaConf resolves to `text` itself."""
    return re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", text)


def literal(text: str) -> str:
    """Text quoted so that Hydra's grammar and OmegaConf read it literally, whatever its characters."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(uninterpolated(text), Quote.double).with_quotes()


def spelt(key: str, text: str) -> str:
    """`key=text` as one can type it in a shell, quoted only if necessary."""
    bare = f"{key}={text}"
    return shlex.quote(bare if _value(quoted(bare)) == text else f"{key}={literal(text)}")


def _value(override: str) -> Any:
    """The value of an override, or None if it can't be parsed."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        value = OverridesParser.create().parse_override(override).value()
        return plain(OmegaConf.create({"": value}))[""] if value else value
    except (HydraException, OmegaConfBaseException):
        return None


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def begun_anew(overrides: Sequence[str]) -> list[str]:
    """Overrides in which naming the class of a section, as in `generator._target_=mypackage.Mine`, empties the section.

    The other keys given for it may be ones that the composed section lacks, and only these reach the class.
    """
    parts = [KEY_OF_SECTION.match(override) for override in overrides]
    keys: dict[str, list[str]] = {}
    for found in filter(None, parts):
        keys.setdefault(found["section"], []).append(found["key"])
    anew = {section: sorted({*names} - {"_target_"}) for section, names in keys.items() if "_target_" in names}
    changed: list[str] = []
    for override, part in zip(overrides, parts):
        if part is None or (names := anew.get(part["section"])) is None:
            changed.append(override)
            continue
        changed.append(f"++{override.lstrip('+')}")
        if part["key"] == "_target_":
            changed.append(f"++{part['section']}.{GIVEN}=[{','.join(names)}]")
    return changed


GIVEN = "_given_"


KEY_OF_SECTION = re.compile(r"\+{0,2}(?P<section>[a-z_]+)\.(?P<key>\w+)[.\w]*=")


DRY_RUN = "--dry-run"


def dry(command: str, overrides: list[str]) -> list[str]:
    """Overrides of a training run that is only shown and gets no folder. Raises :class:`InputError`."""
    if command != "train":
        raise InputError(f"{DRY_RUN} works only with wgan-lip train, not with {command}. Leave it out.")
    if {"--multirun", "-m"} & set(overrides) or any(override.startswith("hydra.mode=") for override in overrides):
        raise InputError(f"{DRY_RUN} shows a single run, not a sweep. Show the jobs of a sweep one at a time.")
    left_out = re.compile(r"\+{0,2}(resume|hydra\.run\.dir|hydra\.sweep\.\w+)=")
    kept = [override for override in overrides if override != DRY_RUN and not left_out.match(override)]
    return ["hydra.run.dir=.", *kept]  # not at the end, where a flag may wait for its value


FLAGS: dict[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("--help", "-h", "--hydra-help", "--multirun", "-m", "--run", "-r", "--resolve", "--version")),
    **dict.fromkeys(("--cfg", "-c"), ("job", "hydra", "all")),
    **dict.fromkeys(("--info", "-i"), ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")),
    **dict.fromkeys(("--package", "-p", "--config-dir", "-cd"), ()),
}
"""Hydra's flag → the values it accepts, empty if it accepts any; None if it takes no value."""

FOLDERS = re.compile(r"\+{0,2}hydra\.(run\.dir|sweep\.dir|sweep\.subdir)=(null|''|\"\")?\s*")
"""An override that leaves a run without a folder."""


def arranged(arguments: Sequence[str]) -> list[str]:
    """Puts overrides first and flags after them: Hydra wants all overrides together.

    Raises:
        InputError: An unknown flag, or one without its value; or an override of :data:`FOLDERS`.
    """
    overrides, flags, rest = [], [], iter(arguments)
    for argument in rest:
        if not argument.startswith("-"):
            if FOLDERS.fullmatch(argument):
                raise InputError(f"{argument} names no folder. Name one, or leave it out for a new folder.")
            overrides.append(argument)
            continue
        flag, equals, value = argument.partition("=")
        if flag not in FLAGS:
            raise InputError(f"Unknown flag {flag}. The flags are {', '.join(FLAGS)}; settings are given as key=value.")
        flags.append(flag)
        if (values := FLAGS[flag]) is None:
            if equals:
                raise InputError(f"{flag} takes no value, but {argument} gives one. Type {flag} alone.")
            continue
        value = value if equals else next(rest, "")
        if not value or (values and value not in values):
            found = f", not {value!r}" if value else ""
            raise InputError(f"{flag} needs a value{': ' * bool(values)}{', '.join(values)}{found}.")
        flags.append(value)
    return [*overrides, *flags]


LONGEST_NAME = 120  # of a job's folder


def with_jobs_named(overrides: list[str]) -> list[str]:
    """Names the folders of a sweep's jobs by what differs between them, such as `critic=cones,seed=1`.

    Hydra's numbers stay if such a name would make a bad folder name or be hard to type, or if the overrides already
    say how to name the folders.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if not {"--multirun", "-m"} & set(overrides) or any("hydra.sweep.subdir=" in override for override in overrides):
        return overrides
    try:
        typed = [o for o in overrides if not o.startswith("-") and "=" in o and not o.startswith(("hydra.", "hydra/"))]
        parsed = OverridesParser.create().parse_overrides(typed)
        swept = {
            override.key_or_group: [
                f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()
            ]
            for override in parsed
            if override.is_sweep_override()
        }
    except HydraException:  # reported when Hydra composes
        return overrides
    lines = [line for values in swept.values() for line in values]
    longest = sum(max(map(len, values)) + 1 for values in swept.values())
    if not lines or longest > LONGEST_NAME or not all(re.fullmatch(r"[\w.=@+-]+", line) for line in lines):
        return overrides
    fixed = dict.fromkeys(one.key_or_group for one in parsed if one.key_or_group not in swept)
    left_out = ",".join(literal(key) for key in fixed)
    return [
        "hydra.sweep.subdir=${hydra.job.override_dirname}",
        f"hydra.job.config.override_dirname.exclude_keys=[{left_out}]",
        *overrides,
    ]


PATHS = ("run", "resume", "runs", "out", "pictures", "hydra.run.dir", "hydra.sweep.dir")
"""Keys of files and folders: a value that Hydra reads as a number, as in run=2023, is a name here."""


def quoted(override: str) -> str:
    """`key=value` as the user means it, where Hydra's grammar refuses the value or misreads it.

    This concerns paths: with ~, =, brackets or parentheses, or a folder called 2023, for which a line is printed.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    if not equals or override.startswith("-"):
        return override
    is_path = key.lstrip("+") in PATHS
    name = f"{key}={QuotedString(value, Quote.double).with_quotes()}"
    try:
        parsed = OverridesParser.create().parse_override(override)
        if not is_path or parsed.is_sweep_override():
            return override
        if isinstance(parsed.value(), str | None | (list if key == "runs" else str)):
            return override
        warn(f"{override} is read as the name {name}")
    except HydraException:
        if value.startswith(("[", "{")) and not is_path:  # a list or a mapping, perhaps a broken one
            return override
    return name
