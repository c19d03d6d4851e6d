"""What every generator is."""

import contextlib
import dataclasses
from collections.abc import Mapping

import keras
from keras import ops

from vocoder.audio.mel import mel_to_magnitude
from vocoder.audio.settings import MOST_BANDS, MOST_SAMPLES, AudioConfig
from vocoder.heads import SpectralHead
from vocoder.kinds import check_precision, check_whole
from vocoder.layers.weight_norm import fold_weights


class Generator(keras.Model):
    """A network from features of frames to waveforms, (batch, frames * hop_length).

    It is called with a mapping of its `inputs`: `generator({"mel": mel})`, of (batch, frames,
    n_mels). One that has a single input takes that by itself, too: `generator(mel)`.

    A subclass has explicit constructor arguments, among them `audio` and `n_mels`, and
    `weight_norm` if it has any; its `get_config` returns them. Its waveforms are float32 whatever
    the precision.

    It is a body and, in most, a head, `vocoder.heads`; and it may begin with what the mel itself
    says of the magnitudes (`prior`), instead of learning that from nothing.

    Args:
        audio: Fields of `AudioConfig`; they travel inside the saved model, so that it alone is
            enough to make audio. None for a network that only runs on mels made elsewhere.
        n_mels: Bands of the mel; None for those of `audio`.
        hop_length: Samples that the network makes of a frame.
        reason: The argument that sets `hop_length`, with its value, for the message.
        suggest: Called with the hop length of `audio`, says what would make it, for the same;
            None if that can't be said.
        head: The layer that makes samples of what the body makes, if it is one.
        prior: "mel" adds the log magnitudes that the mel stands for
            (`vocoder.audio.mel.mel_to_magnitude`) to those that the body makes for the head. Needs
            `audio`, and a head of its window and hop length. None for nothing.

    Attributes:
        inputs: Names of the features that it takes.
        rematerialization: Whether what is inside the blocks is computed once more for the gradient,
            instead of kept for it. It is training's business, so that no config has it.

    Raises:
        ValueError: "argument: reason", if the network does not fit `audio`.
    """

    inputs = ("mel",)
    rematerialization = False

    def __init__(
        self, audio, n_mels, hop_length, reason, suggest=None, head=None, prior=None,
        **model_arguments,
    ):  # fmt: skip
        super().__init__(**model_arguments)
        check_precision("dtype", self.dtype_policy.name)
        self.audio = _audio(audio)
        if n_mels is None:
            n_mels = self.audio.n_mels if self.audio else 80
        check_whole("n_mels", n_mels, 1, MOST_BANDS)
        check_whole("hop_length", hop_length, 1, MOST_SAMPLES)
        self.n_mels = n_mels
        self.hop_length = hop_length
        if self.audio and self.audio.n_mels != n_mels:
            raise ValueError(f"n_mels: {n_mels} is not audio.n_mels ({self.audio.n_mels})")
        if self.audio and self.audio.hop_length != hop_length:
            raise ValueError(
                f"{reason} makes {hop_length} samples of a frame, "
                f"but audio.hop_length is {self.audio.hop_length}"
                + (f"; {suggest(self.audio.hop_length)} would do" if suggest else "")
            )
        if prior is not None:
            _check_prior(prior, head, self.audio)
        self.head = head
        self.prior = prior

    def __call__(self, features, *arguments, **keywords):
        if not isinstance(features, Mapping) and len(self.inputs) == 1:
            features = {self.inputs[0]: features}
        return super().__call__(features, *arguments, **keywords)

    @property
    def input_shapes(self) -> dict[str, tuple]:
        """Shape of each of its `inputs`, batch and frames being None."""
        return {"mel": (None, None, self.n_mels)}

    @property
    def receptive_field(self) -> tuple[int, int]:
        """Frames before and after a frame that its samples depend on."""
        raise NotImplementedError

    def samples(self, x, features):
        """What the head makes of what the body has made of the features."""
        if self.prior is not None:
            mel = ops.cast(features["mel"], "float32")
            magnitude = ops.log(mel_to_magnitude(mel, self.audio))
            others = self.head.channels - self.head.bins
            x = ops.cast(x, "float32") + ops.pad(magnitude, [[0, 0], [0, 0], [0, others]])
        return self.head(x)

    def remat(self, block, x):
        """What a block makes of `x`, with or without `rematerialization`."""
        return keras.remat(block)(x) if self.rematerialization else block(x)

    def folded(self):
        """The same network in float32 without weight normalisation, for inference."""
        config = self.get_config() | {"dtype": "float32"}
        if "weight_norm" in config:
            config["weight_norm"] = False
        twin = type(self).from_config(config)
        for generator in (self, twin):
            if not generator.built:
                generator.build(self.input_shapes)
        fold_weights(self, twin)
        return twin


def _check_prior(prior, head, audio):
    if prior != "mel":
        raise ValueError(f'prior: must be "mel" or null, not {prior!r}')
    if not isinstance(head, SpectralHead):
        raise ValueError("prior: needs a head of magnitudes, istft or griffin_lim; null would do")
    window = (audio.n_fft, audio.win_length, audio.hop_length) if audio else None
    if window == (head.n_fft, head.n_fft, head.hop_length):
        return
    way_out = "prior=null would do"
    if audio and audio.n_fft == audio.win_length and head.hop_length == audio.hop_length:
        with contextlib.suppress(ValueError):
            type(head)(**head.get_config() | {"n_fft": audio.n_fft})
            way_out = f"head.n_fft={audio.n_fft} or {way_out}"
    raise ValueError(
        "prior: needs an audio.n_fft, audio.win_length and audio.hop_length like head.n_fft "
        f"({head.n_fft}) and head.hop_length ({head.hop_length}); {way_out}"
    )


def _audio(settings) -> AudioConfig | None:
    if settings is None or isinstance(settings, AudioConfig):
        return settings
    known = {field.name for field in dataclasses.fields(AudioConfig)}
    if not isinstance(settings, Mapping) or not set(settings) <= known:
        raise ValueError(f"audio: must be a mapping of {', '.join(sorted(known))}, or null")
    try:
        return AudioConfig(**settings)
    except ValueError as error:
        raise ValueError(f"audio.{error}") from error
