"""Overrides of the command line, as they are meant: quoted, begun anew, or taken over from a run."""

from __future__ import annotations

import re
from collections.abc import Sequence

from wgan_lip.runs.run import Run
from wgan_lip.utils.checks import InputError

NEVER_TAKEN_OVER = ("trust", "hydra", "resume")
"""Keys of saved overrides that are given anew or not at all: what a folder holds must not run code."""


def recomposed(overrides: list[str]) -> list[str]:
    """With `resume=RUN` among the overrides, those of the run come before them, and its folder after."""
    wanted = _resumed(overrides)
    if wanted in (None, "", "null", "auto"):
        return overrides
    if {"--multirun", "-m"} & set(overrides):
        raise InputError(f"Expected a single run with resume={wanted}. Got --multirun. A sweep takes resume=auto.")
    run, given = Run(wanted), {_key(override) for override in overrides}
    saved = [override for override in run.overrides if _harmless(override) and _key(override) not in given]
    return [*saved, *overrides, f"hydra.run.dir={run.directory.resolve()}"]


def _resumed(overrides: list[str]) -> str | None:
    """The value of the last `resume=` among them."""
    values = [override.partition("=")[2].strip("\"'") for override in overrides if _key(override) == "resume"]
    return values[-1] if values else None


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _harmless(override: str) -> bool:
    """Whether a saved override is none of :data:`NEVER_TAKEN_OVER`, however it is written."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_override(override)
    except HydraException as error:
        raise InputError(f"Expected a whole overrides.json. Got {override!r}: {error}. Restore it.") from None
    names = [parsed.key_or_group, parsed.package or ""]
    return not any(re.split(r"[./:]", name)[0] in NEVER_TAKEN_OVER for name in names)


def begun_anew(overrides: Sequence[str]) -> list[str]:
    """Overrides in which a section whose class is named, as in `generator._target_=mypackage.Mine`, begins anew.

    The keys given beside it may be ones that the composed section lacks, and no others will reach the class.
    """
    parts = [KEY_OF_SECTION.match(override) for override in overrides]
    keys: dict[str, list[str]] = {}
    for part in filter(None, parts):
        keys.setdefault(part["section"], []).append(part["key"])
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
    """Overrides of a training that is only shown, in no folder of its own. Raises :class:`InputError`."""
    if command != "train":
        raise InputError(f"Expected {DRY_RUN} with wgan-lip train. Got it with {command}. Leave it out.")
    if {"--multirun", "-m"} & set(overrides) or any(override.startswith("hydra.mode=") for override in overrides):
        raise InputError(f"Expected a single run with {DRY_RUN}. Got a sweep. Show one of its jobs at a time.")
    left_out = re.compile(r"\+{0,2}(resume|hydra\.run\.dir|hydra\.sweep\.\w+)=")
    kept = [override for override in overrides if override != DRY_RUN and not left_out.match(override)]
    first = next((place for place, override in enumerate(kept) if re.match(r"[^-].*=", override)), len(kept))
    return [*kept[:first], "hydra.run.dir=.", *kept[first:]]  # beside others: argparse wants them together


def quoted(override: str) -> str:
    """`key=value` as it was meant, where Hydra's grammar refuses the value: a path with ~, = or parentheses."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    key, equals, value = override.partition("=")
    if not equals or override.startswith("-") or {"{", "["} & set(value):  # a list or a mapping, perhaps a broken one
        return override
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        quotes_escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + ('\\"' if found[2] else ""), value)
        return f'{key}="{quotes_escaped}"'
    return override
