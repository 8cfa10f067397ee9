"""The command line: `wgan-lip COMMAND [key=value …]`.

What help needs stands here and in :mod:`wgan_lip.cli.help`, without torch; all else is imported when a command runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

from wgan_lip.cli.help import command_help
from wgan_lip.utils.terminal import say, streams_made, warn

__all__ = ["COMMANDS", "config_directory", "main"]

COMMANDS = {
    "train": "train a generator against a certified critic",
    "estimate": "W1 between two sample sets or laws, with an interval that holds",
    "test": "whether two sample sets are of one law, and how far apart their laws are at least",
    "certify": "prove the saved critic's Lipschitz constant anew",
    "inspect": "what a run did, in one screen and a page",
    "compare": "runs side by side, or those of a sweep",
    "sample": "draw samples from a run's generator",
    "export": "the players of a run as files that need no training code",
    "benchmark": "the measurements behind the README's tables",
}

USAGE = """\
wgan-lip COMMAND [key=value ...] [group=choice ...]

Wasserstein generative modelling with critics whose Lipschitz constant is proved.

commands:
{commands}

  wgan-lip COMMAND --help     groups, choices and every key of a command
  wgan-lip guide [NAME]       pages to read: {guides}
  wgan-lip train              the default: scikit-learn's digits, a few minutes on a CPU
  wgan-lip train --dry-run    what it would be: settings, modules with constants, steps, time, memory; writes nothing
  wgan-lip train --multirun critic=resnet,fixed_width seed=0,1,2 [jobs=2]
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0, 1 (the run failed), 2 (bad input), 130 or 143 (stopped)."""
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
    if command not in COMMANDS:
        warn(f"There is no command {command!r}. Commands: {', '.join(COMMANDS)}. See wgan-lip --help.")
        return 2
    if not {"-h", "--help"}.isdisjoint(overrides):
        say(command_help(command, config_directory(command), overrides))
        return 0
    from wgan_lip.cli.running import run_command

    return run_command(command, overrides, config_directory(command))


def guides() -> dict[str, Path]:
    """The guides by name, as files of Markdown."""
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
    """Where a command's configuration lies: `configs/`, beside the package in a checkout, inside it in a wheel.

    That of train, which alone has groups, is at its top; beside their folders, `critic=` of another command would be
    the choice of a group, so the others' are in `configs/commands/`.
    """
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    configs = inside if inside.is_dir() else package.parent / "configs"
    return configs if command == "train" else configs / "commands"
