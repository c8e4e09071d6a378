import pytest

from pixcli.cli.terminal import TerminalProgress, print_table
from pixcli.progress import Progress
from pixcli.system import peak_memory_mb


@pytest.mark.parametrize("progress", [Progress(), TerminalProgress()])
def test_phases_are_kept_in_order_and_nothing_is_shown_off_a_terminal(progress, capsys):
    with progress.phase("Reading") as update:
        update(1)
    with progress.phase("Aligning", total=10) as update:
        update(10)
    assert [phase.name for phase in progress.phases] == ["Reading", "Aligning"]
    assert all(phase.seconds >= 0 for phase in progress.phases)
    assert 1 < progress.phases[0].peak_memory_mb <= progress.phases[1].peak_memory_mb <= peak_memory_mb()
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_bar_shows_counts_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = TerminalProgress()
    with progress.phase("Aligning", total=10) as update:
        update(10)
    assert "Aligning" in capsys.readouterr().err
    assert progress.phases[0].name == "Aligning"


def test_a_phase_that_fails_is_not_counted():
    progress = Progress()
    with pytest.raises(ValueError, match="boom"), progress.phase("Reading"):
        raise ValueError("boom")
    assert progress.phases == []


def test_table_shows_every_cell_whole(capsys):
    print_table("Summary", ["what", "value"], [["keypoints", 12], ["a rather long name " * 4, "0.066 px"]])
    out = capsys.readouterr().out
    assert "Summary" in out
    assert ("a rather long name " * 4).strip() in out
    assert "12" in out
