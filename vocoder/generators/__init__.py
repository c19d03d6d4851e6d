"""Networks from mel spectrograms to waveforms: `generator({"mel": mel})`."""

from vocoder.generators.base import Generator
from vocoder.generators.bigvgan import BigVGAN
from vocoder.generators.hifigan import HiFiGAN
from vocoder.generators.vocos import Vocos

__all__ = ["BigVGAN", "Generator", "HiFiGAN", "Vocos"]
