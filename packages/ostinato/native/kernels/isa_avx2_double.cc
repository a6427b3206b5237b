// float64 with AVX2 and FMA (x86-64-v3).
#include "kernels/kernels.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <immintrin.h>

namespace ostinato {
namespace isa_avx2_double {
namespace {  // internal linkage: no function compiled for this instruction set may serve another
#include "kernels/double_bits.h"
#include "kernels/vec_avx2_double.h"
#include "kernels/vec_generic.h"
#include "kernels/vec_one.h"
#include "kernels/math-inl.h"
#include "kernels/math_double-inl.h"
#include "kernels/gemm-inl.h"
#include "kernels/arrays-inl.h"
#include "kernels/products-inl.h"
#include "kernels/elementwise-inl.h"
#include "kernels/fibres-inl.h"
#include "kernels/registers-inl.h"
#include "kernels/table-inl.h"
}  // namespace
}  // namespace isa_avx2_double

const Kernels<double>& kernels_avx2_double() {
  static const auto k = isa_avx2_double::make_kernels<isa_avx2_double::Avx2Double, 2>("avx2");
  return k;
}
}  // namespace ostinato
