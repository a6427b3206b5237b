"""The engine's sources: where processors, compilers and systems may be named."""

from __future__ import annotations

import re

from sources import NATIVE

PLATFORM = re.compile(
    r"#include <(?!nanobind/)[\w/]+\.h>|__builtin_|__asm__|_mm\d*_"
    r"|#if.*(_WIN32|__linux__|__APPLE__|__GNUC__|__clang__)"
)


def test_only_the_platform_and_vectors_name_compilers_and_systems():
    sources = [*NATIVE.rglob("*.h"), *NATIVE.rglob("*.cc")]
    named = {
        str(each.relative_to(NATIVE))
        for each in sources
        if "tests" not in each.parts and PLATFORM.search(each.read_text("utf-8"))
    }
    vectors = {name for name in named if re.fullmatch(r"kernels/(vec|isa)_\w+\.(h|cc)", name)}
    assert named - vectors == {"platform.h", "platform.cc"}
