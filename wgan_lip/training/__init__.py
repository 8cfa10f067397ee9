"""The training of WGANs: one loop a person can read, and a session around it with folder, board, checkpoints, scores.

:func:`train` is the door, :func:`train_wgan` the bare loop. What moves is a :class:`Game`, whose `state_dict` goes into
a checkpoint and back.
"""

from wgan_lip.training.api import train
from wgan_lip.training.game import DivergedError, Game, NonFiniteError, Record, RefutedError, StoppedError
from wgan_lip.training.loop import train_wgan
from wgan_lip.training.moves import PRECISIONS, SCHEDULES
from wgan_lip.training.ranks import OtherRankError, Ranks
from wgan_lip.training.scoring import Evaluation
from wgan_lip.training.settings import Training

__all__ = [
    "PRECISIONS",
    "SCHEDULES",
    "DivergedError",
    "Evaluation",
    "Game",
    "NonFiniteError",
    "OtherRankError",
    "Ranks",
    "Record",
    "RefutedError",
    "StoppedError",
    "Training",
    "train",
    "train_wgan",
]
