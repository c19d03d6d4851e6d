import numpy as np
import soundfile

from vocoder.training.log import RunLog, picture, read_losses


def test_rows_of_steps_to_come_are_dropped(tmp_path):
    log = RunLog(tmp_path, ["loss", "mel"])
    log.scalars("validation", 0, {"loss": 3.0, "mel": 2.0})
    for step in (1, 2, 3):
        log.scalars("train", step, {"loss": 1.0 / step, "mel": 0.5, "learning_rate": 1e-3})
    resumed = RunLog(tmp_path, ["loss", "mel", "added"], start_step=2)
    resumed.scalars("validation", 3, {"loss": 0.25, "mel": 0.125, "added": 1.0})
    rows = read_losses(tmp_path)
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[1]["learning_rate"] == "0.001" and rows[1]["added"] == ""
    table = resumed.table().splitlines()
    assert table[0].split() == ["validation", "step", "0", "step", "3"]
    assert ["mel", "2.0000", "0.1250"] in [line.split() for line in table]


def test_sample_is_written_as_sound(tmp_path, rng):
    log = RunLog(tmp_path, ["loss"])
    wave, mel = 0.5 * np.ones(2048), rng.standard_normal((8, 80))
    original, synthesised = log.sample(7, "deep/er/a.flac", wave, 3 * wave, mel, mel, 22050)
    assert original.name == "deep_er_a_original.wav" and original.parent == synthesised.parent
    np.testing.assert_allclose(soundfile.read(original)[0], 0.5, atol=1e-4)
    np.testing.assert_allclose(soundfile.read(synthesised)[0], 1.0, atol=1e-4)  # clipped


def test_picture_shows_the_difference(rng):
    mel = rng.standard_normal((50, 80))
    same, other = picture(mel, mel), picture(mel, mel + 2)
    assert same.dtype == np.uint8 and same.ndim == 3 and same.shape[-1] == 3
    third = same.shape[0] * 2 // 3
    assert (same[third:] != other[third:]).mean() > 0.1
