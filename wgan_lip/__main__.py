"""`python -m wgan_lip`, and the console script `wgan-lip`."""

import sys

from wgan_lip.cli import main


def run() -> None:
    """Runs the command line and exits with its status."""
    sys.exit(main())


if __name__ == "__main__":
    run()
