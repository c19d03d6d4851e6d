"""Networks from mel spectrograms to waveforms: `generator(mel)`."""

from vocoder.generators.base import Generator
from vocoder.generators.hifigan import HiFiGAN
from vocoder.generators.vocos import Vocos

__all__ = ["Generator", "HiFiGAN", "Vocos"]
