"""Records as TensorBoard's events."""

from __future__ import annotations

import io
import math
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from wgan_lip.runs.tracking.records import RecordLike, Tracker
from wgan_lip.runs.tracking.tags import MEANINGS, ROUNDED_DOWN, ROUNDED_UP, TRAINING_CHARTS
from wgan_lip.utils.files import utf8
from wgan_lip.utils.numbers import rounded_up

SCENE = {
    "camera": {"cls": "PerspectiveCamera", "fov": 45},
    "lights": [
        {"cls": "AmbientLight", "color": "#ffffff", "intensity": 0.9},
        {"cls": "DirectionalLight", "color": "#ffffff", "intensity": 0.7, "position": [1, 2, 3]},
    ],
    "material": {"cls": "MeshStandardMaterial", "roughness": 1, "metalness": 0, "side": 2},
}
"""How the mesh page lights a surface; side 2 is three.js' DoubleSide."""
TILT = np.array([[1, 0, 0], [0, 0.5, 0.75**0.5], [0, -(0.75**0.5), 0.5]])
"""Tilts a surface by 60 degrees, since that page's camera looks straight down."""

NEAR = 1e-3  # a constant this close to 1 gets a chart of its distance from 1


class TensorBoardTracker(Tracker):
    """Writes one event file of scalars, pictures, text, histograms, hyperparameters and a chart of the W1 interval.

    TensorBoard keeps scalars in single precision, to which bounds are rounded outward, a certified constant up to 1 to
    four digits. Its charts break off at infinities, which are left out here; of an interval without an upper bound,
    both ends are left out. Each scalar comes with its meaning, from :data:`MEANINGS`, shown beside its chart.
    :class:`JsonLinesTracker` keeps everything in full.

    Arguments:
        directory: Where the event file goes; its name is the name of the run in TensorBoard.
        purge_step: On resume, the first step that will be recorded again: TensorBoard then drops what the interrupted
            run wrote from this step on. None for a new run.
        charts: The charts of the page "Custom scalars": `TRAINING_CHARTS` or `ESTIMATE_CHARTS`.
    """

    def __init__(
        self, directory: str | os.PathLike[str], purge_step: int | None = None, *,
        charts: Mapping[str, Mapping[str, list]] = TRAINING_CHARTS,
    ) -> None:  # fmt: skip
        from torch.utils.tensorboard import SummaryWriter

        ahead = 0.0 if purge_step is None else _made_older(Path(directory))
        self._writer: Any = SummaryWriter(os.fspath(directory), purge_step=purge_step, flush_secs=10)
        if ahead:
            events = self._open_writer().file_writer
            events.event_writer = _Later(events.event_writer, ahead)
        self._session_end: Any = None
        self._told: set[str] = set()
        self._resumed = bool(purge_step)
        if not purge_step:  # a resumed run already has its layout, at step 0
            self._open_writer().file_writer.add_summary(_layout(charts), 0)

    def record(self, record: RecordLike) -> None:
        scalars = {tag: float(value) for tag, value in record.scalars.items()}
        if math.isinf(scalars.get("w1/upper", 0.0)):
            scalars.pop("w1/lower", None)  # see Note [Tags of custom scalars]: the ends share their steps
        constant = scalars.get("certificate/lipschitz", math.nan)
        if abs(1 - constant) < NEAR:
            scalars["certificate/millionths_below_1"] = 1e6 * (1 - constant)
        if constant <= 1:  # an axis down to the seventh digit would have the ticks 1, 1, 1
            scalars["certificate/lipschitz"] = float(rounded_up(constant))
        for tag, value in scalars.items():
            single = single_precision(tag, value)
            if not math.isinf(single):
                self._scalar(tag, single, record.step)

    def _scalar(self, tag: str, value: float, step: int) -> None:
        """Writes a scalar, and with the first of each tag its meaning."""
        from tensorboard.compat.proto.summary_pb2 import DATA_CLASS_SCALAR, Summary, SummaryMetadata

        summary = Summary.Value(tag=tag, simple_value=value)
        if tag not in self._told:
            plugin = SummaryMetadata.PluginData(plugin_name="scalars")
            summary.metadata.CopyFrom(
                SummaryMetadata(  # without the class, the server would ignore the rest
                    summary_description=MEANINGS.get(tag, ""), plugin_data=plugin, data_class=DATA_CLASS_SCALAR
                )
            )
            self._told.add(tag)
        self._open_writer().file_writer.add_summary(Summary(value=[summary]), step)

    def image(self, tag: str, array: np.ndarray, step: int, *, colors: int | None = None) -> None:
        """Writes a picture: uint8, shape (h, w, 3); with `colors`, in a palette of that size, which is smaller."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        image, encoded = Image.fromarray(array), io.BytesIO()
        if colors is not None:
            image = image.quantize(colors, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)  # rare ones count, too
        image.save(encoded, format="PNG")
        height, width, colorspace = array.shape
        picture = Summary.Image(
            height=height, width=width, colorspace=colorspace, encoded_image_string=encoded.getvalue()
        )
        self._open_writer().file_writer.add_summary(Summary(value=[Summary.Value(tag=tag, image=picture)]), step)

    def figure(self, tag: str, picture: str | os.PathLike[str] | np.ndarray, step: int) -> None:
        """Writes a picture from a PNG file, or from an array as :meth:`image` takes it."""
        if not isinstance(picture, np.ndarray):
            from PIL import Image

            with Image.open(picture) as image:
                picture = np.asarray(image.convert("RGB"))
        self.image(tag, picture, step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        self._open_writer().add_text(tag, utf8(markdown), step)

    def histogram(self, tag: str, values: Tensor | np.ndarray, step: int) -> None:
        """Writes the histogram of the finite values, if there are any."""
        values = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
        finite = values[np.isfinite(values)]
        if finite.size:
            self._open_writer().add_histogram(tag, finite, step, bins=np.histogram_bin_edges(finite, 40))

    def surface(self, tag: str, vertices: np.ndarray, faces: np.ndarray, colors: np.ndarray, step: int) -> None:
        """Writes a surface of triangles over the plane, to be viewed from the side.

        Arguments:
            tag: Its name.
            vertices: Points with their heights, shape (k, 3).
            faces: Indices of the corners of each triangle, shape (t, 3).
            colors: Red, green and blue of each vertex, from 0 to 255, shape (k, 3).
            step: Its step.
        """
        import torch

        tilted = torch.as_tensor(vertices @ TILT.T, dtype=torch.float32)
        triangles = torch.as_tensor(faces, dtype=torch.int32)
        shades = torch.as_tensor(colors, dtype=torch.uint8)
        self._open_writer().add_mesh(
            tag, tilted[None], shades[None], triangles[None], config_dict=SCENE, global_step=step
        )

    def hparams(self, params: Mapping[str, Any]) -> None:
        """Writes the hyperparameters; call it once, before training.

        The summaries go into the run's event file: `SummaryWriter.add_hparams` would open a second run. :meth:`close`
        marks the session as a success; a `with` block that ends in an exception leaves it open. No experiment is
        declared, since the page would use the first run's for all runs, and leave out what only the others have.
        Without one it finds the hyperparameters of all runs, the differing ones first, and shows the first five scalars
        by name, which are those of `at_a_glance/*`.

        Arguments:
            params: Values by name. Numbers stay numbers, None is left out, and everything but numbers and strings is
                written as `str(value)`.
        """
        from torch.utils.tensorboard.summary import hparams

        plain = {
            name: value if type(value) in (int, float) else utf8(str(value))
            for name, value in params.items()
            if value is not None
        }
        _, session_start, self._session_end = hparams(plain, {})
        if not self._resumed:
            self._open_writer().file_writer.add_summary(session_start)

    def flush(self) -> None:
        self._open_writer().flush()

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            if self._session_end is not None:
                writer.file_writer.add_summary(self._session_end)
        finally:
            writer.close()

    def __exit__(self, *failure: object) -> None:
        if failure[0] is not None:
            self._session_end = None
        self.close()

    def _open_writer(self) -> Any:
        if self._writer is None:  # SummaryWriter would silently start a second event file
            raise ValueError("This TensorBoardTracker is closed. Record before closing it.")
        return self._writer


class _Later:
    """An event writer whose clock is ahead."""

    def __init__(self, writer: Any, seconds: float) -> None:
        self._writer, self._seconds = writer, seconds

    def add_event(self, event: Any) -> None:
        event.wall_time += self._seconds
        self._writer.add_event(event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


def _made_older(directory: Path) -> float:
    """Renames a run's event files so that they sort before a new one; returns by how many seconds they are ahead.

    TensorBoard reads the files of a run in the order of their names, which begin with the time: if the clock was set
    back before the run was resumed, it would take the end for the beginning.
    """
    now = time.time()
    named = [(file, EVENTS.fullmatch(file.name)) for file in directory.glob("events.out.tfevents.*")]
    files = sorted((int(found[1]), found[2], file) for file, found in named if found)
    if not files:
        return 0.0
    latest = max([float(files[-1][0]), *(file.stat().st_mtime for _, _, file in files)])
    if files[-1][0] >= int(now):
        for place, (_, rest, file) in enumerate(files):
            earlier = max(0, int(now) - len(files) + place)
            file.rename(file.with_name(f"events.out.tfevents.{earlier:010d}.{rest}"))
    return max(0.0, latest - now)


EVENTS = re.compile(r"events\.out\.tfevents\.(\d+)\.(.*)")


def single_precision(tag: str, value: float) -> float:
    """The value in single precision, rounded so that bounds stay bounds."""
    with np.errstate(over="ignore"):
        single = float(np.float32(value))  # back in double precision: numpy would compare in single
        if (tag in ROUNDED_DOWN and single > value) or (tag in ROUNDED_UP and single < value):
            single = float(np.nextafter(np.float32(single), np.float32(math.copysign(math.inf, value - single))))
    return single


def _layout(charts: Mapping[str, Mapping[str, list]]) -> Any:
    """The summary that lays out the page "Custom scalars"; torch's function allows one series in a Margin chart."""
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.plugins.custom_scalar import layout_pb2, metadata

    def chart(title: str, kind: str, tags: list[str]) -> layout_pb2.Chart:
        if kind == "Multiline":
            return layout_pb2.Chart(title=title, multiline=layout_pb2.MultilineChartContent(tag=tags))
        series = [
            layout_pb2.MarginChartContent.Series(value=value, lower=lower, upper=upper)
            for value, lower, upper in zip(tags[::3], tags[1::3], tags[2::3], strict=True)
        ]
        return layout_pb2.Chart(title=title, margin=layout_pb2.MarginChartContent(series=series))

    categories = [
        layout_pb2.Category(title=title, chart=[chart(name, *content) for name, content in of.items()])
        for title, of in charts.items()
    ]
    content = layout_pb2.Layout(category=categories).SerializeToString()
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME))
    tensor = TensorProto(dtype="DT_STRING", string_val=[content])
    return Summary(value=[Summary.Value(tag=metadata.CONFIG_SUMMARY_TAG, tensor=tensor, metadata=plugin)])
