"""Losses on waveforms, each called `(y_true, y_pred)`, and the sum that keeps them apart."""

from vocoder.losses.mel import MelLoss, MultiResolutionMelLoss
from vocoder.losses.multi import LossCfg, MeanParts, MultiLoss
from vocoder.losses.stft import MultiResolutionSTFTLoss, STFTLoss
from vocoder.losses.waveform import WaveformL1Loss

__all__ = [
    "LossCfg",
    "MeanParts",
    "MelLoss",
    "MultiLoss",
    "MultiResolutionMelLoss",
    "MultiResolutionSTFTLoss",
    "STFTLoss",
    "WaveformL1Loss",
]
