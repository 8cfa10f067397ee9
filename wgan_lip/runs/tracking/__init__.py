"""Records to TensorBoard, JSON lines and the console."""

from wgan_lip.runs.tracking.console import Console, IntervalConsole
from wgan_lip.runs.tracking.lines import JsonLinesTracker, read_records
from wgan_lip.runs.tracking.records import RecordLike, StagedRecordLike, Tracker, Trackers
from wgan_lip.runs.tracking.tags import ESTIMATE_CHARTS, MEANINGS, TRAINING_CHARTS
from wgan_lip.runs.tracking.tensorboard import TensorBoardTracker
from wgan_lip.utils.numbers import clock_time, interval_digits, interval_text, rounded, rounded_down, rounded_up

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
