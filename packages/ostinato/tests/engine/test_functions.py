"""Every elementwise operation, for every instruction set this machine has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import pytest

from ostinato import _native
from ostinato.engine import native
from ostinato.engine.ops import OPS
from ostinato.engine.reference import flushed

ISAS = _native.available_isas()
NAMES = [name for name, _ in _native.ops()]
TINY = 2.0**-126  # the smallest normal float32

# Every exponent and sign, NaNs and infinities among them, as likely as any other.
PATTERNS = np.random.default_rng(0).integers(0, 2**32, 300_000, np.uint32).view(np.float32)
DOUBLE_PATTERNS = np.random.default_rng(0).integers(0, 2**64, 60_000, np.uint64).view(np.float64)
# Where exp, exp2, tanh and sigmoid are neither 0, 1 nor infinite.
GRID = np.concatenate(
    [np.linspace(-155, 155, 400_001), np.linspace(-10, 10, 200_001), np.linspace(-1, 1, 100_001)]
).astype(np.float32)
SPECIAL = np.array(
    [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, TINY, -TINY]
    + [sign * x for sign in (1, -1) for x in (88.722839, 88.72284, 87.33655, 103.97, 104.0)]
    + [sign * x for sign in (1, -1) for x in (126.0, 127.99999, 128.0, 149.5, 150.0, 150.00002)]
    + [sign * x for sign in (1, -1) for x in (8.66, 9.0, 16.6, 17.4, 3.4e38, 0.5, 1.0, 2.0)],
    np.float32,
)
POINTS = np.concatenate([PATTERNS, GRID, SPECIAL])
TINIEST = 2.0**-1022  # the smallest normal float64
DOUBLE_SPECIAL = np.concatenate(
    [SPECIAL.astype(float)]
    + [[sign * x, sign * np.nextafter(x, 9e9)] for sign in (1, -1) for x in (
        TINIEST, 0.3 * TINIEST, 5e-324, 2.0**-54, 709.782712893384, 708.396418532264, 745.133,
        1022.0, 1023.9, 1074.5, 19.06, 5.92, 2.0**20, 1e300, np.pi / 2, np.pi * 1e5, 2.0**0.5)]
)  # fmt: skip
DOUBLE_POINTS = np.concatenate(
    [DOUBLE_PATTERNS, np.linspace(-1080, 1080, 40_001), np.linspace(-9, 9, 40_001), DOUBLE_SPECIAL]
)


def run(isa: str, name: str, a: Any, b: Any = None, c: Any = None, s: float = 0.0) -> Any:
    out = np.full_like(a, 7.0)
    b, c = (a if x is None else x for x in (b, c))
    _native.elementwise(isa, NAMES.index(name), a, b, c, out, s)
    return out


def right(name: str, *operands: Any, s: float = 0.0) -> Any:
    """The meaning in NumPy, in float64, where operands below 2⁻¹²⁶ are zeros."""
    with np.errstate(all="ignore"):
        operands = tuple(flushed(x).astype(np.float64) for x in operands)
        return OPS[name].meaning(*operands, np.float64(s))


def worst_ulp(got: Any, exact: Any) -> float:
    """The largest error in units in the last place of float32; none within 2⁻¹²⁶ absolute."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        assert np.array_equal(np.isnan(got), np.isnan(exact)), "NaN comes or goes"
        endless = np.isinf(rounded)
        assert np.array_equal(got[endless], rounded[endless]), "an infinity comes or goes"
        finite = np.isfinite(rounded)
        got, exact = got[finite].astype(np.float64), exact[finite]
        ulp = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(exact), TINY))) - 23)
    error = np.abs(got - exact)
    return float(np.max(np.where(error <= TINY, 0.0, error / ulp)))


# -------------------------------------------------------------------------------------- tables


def test_the_tables_agree():
    """ops.py, the compiled table and its source have the same names, arities and order."""
    assert [(name, op.arity) for name, op in OPS.items()] == _native.ops()
    source = Path(__file__).parents[2] / "native" / "kernels" / "ops.def"
    rows = [
        line[3:].split(",")[:2]
        for line in source.read_text().splitlines()
        if line.startswith("OP(")
    ]
    assert [(name, int(arity)) for name, arity in rows] == _native.ops()


