"""Sample sources: toy laws, image sets, files, your own tensors and loaders.

A sample is a row of float32 numbers: every source returns tensors of shape (n, d), images flattened from
(c, h, w) with pixel values in [0, 1]. Three kinds of draws stay apart: `sample` (training), `test` (held out) and
`reference` (real samples that give the floor of a score).

:func:`open_samples` opens samples by name, file or folder, as rows or as a law to draw from.

An oracle is a pair of laws whose W1 and potential are known: see :mod:`wgan_lip.data.oracles`.
"""

from wgan_lip.data.adapters import LoaderSource, TensorSource
from wgan_lip.data.folders import ImageFolder
from wgan_lip.data.grids import GridPair, grid_pair
from wgan_lip.data.images import Digits, FakeImages, ImageSource
from wgan_lip.data.laws import Law, box_diameter, law_of_oracle, law_of_rows, law_of_source
from wgan_lip.data.opening import Opened, check_shapes, known_w1, matched, named_sources, open_samples
from wgan_lip.data.oracles import ORACLES, Moved, Oracle, OracleSource
from wgan_lip.data.readers import VectorFile, options_of, read_array, read_file, read_samples
from wgan_lip.data.scaling import SCALES, Scaling, Standardised, pooled_scaling, standardise
from wgan_lip.data.sources import FiniteSource, Source
from wgan_lip.data.tables import Samples, TableOptions
from wgan_lip.data.torchvision_sets import CIFAR10, MNIST, CelebA, FashionMNIST, import_torchvision
from wgan_lip.data.toy import Checkerboard, Gaussians8, Gaussians25, MixtureSource, Moons, SwissRoll, ToySource

__all__ = [
    "CIFAR10",
    "MNIST",
    "ORACLES",
    "SCALES",
    "CelebA",
    "Checkerboard",
    "Digits",
    "FakeImages",
    "FashionMNIST",
    "FiniteSource",
    "Gaussians8",
    "Gaussians25",
    "GridPair",
    "ImageFolder",
    "ImageSource",
    "Law",
    "LoaderSource",
    "MixtureSource",
    "Moons",
    "Moved",
    "Opened",
    "Oracle",
    "OracleSource",
    "Samples",
    "Scaling",
    "Source",
    "Standardised",
    "SwissRoll",
    "TableOptions",
    "TensorSource",
    "ToySource",
    "VectorFile",
    "box_diameter",
    "check_shapes",
    "grid_pair",
    "import_torchvision",
    "known_w1",
    "law_of_oracle",
    "law_of_rows",
    "law_of_source",
    "matched",
    "named_sources",
    "open_samples",
    "options_of",
    "pooled_scaling",
    "read_array",
    "read_file",
    "read_samples",
    "standardise",
]
