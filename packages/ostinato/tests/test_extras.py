from __future__ import annotations

import subprocess
import sys

import pytest

from ostinato._extras import needs


def test_a_missing_package_is_named_with_the_command():
    with (
        pytest.raises(ImportError, match=r"needs nosuch: pip .*ostinato\[torch\]") as caught,
        needs("ostinato[torch]", "nosuch"),
    ):
        import nosuch  # noqa: F401
    assert caught.value.name == "nosuch"


def test_other_failing_imports_stay_as_they_are():
    with (
        pytest.raises(ModuleNotFoundError, match="No module named 'other'"),
        needs("ostinato[torch]", "nosuch"),
    ):
        import other  # noqa: F401


@pytest.mark.process
@pytest.mark.parametrize("name", ["scan", "loop", "nn"])
def test_without_torch_public_names_say_what_to_install(name):
    script = f"import sys; sys.modules['torch'] = None; import ostinato; ostinato.{name}"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 1
    assert "needs torch: pip install 'ostinato[torch]'" in result.stderr


def test_a_name_of_learn_says_where_it_is():
    with pytest.raises(ImportError, match="ostinato-learn"):
        from ostinato import SequenceClassifier  # noqa: F401
