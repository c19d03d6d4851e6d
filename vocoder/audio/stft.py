"""The short-time Fourier transform of a batch of waveforms, and its inverse, in `keras.ops`."""

import numpy as np
from keras import ops

from vocoder.audio.settings import frame_margins

# Root mean square of what counts as silence, where something is divided by a level: -70 dB below
# full scale, the absolute gate of loudness measurement (ITU-R BS.1770). Dither of 16 bits is 20 dB
# below it.
SILENCE = 10 ** (-70 / 20)


def pad_reflect(x, left: int, right: int):
    """Reflects `left` and `right` samples at the ends of (batch, samples), as `numpy.pad` does.

    Fewer samples than that are reflected over and over, and a single one is repeated.
    """
    length = ops.shape(x)[1]
    if isinstance(length, int) and length > max(left, right):
        return ops.pad(x, [[0, 0], [left, right]], mode="reflect")
    # The backends' own reflection reaches no further than the length, which may be unknown here.
    last, period = length - 1, ops.maximum(2 * (length - 1), 1)
    before, after = (
        ops.take(x, last - ops.abs(ops.mod(positions, period) - last), axis=1)
        for positions in (ops.arange(-left, 0), ops.arange(length, length + right))
    )
    return ops.concatenate([before, x, after], axis=1)


def stft(x, n_fft: int, hop_length: int, win_length: int, center: bool = True):
    """The STFT with a periodic Hann window.

    Args:
        x: (batch, samples), float32.
        n_fft, hop_length, win_length: Samples.
        center: Reflect n_fft / 2 samples at both ends; otherwise the frames lie within `x`.

    Returns:
        Real and imaginary parts, each (batch, frames, n_fft / 2 + 1).

    Raises:
        ValueError: There is not one frame.
    """
    if center:
        x = pad_reflect(x, n_fft // 2, n_fft // 2)
    length = ops.shape(x)[1]
    if isinstance(length, int) and length < n_fft:
        raise ValueError(
            f"waveform: {length} samples, with what is reflected, are fewer than n_fft ({n_fft})"
        )
    # Our own window, since TensorFlow's, computed in float32, is off by up to 2e-7.
    window = hann(win_length).astype("float32")
    return ops.stft(x, win_length, hop_length, n_fft, window=window, center=False)


def power_spectrogram(x, n_fft: int, hop_length: int, win_length: int, center: bool = True):
    """Squared magnitudes of `stft`, (batch, frames, n_fft / 2 + 1)."""
    real, imaginary = stft(x, n_fft, hop_length, win_length, center)
    return ops.square(real) + ops.square(imaginary)


def hann(length: int) -> np.ndarray:
    """The periodic Hann window, float64."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)


def inverse_dft_matrix(n_fft: int) -> np.ndarray:
    """(2 * (n_fft / 2 + 1), n_fft): real parts, then imaginary parts, to windowed samples.

    `concatenate([real, imaginary]) @ matrix` is the inverse real FFT times a periodic Hann window:
    one matrix product, which is small beside the rest of a vocoder.
    """
    bins = np.arange(n_fft // 2 + 1)[:, None]
    angle = 2 * np.pi * bins * np.arange(n_fft)[None, :] / n_fft
    # Every bin but the first and the last stands for itself and its mirror image.
    scale = np.where((bins == 0) | (bins == n_fft // 2), 1.0, 2.0) / n_fft
    return np.concatenate([scale * np.cos(angle), -scale * np.sin(angle)]) * hann(n_fft)


def overlap_add(frames, hop_length: int):
    """Sums frames that begin `hop_length` samples after one another.

    Args:
        frames: (batch, frames, frame_length), frame_length a multiple of `hop_length`.

    Returns:
        (batch, (frames - 1) * hop_length + frame_length).
    """
    _, count, length = ops.shape(frames)
    overlap = length // hop_length
    pieces = ops.reshape(frames, (-1, count, overlap, hop_length))
    total = 0.0
    for i in range(overlap):
        total = total + ops.pad(pieces[:, :, i], [[0, 0], [i, overlap - 1 - i], [0, 0]])
    return ops.reshape(total, (-1, (count + overlap - 1) * hop_length))


def inverse_stft(real, imaginary, hop_length: int, padding: str = "same", with_fft: bool = False):
    """Waveform of a spectrogram whose frames are `hop_length` apart, by windowed overlap-add.

    The exact inverse of an STFT with the padding of `AudioConfig`, at the ends too: every frame
    stands for `hop_length` samples. The window is a periodic Hann window in analysis and
    synthesis, divided out by the sum of its squares, also where it is incomplete. There is no
    control flow in it, and if not asked for no FFT, which not every runtime has.

    Args:
        real, imaginary: (batch, frames, n_fft / 2 + 1), float32.
        hop_length: Samples; it divides n_fft at least twice, at least three times with "center".
        padding: "same": frame i begins (n_fft - hop_length) / 2 samples before sample
            i * hop_length, as in Vocos. "center": n_fft / 2 samples before it, as in
            `torch.istft`, which however ends where the last frame is centred, `hop_length` samples
            earlier.
        with_fft: By an FFT instead of a matrix: four times as fast on a CPU.

    Returns:
        (batch, frames * hop_length).
    """
    n_fft = 2 * (real.shape[-1] - 1)
    if with_fft:
        window = ops.convert_to_tensor(hann(n_fft), dtype="float32")
        frames = ops.irfft((real, imaginary), n_fft) * window
    else:
        matrix = ops.convert_to_tensor(inverse_dft_matrix(n_fft), dtype="float32")
        frames = ops.matmul(ops.concatenate([real, imaginary], axis=-1), matrix)
    squares = ops.convert_to_tensor(hann(n_fft) ** 2, dtype="float32")
    envelope = overlap_add(ops.ones_like(frames[:1, :, :1]) * squares, hop_length)
    cut, _ = frame_margins(n_fft, hop_length, padding)
    samples = ops.shape(real)[1] * hop_length
    signal = overlap_add(frames, hop_length)[:, cut : cut + samples]
    return signal / envelope[:, cut : cut + samples]
