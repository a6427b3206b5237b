"""What the runtime imports beside numpy: little, since a process may live for one answer."""

from __future__ import annotations

import pytest
from saved_models import without_torch

# Of the standard library: what takes a millisecond each, and is needed to write files alone.
FOR_WRITERS = {"shutil", "bz2", "lzma", "secrets", "random", "tempfile", "glob"}
# Of ours: what some models need.
FOR_SOME = {
    "ostinato_learn.data.series.windows",
    "ostinato_learn.data.text.keyboard",
    "ostinato.compiler.lower",
    "ostinato_learn.runtime.measures",
    "ostinato_learn.runtime.stream",
}


@pytest.mark.process
def test_the_import_is_small():
    script = """
        import pathlib, sys, numpy
        before = set(sys.modules)
        import ostinato_learn.runtime
        few = len(set(sys.modules) - before)
        import ostinato_learn.runtime.model
        print(few, *sorted(set(sys.modules) - before))
    """
    few, *imported = without_torch(script).split()
    assert "ostinato_learn.runtime.model" in imported
    assert not (FOR_WRITERS | FOR_SOME) & set(imported)
    assert not [name for name in imported if name.partition(".")[0] in ("safetensors", "typer")]
    assert int(few) < 40  # the package itself says only where its names are
