"""The elementwise operations of the engine as C expressions, and the functions these call.

In an expression a, b and c are the operands, s is the scalar, and @ is the prefix of the model's
names. FUNCTIONS has the source of each function that an expression names, below those it calls.
"""

from __future__ import annotations

import re

EXPRESSIONS: dict[str, str] = {
    "copy": "a",
    "fill": "s",
    "neg": "-a",
    "abs": "@abs(a)",
    "sign": "(float)((a > 0.0f) - (a < 0.0f))",
    "sqrt": "sqrtf(a)",
    "exp": "@exp(a)",
    "exp2": "exp2f(a)",
    "log": "logf(a)",
    "log1p": "log1pf(a)",
    "expm1": "expm1f(a)",
    "erf": "erff(a)",
    "sin": "sinf(a)",
    "cos": "cosf(a)",
    "tan": "tanf(a)",
    "atan": "atanf(a)",
    "sinh": "sinhf(a)",
    "cosh": "coshf(a)",
    "log2": "log2f(a)",
    "log10": "log10f(a)",
    "erfc": "erfcf(a)",
    "erfcx": "(float)@erfcx(a)",
    "floor": "floorf(a)",
    "ceil": "ceilf(a)",
    "round": "nearbyintf(a)",
    "trunc": "truncf(a)",
    "tanh": "@tanh(a)",
    "sigmoid": "@sigmoid(a)",
    "softplus": "@max(a, 0.0f) + log1pf(@exp(-@abs(a)))",
    "add": "a + b",
    "sub": "a - b",
    "mul": "a * b",
    "div": "a / b",
    "max": "@max(a, b)",
    "min": "@min(a, b)",
    "lt": "a < b ? 1.0f : 0.0f",
    "le": "a <= b ? 1.0f : 0.0f",
    "eq": "a == b ? 1.0f : 0.0f",
    "ne": "a != b ? 1.0f : 0.0f",
    "pow": "powf(a, b)",
    "fmod": "fmodf(a, b)",
    "atan2": "atan2f(a, b)",
    "add_s": "a + s",
    "mul_s": "a * s",
    "rsub_s": "s - a",
    "rdiv_s": "s / a",
    "max_s": "@max(a, s)",
    "min_s": "@min(a, s)",
    "lt_s": "a < s ? 1.0f : 0.0f",
    "gt_s": "a > s ? 1.0f : 0.0f",
    "le_s": "a <= s ? 1.0f : 0.0f",
    "ge_s": "a >= s ? 1.0f : 0.0f",
    "eq_s": "a == s ? 1.0f : 0.0f",
    "pow_s": "powf(a, s)",
    "fma": "a * b + c",
    "select": "a != 0.0f ? b : c",
    "select_s": "a != 0.0f ? s : b",
    "select_else_s": "a != 0.0f ? b : s",
    "lerp": "a + c * (b - a)",
    "tanh_backward": "a * (1.0f - b * b)",
    "sigmoid_backward": "a * b * (1.0f - b)",
    "max_backward": "b < c ? 0.0f : b == c ? a * 0.5f : a",
}

