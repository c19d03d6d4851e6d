import numpy as np
import soundfile
from running import scalars

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


def test_metrics_have_columns_tags_and_rows_of_their_own(tmp_path):
    log = RunLog(tmp_path, ["loss", "mel"], metrics=["pesq_wb", "mcd", "f0_rmse"])
    nan = float("nan")
    log.scalars("validation", 0, {"loss": 3.0, "pesq_wb": nan, "mcd": 9.5, "f0_rmse": nan})
    log.scalars("validation", 2, {"loss": nan, "pesq_wb": 1.25, "mcd": 7.5, "f0_rmse": nan})
    first, second = read_losses(tmp_path)
    assert list(first)[2:7] == ["loss", "mel", "pesq_wb", "mcd", "f0_rmse"]
    # A loss that is no number is told; a metric that isn't defined has no point.
    assert (second["loss"], first["pesq_wb"], second["f0_rmse"]) == ("nan", "", "")
    _, tags = scalars(tmp_path, "validation")
    assert tags["metric/pesq_wb"] == {2: 1.25} and tags["metric/mcd"] == {0: 9.5, 2: 7.5}
    assert "metric/f0_rmse" not in tags and set(tags["loss/total"]) == {0, 2}
    table = [line.split() for line in log.table().splitlines()[1:]]
    assert ["pesq_wb", "-", "1.2500"] in table and ["mcd", "9.5000", "7.5000"] in table
    assert "f0_rmse" not in [line[0] for line in table]


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
