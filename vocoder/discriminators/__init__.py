"""Networks that tell recordings from what a generator makes: `discriminator(waveform)`."""

from vocoder.discriminators.base import Discriminator
from vocoder.discriminators.combined import CombinedDiscriminator
from vocoder.discriminators.multi_period import MultiPeriodDiscriminator
from vocoder.discriminators.multi_resolution import MultiResolutionDiscriminator
from vocoder.discriminators.multi_scale import MultiScaleDiscriminator

__all__ = [
    "CombinedDiscriminator",
    "Discriminator",
    "MultiPeriodDiscriminator",
    "MultiResolutionDiscriminator",
    "MultiScaleDiscriminator",
]
