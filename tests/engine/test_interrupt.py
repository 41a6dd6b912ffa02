"""Signals are remembered, or leave at once where nothing is kept."""

import os
import signal

import pytest

from src.engine.interrupt import Stop


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_remembered_and_leaves_where_nothing_is_kept(number: int, code: int) -> None:
    stop, before = Stop(), signal.getsignal(number)
    with stop.listening():
        os.kill(os.getpid(), number)
        assert stop.signal == number
        with pytest.raises(SystemExit) as left, stop.leaving():
            raise AssertionError("the signal came before the block")
        assert left.value.code == code
    assert signal.getsignal(number) == before


def test_a_signal_within_such_work_ends_it() -> None:
    stop = Stop()
    with stop.listening():
        with pytest.raises(SystemExit), stop.leaving():
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal was not heard")
        os.kill(os.getpid(), signal.SIGTERM)  # outside of it another one changes nothing
        assert stop.signal == signal.SIGTERM


def test_a_second_ctrl_c_leaves_at_once() -> None:
    child = os.fork()
    if not child:
        with Stop().listening():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 130
