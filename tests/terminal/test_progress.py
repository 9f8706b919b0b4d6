"""What a training shows of itself."""

from ipucnn.core.progress import Status
from ipucnn.terminal import tables
from ipucnn.terminal.progress import RunProgress, TrainProgress, brief, describe

STATUS = Status("training", 12, 100, 1234, 5004, 2.08123, 13.8, 0.0125, 1234.4, 0.012, 45296.0)


def test_the_bar_has_everything_in_eighty_columns():
    text = brief(STATUS)
    assert text == ("12/100 1234/5004 loss 2.081 acc 13.8% lr 0.0125 1234 img/s data 1% "
                    "12:34:56 left")
    assert len(text) <= 80


def test_the_line_has_what_old_scripts_parse():
    assert describe(STATUS) == (
        "epoch 12/100, call 1234/5004 | Loss:2.0812 | Accuracy:13.80% | lr 0.0125 | "
        "1234.4 img/s | waiting for data 1% | 12:34:56 left")
    assert describe(Status("validating", 3, done=8, total=24)) == \
        brief(Status("validating", 3, done=8, total=24)) == "validating epoch 3: 8 of 24 images"
    assert describe(Status("preparing")) == "preparing"


def test_lines_without_a_bar_are_rare_and_can_be_left_out(monkeypatch, capsys):
    for choice, lines in (("auto", 1), ("off", 0)):
        monkeypatch.setattr(tables, "LINE_INTERVAL", 0.0)  # the first is due
        training, running = TrainProgress(choice), RunProgress(choice)
        monkeypatch.setattr(tables, "LINE_INTERVAL", 600.0)
        with running as report:
            for done in range(3):
                report("run", done, 9)
                training.status(Status("preparing"))
        assert capsys.readouterr().err.splitlines() == ["0 of 9 images", "preparing"] * lines