def test_a_native_module_of_other_sources_is_refused():
    """One row more in the middle gives every later operation another number."""
    built = _native.ops()
    native.check_operations(built)
    with pytest.raises(ImportError, match="built from other sources"):
        native.check_operations([*built[:5], ("new", 1), *built[5:]])


def test_the_instruction_sets():
    assert "base" in ISAS
    with pytest.raises(ValueError, match=r"mmx.*base"):
        run("mmx", "exp", SPECIAL)
    with pytest.raises(ValueError, match="no such operation"):
        _native.elementwise("base", len(NAMES), *[SPECIAL] * 3, SPECIAL.copy(), 0.0)
    with pytest.raises(ValueError, match="no such operation"):
        _native.elementwise("base", -1, *[SPECIAL] * 3, SPECIAL.copy(), 0.0)
    with pytest.raises(ValueError, match="one size"):
        _native.elementwise("base", 0, *[SPECIAL] * 3, SPECIAL[:-1].copy(), 0.0)


# ------------------------------------------------------------------------------------ accuracy


# float32's own vector functions, softplus, which is made of them, and libm's.
BOUNDS = {"exp": 2.5, "exp2": 1.0, "tanh": 2.5, "sigmoid": 2.5, "softplus": 2.5, "log": 2.5,
          "log1p": 1.0, "expm1": 1.0, "erf": 1.0, "sin": 1.0, "cos": 1.0, "sqrt": 0.5, "abs": 0.0,
          "tan": 1.0, "atan": 1.0, "sinh": 2.0, "cosh": 2.0, "log2": 1.0, "log10": 2.0,
          "erfc": 2.0, "erfcx": 1.0, "floor": 0.0, "ceil": 0.0, "round": 0.0, "trunc": 0.0,
          "neg": 0.0, "copy": 0.0, "sign": 0.0}  # fmt: skip


