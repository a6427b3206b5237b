// NEON (every 64-bit ARM processor has it).
#include "kernels/kernels.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <arm_neon.h>

namespace ostinato {
namespace isa_neon {
namespace {  // internal linkage: no function compiled for this instruction set may serve another
#include "kernels/vec_neon.h"
#include "kernels/double_bits.h"
#include "kernels/vec_generic.h"
// In one instruction: lane by lane, GCC 14 confuses the lanes of several rows of a product.
inline Generic<double, 2> fma(Generic<double, 2> a, Generic<double, 2> b, Generic<double, 2> c) {
  return {vfmaq_f64(c.v, a.v, b.v)};
}
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
}  // namespace isa_neon

const Kernels<float>& kernels_neon_float() {
  static const auto k = isa_neon::make_kernels<isa_neon::Neon, 4>("neon");
  return k;
}
const Kernels<double>& kernels_neon_double() {
  static const auto k = isa_neon::make_kernels<isa_neon::Generic<double, 2>, 2>("neon");
  return k;
}
}  // namespace ostinato
