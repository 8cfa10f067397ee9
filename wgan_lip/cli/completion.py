"""Completion of the command line in bash: commands, guides, groups with their choices, keys and flags.

Hydra's own completion asks the program for words without knowing of its commands. As for help, nothing is composed and
torch is not imported, so that the words appear at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from wgan_lip.cli.help import all_keys, choices_of, group_names

__all__ = ["SCRIPT", "completions"]

SCRIPT = """\
# Completion of wgan-lip in bash. Put this line into ~/.bashrc: eval "$(wgan-lip completion)"
_wgan_lip() {
    local line=${COMP_LINE:0:COMP_POINT} start=
    local word=${line##* }
    [[ $COMP_WORDBREAKS == *=* ]] && start=${word%"${word##*=}"}  # bash replaces only what follows the last =
    local IFS=$'\\n'
    COMPREPLY=($("${COMP_WORDS[0]}" completion "$line" 2> /dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$start"}")
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace
}
complete -o default -F _wgan_lip wgan-lip"""

FLAGS = ("--help",)
TRAIN_FLAGS = ("--multirun", "--dry-run")


def completions(
    line: str, commands: Iterable[str], guides: Iterable[str], config_directory: Callable[[str], Path]
) -> list[str]:
    """The words that the last word of a line may become; none where it is for the shell to complete a path.

    Arguments:
        line: What was typed so far, from the name of the program on.
        commands: The names of the commands.
        guides: The names of the guides.
        config_directory: Command → the folder of its configuration.
    """
    words = line.split()[1:] + ([""] if not line or line[-1].isspace() else [])
    *before, word = words or [""]
    commands = list(commands)
    if not before:
        return _beginning(word, [*commands, "guide", "completion", "--help", "--version"])
    if before[0] == "guide":
        return _beginning(word, guides)
    if before[0] not in commands:
        return []
    configs = config_directory(before[0])
    groups = group_names(configs) if before[0] == "train" else {}
    if "=" in word:
        return _values(word, groups, configs)
    flags = FLAGS + (TRAIN_FLAGS if before[0] == "train" else ())
    return _beginning(word, [*(f"{key}=" for key in (*groups, *all_keys(before[0], configs))), *flags])


def _values(word: str, groups: Mapping[str, str], configs: Path) -> list[str]:
    """`group=choice`, and several choices as in a sweep."""
    group, _, value = word.partition("=")
    if group not in groups:
        return []
    start = value[: value.rfind(",") + 1]
    return _beginning(word, [f"{group}={start}{choice}" for choice in choices_of(configs / groups[group])])


def _beginning(word: str, candidates: Iterable[str]) -> list[str]:
    return sorted({candidate for candidate in candidates if candidate.startswith(word)})
