"""Builds the engine's wheel of the Python that runs this, for a Linux that zig compiles for.

    python3.12 scripts/engine_wheel.py aarch64-linux-gnu.2.17 build/wheels build/checkers/bin/python

The target in zig's words, the folder, and a Python that has ziglang. The headers of this machine's
Python serve all 64-bit processors; the variables below name the processor to the build.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIND_ZIG = "import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent / 'zig')"


def settings(target: str, zig: str) -> dict[str, str]:
    """The settings of the build for the target."""
    processor = target.partition("-")[0]
    return {
        "OSTINATO_TARGET": target,
        "OSTINATO_ZIG": zig,
        "SKBUILD_CMAKE_ARGS": f"-DCMAKE_TOOLCHAIN_FILE={ROOT / 'scripts' / 'zig.cmake'}",
        "_PYTHON_HOST_PLATFORM": f"linux-{processor}",
        "SETUPTOOLS_EXT_SUFFIX": sysconfig.get_config_var("EXT_SUFFIX").replace(
            sysconfig.get_platform().removeprefix("linux-"), processor
        ),
    }


def main(target: str, folder: str, python: str) -> int:
    zig = subprocess.run(
        [python, "-c", FIND_ZIG], check=True, capture_output=True, text=True
    ).stdout.strip()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder]
    environment = {**os.environ, **settings(target, zig)}
    return subprocess.run(
        [*command, str(ROOT / "packages" / "ostinato")], env=environment
    ).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
