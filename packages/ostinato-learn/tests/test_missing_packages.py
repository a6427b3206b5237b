from __future__ import annotations

import subprocess
import sys

import pytest

from zoo.suites import one_in


@pytest.mark.process
@pytest.mark.parametrize("missing", one_in(2, ["torch", "sklearn"]))
def test_without_the_torch_extra_the_estimators_say_what_to_install(missing):
    script = f"import sys; sys.modules[{missing!r}] = None; import ostinato_learn.estimators"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f"needs {missing}: pip install 'ostinato-learn[torch]'" in result.stderr
