"""The size of the wheel: what docs/datasets.md and docs/runtime.md promise of it."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path

import pytest

import ostinato
from ostinato.engine import native

ROOT = Path(__file__).parents[1]
PACKAGE = Path(ostinato.__file__).parent


def script():
    spec = importlib.util.spec_from_file_location("wheel_script", ROOT / "scripts" / "wheel.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The package of this checkout, with its engine, as a wheel holds it."""
    if native.unavailable() is not None:
        pytest.skip("there is no engine to weigh")
    from ostinato import _native

    path = tmp_path_factory.mktemp("wheel") / "ostinato.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for each in PACKAGE.rglob("*"):
            if each.is_file() and "__pycache__" not in each.parts and each.suffix != ".so":
                file.write(each, f"ostinato/{each.relative_to(PACKAGE)}")
        file.write(_native.__file__, f"ostinato/{Path(_native.__file__).name}")
    return path


def test_the_package_is_as_small_as_the_pages_say(wheel, capsys):
    found = script()
    assert found.main([str(wheel)]) == 0, capsys.readouterr().out
    sizes = found.sizes(wheel)
    page = (ROOT / "docs" / "datasets.md").read_text("utf-8")
    assert f"{sizes['data sets'] / 1e6:.1f} MB" in page
    assert sizes["code"] > 1_000_000  # the engine is in it


def test_what_is_too_large_or_missing_is_named(wheel, tmp_path, capsys):
    copy = tmp_path / "copy.whl"
    copy.write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(copy, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("ostinato/large", os.urandom(5_000_000))
    assert script().main([str(copy)]) == 1
    assert "code: " in capsys.readouterr().out.split("\n")[1]
    with zipfile.ZipFile(tmp_path / "empty.whl", "w") as file:
        file.writestr("ostinato/__init__.py", "")
    assert script().main([str(tmp_path / "empty.whl")]) == 1
    assert "there is no ostinato/datasets/files/mnist/" in capsys.readouterr().out
    assert script().main([]) == 2
