// Portable C++: the definition that the vector units are compared with, bit for bit.
#include "kernels/kernels.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

namespace ostinato {
namespace isa_base {
namespace {  // internal linkage: no function compiled for this instruction set may serve another
#include "kernels/double_bits.h"
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
}  // namespace isa_base

const Kernels<float>& kernels_base_float() {
  static const auto k = isa_base::make_kernels<isa_base::Generic<float, 4>, 4>("base");
  return k;
}
const Kernels<double>& kernels_base_double() {
  static const auto k = isa_base::make_kernels<isa_base::Generic<double, 4>, 2>("base");
  return k;
}
}  // namespace ostinato
