"""Progress: plain lines in a log, one rewritten line on a terminal, the truth at the end."""

import io

import pytest

from segthor import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_last_line_that_is_true():
    done, stream = [], io.StringIO()
    with progress.watch(lambda: len(done), 3, "patients", stream):
        done.extend("abc")
    assert stream.getvalue().startswith("3 of 3 patients")
    assert "\r" not in stream.getvalue()


def test_a_terminal_gets_one_line(monkeypatch):
    monkeypatch.setattr(progress, "_TERMINAL_SECONDS", 0.01)
    done, stream = [], Terminal()
    with progress.watch(lambda: len(done), 3, "patients", stream):
        while stream.getvalue().count("\r") < 3:
            pass
        done.extend("abc")
    assert stream.getvalue().count("\n") == 1 and stream.getvalue().endswith("\n")
    assert "3 of 3 patients" in stream.getvalue().split("\r")[-1]


def test_the_line_ends_even_where_the_work_fails():
    stream = Terminal()
    with pytest.raises(RuntimeError), progress.watch(lambda: 1, 3, "patients", stream):
        raise RuntimeError
    assert stream.getvalue().endswith("\n")


def test_rate_and_time_left_count_from_what_was_there_at_the_start():
    assert progress.line(10, 10, 50, "patients", 5) == "10 of 50 patients"
    line = progress.line(10, 20, 50, "patients", 5)
    assert line == "20 of 50 patients, 2 per second, 15 s left"
    assert progress.line(0, 50, 50, "patients", 5) == "50 of 50 patients, 10 per second"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (5300, "88 min"), (11100, "3 h 05 min")],
)
def test_durations_are_for_people(seconds, text):
    assert progress.duration(seconds) == text
