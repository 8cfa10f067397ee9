"""Pages about runs: self-contained, readable in light and dark, on paper, and without an image seen."""

from wgan_lip.inspection.pages.comparison import comparison_page
from wgan_lip.inspection.pages.run import run_page

__all__ = ["comparison_page", "run_page"]
