"""Quality and intelligibility by models of hearing: PESQ and STOI."""

import math
import warnings

import numpy as np

from vocoder.evaluation.metric import Measure, Metric, at_16k, imported

# Seconds. The code of ITU-T has room for 50 utterances, does not look, and crashes with more; an
# utterance and the pause that ends it last 0.4 s at least, so that these can't be more than 45.
_STRETCH = 18


class PESQ(Metric):
    """Perceptual evaluation of speech quality, wide-band, ITU-T P.862.2; 1.04 to 4.64.

    By the package `pesq`, at 16 kHz, so that nothing above 8 kHz counts. Clips beyond 18 s are
    rated in stretches of equal length, whose mean it is. Not defined where there is no speech in
    the recording, or no sound at all in what is rated.
    """

    measures = (Measure("pesq_wb", "PESQ-wb", "", True),)

    def __init__(self):
        self._pesq = imported("pesq")

    def compute(self, reference, synthesised, sample_rate):
        pair = [at_16k(x, sample_rate) for x in (reference, synthesised)]
        count = math.ceil(len(pair[0]) / (_STRETCH * 16_000))
        stretches = zip(*(np.array_split(x, count) for x in pair), strict=True)
        values = [value for pair in stretches if not math.isnan(value := self._rate(*pair))]
        return (np.mean(values) if values else np.nan,)

    def _rate(self, reference, synthesised):
        if not (reference.any() and synthesised.any()):
            return math.nan
        try:
            return self._pesq.pesq(16_000, reference, synthesised, "wb")
        except (self._pesq.PesqError, ValueError):  # the latter of sound that is next to none
            return math.nan


class STOI(Metric):
    """Short-time objective intelligibility, 0 to 1; Taal et al. 2011.

    By the package `pystoi`, which works at 10 kHz. Not defined where less than 0.4 s of the
    recording are not silence.
    """

    measures = (Measure("stoi", "STOI", "", True),)

    def __init__(self):
        self._stoi = imported("pystoi").stoi

    def compute(self, reference, synthesised, sample_rate):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return (self._stoi(reference, synthesised, sample_rate),)
            except RuntimeWarning:  # it would say 1e-5
                return (np.nan,)
