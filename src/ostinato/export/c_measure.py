"""What exported C code takes on a processor: it is compiled, if a compiler is there, and read.

flash   machine code and tables: the sections .text and .rodata of the object file
stack   the deepest chain of calls below `step`, from the compiler's -fstack-usage
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ostinato.export.c_ops import needs_math

FLAGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-Os", "-fstack-usage")
HOSTED = ("gcc", "clang")
CORTEX_M = "Cortex-M4"
_SECONDS = 120
_MAX_SOURCE = 1 << 25  # characters: 10 MB of weights, more than a microcontroller holds


@dataclass(frozen=True)
class Sizes:
    """Bytes of the compiled code.

    Attributes:
        processor: "this machine" or "Cortex-M4".
        compiler: for people.
        code: machine instructions.
        tables: constants.
        writable: variables that are not in a state: 0.
        stack: of one call of `step`.
    """

    processor: str
    compiler: str
    code: int
    tables: int
    writable: int
    stack: int

    def __str__(self) -> str:
        return (
            f"{self.processor} ({self.compiler} -Os): flash {self.code + self.tables:,} bytes "
            f"(code {self.code:,}, tables {self.tables:,}), stack {self.stack:,} bytes"
        )


def measured(name: str, header: str, source: str) -> tuple[list[Sizes], list[str]]:
    """The sizes with each compiler that is there; and a sentence for each that is not.

    Raises:
        RuntimeError: a compiler refuses the code.
    """
    if len(source) > _MAX_SOURCE:
        return [], ["code and stack were not measured: a compiler would take minutes"]
    found, missing = [], []
    hosted = next((c for c in HOSTED if shutil.which(c)), None)
    if hosted is None or not sys.platform.startswith("linux"):
        missing.append("not measured on this machine: that needs gcc or clang, on Linux")
    else:
        found.append(_compiled(name, header, source, [hosted], "this machine", hosted))
    if importlib.util.find_spec("ziglang") is None:
        missing.append(f"not measured on a {CORTEX_M}: that needs ziglang: pip install ziglang")
    else:
        command = cortex_m(source)
        found.append(_compiled(name, header, source, command, CORTEX_M, "clang of zig"))
    return found, missing


def cortex_m(source: str) -> list[str]:
    """The compiler for a Cortex-M4 with its float unit; math.h is musl's, where it is needed."""
    system = "linux-musleabihf" if needs_math(source) else "freestanding-eabihf"
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"thumb-{system}"]
    return [*command, "-mcpu=cortex_m4", "-fno-pic"]


def _compiled(
    name: str, header: str, source: str, command: list[str], processor: str, compiler: str
) -> Sizes:
    with tempfile.TemporaryDirectory() as made:
        place = Path(made)
        (place / f"{name}.h").write_text(header)
        (place / f"{name}.c").write_text(source)
        line = [*command, *FLAGS, "-c", f"{name}.c", "-o", f"{name}.o"]
        caches = {
            key: str(place / "cache") for key in ("ZIG_LOCAL_CACHE_DIR", "ZIG_GLOBAL_CACHE_DIR")
        }
        done = subprocess.run(
            line, cwd=place, capture_output=True, text=True, timeout=_SECONDS,
            env={**os.environ, **caches},
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(line)} failed:\n{done.stderr[-2000:]}")
        sections = elf_sections((place / f"{name}.o").read_bytes())
        frames: dict[str, int] = {}
        for file in place.rglob("*.su"):  # zig leaves it in its cache
            frames |= stack_frames(file.read_text())
    code, tables, writable = (
        sum(size for n, size in sections if n.startswith(prefix))
        for prefix in (".text", ".rodata", (".data", ".bss"))
    )
    stack = deepest(f"{name}_step", source, frames)
    return Sizes(processor, compiler, code, tables, writable, stack)


def stack_frames(text: str) -> dict[str, int]:
    """Function → bytes, of a file of -fstack-usage: `file:line:column:function bytes kind`."""
    lines = [line.split("\t") for line in text.splitlines()]
    frames: dict[str, int] = {}
    for where, size, *_ in lines:
        function = where.rpartition(":")[2].partition(".")[0]  # gcc makes f.constprop.0 of f
        frames[function] = max(int(size), frames.get(function, 0))
    return frames


def deepest(function: str, source: str, frames: Mapping[str, int]) -> int:
    """Bytes of the deepest chain of calls from a function on.

    A function without a frame was compiled into those that call it.
    """
    bodies = _bodies(source)

    def below(name: str) -> int:
        inner = [n for n in bodies if n != name and f"{n}(" in bodies[name]]
        return frames.get(name, 0) + max(map(below, inner), default=0)

    return below(function)


def _bodies(source: str) -> dict[str, str]:
    """The functions of a file as we write it: a head, then a body between braces at column 0."""
    found = {}
    head: list[str] = []
    lines = iter(source.splitlines())
    for line in lines:
        if line != "{":
            head.append(line)
            continue
        start = max(i for i, h in enumerate(head) if h[:1].isalpha())
        name = head[start].partition("(")[0].split()[-1].lstrip("*")
        body = []
        for inner in lines:
            if inner == "}":
                break
            body.append(inner)
        found[name], head = "\n".join(body), []
    return found


def elf_sections(content: bytes) -> list[tuple[str, int]]:
    """The name and size of every section that is loaded, of an ELF object file.

    Raises:
        ValueError: it is none, little-endian.
    """
    if content[:4] != b"\x7fELF" or content[5] != 1:
        raise ValueError("this is no ELF file, little-endian")
    wide = content[4] == 2
    at = (
        struct.unpack_from("<Q", content, 40)[0]
        if wide
        else struct.unpack_from("<I", content, 32)[0]
    )
    size, count, names = struct.unpack_from("<HHH", content, 58 if wide else 46)
    # name, kind, flags, address, offset, size
    layout = "<IIQQQQ" if wide else "<IIIIII"
    headers = [struct.unpack_from(layout, content, at + i * size) for i in range(count)]
    start = headers[names][4]
    found = []
    for h in headers:
        name = content[start + h[0] : content.index(b"\0", start + h[0])].decode()
        if h[2] & 2:  # SHF_ALLOC
            found.append((name, h[5]))
    return found
