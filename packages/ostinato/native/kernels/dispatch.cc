#include "kernels/dispatch.h"

#include <stdexcept>

#include "platform.h"

namespace ostinato {

const OpRow kOpRows[kOpCount] = {
#define OP(name, arity, expression) {#name, arity},
#include "kernels/ops.def"
#undef OP
};
const PairRow kPairRows[kPairCount] = {
#define PAIR(first, second, place) {kOp_##first, kOp_##second, place},
#include "kernels/pairs.def"
#undef PAIR
};
const int32_t kFibreKernels[kOnFibresCount] = {
#define OP_ON_FIBRES(name) kOp_##name,
#define PAIR_ON_FIBRES(first, second, place) kPair_##first##_##second##_##place,
#include "kernels/fibres.def"
#undef OP_ON_FIBRES
#undef PAIR_ON_FIBRES
};
const FusedRow kFusedRows[kFusedCount] = {
#define FUSED(name, arity, expression) {arity, #expression},
#include "kernels/fused.def"
#undef FUSED
};

const Kernels<float>& kernels_base_float();
const Kernels<double>& kernels_base_double();
#if OSTINATO_X86
const Kernels<float>& kernels_avx2_float();
const Kernels<double>& kernels_avx2_double();
const Kernels<float>& kernels_avx512_float();
const Kernels<double>& kernels_avx512_double();
#elif OSTINATO_ARM64
const Kernels<float>& kernels_neon_float();
const Kernels<double>& kernels_neon_double();
#endif

namespace {

struct Isa {
  const char* name;
  bool (*present)();
  const Kernels<float>& (*float_kernels)();
  const Kernels<double>& (*double_kernels)();
};

const Isa kIsas[] = {
#if OSTINATO_X86
    {"avx512", has_avx512, kernels_avx512_float, kernels_avx512_double},
    {"avx2", has_avx2, kernels_avx2_float, kernels_avx2_double},
#elif OSTINATO_ARM64
    {"neon", [] { return true; }, kernels_neon_float, kernels_neon_double},
#endif
    {"base", [] { return true; }, kernels_base_float, kernels_base_double},
};

const Isa& find(const std::string& name) {
  std::string have;
  for (const Isa& isa : kIsas)
    if (isa.present()) {
      if (name == isa.name) return isa;
      have += (have.empty() ? "" : ", ") + std::string(isa.name);
    }
  throw std::invalid_argument("instruction set '" + name + "' is not one this machine has (" + have + ")");
}

}  // namespace

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas)
    if (isa.present()) names.push_back(isa.name);
  return names;
}

template <> const Kernels<float>& kernels<float>(const std::string& isa) { return find(isa).float_kernels(); }
template <> const Kernels<double>& kernels<double>(const std::string& isa) {
  return find(isa).double_kernels();
}

}  // namespace ostinato
