"""The engine is for a runtime without PyTorch, too."""

import subprocess
import sys
import textwrap


def test_the_engine_needs_no_torch():
    script = """
        import sys
        sys.modules["torch"] = None  # an import of it fails
        from ostinato.engine import native, ops, program, reference
        assert "base" in native.available_isas()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
