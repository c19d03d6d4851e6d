"""Adversarial losses of one sub-discriminator: the generator's side and the discriminator's.

y_true and y_pred are its feature maps of recordings and of synthesised waveforms, `[feature map,
..., score]`, the batch first. Each loss has one value an example, the mean over its scores.
"""

import keras
from keras import ops


class AdversarialLoss(keras.losses.Loss):
    """The generator's side; `discriminator_loss` is the other.

    Attributes:
        threshold: Scores above it say "recording".
    """

    of_features = True
    threshold: float

    def __init__(self, name, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def discriminator_loss(self) -> keras.losses.Loss:
        """What the sub-discriminator is trained on, called as this one."""
        raise NotImplementedError


@keras.saving.register_keras_serializable("vocoder")
class LeastSquaresLoss(AdversarialLoss):
    """(1 - score)^2 of what is synthesised (Mao et al., arXiv:1611.04076), as in HiFi-GAN."""

    threshold = 0.5

    def __init__(self, name="least_squares", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name, reduction, dtype)

    def call(self, y_true, y_pred):
        return _mean(ops.square(1 - y_pred[-1]))

    def discriminator_loss(self):
        return LeastSquaresDiscriminatorLoss()


@keras.saving.register_keras_serializable("vocoder")
class LeastSquaresDiscriminatorLoss(keras.losses.Loss):
    """(1 - score)^2 of recordings plus score^2 of what is synthesised."""

    def call(self, y_true, y_pred):
        return _mean(ops.square(1 - y_true[-1])) + _mean(ops.square(y_pred[-1]))


@keras.saving.register_keras_serializable("vocoder")
class HingeLoss(AdversarialLoss):
    """max(0, 1 - score) of what is synthesised, as in SoundStream (arXiv:2107.03312) and Vocos."""

    threshold = 0.0

    def __init__(self, name="hinge", reduction="sum_over_batch_size", dtype=None):
        super().__init__(name, reduction, dtype)

    def call(self, y_true, y_pred):
        return _mean(ops.relu(1 - y_pred[-1]))

    def discriminator_loss(self):
        return HingeDiscriminatorLoss()


@keras.saving.register_keras_serializable("vocoder")
class HingeDiscriminatorLoss(keras.losses.Loss):
    """max(0, 1 - score) of recordings plus max(0, 1 + score) of what is synthesised."""

    def call(self, y_true, y_pred):
        return _mean(ops.relu(1 - y_true[-1])) + _mean(ops.relu(1 + y_pred[-1]))


@keras.saving.register_keras_serializable("vocoder")
class ScoreAccuracy(keras.losses.Loss):
    """Share of the scores on the right side of a threshold, the mean over sub-discriminators.

    To be watched. Called with {sub-discriminator: feature maps}.

    Args:
        side: "real" for the scores of recordings, which should be above; "synthesised" for those of
            what is synthesised, which should be below.
        threshold: See `AdversarialLoss`.
    """

    def __init__(self, side, threshold, name=None, reduction="sum_over_batch_size", dtype=None):
        super().__init__(name=name or f"accuracy_{side}", reduction=reduction, dtype=dtype)
        if side not in ("real", "synthesised"):
            raise ValueError(f'side: must be "real" or "synthesised", not {side!r}')
        self.side = side
        self.threshold = threshold

    def call(self, y_true, y_pred):
        if self.side == "real":
            right = [maps[-1] > self.threshold for maps in y_true.values()]
        else:
            right = [maps[-1] < self.threshold for maps in y_pred.values()]
        return sum(_mean(ops.cast(one, "float32")) for one in right) / len(right)

    def get_config(self):
        return super().get_config() | {"side": self.side, "threshold": self.threshold}


def _mean(scores):
    """(batch, ...) -> (batch,)"""
    return ops.mean(scores, axis=tuple(range(1, len(scores.shape))))
