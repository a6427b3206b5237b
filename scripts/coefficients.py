"""The polynomials of float64's functions, in native/kernels/math_double-inl.h.

    python scripts/coefficients.py

prints, for each, its coefficients from the lowest on, and how far it is off once these are
rounded. Each is Chebyshev's approximation on its interval, which is within a small factor of the
best one. It needs mpmath, which comes with PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp

mp.mp.dps = 50
ROOM = 1 + mp.mpf(10) ** -4  # intervals end a little later, as a reduced argument is rounded
LN2, ONE, PI = mp.log(2), mp.mpf(1), mp.pi
ROOT = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2  # of s², s = f / (2 + f), at f = √2 − 1


def artanh_2(z: mp.mpf) -> mp.mpf:
    """2 artanh(s) / s, z = s²."""
    s = mp.sqrt(z)
    return mp.log((1 + s) / (1 - s)) / s


def over_root(f: Callable[[mp.mpf], mp.mpf], z: mp.mpf) -> mp.mpf:
    return f(mp.sqrt(z)) / mp.sqrt(z)


# Name, function, its value at 0, interval, number of coefficients.
POLYNOMIALS = [
    ("exp", lambda r: (mp.exp(r) - 1 - r) / r**2, ONE / 2, -LN2 / 2 * ROOM, LN2 / 2 * ROOM, 11),
    ("exp2", lambda r: (mp.mpf(2) ** r - 1) / r, LN2, -ONE / 2, ONE / 2, 11),
    ("log", lambda z: (artanh_2(z) - 2) / z, ONE * 2 / 3, 0, ROOT * ROOM, 7),
    ("pow", lambda z: ((artanh_2(z) - 2) / z - ONE * 2 / 3) / z, ONE * 2 / 5, 0, ROOT * ROOM, 8),
    ("sin", lambda z: (over_root(mp.sin, z) - 1) / z, -ONE / 6, 0, (PI / 4) ** 2 * ROOM, 7),
    (
        "cos",
        lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2,
        ONE / 24,
        0,
        (PI / 4) ** 2 * ROOM,
        6,
    ),
    ("erf below 1", lambda z: over_root(mp.erf, z) - 1, 2 / mp.sqrt(PI) - 1, 0, ROOM, 13),
    (
        "erf above 1, t = 1 / (x + 2)",
        lambda t: mp.exp((1 / t - 2) ** 2) * mp.erfc(1 / t - 2),
        0,
        ONE / 8,
        ONE / 3,
        16,
    ),
]


def main() -> None:
    for name, function, at_zero, a, b, n in POLYNOMIALS:

        def value(x: mp.mpf, f: Callable[..., mp.mpf] = function, zero: mp.mpf = at_zero) -> mp.mpf:
            return f(x) if abs(x) > mp.mpf(10) ** -12 else zero

        rounded = [float(c) for c in mp.chebyfit(value, [a, b], n)[::-1]]
        points = [a + (b - a) * mp.mpf(i) / 500 for i in range(501)]
        off = max(abs(mp.polyval([mp.mpf(c) for c in rounded[::-1]], x) - value(x)) for x in points)
        print(f"{name}: off by {mp.nstr(off, 2)}\n    " + ", ".join(c.hex() for c in rounded))


if __name__ == "__main__":
    main()
