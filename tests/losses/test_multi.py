import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from vocoder.losses import LossCfg, MelLoss, MultiLoss, STFTLoss, WaveformL1Loss


def three_parts(**arguments):
    return MultiLoss(
        [
            LossCfg("mse", 2.0, "mse"),
            LossCfg(WaveformL1Loss(), 3.0, "l1"),
            LossCfg(STFT_256, 0.5, "stft"),
        ],
        **arguments,
    )


STFT_256 = {
    "class_name": "vocoder>STFTLoss",
    "config": {"n_fft": 256, "hop_length": 64, "win_length": 256},
}


def small_model(multi, dtype="float32", **compile_arguments):
    inputs = keras.Input((16,))
    outputs = keras.layers.Dense(1024, dtype=dtype)(inputs)
    model = keras.Model(inputs, keras.layers.Activation("tanh", dtype="float32")(outputs))
    model.compile("sgd", loss=multi, metrics=multi.metrics, **compile_arguments)
    return model


@pytest.fixture
def data(rng):
    x = rng.standard_normal((12, 16)).astype(np.float32)
    y = (0.3 * rng.standard_normal((12, 1024))).astype(np.float32)
    return x, y


def by_hand(model, x, y):
    pred = model.predict(x, verbose=0)
    multi = three_parts()
    parts = {part.name: float(part.loss(y, pred)) for part in multi.parts}
    total = 2 * parts["mse"] + 3 * parts["l1"] + 0.5 * parts["stft"]
    return parts | {"loss": total}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_shows_total_and_unweighted_parts(data, jit_compile):
    x, y = data
    model = small_model(three_parts(), jit_compile=jit_compile)
    expected = by_hand(model, x, y)
    result = model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)  # 5 + 5 + 2
    assert result == pytest.approx(expected, rel=1e-5)
    history = model.fit(x, y, validation_data=(x, y), epochs=2, batch_size=12, verbose=0).history
    names = {"loss", "mse", "l1", "stft"}
    assert set(history) == names | {f"val_{name}" for name in names}
    assert {name: history[name][0] for name in names} == pytest.approx(expected, rel=1e-5)
    assert history["loss"][1] < history["loss"][0]
    assert history["val_mse"][1] == pytest.approx(by_hand(model, x, y)["mse"], rel=1e-5)


class Counting(keras.losses.Loss):
    calls = 0

    def call(self, y_true, y_pred):
        Counting.calls += 1
        return tf.raw_ops.Cumsum(x=tf.abs(y_true - y_pred), axis=1)[:, -1]


def test_each_part_is_computed_once_a_step(data):
    x, y = data
    multi = MultiLoss([LossCfg(Counting(), 1.0, "a"), LossCfg(Counting(), 0.0, "b")])
    model = small_model(multi, run_eagerly=True)
    Counting.calls = 0
    model.fit(x, y, batch_size=4, epochs=1, verbose=0)
    assert Counting.calls == 2 * 3  # two parts, three steps
    Counting.calls = 0
    model.evaluate(x, y, batch_size=4, verbose=0)
    assert Counting.calls == 2 * 3


def test_each_part_is_traced_once(data):
    x, y = data
    multi = MultiLoss([LossCfg(Counting(), 1.0, "a"), LossCfg(Counting(), 1.0, "b")])
    model = small_model(multi)
    model.evaluate(x[:4], y[:4], verbose=0)  # builds the metrics
    step = tf.function(lambda batch: model.test_step(batch))
    graph = step.get_concrete_function((tf.constant(x[:4]), tf.constant(y[:4]))).graph
    operations = [operation.type for operation in graph.get_operations()]
    assert operations.count("Cumsum") == 2


