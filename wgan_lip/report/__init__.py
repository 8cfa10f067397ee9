"""Pages about runs: self-contained, readable in light and dark, on paper, and without an image seen."""

from wgan_lip.report.run import run_page

__all__ = ["run_page"]
