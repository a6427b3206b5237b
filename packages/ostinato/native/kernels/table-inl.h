// The table of all kernels; included inside the namespace of one instruction set, behind them.
#pragma once

template <class V, int NV> Kernels<typename V::Scalar> make_kernels(const char* name) {
  Kernels<typename V::Scalar> k{};
  k.name = name;
  k.panel = NV * V::kLanes;
  k.lanes = V::kLanes;
  k.gemm = gemm<V, NV>;
  k.row_gemm = row_gemm<V, NV>;
  k.outer = outer<V, NV>;
  k.column_sums = column_sums<V>;
  k.row_sum = row_sum<V>;
  k.row_max = row_max<V>;
  k.add_to_sums = add_to_sums<V>;
#define OP(name, arity, expression)  \
  put<V, Of_##name>(k, kOp_##name); \
  k.on_numbers[kOp_##name] = on_numbers<typename V::Scalar, Of_##name>;
#include "kernels/ops.def"
#undef OP
#define PAIR(first, second, place) \
  put<V, OpPair<Of_##first, Of_##second, place>>(k, kPair_##first##_##second##_##place);
#include "kernels/pairs.def"
#undef PAIR
#define FUSED(name, arity, expression) put<V, Fused_##name>(k, kFused_##name);
#include "kernels/fused.def"
#undef FUSED
#define KERNEL(number, of, ...)                                      \
  k.on_fibres[number][0] = of<V, __VA_ARGS__, 0>;                   \
  k.on_fibres[number][kScalarOfA] = of<V, __VA_ARGS__, kScalarOfA>; \
  k.on_fibres[number][kScalarOfC] = of<V, __VA_ARGS__, kScalarOfC>; \
  k.on_fibres[number][kScalarOfA | kScalarOfC] = of<V, __VA_ARGS__, kScalarOfA | kScalarOfC>;
#define OP_ON_FIBRES(name) KERNEL(kOnFibres_##name, op_on_fibres, Of_##name)
#define PAIR_ON_FIBRES(first, second, place) \
  KERNEL(kOnFibres_##first##_##second##_##place, pair_on_fibres, Of_##first, Of_##second, place)
#include "kernels/fibres.def"
#undef OP_ON_FIBRES
#undef PAIR_ON_FIBRES
#undef KERNEL
  k.sum_fibres = sum_fibres<V>;
  k.add_fibres = add_fibres<V>;
  k.spread = spread<V>;
  k.take = take<V>;
  k.small_product = small_product<V>;
  k.product_sum = product_sum<V>;
  k.play_registers = play_registers<typename V::Scalar>;
  return k;
}
