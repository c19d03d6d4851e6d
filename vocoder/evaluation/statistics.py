"""What the values of some clips say of all: intervals of means, and tests of differences."""

from typing import NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST = 6  # clips whose p-value can be below 0.05: two sided, 2 / 2^6


class Mean(NamedTuple):
    """A mean with its bootstrap interval; NaN where there are too few values for either."""

    mean: float
    low: float
    high: float
    count: int


def mean(values: np.ndarray) -> Mean:
    """The mean of the values that are defined, and its 95% interval over the choice of clips.

    Percentiles of the means of 10,000 samples with replacement (Efron 1979), always the same ones.

    Args:
        values: (clips,); NaN where not defined.
    """
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return Mean(values.mean() if len(values) else np.nan, np.nan, np.nan, len(values))
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, 10_000_000 // len(values)),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Mean(values.mean(), found.low, found.high, len(values))


def p_value(differences: np.ndarray) -> float:
    """Wilcoxon's signed-rank test: how likely differences as these are if neither side is better.

    Args:
        differences: (clips,), of two systems on the same clips; NaN where not defined.

    Returns:
        Two-sided; 1 if nothing differs, NaN without two clips.
    """
    differences = differences[np.isfinite(differences)]
    if len(differences) < 2:
        return np.nan
    return stats.wilcoxon(differences).pvalue if differences.any() else 1.0


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """p-values of many tests, of which some are small by chance alone, by Benjamini and Hochberg.

    Of the differences with an adjusted value below 0.05, one in twenty is expected to be none.
    NaN stays NaN.
    """
    result = np.array(p_values, np.float64)
    defined = np.isfinite(result)
    if defined.any():
        result[defined] = stats.false_discovery_control(result[defined])
    return result
