from __future__ import annotations

import subprocess
import sys

import pytest

from ostinato._extras import needs
from zoo.suites import one_in


def test_a_missing_package_is_named_with_the_command():
    with (
        pytest.raises(ImportError, match=r"needs nosuch: pip install '\.\[torch\]'") as caught,
        needs("torch", "nosuch"),
    ):
        import nosuch  # noqa: F401
    assert caught.value.name == "nosuch"


def test_other_failing_imports_stay_as_they_are():
    with (
        pytest.raises(ModuleNotFoundError, match="No module named 'other'"),
        needs("torch", "nosuch"),
    ):
        import other  # noqa: F401


@pytest.mark.process
@pytest.mark.parametrize("missing", one_in(2, ["torch", "sklearn"]))
def test_without_the_torch_extra_the_estimators_say_what_to_install(missing):
    script = f"import sys; sys.modules[{missing!r}] = None; import ostinato.estimators"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert f"needs {missing}: pip install '.[torch]'" in result.stderr
