"""From samples to mel spectrograms, and from files to samples."""

from vocoder.audio.mel import MelSpectrogram

__all__ = ["MelSpectrogram"]