def test_weight_zero_watches_without_training(data):
    x, y = data
    multi = MultiLoss([LossCfg("mse", 1.0, "mse"), LossCfg(WaveformL1Loss(), 0.0, "l1")])
    alone = MultiLoss([LossCfg("mse", 1.0, "mse")])
    models = [small_model(multi), small_model(alone)]
    models[1].set_weights(models[0].get_weights())
    histories = [
        model.fit(x, y, batch_size=12, verbose=0, shuffle=False).history for model in models
    ]
    assert histories[0]["l1"][0] > 0
    assert histories[0]["loss"] == histories[1]["loss"]
    for a, b in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nan_of_a_watched_part_stays_out_of_the_total():
    def broken(y_true, y_pred):
        return y_pred[:, 0] * float("nan")

    multi = MultiLoss([LossCfg("mse", 1.0), LossCfg(broken, 0.0)])
    pred = tf.Variable(tf.ones((2, 8)))
    with tf.GradientTape() as tape:
        total = multi(tf.zeros((2, 8)), pred)
    assert np.isfinite(total) and np.isfinite(tape.gradient(total, pred)).all()


def test_sample_weight(data):
    x, y = data
    weight = np.arange(12, dtype=np.float32)
    model = small_model(three_parts())
    result = model.evaluate(x, y, sample_weight=weight, batch_size=12, verbose=0, return_dict=True)
    error = y - model.predict(x, verbose=0)
    assert result["mse"] == pytest.approx(float(np.mean(weight * np.mean(error**2, 1))), rel=1e-4)
    assert result["l1"] == pytest.approx(float(np.mean(weight * np.mean(abs(error), 1))), rel=1e-4)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(data, precision):
    x, y = data
    model = small_model(three_parts(), dtype=precision)
    history = model.fit(x, y, epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0]
    assert model.loss(tf.zeros((1, 512)), tf.zeros((1, 512), "float16")).dtype == tf.float32


def test_config_round_trip_is_plain_data(data):
    multi = three_parts()
    config = json.loads(json.dumps(multi.get_config()))
    twin = MultiLoss.from_config(config)
    assert [(p.name, p.weight) for p in twin.parts] == [(p.name, p.weight) for p in multi.parts]
    assert not set(map(id, twin.metrics)) & set(map(id, multi.metrics))
    true, pred = data[1][:2], data[1][2:4]
    assert float(twin(true, pred)) == float(multi(true, pred))


def test_keras_file_keeps_losses_and_metrics_together(data, tmp_path):
    x, y = data
    model = small_model(three_parts())
    model.fit(x, y, verbose=0)
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    model.save(tmp_path / "model.keras")
    first, second = (keras.saving.load_model(tmp_path / "model.keras") for _ in range(2))
    for loaded in (first, second, model):
        assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(before)
    first.fit(x, y, verbose=0)
    assert second.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(before)


def structured(**arguments):
    inner = MultiLoss(
        [LossCfg("mse", 2.0, "a", of="a"), LossCfg(WaveformL1Loss(), 0.0, "b", of="b")],
    )
    return MultiLoss(
        [
            LossCfg("mse", 1.0, "wave", of="wave"),
            LossCfg(inner, 3.0, "inner", of="maps"),
            LossCfg(both_maps, 0.0, "watched", of="maps"),
        ],
        **arguments,
    )


@keras.saving.register_keras_serializable("tests")
def both_maps(y_true, y_pred):
    return sum(abs(y_pred[key] - y_true[key])[:, 0] for key in ("a", "b"))


def structures(wave=1.0, a=2.0, b=5.0, batch=2):
    zeros = tf.zeros((batch, 4))
    true = {"wave": zeros, "maps": {"a": zeros, "b": zeros}}
    return true, keras.tree.map_structure(
        lambda value: tf.Variable(tf.fill((batch, 4), value)),
        {"wave": wave, "maps": {"a": a, "b": b}},
    )


NESTED = {"wave": 1, "inner": 8, "inner/a": 4, "inner/b": 5, "watched": 7}


