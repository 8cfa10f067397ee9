"""Sample sources: toy laws, image sets, files.

A sample is a row of float32 numbers: every source hands out tensors of shape (n, d), images flattened from
(c, h, w) with pixel values in [0, 1]. Three draws never meet: `sample` (training), `test` (held out) and
`reference` (real samples against which a score's floor is measured).

An oracle is a pair of laws whose W1 is known, and its potential with it: see :mod:`wgan_lip.data.oracles`.
"""

from wgan_lip.data.files import VectorFile, read_samples
from wgan_lip.data.images import MNIST, Digits, import_torchvision
from wgan_lip.data.oracles import ORACLES, Moved, Oracle, OracleSource
from wgan_lip.data.sources import FiniteSource, Source
from wgan_lip.data.toy import Checkerboard, Gaussians8, Gaussians25, MixtureSource, Moons, SwissRoll, ToySource

__all__ = [
    "MNIST",
    "ORACLES",
    "SOURCES",
    "Checkerboard",
    "Digits",
    "FiniteSource",
    "Gaussians8",
    "Gaussians25",
    "MixtureSource",
    "Moons",
    "Moved",
    "Oracle",
    "OracleSource",
    "Source",
    "SwissRoll",
    "ToySource",
    "VectorFile",
    "import_torchvision",
    "read_samples",
]

SOURCES: dict[str, type[Source]] = {
    source.name: source
    for source in (Gaussians8, Gaussians25, SwissRoll, Moons, Checkerboard, Digits, MNIST, VectorFile)
}
