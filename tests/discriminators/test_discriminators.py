import keras
import numpy as np
import pytest
import tensorflow as tf

from vocoder.discriminators import (
    CombinedDiscriminator,
    MultiPeriodDiscriminator,
    MultiResolutionDiscriminator,
    MultiScaleDiscriminator,
)
from vocoder.discriminators.multi_period import fold
from vocoder.discriminators.multi_scale import halve

NARROW_SCALE = {
    "channels": (8, 8, 16, 16),
    "kernel_sizes": (15, 41, 41, 5),
    "strides": (1, 2, 4, 1),
    "groups": (1, 4, 8, 1),
}
BANDS = {
    "n_fft": (256, 128),
    "hop_length": (64, 32),
    "win_length": (256, 128),
    "channels": (4, 4),
    "kernel_sizes": ((3, 9), (3, 3)),
    "strides": ((1, 2), (1, 1)),
    "spectrum": "complex",
    "bands": (0, 0.1, 0.25, 0.5, 0.75, 1),
    "peak": 0.8,
    "slope": 0.1,
}
NARROW = {
    "period": lambda **a: MultiPeriodDiscriminator((2, 3), (4, 8), (5, 5), (3, 1), **a),
    "scale": lambda **a: MultiScaleDiscriminator(**NARROW_SCALE, **a),
    "resolution": lambda **a: MultiResolutionDiscriminator(channels=(4,) * 5, **a),
    "bands": lambda **a: MultiResolutionDiscriminator(**BANDS, **a),
    "all": lambda **a: CombinedDiscriminator(
        [NARROW[k](**a) for k in ("period", "scale", "bands")], **a
    ),
}


@pytest.fixture(params=NARROW)
def make(request):
    return NARROW[request.param]


def waveforms(rng, batch=2, samples=2048):
    return (0.1 * rng.standard_normal((batch, samples))).astype(np.float32)


def arrays(maps):
    return {name: [np.asarray(one) for one in maps[name]] for name in maps}


@pytest.mark.parametrize(("index", "count"), [(0, 41_105_770), (1, 29_618_821)])
def test_equals_the_original(index, count, original_discriminators, golden):
    reference = golden("discriminators")
    discriminator = original_discriminators.parts[index]
    assert sum(np.prod(variable.shape) for variable in discriminator.trainable_variables) == count
    for side in ("true", "pred"):
        maps = arrays(discriminator(reference[f"y_{side}"]))
        for i, name in enumerate(discriminator.sub_discriminators):
            # The original's order is (time, period).
            score = maps[name][-1][..., 0].transpose(0, 2, 1).reshape(2, -1)
            key = f"{discriminator.name}_{i}_score_{side}"
            np.testing.assert_allclose(score, reference[key], atol=1e-4)
            if side == "true":
                means = [one.mean() for one in maps[name]]
                expected = reference[f"{discriminator.name}_feature_means_true"][i]
                np.testing.assert_allclose(means, expected, atol=1e-4)


def test_one_contract(make, rng):
    discriminator = make()
    maps = discriminator(waveforms(rng, 3))
    assert list(maps) == discriminator.sub_discriminators
    for features in maps.values():
        assert all(len(one.shape) == 4 and one.shape[0] == 3 for one in features)
        assert features[-1].shape[-1] == 1


def test_names():
    names = {
        name
        for cls in (MultiPeriodDiscriminator, MultiScaleDiscriminator, MultiResolutionDiscriminator)
        for name in cls().sub_discriminators
    }
    assert names == {
        *("mpd_2", "mpd_3", "mpd_5", "mpd_7", "mpd_11", "msd_1", "msd_2", "msd_4"),
        *("mrd_1024", "mrd_2048", "mrd_512"),
    }


