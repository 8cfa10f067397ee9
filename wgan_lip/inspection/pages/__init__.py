"""Pages about runs: self-contained, and readable in light and dark mode, on paper, and without images."""

from wgan_lip.inspection.pages.comparison import comparison_page
from wgan_lip.inspection.pages.run import run_page

__all__ = ["comparison_page", "run_page"]