def test_nested_parts_of_a_structure():
    multi = structured()
    true, pred = structures()
    with tf.GradientTape() as tape:
        total, parts = multi.compute(true, pred)
    assert float(total) == 1 + 3 * 2 * 4
    assert {name: float(value) for name, value in parts.items()} == NESTED
    assert float(multi(true, pred)) == float(total)
    assert [metric.name for metric in multi.metrics] == list(NESTED)
    # What only parts of weight 0 take, at either level, has no gradient.
    gradients = tape.gradient(total, [pred["wave"], pred["maps"]["a"], pred["maps"]["b"]])
    assert [gradient is None for gradient in gradients] == [False, False, True]
    np.testing.assert_allclose(gradients[1], np.full((2, 4), 3 * 2 * 2 * 2 / 8))
    multi(*structures(wave=3.0, batch=4))  # means are over examples
    assert float(multi.metrics[0].result()) == pytest.approx((2 * 1 + 4 * 9) / 6)
    assert float(multi.metrics[2].result()) == 4


def test_nested_config_round_trip():
    multi = structured()
    twin = MultiLoss.from_config(json.loads(json.dumps(multi.get_config())))
    assert float(twin(*structures())) == float(multi(*structures()))
    assert twin.get_config() == multi.get_config()
    assert [metric.name for metric in twin.metrics] == list(NESTED)


class Structured(keras.Model):
    """Makes a structure, and compares it itself: `compile` wants losses and metrics by output."""

    def __init__(self, multi):
        super().__init__()
        self.wave, self.a, self.b = (keras.layers.Dense(4) for _ in range(3))
        self.multi = multi
        self.of_parts = multi.metrics

    def call(self, x):
        return {"wave": self.wave(x), "maps": {"a": self.a(x), "b": self.b(x)}}

    def compute_loss(self, x, y, y_pred, sample_weight=None, training=True):
        return self.multi({"wave": y, "maps": {"a": y, "b": y}}, y_pred)


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_nested_parts_on_two_replicas_equal_those_on_one(two_replicas, rng):
    x, y = (rng.standard_normal((8, 4)).astype(np.float32) for _ in range(2))
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            model = Structured(structured())
            model.compile("sgd")
        history = model.fit(x, y, batch_size=8, epochs=2, verbose=0, shuffle=False).history
        results.append({name: values[1] for name, values in history.items()})
    assert set(results[0]) == {*NESTED, "loss"}
    assert results[1] == pytest.approx(results[0], rel=1e-5)


def two_outputs(kind, x, y):
    """A functional model of two outputs, as a dict, a list or a tuple, and what they should be."""
    inputs = keras.Input((16,))
    outputs = [keras.layers.Dense(1024, name=name)(inputs) for name in ("low", "high")]
    if kind is dict:
        outputs = dict(zip(("low", "high"), outputs, strict=True))
        return keras.Model(inputs, outputs), {"low": y, "high": -y}, ("low", "high")
    return keras.Model(inputs, kind(outputs)), kind([y, -y]), (0, 1)


