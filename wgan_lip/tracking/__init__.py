"""Records to TensorBoard, JSON lines and the console."""

from wgan_lip.tracking.console import Console, IntervalConsole
from wgan_lip.tracking.lines import JsonLinesTracker, read_records
from wgan_lip.tracking.numbers import clock_time, interval_digits, interval_text, rounded, rounded_down, rounded_up
from wgan_lip.tracking.records import RecordLike, StagedRecordLike, Tracker, Trackers
from wgan_lip.tracking.tags import ESTIMATE_CHARTS, MEANINGS, TRAINING_CHARTS
from wgan_lip.tracking.tensorboard import TensorBoardTracker

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
    "clock_time",
    "interval_digits",
    "interval_text",
    "read_records",
    "rounded",
    "rounded_down",
    "rounded_up",
]
