import keras
import numpy as np
import pytest

from vocoder.config import AudioConfig
from vocoder.generators import HiFiGAN

V1 = {}
V2 = {"upsample_initial_channel": 128}
V3 = {
    "upsample_rates": (8, 8, 4),
    "upsample_kernel_sizes": (16, 16, 8),
    "upsample_initial_channel": 256,
    "resblock": 2,
    "resblock_kernel_sizes": (3, 5, 7),
    "resblock_dilation_sizes": ((1, 2), (2, 6), (3, 12)),
}
TINY = {
    "tiny1": V1 | {"upsample_initial_channel": 16},
    "tiny2": V3 | {"upsample_initial_channel": 16},
    "istft": {
        "upsample_rates": (8,),
        "upsample_kernel_sizes": (16,),
        "upsample_initial_channel": 16,
        "istft_n_fft": 128,
        "istft_hop_length": 32,
    },
}


def scrambled(generator, rng):
    """With random weights, also where they start at 0 or as weight normalisation's own norm."""
    generator.build((None, None, generator.n_mels))
    for variable in generator.trainable_variables:
        noise = rng.standard_normal(variable.shape)
        variable.assign(np.asarray(variable) * (1 + 0.3 * noise) + 0.02 * noise)
    return generator


@pytest.mark.parametrize(("arguments", "count"), [(V1, 13_926_017), (V2, 925_985), (V3, 1_462_273)])
def test_published_parameter_counts(arguments, count):
    generator = HiFiGAN(**arguments, weight_norm=False)
    generator.build((None, None, 80))
    assert generator.count_params() == count


@pytest.mark.parametrize("name", TINY)
def test_folding_changes_nothing(name, rng):
    generator = scrambled(HiFiGAN(**TINY[name]), rng)
    folded = generator.folded()
    mel = rng.standard_normal((2, 12, 80)).astype(np.float32)
    waveform = np.asarray(generator(mel))
    assert waveform.shape == (2, 12 * 256)
    np.testing.assert_allclose(folded(mel), waveform, atol=1e-5)
    assert "g" not in {variable.name for variable in folded.variables}


@pytest.mark.parametrize("name", TINY)
def test_receptive_field_is_never_exceeded(name, rng):
    generator = scrambled(HiFiGAN(**TINY[name]), rng)
    reach, frames = generator.receptive_field, 80
    mel = rng.standard_normal((1, frames, 80)).astype(np.float32)
    other = mel.copy()
    other[0, 40] += 10
    change = np.abs(np.asarray(generator(mel)) - np.asarray(generator(other)))
    changed = np.nonzero(change.reshape(frames, 256).max(axis=1))[0]
    assert changed.min() >= 40 - reach and changed.max() <= 40 + reach
    assert changed.max() - changed.min() >= 2 * reach - 6  # and it is no idle bound


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("weight_norm", [True, False])
def test_keras_file_carries_everything(name, weight_norm, rng, tmp_path):
    audio = AudioConfig(fmax=None)
    generator = HiFiGAN(**TINY[name], audio=vars(audio), weight_norm=weight_norm)
    scrambled(generator, rng).save(tmp_path / "generator.keras")
    loaded = keras.saving.load_model(tmp_path / "generator.keras")
    assert loaded.audio == audio
    mel = rng.standard_normal((1, 9, 80)).astype(np.float32)
    np.testing.assert_array_equal(loaded(mel), generator(mel))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["tiny2", "istft"])
def test_mixed_precision_ends_in_float32(name, precision, rng):
    mel = rng.standard_normal((1, 9, 80)).astype(np.float32)
    generator = scrambled(HiFiGAN(**TINY[name], dtype=precision), rng)
    assert generator.conv_pre.compute_dtype == precision.removeprefix("mixed_")
    assert keras.backend.standardize_dtype(generator(mel).dtype) == "float32"
    assert generator.folded().conv_pre.compute_dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"upsample_rates": (8, 8, 2)}, "upsample_kernel_sizes: 4 of them for 3"),
        ({"upsample_rates": ()}, "upsample_rates: "),
        ({"upsample_kernel_sizes": (15, 16, 4, 4)}, "upsample_kernel_sizes: 15"),
        ({"upsample_initial_channel": 100}, "upsample_initial_channel: 100"),
        ({"resblock": 3}, "resblock: "),
        ({"resblock_kernel_sizes": (3, 7, 10)}, "resblock_kernel_sizes: "),
        ({"resblock_kernel_sizes": (3, 7)}, "resblock_dilation_sizes: "),
        ({"istft_n_fft": 16}, "istft_n_fft: "),
        ({"istft_n_fft": 16, "istft_hop_length": 5}, "istft_hop_length: "),
        ({"audio": {"hop_length": 300}}, "upsample_rates: 8 x 8 x 2 x 2 makes 256 .* is 300"),
        ({"audio": {}, "n_mels": 100}, "n_mels: 100 is not audio.n_mels"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        HiFiGAN(**arguments)