@pytest.mark.parametrize("name", BOUNDS)
def test_functions_of_one_operand(name):
    """On one instruction set, whose bits are those of the others (below)."""
    slow = name in ("erf", "erfc", "erfcx")  # the references
    points = POINTS[:: len(POINTS) // 20_000] if slow else POINTS
    assert worst_ulp(run(ISAS[-1], name, points), right(name, points)) <= BOUNDS[name]


# float64's own functions: the bound in ulp, the end of the domain below, and where they are
# measured, beside DOUBLE_SPECIAL and powers of two.
DOUBLE_BOUNDS = {
    "exp": (1.0, -1e4, [(-709, 710), (-2, 2)]),
    "exp2": (1.0, -1e4, [(-1022, 1024), (-2, 2)]),
    "log": (1.0, 0, [(0.5, 2), (0.999, 1.001)]),
    "log1p": (1.0, -1, [(-1, 2), (-1e-3, 1e-3)]),
    "expm1": (1.2, -1e4, [(-40, 710), (-2, 2)]),
    "erf": (1.2, -1e4, [(-6, 6), (-1.1, 1.1)]),
    "sin": (1.0, -1e9, [(-10, 10), (-(2.0**20), 2.0**20)]),
    "cos": (1.0, -1e9, [(-10, 10), (-(2.0**20), 2.0**20)]),
    "tanh": (2.5, -1e4, [(-20, 20), (-1.5, 1.5)]),
    "sigmoid": (2.0, -1e4, [(-708, 40), (-20, 20)]),
    "softplus": (1.5, -1e4, [(-708, 40), (-20, 20)]),
}
MEANINGS = {
    "exp2": lambda x: mpmath.mpf(2) ** x,
    "log1p": mpmath.log1p,
    "log": mpmath.log,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    "softplus": lambda x: mpmath.log1p(mpmath.exp(x)),
}


def worst_of_many_digits(got: Any, meaning: Any, *operands: Any) -> float:
    """The largest error in units in the last place of float64, where numbers are finite."""
    worst = 0.0
    with mpmath.workprec(200):
        for y, *xs in zip(got, *(flushed(x) for x in operands), strict=True):
            exact = meaning(*map(mpmath.mpf, xs))
            if abs(exact) < TINIEST:
                assert abs(y) <= TINIEST, xs
            elif mpmath.isfinite(exact) and abs(exact) < 2**1024 - mpmath.mpf(2) ** 970:
                ulp = mpmath.mpf(2) ** (mpmath.frexp(exact)[1] - 53)
                error = float(abs(mpmath.mpf(float(y)) - exact) / ulp)
                assert error == error, xs
                worst = max(worst, error)
    return worst


@pytest.mark.parametrize("name", DOUBLE_BOUNDS)
def test_functions_of_one_double(name):
    """On one instruction set, as above."""
    bound, low, ranges = DOUBLE_BOUNDS[name]
    rng = np.random.default_rng(2)
    powers = 2.0 ** rng.uniform(-1022, 13, 300)
    x = np.concatenate([*(rng.uniform(*r, 1500) for r in ranges), powers, -powers, DOUBLE_SPECIAL])
    x = x[(low < x) & (x < -low if low < -1 else x < np.inf)]
    meaning = MEANINGS.get(name) or getattr(mpmath, name)
    assert worst_of_many_digits(run(ISAS[-1], name, x), meaning, x) <= bound


def test_powers_of_doubles():
    rng = np.random.default_rng(2)
    x = np.concatenate([2 ** rng.uniform(-1000, 1000, 1500), rng.uniform(0.999, 1.001, 1500)])
    y = rng.uniform(-1, 1, 3000) * np.minimum(700 / np.abs(np.log(x)), 1e6)
    x[:300], y[:300] = -x[:300], np.round(y[:300])
    assert worst_of_many_digits(run(ISAS[-1], "pow", x, y), mpmath.power, x, y) <= 1.0


@pytest.mark.parametrize("isa", ISAS)
def test_values_that_are_exact(isa):
    """Zeros keep their sign, small arguments themselves, and the ends are the ends."""
    zeros = np.array([0.0, -0.0], np.float32)
    for name in ("tanh", "log1p", "expm1", "erf", "sin", "sqrt", "copy", "tan", "atan", "sinh",
                 "floor", "ceil", "round", "trunc"):  # fmt: skip
        assert run(isa, name, zeros).tobytes() == zeros.tobytes(), name
    assert run(isa, "neg", zeros).tobytes() == (-zeros).tobytes()
    assert run(isa, "exp", zeros).tolist() == [1, 1]
    whole = np.arange(-160, 160, dtype=np.float32)
    with np.errstate(over="ignore"):
        exact = flushed(np.exp2(whole.astype(float)).astype("f4"))
    assert np.array_equal(run(isa, "exp2", whole), exact)
    assert run(isa, "sigmoid", zeros).tolist() == [0.5, 0.5]
    small = np.array([1e-45, -1e-45, 1e-40, -1e-40, TINY, 1e-30, -1e-20], np.float32)
    assert run(isa, "tanh", small).tobytes() == flushed(small).tobytes()
    ends = np.array([-np.inf, np.inf, -200, 200], np.float32)
    for name in ("exp", "exp2"):
        assert run(isa, name, ends).tolist() == [0, np.inf, 0, np.inf]
    assert run(isa, "tanh", ends).tolist() == [-1, 1, -1, 1]
    assert run(isa, "sigmoid", ends)[[1, 3]].tolist() == [1, 1]
    assert run(isa, "sigmoid", ends)[[0, 2]].tolist() == [0, 0]
    assert np.abs(run(isa, "tanh", GRID)).max() == 1
    assert run(isa, "sigmoid", GRID).max() == 1


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ["exp", "exp2", "tanh", "sigmoid"])
def test_functions_never_fall_as_their_argument_grows(name, isa):
    """Not promised to the last bit, but a step backwards of more than two ulp is a seam."""
    x = np.sort(GRID)
    y = run(isa, name, x).astype(np.float64)
    slack = 2 * 2.0**-23 * np.maximum(np.abs(y[:-1]), TINY)
    assert np.all(np.diff(np.nan_to_num(y, posinf=1e39)) >= -slack)


def operands() -> tuple[Any, Any, Any]:
    """Three operands: usual values beside every special one, with ties among them.

    Without NaNs that signal, which C's pow does not take for quiet ones.
    """
    rng = np.random.default_rng(1)
    usual = (rng.standard_normal(3000) * 3).astype(np.float32)
    tied = np.repeat(np.array([0, 1, -1, 0.5], np.float32), 4)
    a = np.concatenate([usual, tied, SPECIAL, PATTERNS[:2000]])
    a[np.isnan(a)] = np.nan
    return a, *(np.concatenate([rng.permutation(a[:-20]), a[-20:]]) for _ in range(2))