# Functions of numbers. The polynomial is Cephes' (S. Moshier, expf): e^x is within 1.25 ulp of
# the exact value, tanh and sigmoid within 2.5. They select among bits, not by branches, so that a
# compiler makes vector instructions of a loop that calls them.
FUNCTIONS: dict[str, str] = {
    "bits": """
typedef union {
    float value;
    int32_t bits;
} @bits;
""",
    "abs": """
static inline float @abs(float x)
{
    @bits y;
    y.value = x;
    y.bits &= 0x7fffffff;
    return y.value;
}
""",
    "clamp": """
/* x, with a magnitude of no more than `most`; NaN becomes a number. */
static inline float @clamp(float x, float most)
{
    @bits y, size, limit;
    y.value = x;
    limit.value = most;
    size.bits = y.bits & 0x7fffffff;
    size.bits = size.bits < limit.bits ? size.bits : limit.bits;
    y.bits = (y.bits & ~0x7fffffff) | size.bits;
    return y.value;
}
""",
    "nan_of": """
/* y, or NaN where x is NaN. */
static inline float @nan_of(float x, float y)
{
    @bits given, result;
    given.value = x;
    result.value = y;
    result.bits |= (given.bits & 0x7fffffff) > 0x7f800000 ? 0x7fc00000 : 0;
    return result.value;
}
""",
    "power_of_two": """
static inline float @power_of_two(int32_t n)
{
    @bits y;
    y.bits = (n + 127) * 8388608;
    return y.value;
}
""",
    "expm1_reduced": """
/* e^x = 2^n e^r with |r| <= ln 2 / 2: the result is e^r - 1. |x| <= 105.
   Adding 1.5 * 2^23 rounds to a whole number, which is then in the last bits. */
static inline float @expm1_reduced(float x, int32_t *n)
{
    @bits rounded;
    float r, p;
    rounded.value = x * 1.44269504088896341f + 12582912.0f;
    *n = rounded.bits - 0x4b400000;
    r = x - (float)*n * 0.693359375f;
    r = r + (float)*n * 2.12194440e-4f;
    p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return p * (r * r) + r;
}
""",
    "exp": """
static inline float @exp(float x)
{
    int32_t n;
    float y = @expm1_reduced(@clamp(x, 105.0f), &n) + 1.0f;
    /* In two factors, since 2^n alone may be no normal number. n / 2 rounds either way. */
    y = y * @power_of_two(n / 2) * @power_of_two(n - n / 2);
    return @nan_of(x, y);
}
""",
    "sigmoid": """
static inline float @sigmoid(float x)
{
    return 1.0f / (1.0f + @exp(-x));
}
""",
    "tanh": """
/* u / (u + 2) with u = e^(2|x|) - 1. */
static inline float @tanh(float x)
{
    int32_t n;
    @bits sign, y;
    float u = @expm1_reduced(2.0f * @abs(@clamp(x, 10.0f)), &n), power = @power_of_two(n);
    u = u * power + (power - 1.0f);
    sign.value = x;
    y.value = u / (u + 2.0f);
    y.bits |= sign.bits & ~0x7fffffff;
    return @nan_of(x, y.value);
}
""",
    "erfcx": """
/* e^(x^2) erfc(x), in double: e^(x^2) would multiply a float's rounding error of x^2 by up to 88.
   From 25 on the asymptotic series, the next term of which is below 8e-9. */
static inline double @erfcx(double x)
{
    double u;
    if (!(x > 25.0))
        return x < -10.0 ? HUGE_VAL : exp(x * x) * erfc(x);
    u = 0.5 / (x * x);
    return (1.0 - u * (1.0 - 3.0 * u)) / x * 0.56418958354775628695;
}
""",
    "max": """
static inline float @max(float a, float b)
{
    return ((a > b) | (a != a)) ? a : b;
}
""",
    "min": """
static inline float @min(float a, float b)
{
    return ((a < b) | (a != a)) ? a : b;
}
""",
    "copy": """
static void @copy(float *restrict out, const float *restrict from, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = from[i];
}
""",
    "fill": """
static void @fill(float *out, float value, int n)
{
    for (int i = 0; i < n; i++)
        out[i] = value;
}
""",
    "row_sum": """
/* out[o][i] = sum over j of a[o][j][i]. */
static void @row_sum(float *restrict out, const float *a, int outer, int times, int inner)
{
    for (int o = 0; o < outer; o++, out += inner, a += times * inner) {
        for (int i = 0; i < inner; i++)
            out[i] = a[i];
        for (int j = 1; j < times; j++)
            for (int i = 0; i < inner; i++)
                out[i] += a[j * inner + i];
    }
}
""",
    "row_max": """
/* out[o][i] = the largest of a[o][j][i] over j. */
static void @row_max(float *restrict out, const float *a, int outer, int times, int inner)
{
    for (int o = 0; o < outer; o++, out += inner, a += times * inner) {
        for (int i = 0; i < inner; i++)
            out[i] = a[i];
        for (int j = 1; j < times; j++)
            for (int i = 0; i < inner; i++)
                out[i] = @max(out[i], a[j * inner + i]);
    }
}
""",
    "take": """
/* out[i] = from[i step]. */
static void @take(float *restrict out, const float *from, int n, int step)
{
    for (int i = 0; i < n; i++)
        out[i] = from[i * step];
}
""",
    "small_product": """
/* out[g][m][n] = sum over k of a[g][m][k] b[g][k][n]; the elements of b for two k, and for two n,
   are as far apart as the last two numbers say. */
static void @small_product(
    float *restrict out, const float *a, const float *b, int groups, int M, int K, int N,
    int for_k, int for_n)
{
    for (int g = 0; g < groups; g++, b += K * N)
        for (int m = 0; m < M; m++, a += K, out += N)
            for (int n = 0; n < N; n++) {
                float sum = 0.0f;
                for (int k = 0; k < K; k++)
                    sum += a[k] * b[k * for_k + n * for_n];
                out[n] = sum;
            }
}
""",
    # Four rows of the weights at a time, so that out is read and written once for four: faster
    # than one or two, and as fast as eight, which take more code.
    "product": """
/* out[n] += sum over k of a[k] weights[k][n], k ascending. */
static void @product(
    float *restrict out, const float *a, const float *restrict weights, int K, int N)
{
    int k;
    for (k = 0; k + 4 <= K; k += 4, weights += 4 * N) {
        const float a0 = a[k], a1 = a[k + 1], a2 = a[k + 2], a3 = a[k + 3];
        for (int n = 0; n < N; n++)
            out[n] = out[n] + a0 * weights[n] + a1 * weights[N + n] + a2 * weights[2 * N + n]
                + a3 * weights[3 * N + n];
    }
    for (; k < K; k++, weights += N)
        for (int n = 0; n < N; n++)
            out[n] += a[k] * weights[n];
}
""",
    "product_int8": """
/* out[n] += scale[n] sum over k of a[k] weights[k][n], k ascending. Divided by 512 for a while, no
 * four products overflow. */
static void @product_int8(
    float *restrict out, const float *a, const int8_t *restrict weights,
    const float *restrict scale, int K, int N)
{
    int k;
    for (k = 0; k + 4 <= K; k += 4, weights += 4 * N) {
        const float a0 = a[k] / 512, a1 = a[k + 1] / 512;
        const float a2 = a[k + 2] / 512, a3 = a[k + 3] / 512;
        for (int n = 0; n < N; n++)
            out[n] += 512 * scale[n] * (a0 * (float)weights[n] + a1 * (float)weights[N + n]
                + a2 * (float)weights[2 * N + n] + a3 * (float)weights[3 * N + n]);
    }
    for (; k < K; k++, weights += N)
        for (int n = 0; n < N; n++)
            out[n] += 512 * scale[n] * (a[k] / 512 * (float)weights[n]);
}
""",
}


def used(text: str) -> list[str]:
    """The functions that a text calls, directly or not, in the order of FUNCTIONS."""
    found: set[str] = set()
    waiting = [text]
    while waiting:
        here = waiting.pop()
        for name, source in FUNCTIONS.items():
            if name not in found and _calls(here, name):
                found.add(name)
                waiting.append(source)
    return [name for name in FUNCTIONS if name in found]


def needs_math(text: str) -> bool:
    """Whether a text calls a function of math.h, as sqrtf(, or names its INFINITY or NAN."""
    return re.search(r"(?<![@\w])[a-z0-9]+f\(|\b(INFINITY|NAN)\b", text) is not None


def _calls(text: str, name: str) -> bool:
    return f"@{name}(" in text or f"@{name} " in text
