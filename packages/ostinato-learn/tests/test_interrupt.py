from __future__ import annotations

import signal
import threading

import pytest

from ostinato_learn.interrupt import Interrupt, Terminated, sigterm_unwinds


def test_the_first_ctrl_c_is_a_request_and_the_second_is_at_once():
    with pytest.raises(KeyboardInterrupt), Interrupt() as interrupt:
        signal.raise_signal(signal.SIGINT)
        assert interrupt.requested
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("not reached")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_request_that_nobody_acted_on_is_not_lost():
    after = []
    with pytest.raises(KeyboardInterrupt), Interrupt():
        signal.raise_signal(signal.SIGINT)
        after.append("went on")
    assert after == ["went on"]


def test_another_error_is_not_hidden():
    with pytest.raises(ZeroDivisionError), Interrupt():
        signal.raise_signal(signal.SIGINT)
        _ = 1 / 0


def test_a_program_that_handles_ctrl_c_itself_goes_on_doing_so():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1] and not interrupt.requested


def test_other_threads_may_train():
    errors = []

    def work():
        try:
            with Interrupt() as interrupt:
                assert not interrupt.requested
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert errors == []


def test_sigterm_is_a_request_however_often_it_comes():
    with pytest.raises(Terminated) as caught, Interrupt() as interrupt:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert interrupt.requested
    assert caught.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_sigterm_unwinds_once_outside_of_a_training():
    unwound = []
    with pytest.raises(Terminated), sigterm_unwinds():
        try:
            with Interrupt():
                pass
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            unwound.append("to the end")
    assert unwound == ["to the end"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