EXACT = {"lt", "le", "eq", "ne", "lt_s", "gt_s", "le_s", "ge_s", "eq_s", "select", "select_s",
         "select_else_s", "copy", "fill", "max", "min", "max_s", "min_s", "neg", "abs",
         "sign", "max_backward", "floor", "ceil", "round", "trunc", "fmod"}  # fmt: skip
# A result may be an operand as it is:
MOVED = {"copy", "neg", "abs", "select", "select_s", "select_else_s", "max_backward"}
HAND_ON = {"floor", "ceil", "round", "trunc", "fmod"}  # a NaN
ROUNDED_ONCE = {"add", "sub", "mul", "div", "add_s", "mul_s", "rsub_s", "rdiv_s", "sqrt", "fma"}
SEVERAL = {  # the terms that are rounded: the error is within 2 ulp of each
    "lerp": lambda a, b, c: (a, c * b, c * a),
    "tanh_backward": lambda a, b: (a, a * b * b),
    "sigmoid_backward": lambda a, b: (a * b, a * b * b),
}


@pytest.mark.parametrize("name", [n for n in NAMES if n not in BOUNDS])
def test_float_means_what_numpy_says(name):
    """On one instruction set, as above."""
    a, b, c = operands()
    arity, s = OPS[name].arity, float(np.float32(0.3))
    used = (a, b, c)[:arity]
    got = run(ISAS[-1], name, a, b, c, s)
    exact = np.broadcast_to(np.asarray(right(name, *used, s=s), np.float64), a.shape)
    with np.errstate(all="ignore"):
        if name in EXACT:
            exact = flushed(exact.astype(np.float32))
            assert np.array_equal(flushed(got), exact, equal_nan=True)
        elif name in SEVERAL:
            terms = SEVERAL[name](*(x.astype(np.float64) for x in used))
            size = sum(np.abs(t) for t in terms)
            usual = size < 1e37
            for x in used:  # where no product of two of them overflows on the way
                usual &= np.abs(x) < 1e18
            error = np.abs(got - exact)[usual]
            # A term below 2⁻¹²⁶ is 0, and is multiplied by an operand.
            vanished = TINY * (1 + np.max(np.abs(np.array(used)), axis=0))[usual]
            assert np.all(error <= 2 * 2.0**-23 * size[usual] + vanished)
            assert np.isnan(got[np.isnan(exact)]).all()
        else:
            # float64 is itself rounded; that moves a result by less than a thousandth of an ulp
            bound = 0.501 if name in ROUNDED_ONCE else 1.0
            assert worst_ulp(got, exact) <= bound


@pytest.mark.parametrize("name", NAMES)
def test_double_means_what_numpy_says(name):
    rng = np.random.default_rng(1)
    x = [rng.standard_normal(999) * scale for scale in (1.0, 2.0, 0.5)]
    x[0][:6] = x[1][:6] = x[2][:6] = [0, -0.0, 1, np.inf, -np.inf, np.nan]
    used = x[: OPS[name].arity]
    exact = np.broadcast_to(np.asarray(right(name, *used, s=0.3), np.float64), x[0].shape)
    with np.errstate(all="ignore"):
        size = sum(np.abs(v) for v in used) + np.abs(exact) if used else np.abs(exact)
    endless = np.isinf(exact)
    finite = np.isfinite(exact) & np.isfinite(size)
    bound = 0.0 if name in EXACT else 8 * 2.0**-52
    for isa in ISAS:
        got = run(isa, name, *x, s=0.3)
        assert got.dtype == np.float64
        assert np.array_equal(np.isnan(got), np.isnan(exact)), isa
        assert np.array_equal(got[endless], exact[endless]), isa
        error = np.abs(got[finite] - exact[finite])
        assert np.all(error <= bound * (1 + size[finite])), isa


