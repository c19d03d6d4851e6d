"""F0, voicing and periodicity, as CARGAN (Morrison et al., arXiv:2110.10139) rates them."""

import numpy as np

from vocoder.evaluation.metric import Measure, Metric, imported

_PERIOD = 5.0  # ms between frames


class Pitch(Metric):
    """How far F0, voicing and periodicity are from those of the recording.

    f0_rmse: over the frames that are voiced in both, in cents; not defined if there are none.
    voicing_f1: harmonic mean of precision and recall of the voiced frames; not defined if no frame
    of either is voiced.
    periodicity_rmse: over all frames. Periodicity is 1 less the aperiodicity by D4C, mean over all
    frequencies; an unvoiced frame has 0. CARGAN takes the confidence of the CREPE network instead,
    whose figures are higher.

    By the package `pyworld`, a frame each 5 ms: F0 by DIO (71 to 800 Hz) and StoneMask.
    """

    measures = (
        Measure("f0_rmse", "F0 RMSE", "cents", False),
        Measure("voicing_f1", "V/UV F1", "", True),
        Measure("periodicity_rmse", "periodicity RMSE", "", False),
    )

    def __init__(self):
        self._world = imported("pyworld")

    def compute(self, reference, synthesised, sample_rate):
        (f0, periodicity), (f0_made, periodicity_made) = (
            self._analyse(x, sample_rate) for x in (reference, synthesised)
        )
        voiced, voiced_made = f0 > 0, f0_made > 0
        both = voiced & voiced_made
        f0_rmse = _rms(1200 * np.log2(f0_made[both] / f0[both])) if both.any() else np.nan
        count = voiced.sum() + voiced_made.sum()
        f1 = 2 * both.sum() / count if count else np.nan
        return f0_rmse, f1, _rms(periodicity_made - periodicity)

    def _analyse(self, x, sample_rate):
        """F0 in Hz, 0 where unvoiced, and periodicity, both (frames,)."""
        rough, times = self._world.dio(x, sample_rate, frame_period=_PERIOD)
        f0 = self._world.stonemask(x, rough, times, sample_rate)
        return f0, 1 - self._world.d4c(x, f0, times, sample_rate).mean(axis=1)


def _rms(x):
    return np.sqrt(np.mean(np.square(x)))
