// AVX-512 F, DQ, VL, BW (x86-64-v4).
#include "kernels.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <immintrin.h>

namespace ostinato {
namespace isa_avx512 {
namespace {  // a copy of its own: no function compiled for this set may serve another
#include "vec_avx512.h"
#include "vec_generic.h"
#include "math-inl.h"
#include "gemm-inl.h"
#include "elementwise-inl.h"
}  // namespace
}  // namespace isa_avx512

const Kernels<float>& kernels_avx512_float() {
  static const auto k = isa_avx512::make_kernels<isa_avx512::Avx512, 4>("avx512");
  return k;
}
const Kernels<double>& kernels_avx512_double() {
  static const auto k = isa_avx512::make_kernels<isa_avx512::Generic<double, 4>, 2>("avx512");
  return k;
}
}  // namespace ostinato