@pytest.mark.parametrize("isa", ISAS)
def test_not_a_number(isa):
    """Comparisons with NaN are false, `ne` is true, a NaN condition selects; others hand it on."""
    nan, one = np.full(8, np.nan, np.float32), np.ones(8, np.float32)
    for name in ("lt", "le", "eq"):
        assert not run(isa, name, nan, one).any() and not run(isa, name, one, nan).any()
        assert not run(isa, name, nan, nan).any()
    for name in ("lt_s", "gt_s", "le_s", "ge_s", "eq_s"):
        assert not run(isa, name, nan, s=1.0).any()
    assert run(isa, "ne", nan, nan).all() and run(isa, "ne", one, nan).all()
    assert (run(isa, "select", nan, one, 0 * one) == 1).all()
    for name, op in OPS.items():
        if op.arity and name not in EXACT - HAND_ON | {"pow", "pow_s"}:
            assert np.isnan(run(isa, name, nan, one, one, 1.0)).all(), name
        if op.arity > 1 and name not in EXACT - HAND_ON | {"pow"}:
            assert np.isnan(run(isa, name, one, nan, one, 1.0)).all(), name
    for name in ("max", "min"):
        assert np.isnan(run(isa, name, nan, one)).all() and np.isnan(run(isa, name, one, nan)).all()
        assert np.isnan(run(isa, name + "_s", nan, s=1.0)).all()


# -------------------------------------------------------------------------------- equal bits


@pytest.mark.skipif(len(ISAS) < 2, reason="one instruction set only")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", NAMES)
def test_instruction_sets_agree_bit_for_bit(name, dtype):
    """On every pattern of bits. What a NaN carries besides being one is nobody's promise."""
    points, special = {4: (POINTS, SPECIAL), 8: (DOUBLE_POINTS, DOUBLE_SPECIAL)}[dtype().itemsize]
    every = dtype == np.float64 or name in ("exp", "exp2", "tanh", "sigmoid")
    a = np.concatenate([points[:: 1 if every else 7], special])
    rng = np.random.default_rng(1)
    operands_ = [a, *(rng.permutation(a) for _ in range(OPS[name].arity - 1))]
    results = [bits(run(isa, name, *operands_, s=0.3)) for isa in ISAS]
    assert all(r == results[0] for r in results[1:])


def bits(x: Any) -> bytes:
    return np.where(np.isnan(x), x.dtype.type(np.nan), x).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", [n for n in NAMES if OPS[n].arity and n not in MOVED])
def test_no_operation_makes_a_number_below_the_smallest_normal_one(name, dtype):
    """Of operands down to the smallest ones, which are zeros: the same as of these zeros."""
    tiny = float(np.finfo(dtype).tiny)
    sizes = [x * tiny for x in (2.0**-20, 0.3, 0.999, 1.0, 1.001, 1.5, 2.0, 2.0**20)]
    one = np.array([s * x for x in [*sizes, 1.0, tiny**0.5] for s in (1, -1)], dtype)
    grid = (np.ascontiguousarray(x.ravel()) for x in np.meshgrid(one, one, one))
    operands_ = list(grid)[: OPS[name].arity]
    zeros = [flushed(x) for x in operands_]
    for isa in ISAS:
        got = run(isa, name, *operands_, s=0.7)
        assert got.tobytes() == flushed(got).tobytes(), isa
        assert np.array_equal(got, run(isa, name, *zeros, s=0.7), equal_nan=True), isa


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_length_and_nothing_beyond(isa, dtype):
    """Tails shorter than a vector: the same bits as in the whole, and no write past the end."""
    rng = np.random.default_rng(1)
    a, b, c = (rng.standard_normal(200).astype(dtype) for _ in range(3))
    for name in NAMES:
        whole = run(isa, name, a, b, c, 0.3)
        for n in (*range(40), 127, 128, 129, 200):
            room = np.full(n + 64, -5.0, dtype)
            out = room[32 : 32 + n]
            _native.elementwise(isa, NAMES.index(name), a[:n], b[:n], c[:n], out, 0.3)
            assert out.tobytes() == whole[:n].tobytes(), (name, n)
            assert (room[:32] == -5).all() and (room[32 + n :] == -5).all(), (name, n)


def test_the_checker_can_fail():
    x = np.linspace(-5, 5, 1001).astype(np.float32)
    good = run("base", "exp", x)
    assert worst_ulp(good, right("exp", x)) <= 2.5
    with pytest.raises(AssertionError, match="NaN"):
        worst_ulp(np.where(x == 0, np.float32(np.nan), good), right("exp", x))
    off = np.nextafter(np.nextafter(np.nextafter(good, 1e9), 1e9), 1e9).astype(np.float32)
    assert worst_ulp(off, right("exp", x)) > 2.5
