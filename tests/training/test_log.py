"""What a run writes down, and what is left of it when it is begun or gone on from again."""

import os
import shutil

import numpy as np
import pytest
import soundfile
from running import scalars
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from vocoder.errors import InputError
from vocoder.training.log import RunLog, picture, read_losses


def steps_shown(run, split="validation"):
    """{tag: steps}, the same to both of TensorBoard's readers."""
    _, curves = scalars(run, split)
    other = EventAccumulator(str(run / "tensorboard" / split)).Reload()
    tags = other.Tags()["tensors"]
    steps = {tag: [event.step for event in other.Tensors(tag)] for tag in tags}
    assert steps == {tag: list(curve) for tag, curve in curves.items()}
    return steps


def sample(log, step, name="a.wav", level=0.5):
    wave, mel = level * np.ones(300), np.zeros((4, 10))
    return log.sample(step, name, wave, wave / (step + 2), mel, mel, 8000)


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


def write(log, steps):
    for step in steps:
        log.scalars("train", step, {"loss": 1.0 / step})
        if step % 2 == 0:
            sample(log, step)
            log.scalars("validation", step, {"loss": 1.0 / step})


def test_what_a_resumed_run_does_again_is_shown_once(tmp_path):
    log = RunLog(tmp_path, ["loss"])
    log.text("config", "first")
    sample(log, 0)
    write(log, range(1, 7))
    log = RunLog(tmp_path, ["loss"], start_step=6)
    write(log, range(7, 9))
    (tmp_path / "tensorboard/validation/.events.out.tfevents.partial").write_text("of a killed one")
    for _ in range(2):  # killed in between, before it has written a point
        log = RunLog(tmp_path, ["loss"], start_step=3)
        log.text("config", "second")
    assert steps_shown(tmp_path) == {
        "original/a": [0], "synthesised/a": [0, 2], "mel/a": [0, 2], "loss/total": [2],
    }  # fmt: skip
    assert steps_shown(tmp_path, "train") == {"config": [0, 4], "loss/total": [1, 2, 3]}
    assert [path.name for path in sorted((tmp_path / "samples").iterdir())] == [
        "step-00000000", "step-00000002",
    ]  # fmt: skip
    write(log, range(4, 6))
    assert steps_shown(tmp_path)["synthesised/a"] == [0, 2, 4]
    assert steps_shown(tmp_path, "train")["loss/total"] == [1, 2, 3, 4, 5]
    assert [row["step"] for row in read_losses(tmp_path)] == ["1", "2", "2", "3", "4", "4", "5"]


def test_a_new_run_has_no_curves_of_an_earlier_one(tmp_path):
    log = RunLog(tmp_path, ["loss"])
    log.scalars("validation", 0, {"loss": 5.0})
    write(log, range(1, 5))
    log = RunLog(tmp_path, ["loss"])
    assert read_losses(tmp_path) == [] and steps_shown(tmp_path) == steps_shown(tmp_path, "train")
    log.scalars("validation", 0, {"loss": 4.0})
    assert steps_shown(tmp_path) == {"loss/total": [0]}


def test_an_event_that_was_being_written_is_no_hindrance(tmp_path):
    log = RunLog(tmp_path, ["loss"])
    write(log, [1, 2])
    (path,) = (tmp_path / "tensorboard/train").iterdir()
    os.truncate(path, path.stat().st_size - 5)
    write(RunLog(tmp_path, ["loss"], start_step=2), [3])
    _, curves = scalars(tmp_path, "train")
    assert sorted(curves["loss/total"]) == [1, 3]  # of two files of one second


def test_values_of_a_term_that_is_gone_stay(tmp_path):
    log = RunLog(tmp_path, ["loss", "mel"])
    log.scalars("train", 1, {"loss": 3.0, "mel": 2.0})
    log = RunLog(tmp_path, ["loss", "stft"], start_step=1)
    log.scalars("train", 2, {"loss": 2.0, "stft": 1.0})
    for _ in range(2):
        rows = read_losses(tmp_path)
        assert [row["mel"] for row in rows] == ["2", ""]
        assert [row["stft"] for row in rows] == ["", "1"]
        log = RunLog(tmp_path, ["loss", "stft"], start_step=2)