def test_lengths_may_be_unknown_while_tracing(make, rng):
    discriminator, y = make(), waveforms(rng, samples=2047)
    traced = tf.function(discriminator, input_signature=[tf.TensorSpec((None, None))])
    expected = arrays(discriminator(y))
    for name, features in arrays(traced(y)).items():
        np.testing.assert_allclose(features[-1], expected[name][-1], atol=1e-5)


def test_examples_do_not_mix(make, rng):
    discriminator, y = make(), waveforms(rng, 3)
    together, alone = arrays(discriminator(y)), arrays(discriminator(y[1:2]))
    for name, features in alone.items():
        for one, of_three in zip(features, together[name], strict=True):
            np.testing.assert_allclose(one[0], of_three[1], atol=1e-5)


def test_only_training_changes_anything_and_only_the_singular_vectors(make, rng):
    discriminator, y = make(), waveforms(rng)
    discriminator.build()
    before = discriminator.get_weights()
    discriminator(y)
    for one, other in zip(before, discriminator.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    for _ in range(2):  # the vector v starts as the first iteration leaves it
        discriminator(y, training=True)
    names = {
        variable.name
        for variable, values in zip(discriminator.weights, before, strict=True)
        if not np.array_equal(variable, values)
    }
    scales = any(name.startswith("msd") for name in discriminator.sub_discriminators)
    assert names == ({"u", "v"} if scales else set())


def test_finite_at_silence(make):
    discriminator = make()
    discriminator.build()
    silence = tf.Variable(tf.zeros((1, 2048)))
    with tf.GradientTape() as tape:
        maps = discriminator(silence)
        total = sum(tf.reduce_sum(tf.square(one - 1)) for f in maps.values() for one in f)
    gradients = tape.gradient(total, [silence, *discriminator.trainable_variables])
    assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_silence_is_not_lifted_to_the_peak():
    """The gradient at silence would be some 1e8 times that at speech."""
    discriminator = NARROW["bands"]()
    discriminator.build()
    wave = np.cos(0.3 * np.arange(2048)).astype(np.float32)[None]

    def norm(level):
        y = tf.Variable(level * wave)
        with tf.GradientTape() as tape:
            total = sum(tf.reduce_sum(maps[-1]) for maps in discriminator(y).values())
        return float(tf.norm(tape.gradient(total, y)))

    assert max(map(norm, (0.0, 1e-8, 1e-5))) < 1e4 * norm(0.1)


@pytest.mark.parametrize(("name", "fewest"), [("period", 1), ("scale", 1), ("bands", 97)])
def test_short_waveforms(name, fewest, rng):
    discriminator = NARROW[name]()
    for features in discriminator(waveforms(rng, samples=fewest)).values():
        assert all(np.isfinite(one).all() for one in features)
    if fewest > 1:
        with pytest.raises(ValueError, match="waveform: 96 samples .* n_fft=256; 97 or more can"):
            discriminator(waveforms(rng, samples=fewest - 1))


def test_keras_file_carries_everything(make, rng, tmp_path):
    discriminator, y = make(), waveforms(rng)
    discriminator(y, training=True)
    expected = arrays(discriminator(y))
    discriminator.save(tmp_path / "d.keras")
    loaded = keras.saving.load_model(tmp_path / "d.keras")
    if make is not NARROW["all"]:  # which also holds how its parts were built
        assert loaded.get_config() == discriminator.get_config()
    for name, features in arrays(loaded(y)).items():
        for one, other in zip(features, expected[name], strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_scores_are_float32_in_mixed_precision(make, precision, rng):
    discriminator, y = make(dtype=precision), waveforms(rng)
    exact = make()
    exact.build(), discriminator.build()
    discriminator.set_weights(exact.get_weights())
    expected = exact(y)
    for name, features in discriminator(y, training=True).items():
        kinds = [keras.backend.standardize_dtype(one.dtype) for one in features]
        assert kinds == [precision.removeprefix("mixed_")] * (len(features) - 1) + ["float32"]
        assert np.corrcoef(np.ravel(features[-1]), np.ravel(expected[name][-1]))[0, 1] > 0.95


def test_fold_reflects_to_a_whole_period():
    folded = np.asarray(fold(np.arange(7.0, dtype=np.float32)[None], 3))[0, ..., 0]
    np.testing.assert_array_equal(folded, [[0, 3, 6], [1, 4, 5], [2, 5, 4]])
    shorter = np.asarray(fold(np.arange(2.0, dtype=np.float32)[None], 5))[0, ..., 0]
    np.testing.assert_array_equal(shorter[:, 0], [0, 1, 0, 1, 0])


def test_halve_counts_the_zeros():
    halved = np.asarray(halve(np.ones((1, 1, 6, 1), np.float32)))[0, 0, :, 0]
    np.testing.assert_array_equal(halved, [0.5, 1, 1, 0.5])


def test_magnitudes_and_bands_in_closed_form():
    """A cosine in the middle of a bin has the height of half the window's sum there."""
    wave = np.cos(2 * np.pi * 16 / 256 * np.arange(2048)).astype(np.float32)[None]
    magnitude = MultiResolutionDiscriminator((256,), (64,), (256,))._spectrum(wave, 256, 64, 256)
    assert magnitude.shape == (1, 2048 // 64, 129, 1)
    inner = np.asarray(magnitude)[0, 4:-4, :, 0]
    np.testing.assert_allclose(inner[:, 16], 64, rtol=1e-3)
    assert inner[:, 19:].max() < 0.1
    # Whatever the loudness and the mean, a peak gives the same complex spectrum.
    discriminator = NARROW["bands"]()
    quiet, loud = (arrays(discriminator(c * wave + c / 7)) for c in (0.01, 0.5))
    for name, features in quiet.items():
        assert len(features) == 5 * 2 + 1
        widths = [one.shape[2] for one in features[0:10:2]]
        assert sum(widths) == pytest.approx(features[-1].shape[2])
        np.testing.assert_allclose(features[-1], loud[name][-1], atol=1e-4)


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (MultiPeriodDiscriminator, {"periods": ()}, "periods: "),
        (MultiPeriodDiscriminator, {"periods": (0,)}, "periods: "),
        (MultiPeriodDiscriminator, {"channels": ()}, "channels: "),
        (MultiPeriodDiscriminator, {"strides": (3,)}, "strides: 1 of them for 5 channels"),
        (MultiPeriodDiscriminator, {"score_kernel_size": 4}, "kernel_sizes: 4 is not odd"),
        (MultiPeriodDiscriminator, {"norm": "batch"}, "norm: .* not 'batch'"),
        (MultiScaleDiscriminator, {"norms": ()}, "norms: "),
        (MultiScaleDiscriminator, {"norms": ("weigth",)}, "norms: .* not 'weigth'"),
        (MultiScaleDiscriminator, {"groups": (1, 3, 1, 1, 1, 1, 1)}, "groups: 3 does not divide"),
        (MultiResolutionDiscriminator, {"n_fft": (512,)}, "n_fft: "),
        (MultiResolutionDiscriminator, {"win_length": (2048,) * 3}, "win_length: 2048"),
        (MultiResolutionDiscriminator, {"spectrum": "power"}, "spectrum: "),
        (MultiResolutionDiscriminator, {"bands": (0, 0.5)}, "bands: "),
        (MultiResolutionDiscriminator, {"peak": 0}, "peak: "),
        (CombinedDiscriminator, {"parts": []}, "parts: "),
    ],
)
def test_refuses(cls, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        cls(**arguments)


def test_two_parts_of_one_name_are_refused():
    with pytest.raises(ValueError, match="^parts: mpd_2 is there twice"):
        CombinedDiscriminator([NARROW["period"](), NARROW["period"]()])
    both = CombinedDiscriminator([NARROW["period"](), NARROW["period"](name="other")])
    assert both.sub_discriminators == ["mpd_2", "mpd_3", "other_2", "other_3"]