@pytest.mark.parametrize("kind", [dict, list, tuple])
def test_a_model_of_several_outputs(kind, data, tmp_path):
    x, y = data
    model, y, (low, high) = two_outputs(kind, x, y)
    multi = MultiLoss(
        [
            LossCfg("mse", 2.0, "a", of=low),
            LossCfg("mae", 3.0, "b", of=high),
            LossCfg("mse", 0.0, "c", of=high),
        ]
    )
    metrics = {"low": multi.metrics} if kind is dict else [multi.metrics, None]
    model.compile("sgd", loss=(multi,) if kind is list else [multi], metrics=metrics)
    made = model.predict(x, verbose=0)
    expected = {
        "low_a": np.mean((made[low] - y[low]) ** 2),
        "low_b": np.mean(abs(made[high] - y[high])),
        "low_c": np.mean((made[high] - y[high]) ** 2),
    }
    expected["loss"] = 2 * expected["low_a"] + 3 * expected["low_b"]
    found = model.evaluate(x, y, batch_size=5, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    history = model.fit(x, y, epochs=2, batch_size=12, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected["loss"], rel=1e-5)
    assert history["low_a"][1] < history["low_a"][0] and history["low_b"][1] < history["low_b"][0]
    if kind is not dict:
        return  # Keras saves lists and tuples as one and the same
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    before = model.evaluate(x, y, verbose=0, return_dict=True)
    assert loaded.evaluate(x, y, verbose=0, return_dict=True) == pytest.approx(before, rel=1e-5)


def test_a_loss_that_keras_calls_output_by_output_says_what_works(data):
    model, y, _ = two_outputs(dict, *data)
    multi = MultiLoss([LossCfg("mse", of="low"), LossCfg("mae", of="high")])
    model.compile("sgd", loss=multi, metrics=multi.metrics)
    with pytest.raises(ValueError, match=r"of='low', but y_pred is a single .*loss=\[multi\]"):
        model.fit(data[0], y, verbose=0)


def test_an_entry_that_is_not_there_is_told():
    true, pred = structures()
    for of in ("wav", 0):
        multi = MultiLoss([LossCfg("mse", 1, "a", of="wave"), LossCfg("mse", 1, "b", of=of)])
        with pytest.raises(ValueError, match=rf"^b: takes of={of!r}, but y_pred has \['wave', 'm"):
            multi(true, pred)
    with pytest.raises(ValueError, match=r"^b: takes of=2, but y_pred has \[0, 1\] alone"):
        MultiLoss([LossCfg("mse", 1, "b", of=2)])([1, 2], [1, 2])
    del true["wave"]
    with pytest.raises(ValueError, match=r"^wave: takes of='wave', but y_true has \['maps'\]"):
        structured()(true, pred)


def test_an_entry_that_is_none_leaves_its_parts_out():
    multi = structured()
    true, pred = structures()
    total, parts = multi.compute(true, pred | {"maps": None})
    assert float(total) == 1 and list(parts) == ["wave"]
    assert float(multi(true, pred | {"maps": None})) == 1
    assert [float(metric.result()) for metric in multi.metrics] == [1, 0, 0, 0, 0]


def test_names_come_from_the_losses():
    multi = MultiLoss([LossCfg("mse"), LossCfg(MelLoss()), LossCfg(keras.losses.Huber())])
    names = [metric.name for metric in multi.metrics]
    assert names == ["mean_squared_error", "mel", "huber_loss"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MultiLoss([]), "parts: "),
        (lambda: MultiLoss([LossCfg("mse"), LossCfg("mse")]), "name: 'mean_squared_error'"),
        (lambda: MultiLoss([LossCfg("mse", 1, "loss")]), "name: 'loss'"),
        (
            lambda: MultiLoss(
                [LossCfg(MultiLoss([LossCfg("mse", 1, "x")]), 1, "a"), LossCfg("mse", 1, "a/x")]
            ),
            "name: 'a/x' is taken",
        ),
        (lambda: LossCfg("mse", -1), "weight: .* not -1"),
        (lambda: LossCfg("mse", float("nan")), "weight: .* not nan"),
        (lambda: LossCfg(3), "loss: 3"),
        (lambda: LossCfg("no_such_loss"), "no_such_loss"),
    ],
)
def test_refuses(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_parts_on_two_replicas_equal_those_on_one(two_replicas, data):
    """Keras divides each loss by the number of replicas; what is shown must not be."""
    x, y = data
    results = []
    for strategy in (tf.distribute.get_strategy(), two_replicas):
        with strategy.scope():
            keras.utils.set_random_seed(1)
            model = small_model(
                MultiLoss(
                    [LossCfg("mse", 2.0, "mse"), LossCfg(STFTLoss(256, 64, 256), 0.5, "stft")]
                )
            )
        fit = model.fit(x, y, batch_size=12, epochs=3, verbose=0, shuffle=False).history
        evaluation = model.evaluate(x, y, batch_size=12, verbose=0, return_dict=True)
        results.append((fit, evaluation))
    (fit, evaluation), (fit_two, evaluation_two) = results
    for name in fit:
        assert fit_two[name] == pytest.approx(fit[name], rel=1e-5)
    assert evaluation_two == pytest.approx(evaluation, rel=1e-5)
