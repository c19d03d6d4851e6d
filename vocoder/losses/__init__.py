"""Losses, each called `(y_true, y_pred)`, and the sum that keeps them apart.

They compare waveforms, or what a discriminator makes of them.
"""

from vocoder.losses.adversarial import (
    AdversarialLoss,
    HingeDiscriminatorLoss,
    HingeLoss,
    LeastSquaresDiscriminatorLoss,
    LeastSquaresLoss,
    ScoreAccuracy,
)
from vocoder.losses.feature_matching import FeatureMatchingLoss
from vocoder.losses.mel import MelLoss, MultiResolutionMelLoss
from vocoder.losses.multi import LossCfg, MeanParts, MultiLoss
from vocoder.losses.stft import MultiResolutionSTFTLoss, STFTLoss
from vocoder.losses.waveform import WaveformL1Loss

__all__ = [
    "AdversarialLoss",
    "FeatureMatchingLoss",
    "HingeDiscriminatorLoss",
    "HingeLoss",
    "LeastSquaresDiscriminatorLoss",
    "LeastSquaresLoss",
    "LossCfg",
    "MeanParts",
    "MelLoss",
    "MultiLoss",
    "MultiResolutionMelLoss",
    "MultiResolutionSTFTLoss",
    "STFTLoss",
    "ScoreAccuracy",
    "WaveformL1Loss",
]
