// What an instruction set offers: a table of kernels for each element type. isa_*.cc make the tables.
#pragma once
#include <cstdint>

#include "kernels/prefetcher.h"
#include "program/arrays.h"
#include "tuning.h"

namespace ostinato {

// Elementwise kernels. The first kOpCount are the operations that instructions name; after them come pairs of
// operations and larger expressions, which the engine makes itself.
enum Op : int32_t {
#define OP(name, arity, expression) kOp_##name,
#include "kernels/ops.def"
#undef OP
  kOpCount,
  kFirstPair = kOpCount,
  kBeforePairs = kFirstPair - 1,  // so that the next enumerator, the first pair, has the number kFirstPair
#define PAIR(first, second, place) kPair_##first##_##second##_##place,
#include "kernels/pairs.def"
#undef PAIR
  kFirstFused,
  kBeforeFused = kFirstFused - 1,
#define FUSED(name, arity, expression) kFused_##name,
#include "kernels/fused.def"
#undef FUSED
  kElementwiseCount
};
constexpr int32_t kPairCount = kFirstFused - kFirstPair;
constexpr int32_t kFusedCount = kElementwiseCount - kFirstFused;
// Elementwise kernels that are also played on fibres, by their place in Kernels::on_fibres.
enum OnFibres : int32_t {
#define OP_ON_FIBRES(name) kOnFibres_##name,
#define PAIR_ON_FIBRES(first, second, place) kOnFibres_##first##_##second##_##place,
#include "kernels/fibres.def"
#undef OP_ON_FIBRES
#undef PAIR_ON_FIBRES
  kOnFibresCount
};
extern const int32_t kFibreKernels[kOnFibresCount];  // which elementwise kernel each one is
constexpr int kScalarOfA = 1, kScalarOfC = 2;        // operands that have one number a fibre
struct OpRow {
  const char* name;
  int arity;
};
extern const OpRow kOpRows[kOpCount];
struct PairRow {  // see pairs.def
  int32_t first, second;
  int place;
};
extern const PairRow kPairRows[kPairCount];
struct FusedRow {  // see fused.def
  int arity;
  const char* expression;
};
extern const FusedRow kFusedRows[kFusedCount];

// An instruction of register code, see plan/register_code.h: d = op(a, b, c) of registers, where an
// operation's scalar is register c; or
//   kLoad         d = streams[a][b]
//   kStore        streams[a][b] = c
//   kAddTo        sums[d] += a
//   kMultiplyTo   sums[d] += a · b
//   kEnd          ends a step
struct RegisterInstruction {
  uint16_t op, d, a, b, c;
};
enum RegisterOp : uint16_t { kLoad = kOpCount, kStore, kAddTo, kMultiplyTo, kEnd };

// Rows of a matrix, wherever they lie: element (r, c) = data[r · stride + c].
template <class T> struct Rows {
  T* data;
  int64_t stride;
};

// An operand that lies in rows, fibre by fibre: J neighbouring columns, along the last axis of an array.
// Element j of fibre i of row r is data[r · stride + i · step + j], or without j where a fibre has one
// number. A step of 0 spreads one fibre over all.
template <class T> struct Fibres {
  T* data;
  int64_t step, stride;
};

// Rows by where each begins, all moved by one offset.
template <class T> struct RowList {
  T* const* first = nullptr;  // null: no rows
  int64_t offset = 0;
  T* operator[](int64_t r) const { return first[r] + offset; }
  RowList from(int64_t r) const { return first ? RowList{first + r, offset} : *this; }
  operator RowList<const T>() const { return {first, offset}; }
};

// One product of a sum of products: a [n_rows, K] times w. w is packed in panels, [⌈N/panel⌉][K][panel]; the
// last panel is as many whole vectors wide as it needs.
template <class T> struct Factor {
  int64_t K;
  RowList<const T> a;
  const T* w;
};

// A sum of products of one row: what `gemm` computes of it, without lists of rows.
template <class T> struct RowProduct {
  struct RowFactor {
    int64_t K;
    const T *a, *w;
  };
  int n_factors;
  RowFactor factors[kMaxFactors];
  const T* init;  // null: zero
  T* out;
};

// Elements of scratch that `outer` needs: a panel of b, and a padded to whole tiles.
constexpr int64_t outer_scratch(int64_t K, int64_t panel) {
  return K < kPackedColumns ? 0 : kOuterRows * (panel + K + kTileRows);
}

// Elements of scratch that `product_sum` needs, for products of this K.
constexpr int64_t product_sum_scratch(int64_t K) { return kSummedRows * kSumRows * ((K + 15) / 16 * 16); }

template <class T> struct Kernels {
  const char* name;
  int64_t panel;  // columns of one packed panel: what a register tile covers
  int64_t lanes;  // of a vector

  // out[r][0…N) = init[r][0…N) + Σ_factors Σ_k a[r][k] · w[k][0…N), factor after factor and k ascending in
  // one chain of fused multiply-adds. If init has no rows it is zero. prefetcher may be null.
  void (*gemm)(int64_t n_rows, int64_t N, const Factor<T>* factors, int n_factors, RowList<const T> init,
               RowList<T> out, Prefetcher* prefetcher);

  // `gemm` of one row.
  void (*row_gemm)(int64_t N, const RowProduct<T>& x);

  // out[k][0…N) += Σ_r a[r][k] · b[r][0…N), r ascending, over at most kOuterRows rows.
  // out: [K, N] with row stride ld. scratch: outer_scratch(K, panel) elements.
  void (*outer)(int64_t n_rows, int64_t K, int64_t N, RowList<const T> a, RowList<const T> b, T* out,
                int64_t ld, T* scratch);

  // sum[0…N) += Σ_r a[r][0…N) and scaled[0…N) += Σ_r scale[r][0] · a[r][0…N), r ascending. sum or scaled may
  // be null.
  void (*column_sums)(int64_t n_rows, int64_t N, RowList<const T> a, T* sum, RowList<const T> scale,
                      T* scaled);

  // out[r][o, i] = Σ_j a[r][o, j, i], and max_j a[r][o, j, i], of rows of N columns. If inner is 1: in
  // sixteen lanes that are then folded 8, 4, 2, 1. Otherwise j ascending, in one chain.
  void (*row_sum)(int64_t n_rows, int64_t N, Axis axis, Rows<const T> a, Rows<T> out);
  void (*row_max)(int64_t n_rows, int64_t N, Axis axis, Rows<const T> a, Rows<T> out);

  // row_sum strip by strip: a holds columns [column, column + n) of rows, out the sums up to these.
  // If inner is 1, the strip begins and ends with an axis.
  void (*add_to_sums)(int64_t n_rows, int64_t n, Rows<const T> a, Rows<T> out, int64_t column, Axis axis);

  // out[r][o, j, i] = a[r][o, i], columns [column, column + n) of it, which out begins with.
  void (*spread)(int64_t n_rows, int64_t n, Rows<const T> a, Rows<T> out, int64_t column, Axis axis);

  // out[i][j] = op(a, b, c), where x = {a, b, c, out}, of the n_fibres fibres of each row; J is a multiple of
  // 16. The second index says which operands have one number a fibre: kScalarOfA, kScalarOfC.
  void (*on_fibres[kOnFibresCount][4])(int64_t n_rows, int64_t n_fibres, int64_t J, const Fibres<T>* x);

  // add_to_sums of a · b, without a place for the product. sum_fibres: out[o] = Σ_i Σ_j a[i][j] b[i][j] over
  // the per_sum fibres of o, in the order of sums of neighbours. add_fibres: out[j] += Σ_i a[i][j] b[i][j],
  // or a[i] b[i][j]; it begins with zeros if `begins`.
  void (*sum_fibres)(int64_t n_rows, int64_t n_fibres, int64_t J, int64_t per_sum, const Fibres<T>& a,
                     const Fibres<T>& b, Rows<T> out);
  void (*add_fibres)(int64_t n_rows, int64_t n_fibres, int64_t J, bool scalar_a, const Fibres<T>& a,
                     const Fibres<T>& b, Rows<T> out, bool begins);

  // out[r] = the elements of a[r] that the runs name, one run behind the other.
  void (*take)(int64_t n_rows, const ElementRun* runs, int64_t n_runs, Rows<const T> a, Rows<T> out);

  // Products of matrices that lie within rows; see program/arrays.h. stretches: of b, by rows of its
  // matrices; null if b is read as it lies.
  void (*small_product)(int64_t n_rows, const SmallProduct& x, const Stretch* stretches, Rows<const T> a,
                        Rows<const T> b, Rows<T> out);

  // sum[g · M + m][n] += Σ_r Σ_k a[r][g, m, k] · b[r][g, n, k], for these rows and columns of the sum, whose
  // row stride is ld. Of kSummedRows rows r at a time: sixteen chains, of k, k + 16, …, that are folded 8, 4,
  // 2, 1. scratch: product_sum_scratch(K) elements.
  void (*product_sum)(int64_t n_rows, const SmallProduct& x, const Stretch* stretches, RowList<const T> a,
                      RowList<const T> b, Range rows, Range columns, T* sum, int64_t ld, T* scratch);

  // out[r][c] = op(a[r][c], b[r][c], c[r][c], s), where a, b, c, out = table[which[0 … 3]]
  void (*elementwise[kElementwiseCount])(int64_t n_rows, int64_t N, const Rows<T>* table,
                                         const int16_t* which, T s);
  // The same of one row, in float32 alone: out[c] = op(a[c], b[c], c[c], s)
  void (*row_elementwise[kElementwiseCount])(int64_t N, const T* a, const T* b, const T* c, T* out, T s);

  // op(a, b, c) of numbers, where an operation's scalar is c: for machine code.
  T (*on_numbers[kOpCount])(T a, T b, T c);

  // Steps of one row. After each one stream i has moved by moves[i].
  void (*play_registers)(const RegisterInstruction* code, int64_t n_steps, T* registers, T** streams,
                         const int64_t* moves, int64_t n_streams, T* sums);
};

}  // namespace ostinato
