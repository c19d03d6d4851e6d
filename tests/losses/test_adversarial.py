"""The losses on feature maps, and a whole step's figures of the original."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from hifigan_recipe import parameters

from vocoder.errors import InputError
from vocoder.losses import (
    FeatureMatchingLoss,
    HingeDiscriminatorLoss,
    HingeLoss,
    LeastSquaresDiscriminatorLoss,
    LeastSquaresLoss,
    MultiLoss,
    ScoreAccuracy,
)
from vocoder.losses.terms import build_discriminator_loss, build_multi_loss

LOSSES = {
    "least_squares": LeastSquaresLoss(),
    "least_squares_discriminator": LeastSquaresDiscriminatorLoss(),
    "hinge": HingeLoss(),
    "hinge_discriminator": HingeDiscriminatorLoss(),
    "feature_matching": FeatureMatchingLoss(),
    "feature_matching_relative": FeatureMatchingLoss(relative=True, score=False),
}


@pytest.fixture(params=LOSSES)
def loss(request):
    return LOSSES[request.param]


def maps(rng, batch=3):
    return [rng.standard_normal((batch, 2, 5, c)).astype(np.float32) for c in (4, 3, 1)]


def filled(value, batch=2):
    return [np.full((batch, 2, 5, c), value, np.float32) for c in (4, 3, 1)]


@pytest.mark.parametrize(
    ("name", "real", "synthesised", "expected"),
    [
        ("least_squares", 0, 0, 1),
        ("least_squares", 9, 3, 4),
        ("least_squares", 9, 1, 0),  # the minimum
        ("least_squares_discriminator", 1, 0, 0),  # the minimum
        ("least_squares_discriminator", 3, 0, 4),
        ("least_squares_discriminator", 0.5, 0.5, 0.5),
        ("least_squares_discriminator", 1, -3, 9),
        ("hinge", 9, 1, 0),  # the minimum, and beyond it
        ("hinge", 9, 5, 0),
        ("hinge", 9, -2, 3),
        ("hinge_discriminator", 1, -1, 0),  # the minimum, and beyond it
        ("hinge_discriminator", 4, -2, 0),
        ("hinge_discriminator", 0, 0, 2),
        ("hinge_discriminator", -1, 2, 5),
        ("feature_matching", 1, 1, 0),  # the minimum
        ("feature_matching", 1, 3, 6),  # three maps
        ("feature_matching_relative", 4, 5, 0.5),  # two maps, a quarter each
    ],
)
def test_closed_form(name, real, synthesised, expected):
    value = float(LOSSES[name](filled(real), filled(synthesised)))
    assert value == pytest.approx(expected, abs=1e-6)


def test_mean_over_examples_is_that_of_the_halves(loss, rng):
    true, pred = maps(rng, 4), maps(rng, 4)
    halves = [
        float(loss([m[i : i + 2] for m in true], [m[i : i + 2] for m in pred])) for i in (0, 2)
    ]
    assert float(loss(true, pred)) == pytest.approx(np.mean(halves), rel=1e-5)


def test_feature_matching_is_a_mean_of_each_map(rng):
    true, pred = maps(rng), maps(rng)
    expected = sum(np.mean(abs(a - b)) for a, b in zip(true, pred, strict=True))
    assert float(FeatureMatchingLoss()(true, pred)) == pytest.approx(expected, rel=1e-5)
    without = expected - np.mean(abs(true[-1] - pred[-1]))
    assert float(FeatureMatchingLoss(score=False)(true, pred)) == pytest.approx(without, rel=1e-5)


def test_relative_feature_matching_is_bounded_where_the_recording_has_no_features():
    loss = LOSSES["feature_matching_relative"]
    for value in (1.0, 1e-3):
        assert float(loss(filled(0), filled(value))) == pytest.approx(2 * 10)
        assert float(loss(filled(0.2 * value), filled(value))) == pytest.approx(2 * 4, rel=1e-5)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_gradients_are_finite(loss, value):
    true = [tf.constant(one) for one in filled(value)]
    pred = [tf.Variable(one) for one in filled(value)]
    with tf.GradientTape() as tape:
        tape.watch(true)
        total = loss(true, pred)
    of_true, of_pred = tape.gradient(total, [true, pred], unconnected_gradients="zero")
    assert all(np.isfinite(gradient).all() for gradient in (*of_true, *of_pred))
    if isinstance(loss, FeatureMatchingLoss):
        assert not any(np.any(gradient) for gradient in of_true)


def test_config_round_trip(loss, rng):
    twin = keras.losses.deserialize(keras.losses.serialize(loss))
    true, pred = maps(rng), maps(rng)
    assert twin.name == loss.name
    assert float(twin(true, pred)) == float(loss(true, pred))


def test_accuracy_counts_scores_on_the_right_side():
    score = np.array([0.4, 0.6, 0.7, 0.5], np.float32).reshape(1, 1, 4, 1)
    both = {"a": [None, score], "b": [None, score - 1]}
    both = {name: [np.zeros((1, 1, 1, 1)), one[-1]] for name, one in both.items()}
    assert float(ScoreAccuracy("real", 0.5)(both, both)) == pytest.approx((0.5 + 0) / 2)
    assert float(ScoreAccuracy("synthesised", 0.5)(both, both)) == pytest.approx((0.25 + 1) / 2)
    assert float(ScoreAccuracy("real", 0.0)(both, both)) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="^side: "):
        ScoreAccuracy("fake", 0.5)


TERMS = {
    "mel": {"loss": "mel", "weight": 45, "padding": "same"},
    "feature_matching": {"loss": "feature_matching", "weight": 2},
    "adversarial": {"loss": "least_squares", "weight": 1},
}


def test_every_sub_discriminator_has_a_curve(rng):
    subs = ("mpd_2", "msd_1")
    multi = build_multi_loss({"terms": TERMS}, 22050, 4096, subs)
    names = [metric.name for metric in multi.metrics]
    assert names == [
        *("mel", "feature_matching", "feature_matching/mpd_2", "feature_matching/msd_1"),
        *("adversarial", "adversarial/mpd_2", "adversarial/msd_1"),
    ]
    real, fake = ({sub: maps(rng) for sub in subs} for _ in range(2))
    true, pred = 0.1 * rng.standard_normal((2, 3, 4096)).astype(np.float32)
    of_true, of_pred = ({"waveform": w, "features": f} for w, f in ((true, real), (pred, fake)))
    values = {name: float(value) for name, value in multi.compute(of_true, of_pred)[1].items()}
    expected = sum(np.mean((1 - fake[sub][-1]) ** 2) for sub in subs)
    assert values["adversarial"] == pytest.approx(expected, rel=1e-5)
    twin = MultiLoss.from_config(json.loads(json.dumps(multi.get_config())))
    assert [metric.name for metric in twin.metrics] == names

    discriminator = build_discriminator_loss(multi)
    total, values = discriminator.compute(real, fake)
    values = {name: float(value) for name, value in values.items()}
    assert list(values) == [
        *("discriminator", "discriminator/mpd_2", "discriminator/msd_1"),
        *("discriminator/accuracy_real", "discriminator/accuracy_synthesised"),
    ]
    assert float(total) == pytest.approx(values["discriminator"])
    assert float(total) == pytest.approx(
        values["discriminator/mpd_2"] + values["discriminator/msd_1"]
    )
    share = np.mean([real[sub][-1] > 0.5 for sub in subs])
    assert values["discriminator/accuracy_real"] == pytest.approx(share)
    twin = MultiLoss.from_config(json.loads(json.dumps(discriminator.get_config())))
    assert float(twin(real, fake)) == pytest.approx(float(total))


def test_the_hinge_has_a_hinge_on_the_other_side():
    terms = TERMS | {"adversarial": {"loss": "hinge"}}
    loss = build_discriminator_loss(build_multi_loss({"terms": terms}, 22050, 4096, ["a"]))
    total, parts = loss.compute({"a": filled(0.2)}, {"a": filled(-0.4)})
    assert float(total) == pytest.approx(0.8 + 0.6)
    assert float(parts["discriminator/accuracy_real"]) == 1  # 0.2 is above 0


@pytest.mark.parametrize("name", ["adversarial", "feature_matching"])
def test_terms_that_need_discriminators_say_so(name):
    terms = {"mel": TERMS["mel"], name: TERMS[name]}
    message = f"^loss.terms.{name}: needs discriminators; discriminator=mpd_msd, for example$"
    with pytest.raises(InputError, match=message):
        build_multi_loss({"terms": terms}, 22050, 4096)


@pytest.mark.parametrize("count", [0, 2])
def test_discriminators_need_one_adversarial_term(count):
    terms = {"mel": TERMS["mel"], "feature_matching": TERMS["feature_matching"]}
    terms |= {f"adversarial_{i}": TERMS["adversarial"] for i in range(count)}
    multi = build_multi_loss({"terms": terms}, 22050, 4096, ["a"])
    with pytest.raises(InputError, match=f"^loss.terms: .* one adversarial term, not {count}; "):
        build_discriminator_loss(multi)


def of(values, term, kind):
    """The sum over MPD's or MSD's sub-discriminators."""
    return sum(float(v) for name, v in values.items() if name.startswith(f"{term}/{kind}_"))


def built(discriminators):
    return build_multi_loss({"terms": TERMS}, 22050, 4096, discriminators.sub_discriminators)


def test_losses_equal_the_original(original_discriminators, golden):
    discriminators, loss = original_discriminators, built(original_discriminators)
    reference = golden("discriminators")
    real, fake = (discriminators(reference[f"y_{side}"]) for side in ("true", "pred"))
    wave = reference["y_true"]
    _, parts = loss.compute(
        {"waveform": wave, "features": real}, {"waveform": wave, "features": fake}
    )
    _, judged = build_discriminator_loss(loss).compute(real, fake)
    for kind in ("mpd", "msd"):
        expected = {
            name: float(reference[f"{kind}_{name}_loss"]) for name in ("generator", "feature")
        }
        assert of(parts, "adversarial", kind) == pytest.approx(expected["generator"], rel=1e-4)
        matching = 2 * of(parts, "feature_matching", kind)
        assert matching == pytest.approx(expected["feature"], rel=1e-4)
        assert of(judged, "discriminator", kind) == pytest.approx(
            float(reference[f"{kind}_discriminator_loss"]), rel=1e-4
        )


def test_a_step_equals_the_original(original_discriminators, golden):
    discriminators, loss = original_discriminators, built(original_discriminators)
    reference = golden("gan_step")
    true, pred = reference["audio"], reference["wav"][None]
    of_discriminator = build_discriminator_loss(loss)
    with tf.GradientTape() as tape:
        both = discriminators(np.concatenate([true, pred]))
        real = keras.tree.map_structure(lambda one: one[:1], both)
        fake = keras.tree.map_structure(lambda one: one[1:], both)
        total, judged = of_discriminator.compute(real, fake)
    for kind in ("mpd", "msd"):
        value = of(judged, "discriminator", kind)
        assert value == pytest.approx(float(reference[f"loss_{kind}"]), rel=1e-4)
    named = {name: variable for part in discriminators.parts for name, variable in parameters(part)}
    names = [str(name) for name in reference["discriminator_grad_names"]]
    gradients = tape.gradient(total, [named[name].value for name in names])
    norms = [float(tf.norm(gradient)) for gradient in gradients]
    np.testing.assert_allclose(norms, reference["discriminator_grad_norms"], rtol=1e-3)

    total, parts = loss.compute(
        {"waveform": true, "features": real}, {"waveform": pred, "features": fake}
    )
    assert float(total) == pytest.approx(float(reference["total"]), rel=1e-4)
    for name, factor in {"feature_matching": 2, "adversarial": 1}.items():
        value = factor * float(parts[name])
        assert value == pytest.approx(float(reference[name]), rel=1e-4)