HEAD = "step,split,loss\r\n"
DAMAGED = {
    "binary": (bytes(range(256)) * 40, []),
    "no_step": (b"split,loss\r\ntrain,1\r\n", []),
    "no_split": (b"step,loss\r\n1,1\r\n", []),
    "text_for_a_step": (f"{HEAD}1,train,1\r\nx,train,1\r\n2,train,1\r\n".encode(), ["1", "2"]),
    "text_for_a_loss": (f"{HEAD}1,train,a\r\n2,train,1\r\n".encode(), ["2"]),
    "split": (f"{HEAD}1,dev,1\r\n2,train,1\r\n".encode(), ["2"]),
    "long": (f"{HEAD}1,train,1,2,3\r\n2,train,1\r\n".encode(), ["2"]),
    "short": (f"{HEAD}1,train\r\n2,train,1\r\n".encode(), ["2"]),
    "zeros": (HEAD.encode() + b"1,train,1\r\n" + bytes(500) + b"\r\n2,train,1\r\n", ["1", "2"]),
    "field": (f"{HEAD}1,train,1\r\n2,train,{'9' * 200_000}\r\n".encode(), ["1"]),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_csv_is_kept_and_its_whole_rows_go_on(case, tmp_path, caplog):
    content, steps = DAMAGED[case]
    (tmp_path / "losses.csv").write_bytes(content)
    log = RunLog(tmp_path, ["loss"], start_step=5)
    assert [row["step"] for row in read_losses(tmp_path)] == steps
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"{tmp_path}/losses.csv: ") and "losses-damaged.csv" in line
    assert (tmp_path / "losses-damaged.csv").read_bytes() == content
    log.scalars("validation", 6, {"loss": 1.0})
    assert "6" in log.table()
    RunLog(tmp_path, ["loss"], start_step=6)
    assert len(caplog.records) == 1


def test_a_row_that_was_being_written_is_no_damage(tmp_path, caplog):
    (tmp_path / "losses.csv").write_text(f"{HEAD}1,train,1.5\r\n2,train,1.25\r\n3,tr")
    log = RunLog(tmp_path, ["loss"], start_step=2)
    assert [row["step"] for row in log.rows] == ["1", "2"] and not caplog.records


def test_a_csv_that_is_no_file_is_told(tmp_path):
    os.mkfifo(tmp_path / "losses.csv")
    with pytest.raises(InputError, match=rf"^{tmp_path}/losses\.csv: no regular file"):
        RunLog(tmp_path, ["loss"])


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


def originals(run):
    return sorted(str(path.relative_to(run)) for path in (run / "samples").rglob("*_original.wav"))


def test_originals_are_written_once(tmp_path):
    log = RunLog(tmp_path, ["loss"])
    first = sample(log, 0)[0]
    assert sample(log, 2)[0] == first
    log = RunLog(tmp_path, ["loss"], start_step=2)
    assert sample(log, 4)[0] == first
    assert originals(tmp_path) == ["samples/step-00000000/a_original.wav"]
    assert steps_shown(tmp_path)["original/a"] == [0]
    # Of another validation set what is new, and what has another sound.
    log = RunLog(tmp_path, ["loss"], start_step=4)
    sample(log, 6, level=0.25)
    sample(log, 6, "b.wav")
    expected = [f"samples/step-{step}_original.wav" for step in ("00000000/a", "00000006/a")]
    assert originals(tmp_path) == [*expected, "samples/step-00000006/b_original.wav"]
    shown = steps_shown(tmp_path)
    assert (shown["original/a"], shown["original/b"]) == ([0, 6], [6])
    assert shown["synthesised/a"] == [0, 2, 4, 6]


def test_originals_are_written_again_where_they_are_gone(tmp_path):
    sample(RunLog(tmp_path, ["loss"]), 1)
    for path in (tmp_path / "tensorboard/validation").iterdir():
        path.unlink()
    sample(RunLog(tmp_path, ["loss"], start_step=1), 2)
    assert steps_shown(tmp_path)["original/a"] == [2] and len(originals(tmp_path)) == 1
    # They began in a future that is abandoned.
    sample(RunLog(tmp_path, ["loss"], start_step=1), 3)
    assert steps_shown(tmp_path)["original/a"] == [3]
    for path in (tmp_path / "samples/step-00000001").iterdir():
        path.unlink()
    sample(RunLog(tmp_path, ["loss"], start_step=3), 5)
    assert originals(tmp_path) == ["samples/step-00000005/a_original.wav"]


