"""The WGAN game: one loop a person can read, and what keeps it whole.

:func:`train_wgan` is the door. What moves is a :class:`Game`, whose `state_dict` goes into a checkpoint and back.
"""

from wgan_lip.training.game import DivergedError, Game, NonFiniteError, Record, RefutedError, StoppedError
from wgan_lip.training.loop import train_wgan
from wgan_lip.training.moves import PRECISIONS, SCHEDULES
from wgan_lip.training.ranks import OtherRankError, Ranks

__all__ = [
    "PRECISIONS",
    "SCHEDULES",
    "DivergedError",
    "Game",
    "NonFiniteError",
    "OtherRankError",
    "Ranks",
    "Record",
    "RefutedError",
    "StoppedError",
    "train_wgan",
]
