// What an instruction set offers: a table of kernels for each element type.
#pragma once
#include <algorithm>
#include <cstdint>

namespace ostinato {

// Elementwise kernels: an operation's number is an instruction's, those after them are the engine's own.
enum Op : int32_t {
#define OP(name, arity, expression) kOp_##name,
#include "kernels/ops.def"
#undef OP
  kOpCount,
  kFirstPair = kOpCount,
  kBeforePairs = kFirstPair - 1,  // from which the first pair counts on
#define PAIR(first, second, place) kPair_##first##_##second##_##place,
#include "kernels/pairs.def"
#undef PAIR
  kBroadcast,  // of a row's first column
  kElementwiseCount
};
constexpr int32_t kPairCount = kBroadcast - kFirstPair;
struct OpRow { const char* name; int arity; };
extern const OpRow kOpRows[kOpCount];
struct PairRow { int32_t first, second; int place; };
extern const PairRow kPairRows[kPairCount];

// Rows of a matrix, wherever they lie: element (r, c) = data[r · stride + c].
template <class T> struct Rows { T* data; int64_t stride; };

// Rows by where each begins, all of them moved by one offset.
template <class T> struct RowList {
  T* const* first = nullptr;  // null: no rows
  int64_t offset = 0;
  T* operator[](int64_t r) const { return first[r] + offset; }
  RowList from(int64_t r) const { return first ? RowList{first + r, offset} : *this; }
  operator RowList<const T>() const { return {first, offset}; }
};

// One product of a sum of products: a [n_rows, K] times w, packed: panels [⌈N/panel⌉][K][panel], the last
// as many whole vectors wide as it needs.
template <class T> struct Factor {
  int64_t K;
  RowList<const T> a;
  const T* w;
};

// Memory that is needed soon. A product fetches it into L2 while it multiplies, a line at each k or every
// other: fetched all at once, more lines are asked for than a core waits for at a time.
class Ahead {
 public:
  explicit Ahead(bool weights_are_far = false) : far_weights(weights_are_far) {}
  const bool far_weights;  // then the first tiles of a panel fetch of the next one instead
  void clear() { first_ = n_ = 0, last_page_ = 0; }
  void add(const void* data, int64_t bytes) {
    const char* at = static_cast<const char*>(data);
    // Of a page the first line now, all pages one after the other: to find where one lies takes some 40 ns, for
    // which a product would wait each time (1 … 2 % of training on long sequences).
    for (const char* line = at; line < at + bytes; line += kPage - reinterpret_cast<uintptr_t>(line) % kPage) {
      const uintptr_t page = reinterpret_cast<uintptr_t>(line) / kPage;
      if (page != last_page_) __builtin_prefetch(line, 0, 2);
      last_page_ = page;
    }
    if (n_ > 0 && ranges_[n_ - 1].end == at) ranges_[n_ - 1].end += bytes;
    else if (n_ < kMost) ranges_[n_++] = {at, at + bytes};
  }
  // After all were added. fetches: how many products can make. At half the rate, where that will do,
  // they are slowed down less (1 %).
  void begin(int64_t fetches) {
    int64_t bytes = 0;
    for (int i = 0; i < n_; i++) bytes += ranges_[i].end - ranges_[i].at;
    step_ = 2 * bytes <= kLine * fetches ? kLine / 2 : kLine;
  }
  int64_t step() const { return step_; }  // bytes from one fetch to the next
  // Where n fetches begin, or how many fewer there are; n, and `at` unchanged, where nothing is left. Of ranges
  // that are much shorter, some are fetched now.
  template <class T> int64_t take(int64_t n, const T*& at) {
    for (int64_t lines = 0; first_ < n_ && lines < n / 4; first_++) {
      Range& x = ranges_[first_];
      const int64_t fetches = (x.end - x.at + step_ - 1) / step_;
      if (fetches >= std::min(n / 2, kWorthwhile)) {
        at = reinterpret_cast<const T*>(x.at);
        n = std::min(n, fetches);
        x.at += n * step_;
        if (x.at >= x.end) first_++;
        return n;
      }
      fetch(x);
      lines += (x.end - x.at) / kLine + 1;
    }
    return n;
  }
  void take_all() {
    for (; first_ < n_; first_++) fetch(ranges_[first_]);
  }

 private:
  static constexpr int64_t kLine = 64, kWorthwhile = 32, kPage = 4096;
  static constexpr int kMost = 512;
  struct Range { const char *at, *end; };
  static void fetch(const Range& x) {
    for (const char* at = x.at; at < x.end; at += kLine) __builtin_prefetch(at, 0, 2);
  }
  Range ranges_[kMost];
  int first_ = 0, n_ = 0;
  int64_t step_ = kLine;
  uintptr_t last_page_ = 0;
};

constexpr int64_t kOuterRows = 256;     // of one sum; against 128: level, but 3 % where the result is large
constexpr int64_t kPackedColumns = 60;  // from so many columns of a on, rows of b are read often
constexpr int64_t outer_scratch(int64_t K, int64_t panel) { return K < kPackedColumns ? 0 : kOuterRows * (panel + K + 6); }

template <class T> struct Kernels {
  const char* name;
  int64_t panel;  // columns of one packed panel: what a register tile covers
  int64_t lanes;  // of a vector

  // out[r][0…N) = init[r][0…N) + Σ_factors Σ_k a[r][k] · w[k][0…N), factor after factor and k
  // ascending in one chain of fused multiply-adds. init may have no rows (zero), ahead may be null.
  void (*gemm)(int64_t n_rows, int64_t N, const Factor<T>* factors, int n_factors, RowList<const T> init, RowList<T> out,
               Ahead* ahead);

  // out[k][0…N) += Σ_r a[r][k] · b[r][0…N), r ascending.  out: [K, N], row stride ld; at most
  // kOuterRows rows; scratch: outer_scratch(K, panel) elements.
  void (*outer)(int64_t n_rows, int64_t K, int64_t N, RowList<const T> a, RowList<const T> b, T* out, int64_t ld,
                T* scratch);

  // sum[0…N) += Σ_r a[r][0…N) and scaled[0…N) += Σ_r scale[r][0] · a[r][0…N), r ascending; one may be null.
  void (*row_sums)(int64_t n_rows, int64_t N, RowList<const T> a, T* sum, RowList<const T> scale, T* scaled);

  // out[r] = Σ_c or max_c a[r][c], in sixteen lanes that are then folded 8, 4, 2, 1.
  void (*row_sum)(int64_t n_rows, int64_t N, Rows<const T> a, Rows<T> out);
  void (*row_max)(int64_t n_rows, int64_t N, Rows<const T> a, Rows<T> out);

  // out[r][c] = op(a[r][c], b[r][c], c[r][c], s), where a, b, c, out = table[which[0 … 3]]
  void (*elementwise[kElementwiseCount])(int64_t n_rows, int64_t N, const Rows<T>* table, const int16_t* which, T s);
};

}  // namespace ostinato