NAMES = [
    "\u8bed" * 80 + ".wav",
    "\u8bed" * 79 + "\u97f3.wav",
    os.fsdecode(b"latin-\xe9.flac"),
    "latin-\\xe9.flac",
    "red\x1b[31m\n.wav",
    "a/b.wav",
    "a_b.wav",
    "x.wav",
    "x.flac",
    "X.wav",
    "e\u0301.wav",
    "\xe9.wav",
    "..wav",
    "%s [*]?.wav",
]


def test_every_name_can_be_written_and_is_told_from_the_others(tmp_path):
    log = RunLog(tmp_path, ["loss"])
    paths = [sample(log, 1, name) for name in NAMES]
    for kind in (0, 1):
        names = [pair[kind].name for pair in paths]
        assert len({name.casefold() for name in names}) == len(NAMES)
        assert all(name.isprintable() and len(name.encode()) < 240 for name in names)
        assert all(pair[kind].stat().st_size > 600 for pair in paths)
    assert names[6:8] == ["a_b-2_synthesised.wav", "x_synthesised.wav"]
    shown = steps_shown(tmp_path)
    assert len(shown) == 3 * len(NAMES)
    assert all(steps == [1] for steps in shown.values())


def test_a_synthesis_of_nan_is_no_sample(tmp_path):
    log = RunLog(tmp_path, ["loss"])
    wave, mel = np.zeros(300), np.zeros((4, 10))
    with pytest.raises(InputError, match="NaN or infinity"):
        log.sample(1, "a.wav", wave, wave + np.nan, mel, mel, 8000)
    assert not (tmp_path / "samples").exists()


def test_nothing_that_is_written_follows_a_link(tmp_path):
    run, mine = tmp_path / "run", tmp_path / "mine"
    log = RunLog(run, ["loss"])
    sample(log, 1)
    mine.write_text("precious")
    written = ["config.yaml", "losses.csv", ".losses.csv.partial", ".config.yaml.partial"]
    written += ["samples/step-00000001/a_original.wav", "samples/step-00000001/a_synthesised.wav"]
    for name in written:
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(mine)
    os.remove(run / "losses.csv")
    log = RunLog(run, ["loss"], start_step=1)
    log.keep("config.yaml", "a: 1")
    sample(log, 1)
    assert mine.read_text() == "precious" and (run / "config.yaml").read_text() == "a: 1"


def test_what_can_not_be_written_is_an_error_on_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file: can't be written .*[^\n]*$"):
        RunLog(tmp_path / "file", ["loss"])
    log = RunLog(tmp_path / "run", ["loss"])
    (tmp_path / "run/samples").write_text("")
    with pytest.raises(InputError, match=r"samples.*: can't be written"):
        sample(log, 1)
    (tmp_path / "run/losses.csv").unlink()
    (tmp_path / "run/losses.csv").mkdir()
    with pytest.raises(InputError, match=r"losses\.csv: can't be written .Is a directory"):
        log.scalars("train", 1, {"loss": 1.0})


def test_picture_shows_the_difference(rng):
    mel = rng.standard_normal((50, 80))
    same, other = picture(mel, mel), picture(mel, mel + 2)
    assert same.dtype == np.uint8 and same.ndim == 3 and same.shape[-1] == 3
    third = same.shape[0] * 2 // 3
    assert (same[third:] != other[third:]).mean() > 0.1


def test_hparams_stand_beside_the_figures_once(tmp_path):
    run = tmp_path / "r\udce9n"  # a name that is no text
    for start_step in (0, 2):  # the second goes on
        log = RunLog(run, ["loss"], start_step)
        log.hparams({"optimizer.learning_rate": 1e-3, "data.root": "\udce9", "seed": 3})
        log.scalars("validation", start_step + 1, {"loss": 0.5})
    (path,) = (run / "tensorboard").glob("*tfevents*")
    events = EventAccumulator(str(shutil.copy(path, tmp_path / path.name))).Reload()
    assert events.PluginTagToContent("hparams").keys() == {metadata.SESSION_START_INFO_TAG}
    content = events.PluginTagToContent("hparams")[metadata.SESSION_START_INFO_TAG]
    found = metadata.parse_session_start_info_plugin_data(content).hparams
    assert found["optimizer.learning_rate"].number_value == 1e-3
    assert found["data.root"].string_value == "\\xe9" and found["seed"].number_value == 3
