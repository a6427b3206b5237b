"""LLVM's text as functions in memory, by llvmlite."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

FIRST_VERSION = (17,)  # of LLVM, without pointers of types


class Functions(NamedTuple):
    """Compiled functions: they can be called as long as `keeps` lives."""

    addresses: list[int]
    keeps: Any


def compiled(text: str, n_functions: int, level: int) -> Functions:
    """Compile functions f0, f1, …, which are in the text. One thread at a time.

    Args:
        level: of LLVM's optimization, 0 to 3.
    """
    llvm = _llvm()
    module = llvm.parse_assembly(text)  # in the global context, which outlives the engine
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=level,
        jit=True,
    )
    if level:
        # Steps are straight lines on single numbers.
        options = llvm.create_pipeline_tuning_options(speed_level=level)
        options.loop_vectorization = options.loop_unrolling = options.slp_vectorization = False
        builder = llvm.create_pass_builder(machine, options)
        builder.getModulePassManager().run(module, builder)
    engine = llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    return Functions([engine.get_function_address(f"f{i}") for i in range(n_functions)], engine)


@functools.cache
def _llvm() -> Any:
    import llvmlite.binding as llvm

    if llvm.llvm_version_info < FIRST_VERSION:
        raise RuntimeError("this llvmlite is too old; pip install 'ostinato[jit]'")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm
