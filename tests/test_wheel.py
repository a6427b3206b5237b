"""The wheels: how large they are, what is in them, and under which licence."""

from __future__ import annotations

import importlib.util
import os
import zipfile
from pathlib import Path

import pytest
import tomllib

from ostinato.engine import native
from sources import CORE, DATASETS, LEARN, REPOSITORY

LICENCES = {
    CORE: "Apache-2.0",
    LEARN: "Apache-2.0",
    DATASETS: "Apache-2.0 AND CC-BY-SA-3.0 AND CC-BY-4.0",
}


def script():
    path = REPOSITORY / "scripts" / "wheel.py"
    spec = importlib.util.spec_from_file_location("wheel_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[CORE, LEARN, DATASETS], ids=lambda root: root.name)
def wheel(request, tmp_path_factory) -> Path:
    """A package of this checkout, the core with its engine, as a wheel holds it."""
    if native.unavailable() is not None:
        pytest.skip("there is no engine to weigh")
    from ostinato import _native

    root = request.param
    path = tmp_path_factory.mktemp("wheel") / f"{root.name}-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for each in root.rglob("*"):
            if each.is_file() and "__pycache__" not in each.parts and each.suffix != ".so":
                file.write(each, f"{root.name}/{each.relative_to(root)}")
        if root == CORE:
            file.write(_native.__file__, f"ostinato/{Path(_native.__file__).name}")
    return path


def test_a_package_is_as_small_as_promised(wheel, capsys):
    assert script().main([str(wheel)]) == 0, capsys.readouterr().out


def test_what_is_too_large_or_missing_is_named(wheel, tmp_path, capsys):
    copy = tmp_path / wheel.name
    copy.write_bytes(wheel.read_bytes())
    with zipfile.ZipFile(copy, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{wheel.name.partition('-')[0]}/large", os.urandom(14_000_000))
    assert script().main([str(copy)]) == 1
    assert "bytes; wanted at most" in capsys.readouterr().out
    with zipfile.ZipFile(copy, "w") as file:
        file.writestr("nothing", "")
    assert script().main([str(copy)]) == 1
    said = capsys.readouterr().out
    assert "there is no ostinato" in said
    module = next(each for each in LEARN.rglob("*.py") if each.parent.name == "runs")
    of_learn = wheel.name.startswith("ostinato_learn")
    assert (f"there is no {module.relative_to(LEARN.parent)}" in said) is of_learn
    assert script().main([]) == 2


def test_an_engine_left_beside_the_sources_is_named(tmp_path, capsys):
    wheel = tmp_path / "ostinato-0.1.0-cp312-abi3-linux_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        for name in ("__init__.py", "_native.abi3.so", "_native.cpython-311-x86_64-linux-gnu.so"):
            file.writestr(f"ostinato/{name}", "")
    assert script().main([str(wheel)]) == 1
    assert "several engines" in capsys.readouterr().out


def test_distributions_have_one_version_and_their_licences():
    versions = set()
    for root, licence in LICENCES.items():
        folder = root.parents[1]
        text = (folder / "pyproject.toml").read_text("utf-8")
        project = tomllib.loads(text)["project"]
        assert project["license"] == licence
        assert all((folder / file).is_file() for file in project["license-files"])
        versions.add(project["version"])
        assert f'__version__ = "{project["version"]}"' in (root / "__init__.py").read_text("utf-8")
    assert len(versions) == 1
    (version,) = versions
    pinned = (LEARN.parents[1] / "pyproject.toml").read_text("utf-8")
    assert f'"ostinato=={version}"' in pinned
    assert f'"ostinato-datasets=={version}"' in pinned
