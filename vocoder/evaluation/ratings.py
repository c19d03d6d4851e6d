"""Networks trained on listeners' ratings: they hear what is synthesised alone.

By the package `speechmos`, which brings the weights with it, at 16 kHz; scales are 1 to 5.
"""

import numpy as np

from vocoder.evaluation.metric import Measure, Metric, at_16k, imported


class DNSMOS(Metric):
    """DNSMOS P.835 (overall, signal, background; Reddy et al. 2022) and P.808 (Reddy et al. 2021).

    Made for noise suppression.
    """

    measures = (
        Measure("dnsmos_overall", "DNSMOS overall", "", True),
        Measure("dnsmos_signal", "DNSMOS signal", "", True),
        Measure("dnsmos_background", "DNSMOS background", "", True),
        Measure("dnsmos_p808", "DNSMOS P.808", "", True),
    )

    def __init__(self):
        self._dnsmos = imported("speechmos.dnsmos")

    def compute(self, reference, synthesised, sample_rate):
        found = self._dnsmos.run(at_16k(synthesised, sample_rate), 16_000)
        return [found[f"{name}_mos"] for name in ("ovrl", "sig", "bak", "p808")]


class PLCMOS(Metric):
    """PLCMOS v2 (Diener et al. 2023), made for the concealment of lost packets.

    It is the mean over fifteen listeners, which the package draws at random; here always the same.
    """

    measures = (Measure("plcmos", "PLCMOS", "", True),)

    def __init__(self):
        self._plcmos = imported("speechmos.plcmos")

    def compute(self, reference, synthesised, sample_rate):
        before = np.random.get_state()  # noqa: NPY002  # the package draws from there
        np.random.seed(0)  # noqa: NPY002
        try:
            return (self._plcmos.run(at_16k(synthesised, sample_rate), 16_000)["plcmos"],)
        finally:
            np.random.set_state(before)  # noqa: NPY002
