"""The training of WGANs: one readable loop, and a session around it with folder, board, checkpoints and scores.

:func:`train` is the entry point, :func:`train_wgan` the bare loop. The training state is a :class:`Game`, whose
`state_dict` goes into a checkpoint and back.
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
