"""No test of another package's own suite fails that passes without us."""

from __future__ import annotations

import pytest
from suites import SUITES, new_failures, outcome, unpacked

pytestmark = pytest.mark.packages


@pytest.mark.parametrize("package", SUITES)
def test_no_test_of_a_suite_fails_that_passes_without_us(package, tmp_path):
    pytest.importorskip(package)
    suite = SUITES[package]
    folder = unpacked(suite, tmp_path)
    plain, fast = (outcome(suite, folder, fast) for fast in (False, True))
    assert not new_failures(suite, plain, fast)
    assert fast.loops is not None
