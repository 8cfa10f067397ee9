"""`python -m wgan_lip`, and the console script `wgan-lip`."""

import sys

from wgan_lip.cli import main
from wgan_lip.utils.terminal import let_go


def run() -> None:
    """Runs the command line and exits with its status."""
    status = main()
    try:
        sys.stdout.flush()
    except OSError:  # as of `wgan-lip train --help | head`
        let_go(sys.stdout)
    sys.exit(status)


if __name__ == "__main__":
    run()
