"""Records to TensorBoard, JSON lines and the console."""

from wgan_lip.runs.tracking.console import Console, IntervalConsole
from wgan_lip.runs.tracking.lines import JsonLinesTracker, read_records
from wgan_lip.runs.tracking.records import RecordLike, StagedRecordLike, Tracker, Trackers
from wgan_lip.runs.tracking.tags import ESTIMATE_CHARTS, MEANINGS, TRAINING_CHARTS
from wgan_lip.runs.tracking.tensorboard import TensorBoardTracker

__all__ = [
    "ESTIMATE_CHARTS",
    "MEANINGS",
    "TRAINING_CHARTS",
    "Console",
    "IntervalConsole",
    "JsonLinesTracker",
    "RecordLike",
    "StagedRecordLike",
    "TensorBoardTracker",
    "Tracker",
    "Trackers",
    "read_records",
]
