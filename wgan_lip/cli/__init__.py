"""The command line: `wgan-lip COMMAND [key=value …]`.

Help needs only this file and :mod:`wgan_lip.cli.help`, without torch; the rest is imported when a command runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wgan_lip.cli.help import command_help
from wgan_lip.utils.terminal import say, streams_made, warn

__all__ = ["COMMANDS", "config_directory", "main"]

COMMANDS = {
    "train": "train a generator against a certified critic",
    "estimate": "enclose W1 between two sample sets or laws in a proved interval",
    "test": "test whether two sample sets come from the same law, and bound how far apart the laws are",
    "certify": "prove the saved critic's Lipschitz constant again",
    "inspect": "show what a run did, on one screen and as a page",
    "compare": "show runs, or all runs of a sweep, side by side",
    "sample": "draw samples from a run's generator",
    "export": "write a run's generator and critic as files that need no training code",
    "benchmark": "run the measurements behind the README's tables",
}

USAGE = """\
wgan-lip COMMAND [key=value ...] [group=choice ...]

Wasserstein generative modelling with critics whose Lipschitz constant is proved.

commands:
{commands}

  wgan-lip COMMAND --help     groups, choices and every key of a command
  wgan-lip guide [NAME]       print a guide: {guides}
  wgan-lip completion         print a script that completes commands, groups and keys in bash
  wgan-lip train              train on the default data, scikit-learn's digits: a few minutes on a CPU
  wgan-lip train --dry-run    show settings, modules with their constants, steps, time and memory; write nothing
  wgan-lip train --multirun critic=resnet,fixed_width seed=0,1,2 [jobs=2]
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns the exit status: 0, 1 (the run failed), 2 (bad input), 130 or 143 (stopped)."""
    streams_made()
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        listed = "\n".join(f"  {name:10}{what}" for name, what in COMMANDS.items())
        say(USAGE.format(commands=listed, guides=", ".join(guides())))
        return 0 if arguments else 2
    command, *overrides = arguments
    if command == "--version":
        import wgan_lip

        say(wgan_lip.__version__)
        return 0
    if command == "guide":
        return _guide(*overrides)
    if command == "completion":
        from wgan_lip.cli.completion import SCRIPT, completions

        asked = overrides and overrides[0] not in ("-h", "--help", "bash")
        say("\n".join(completions(" ".join(overrides), COMMANDS, guides(), config_directory)) if asked else SCRIPT)
        return 0
    if command not in COMMANDS:
        warn(f"There is no command {command!r}. Commands: {', '.join(COMMANDS)}. See wgan-lip --help.")
        return 2
    if not {"-h", "--help"}.isdisjoint(overrides):
        say(command_help(command, config_directory(command), overrides))
        return 0
    from wgan_lip.cli.running import run_command

    return run_command(command, overrides, config_directory(command))


def guides() -> dict[str, Path]:
    """The guides, name → Markdown file."""
    folder = Path(__file__).resolve().parent.parent / "guides"
    return {path.stem: path for path in sorted(folder.glob("*.md"))}


def _guide(name: str | None = None, *more: str) -> int:
    """Prints a guide, or the names of all with their titles."""
    pages = guides()
    if name is None or name in ("-h", "--help"):
        titles = {name: path.read_text(encoding="utf-8").split("\n", 1)[0].lstrip("# ") for name, path in pages.items()}
        say("\n".join(["wgan-lip guide NAME", "", *(f"  {name:14}{title}" for name, title in titles.items())]))
    elif name not in pages or more:
        warn(f"There is no guide {' '.join([name, *more])!r}. Guides: {', '.join(pages)}.")
        return 2
    else:
        say(pages[name].read_text(encoding="utf-8").rstrip())
    return 0


def config_directory(command: str = "train") -> Path:
    """The folder of a command's configuration: `configs/`, beside the package in a checkout, inside it in a wheel.

    Only train has groups, and its configuration is at the top of `configs/`. The other commands have theirs in
    `configs/commands/`: beside the folders of the groups, their `critic=` would be taken for the choice of a group.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    configs = inside if inside.is_dir() else package.parent / "configs"
    return configs if command == "train" else configs / "commands"
