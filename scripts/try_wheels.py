"""Installs the wheels of dist/ into a fresh environment, and does there what README.md shows first.

    python3.11 scripts/try_wheels.py                  # sees what this Python has, such as PyTorch
    python3.11 scripts/try_wheels.py --arm build/arm  # 64-bit ARM under emulation: arm_python.sh

No compiler is on the PATH. Printed: seconds and size of the install. Without PyTorch the engine is
imported alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
# What ostinato-learn[torch,tables] needs: pip resolves the extras with this machine's markers.
NEEDED = ("safetensors", "typer", "scikit-learn", "tqdm", "matplotlib", "pyarrow")
OF_TORCH = ("filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec", "setuptools")
SAYS_WHERE = """import json, platform, ostinato._native as n
machine, version = platform.machine(), platform.python_version()
print(json.dumps([machine, version, n.__file__, n.available_isas()]))"""
# The flags of /proc/cpuinfo that a processor has for an instruction set, the best first.
FLAGS = {
    "avx512": {"avx512f", "avx512dq", "avx512vl", "avx512bw", "avx2", "fma"},
    "avx2": {"avx2", "fma"},
}
HAS_TORCH = "import importlib.util as u; print(u.find_spec('torch') is not None)"
FROM_DIST = f"--find-links={ROOT / 'dist'}"
OURS = ("ostinato", "ostinato-datasets", "ostinato-learn")
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "zig", "cl")
SECTION = re.compile(
    r"^## Your (loop|file)\n+```(?:python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


def run(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a command prints. Its errors end this program."""
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout.strip()


def size(folder: Path) -> int:
    """Bytes of our packages in an environment, without what Python compiles later."""
    files = (f for name in OURS for f in folder.rglob(f"{name.replace('-', '_')}/**/*"))
    return sum(f.stat().st_size for f in files if f.is_file() and f.suffix != ".pyc")


def host(folder: Path) -> tuple[list[str], list[str]]:
    """How a new environment of this Python is run, and how pip installs into it."""
    environment = folder / "environment"
    run([sys.executable, "-m", "venv", environment.name], folder, dict(os.environ))
    (here,) = environment.glob("lib/python3.*/site-packages")
    (here / "outer.pth").write_text(sysconfig.get_path("purelib"))
    python = [str(environment / "bin" / "python")]
    return python, [*python, "-m", "pip", "install"]


def arm(root: Path, folder: Path) -> tuple[list[str], list[str]]:
    """The same for the Python that root holds. The pip of this Python unpacks for it."""
    (program,) = root.glob("usr/bin/python3.[0-9][0-9]")
    python = ["qemu-aarch64", "-L", str(root), "-E", f"PYTHONPATH={folder / 'site'}", str(program)]
    platforms = [f"--platform=manylinux_2_{glibc}_aarch64" for glibc in (17, 27, 28)]
    version = program.name.removeprefix("python")
    return python, [
        *(sys.executable, "-m", "pip", "install", "--target", str(folder / "site"), "--upgrade"),
        *("--only-binary=:all:", f"--python-version={version}", *platforms),
    ]


def install(pip: list[str], folder: Path, emulated: bool) -> None:
    """Our wheels, timed; then what training needs from the registry, on ARM with PyTorch."""
    quiet = [*pip, "--quiet", "--disable-pip-version-check"]
    environment = dict(os.environ)
    for names in (OURS[:1], OURS[1:]):
        begin = time.perf_counter()
        run(
            [*quiet, "--no-index", "--no-deps", "--ignore-installed", FROM_DIST, *names],
            folder,
            environment,
        )
        print(f"pip install {' '.join(names)}: {time.perf_counter() - begin:.1f} s")
    print(f"in the environment: {size(folder) / 1e6:.1f} MB")
    run([*quiet, *NEEDED, *(("numpy", *OF_TORCH) if emulated else ())], folder, environment)
    if emulated:  # the last release whose wheel for ARM has no CUDA
        run([*quiet, "--no-deps", "torch==2.9.1"], folder, environment)


def expected_isas(machine: str) -> list[str]:
    """The instruction sets that the engine must find on this processor."""
    if machine == "aarch64":
        return ["neon", "base"]
    flags = set(
        re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[1].split()
    )
    return [*(isa for isa, needed in FLAGS.items() if needed <= flags), "base"]


def use(python: list[str], folder: Path) -> None:
    """README.md's loop, then its file."""
    path = folder / "path"  # all that is on the PATH
    path.mkdir()
    if python[0] == "qemu-aarch64":
        (path / python[0]).symlink_to(shutil.which(python[0]))
    environment = {"PATH": str(path), "HOME": str(folder), "MPLCONFIGDIR": str(folder)}
    assert not any(shutil.which(name, path=str(path)) for name in COMPILERS)
    machine, version, engine, isas = json.loads(
        run([*python, "-c", SAYS_WHERE], folder, environment)
    )
    assert str(folder) in engine, engine
    assert isas == expected_isas(machine), isas
    print(f"{machine}, Python {version}: the engine has {', '.join(isas)}")
    blocks = dict(SECTION.findall((ROOT / "README.md").read_text("utf-8")))
    if run([*python, "-c", HAS_TORCH], folder, environment) == "False":
        print("no PyTorch here: the engine was imported, the README's loop and file were left out")
        return
    (folder / "loop.py").write_text(blocks["loop"], "utf-8")
    run([*python, "-W", "error", "loop.py"], folder, environment)
    print("the README's loop ran, without a warning")
    shutil.copytree(ROOT / "examples", folder / "examples")
    for line in blocks["file"].splitlines():
        program, *arguments = line.partition("#")[0].split()
        assert program == "ostinato"
        said = run([*python, "-m", "ostinato_learn.cli", *arguments], folder, environment)
    names = [each.split(",")[0] for each in said.splitlines()]
    assert names == ["id", *(f"t{n}" for n in range(1, 7))], said
    print("the README's file was learned, and predicted")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arm", type=Path, help="a folder of scripts/arm_python.sh")
    root = parser.parse_args().arm
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        python, pip = arm(root.resolve(), folder) if root else host(folder)
        install(pip, folder, bool(root))
        use(python, folder)


if __name__ == "__main__":
    main()
