import pytest

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


@pytest.mark.parametrize(("arguments", "count"), [(V1, 13_926_017), (V2, 925_985), (V3, 1_462_273)])
def test_published_parameter_counts(arguments, count):
    generator = HiFiGAN(**arguments, weight_norm=False)
    generator.build((None, None, 80))
    assert generator.count_params() == count


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
        ({"head": {"name": "istft", "n_fft": 16, "hop_length": 5}}, r"head\.hop_length: "),
        ({"head": {"name": "istft", "phase": "cosine"}}, r"head\.phase: "),
        ({"prior": "mel", "audio": {}}, "prior: needs a head of magnitudes"),
        ({"audio": {"hop_length": 300}}, "upsample_rates: 8 x 8 x 2 x 2 makes 256 .* is 300"),
        ({"audio": {}, "n_mels": 100}, "n_mels: 100 is not audio.n_mels"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        HiFiGAN(**arguments)
