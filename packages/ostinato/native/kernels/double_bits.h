// float64 by its bits: what every instruction set computes in the same way. Included inside its namespace.
#pragma once

// The bits of the sum with a whole number k, |k| < 2^51, end in k: 1.5 · 2^52.
constexpr double kIntegerInLowBits = 0x1.8p52;
constexpr int64_t kOneBits = 0x3ff0000000000000;
// Added to the bits of a number, carries into its exponent from √½ · 2^k on: kOneBits less the bits of √½.
constexpr int64_t kFromRootHalf = kOneBits - 0x3fe6a09e667f3bcd;
// 2^52 with a number below 2^52 in its low bits is their sum.
constexpr int64_t kTwo52Bits = 0x4330000000000000;
constexpr double kTwo52And1023 = 0x1p52 + 1023;

// x·2^n, rounded once, for x in [½, 2] and n in [−1100, 1025]. In two steps, as 2^1024 is no number.
template <class V> inline V scaled_twice(V x, V n) {
  const V half = round(mul(n, V::all(.5)));
  return mul(mul(x, power_of_two(half)), power_of_two(sub(n, half)));
}
