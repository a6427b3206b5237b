"""The engine's constants are in native/tuning.h, each with a comment that says why it is so."""

from __future__ import annotations

import re
from pathlib import Path

NATIVE = Path(__file__).parents[2] / "native"
CONSTANT = re.compile(r"^constexpr [\w:]+ (k\w+)(?:\[.*\])? =", re.MULTILINE)

# Those that may be elsewhere: tuning.h says why.
LIMITS_OF_A_PROGRAM = {"kMaxArguments", "kMaxBlock", "kMaxRegisters", "kMaxWidth"}
LANES_OF_A_SUM = {"kSumLanes", "kStretch"}
OF_REGISTER_TILES = {"kMaxTileRows"}
OF_FLOAT64 = {  # its bits, and numbers of mathematics
    "kFromRootHalf",
    "kIntegerInLowBits",
    "kLn2",
    "kLog2E",
    "kOneBits",
    "kTwo52And1023",
    "kTwo52Bits",
}
# These follow from others, or are no amounts.
DERIVED = {
    "kFirstTemporary",
    "kForbids",
    "kFusedCount",
    "kGapBytes",
    "kPairCount",
    "kRegisterElements",
    "kScalarOfA",
}


def texts() -> dict[str, str]:
    """File names → sources of the engine, without its tests."""
    files = [p for p in sorted(NATIVE.rglob("*.*")) if p.suffix in (".h", ".cc", ".def")]
    return {
        str(p.relative_to(NATIVE)): p.read_text(encoding="utf-8")
        for p in files
        if "tests" not in p.parts
    }


def uncommented(source: str) -> set[str]:
    """The constants of a file without a comment or another constant before them."""
    found, before = set(), ""
    for line in source.splitlines():
        match = CONSTANT.match(line)
        if match and not before.startswith(("//", "constexpr")) and "//" not in line:
            found.add(match[1])
        before = line
    return found


def test_constants_are_in_one_file():
    others = {
        n for file, text in texts().items() if file != "tuning.h" for n in CONSTANT.findall(text)
    }
    assert others == LIMITS_OF_A_PROGRAM | LANES_OF_A_SUM | OF_REGISTER_TILES | OF_FLOAT64 | DERIVED


def test_every_constant_is_explained():
    assert uncommented(texts()["tuning.h"]) == {"kLineBytes"}  # its comment is the file's


def test_every_constant_is_used():
    found = texts()
    words = [w for text in found.values() for w in re.findall(r"\bk[A-Z]\w+", text)]
    assert {n for n in CONSTANT.findall(found["tuning.h"]) if words.count(n) == 1} == set()


def test_what_is_not_explained_is_found():
    source = "// Why.\nconstexpr int kA = 1;\nconstexpr int kB = 2;\n\nconstexpr double kC = 3;\n"
    assert CONSTANT.findall(source) == ["kA", "kB", "kC"]
    assert uncommented(source) == {"kC"}
