"""Figures as text inside a page, which needs no other file to show them."""

from __future__ import annotations

import base64
import html
import io
import re

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image

from wgan_lip.figures.style import INK

DARK = {INK: "currentColor", "#000000": "currentColor"}
"""Ink takes the colour of the surrounding text, on light and on dark pages."""


def inline_svg(figure: Figure, alt: str, *, key: str) -> str:
    """A figure as an `<svg>` element without a background, its ink in the colour of the surrounding text.

    For line drawings; a figure with many patches, such as a landscape, is smaller as a PNG.

    Arguments:
        figure: The figure. Letters become paths, so no font is needed.
        alt: What it shows, for readers who cannot see it.
        key: A prefix of its ids, different for each figure of a page.
    """
    figure.patch.set_alpha(0.0)
    for axes in figure.axes:
        axes.patch.set_alpha(0.0)
    stream = io.StringIO()
    with rc_context({"svg.hashsalt": key, "svg.fonttype": "path"}):
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(?<=\bid=")|(?<=xlink:href="#)|(?<=url\(#)', f"{key}-", text)
    for ink, current in DARK.items():
        text = re.sub(re.escape(ink), current, text, flags=re.IGNORECASE)
    _, _, body = text.partition(">")
    box = text.partition('viewBox="')[2].partition('"')[0]
    return (
        f'<svg class="drawing" role="img" aria-label="{html.escape(alt)}" viewBox="{box}" fill="currentColor" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{body.strip()}'
    )


def inline_png(picture: Figure | np.ndarray, alt: str, *, dpi: float = 110) -> str:
    """A figure, or an array from :func:`wgan_lip.figures.sample_grid`, embedded in an `<img>` element."""
    stream = io.BytesIO()
    if isinstance(picture, np.ndarray):
        image = Image.fromarray(picture)
        width, height = image.size
    else:
        FigureCanvasAgg(picture).print_figure(stream, format="png", dpi=dpi)
        image = Image.open(stream).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        width, height = (round(110 * side) for side in picture.get_size_inches())
        stream = io.BytesIO()
    image.save(stream, format="PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return f'<img alt="{html.escape(alt)}" width="{width}" height="{height}" src="data:image/png;base64,{data}">'
