"""The public names, once: type checkers read them here, and `__init__.py` where to load each from."""

from wgan_lip.critics import ClippedCritic as ClippedCritic
from wgan_lip.critics import ConvolutionalCritic as ConvolutionalCritic
from wgan_lip.critics import FixedWidthCritic as FixedWidthCritic
from wgan_lip.critics import GroupSortCritic as GroupSortCritic
from wgan_lip.critics import PenalizedCritic as PenalizedCritic
from wgan_lip.critics import ResNetCritic as ResNetCritic
from wgan_lip.critics import SortingCritic as SortingCritic
from wgan_lip.critics import SpectralNormCritic as SpectralNormCritic
from wgan_lip.critics.compiled import MaxMinFunction as MaxMinFunction
from wgan_lip.critics.compiled import compile_fixed_width as compile_fixed_width
from wgan_lip.critics.compiled import compile_resnet as compile_resnet
from wgan_lip.critics.compiled import critic_from_transport as critic_from_transport
from wgan_lip.critics.compiled import interpolate as interpolate
from wgan_lip.data import Law as Law
from wgan_lip.data import law_of_rows as law_of_rows
from wgan_lip.data import open_samples as open_samples
from wgan_lip.generators import DCGANGenerator as DCGANGenerator
from wgan_lip.generators import MLPGenerator as MLPGenerator
from wgan_lip.generators import ResNetGenerator as ResNetGenerator
from wgan_lip.inspection.explore import Exploration as Exploration
from wgan_lip.inspection.explore import explore as explore
from wgan_lip.lipschitz.adversary import enumerate_lipschitz as enumerate_lipschitz
from wgan_lip.lipschitz.adversary import estimate_lipschitz as estimate_lipschitz
from wgan_lip.lipschitz.certificates import Certificate as Certificate
from wgan_lip.lipschitz.certificates import certify as certify
from wgan_lip.lipschitz.certificates import verify as verify
from wgan_lip.lipschitz.layers import constrain_steps as constrain_steps
from wgan_lip.lipschitz.optimizers import parameter_groups as parameter_groups
from wgan_lip.runs.export import Exported as Exported
from wgan_lip.runs.export import export_players as export_players
from wgan_lip.runs.export import load_exported as load_exported
from wgan_lip.runs.run import Run as Run
from wgan_lip.runs.run import load_run as load_run
from wgan_lip.training import train_wgan as train_wgan
from wgan_lip.utils.checks import InputError as InputError
from wgan_lip.utils.checks import UncertifiableError as UncertifiableError
from wgan_lip.wasserstein.estimate import W1Estimate as W1Estimate
from wgan_lip.wasserstein.estimate import estimate_w1 as estimate_w1
from wgan_lip.wasserstein.interval import W1Interval as W1Interval
from wgan_lip.wasserstein.interval import bracket as bracket
from wgan_lip.wasserstein.interval import kr_lower_bound as kr_lower_bound
from wgan_lip.wasserstein.population import PopulationBounds as PopulationBounds
from wgan_lip.wasserstein.population import clip_range as clip_range
from wgan_lip.wasserstein.population import population_bounds as population_bounds

__version__: str
