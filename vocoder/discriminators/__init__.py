"""Networks that tell recordings from what a generator makes: `discriminator(waveform)`."""

from vocoder.discriminators.base import Discriminator, Discriminators
from vocoder.discriminators.multi_period import MultiPeriodDiscriminator
from vocoder.discriminators.multi_resolution import MultiResolutionDiscriminator
from vocoder.discriminators.multi_scale import MultiScaleDiscriminator

__all__ = [
    "Discriminator",
    "Discriminators",
    "MultiPeriodDiscriminator",
    "MultiResolutionDiscriminator",
    "MultiScaleDiscriminator",
]
