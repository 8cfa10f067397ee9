"""Records to TensorBoard, JSON lines and the console, and to other trackers if they are named."""

from wgan_lip.runs.tracking.console import Console, IntervalConsole
from wgan_lip.runs.tracking.lines import JsonLinesTracker, read_records
from wgan_lip.runs.tracking.records import RecordLike, StagedRecordLike, Tracker, Trackers
from wgan_lip.runs.tracking.services import TRACKERS, check_tracking, open_tracker
from wgan_lip.runs.tracking.tags import ESTIMATE_CHARTS, MEANINGS, TRAINING_CHARTS
from wgan_lip.runs.tracking.tensorboard import TensorBoardTracker

__all__ = [
    "ESTIMATE_CHARTS",
    "MEANINGS",
    "TRACKERS",
    "TRAINING_CHARTS",
    "Console",
    "IntervalConsole",
    "JsonLinesTracker",
    "RecordLike",
    "StagedRecordLike",
    "TensorBoardTracker",
    "Tracker",
    "Trackers",
    "check_tracking",
    "open_tracker",
    "read_records",
]
