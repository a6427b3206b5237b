from typing import Any

def available_isas() -> list[str]: ...
def threading_runtime() -> str: ...
def environment(name: str) -> str | None: ...
def n_groups(n_rows: int) -> int: ...
def ops() -> list[tuple[str, int]]: ...
def elementwise(isa: str, op: int, a: Any, b: Any, c: Any, out: Any, s: float) -> None: ...
def watched(places: list[Any], tensor: Any, absent: Any, equal: Any) -> list[Any] | None: ...
def modes() -> int | None: ...
def described(captured: list[Any], init: list[Any], xs: list[Any], axis: int) -> bytes | None: ...
def engine_ns() -> int: ...

class Addresses:
    def __init__(self, numbers: list[int]) -> None: ...

class Tape:
    def holds(self) -> bool: ...

class ForwardPass:
    def __init__(
        self,
        program: Any,
        sources: list[tuple[int, int, int, int, int]],
        dtype: Any,
        state_shapes: list[tuple[int, ...]],
        keeps: tuple[bool, ...],
        y_shapes: list[tuple[int, ...]],
        y_is_carry: list[int],
        reverse: bool,
        tape_width: int,
    ) -> None: ...
    def play(
        self,
        captured: Any,
        init: Any,
        xs: Any,
        once: Any,
        order: list[int],
        lengths: list[int],
        threads: int,
        isa: str,
    ) -> tuple[list[Any], list[Any], Tape]: ...

class BackwardPass:
    def __init__(
        self,
        program: Any,
        sources: list[tuple[int, int, int, int, int]],
        dtype: Any,
        x_wanted: list[bool],
        sums: list[tuple[tuple[int, ...], bool]],
    ) -> None: ...
    def play(
        self,
        tape: Tape,
        captured: Any,
        once: Any,
        d_ys: Any,
        d_finals: Any,
        init_wanted: Any,
        isa: str,
    ) -> tuple[list[Any], list[Any], list[Any]]: ...

class Workspaces:
    def __init__(self) -> None: ...
    def kept_bytes(self) -> int: ...

class _Program:
    def __init__(self, values: list[int], scalars: list[float], workspaces: Workspaces) -> None: ...
    def play(
        self,
        arguments: Addresses,
        n_steps: int,
        n_rows: int,
        rows: list[int],
        lengths: list[int],
        threads: int,
        isa: str,
        worth: int = 0,
    ) -> None: ...
    def needed_bytes(self, n_steps: int, n_rows: int, threads: int, isa: str) -> int: ...

class Program32(_Program): ...
class Program64(_Program): ...
