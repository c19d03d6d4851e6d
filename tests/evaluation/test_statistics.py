import numpy as np
import pytest

from vocoder.evaluation import statistics


def test_interval_of_normal_values(rng):
    values = rng.normal(3, 2, 400)
    found = statistics.mean(values)
    error = values.std() / np.sqrt(len(values))
    assert found.mean == values.mean() and found.count == 400
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert statistics.mean(values) == found  # the same each time


def test_interval_of_few_values():
    # Samples of (0, 1) with replacement have the means 0, 1/2, 1 with chances 1/4, 1/2, 1/4.
    assert statistics.mean(np.array([0.0, 1.0])) == (0.5, 0.0, 1.0, 2)
    assert statistics.mean(np.full(5, 2.0)) == (2.0, 2.0, 2.0, 5)
    one = statistics.mean(np.array([np.nan, 7.0]))
    assert one.mean == 7 and np.isnan([one.low, one.high]).all() and one.count == 1
    none = statistics.mean(np.array([np.nan]))
    assert np.isnan(none.mean) and none.count == 0


def test_paired_test(rng):
    # All six of one sign: two of the 2^6 ways to choose signs are as extreme.
    assert statistics.p_value(np.arange(1.0, 7)) == pytest.approx(2 / 2**6)
    assert statistics.p_value(np.append(np.arange(1.0, 7), np.nan)) == pytest.approx(2 / 2**6)
    fewest = np.arange(1.0, statistics.FEWEST + 1)
    assert statistics.p_value(fewest) < 0.05 < statistics.p_value(fewest[:-1])
    assert statistics.p_value(np.zeros(6)) == 1
    assert np.isnan(statistics.p_value(np.array([1.0, np.nan])))
    # Where clips differ far more than systems, pairs still tell these apart.
    clips = rng.normal(3, 1, 30)
    better = clips + 0.05 + rng.normal(0, 0.02, 30)
    assert statistics.p_value(better - clips) < 1e-4
    assert statistics.p_value(rng.normal(0, 1, 30)) > 0.05


def test_adjusted():
    found = statistics.adjusted(np.array([0.04, 0.01, np.nan, 0.02]))
    np.testing.assert_allclose(found, [0.04, 0.03, np.nan, 0.03])  # p * 3 / rank, made monotone
    assert np.isnan(statistics.adjusted(np.array([np.nan]))).all()
    assert len(statistics.adjusted(np.array([]))) == 0


def test_noise_is_not_read_as_a_difference(rng):
    p_values = [statistics.p_value(rng.normal(0, 1, 20)) for _ in range(50)]
    assert min(p_values) < 0.05  # by chance
    assert min(statistics.adjusted(np.array(p_values))) > 0.05
