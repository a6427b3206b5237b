// The time loop.
//
// Vocabulary
//   group   rows that share an accumulator for weight gradients; depends on B alone
//   slab    consecutive groups, played from the first step to the last by one thread. As many as
//           threads were asked for; if there are fewer, these play several
//   part    some columns of a step: a single group is played by several threads where its products are
//           large enough (see columns.h). As many as threads were asked for, at most
//   chunk   steps between two visits to `before` and `after`: about 32 or 256 rows of a group
//   span    rows [begin, end) that live at one step
// Schedule of one slab:
//   pack its share of the weights, `once` · barrier
//   for each chunk:  before (all rows of the chunk) · loop, some rows at a time, step by step ·
//                    after, group by group
//   the sums over its own groups · barrier
//   its share of the gradients that are too large for an accumulator a group, and of the other sums
// Of a single group each thread plays some steps of `before`, some columns of `loop`, and of `after` some
// steps, or for sums some of their rows, with a barrier between what depends on each other.
#include "play/executor.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "plan/blocks.h"
#include "kernels/dispatch.h"
#include "play/threads.h"
#if OSTINATO_X86
#include <immintrin.h>
#endif

namespace ostinato {

constexpr int64_t kMaxGroups = 8, kGroupRows = 4;  // rows of a group, at least
constexpr int64_t kFewRows = 2 * kGroupRows - 1;   // of a single group, at most
static_assert(kMaxGroups == Barrier::kMost, "so many play, whether they share rows or columns");
// A power of two, so that threads, of which there mostly are as many, have equally many each.
int64_t n_groups(int64_t B) {
  int64_t n = 1;
  while (n < kMaxGroups && 2 * n * kGroupRows <= B) n *= 2;
  return n;
}

namespace {

constexpr int64_t kChunkRows = 256;    // rows of a group between two visits to its accumulators, or …
constexpr int64_t kNearChunkRows = 32;  // … where these stay near: less is in flight (5 % at H = 32, 2 % at 128)
constexpr int64_t kNearSums = 1 << 17;  // bytes of a group's accumulators that do
constexpr int64_t kGemmRows = 256;     // rows of one product: 256 × 256 floats of A stay in L2
constexpr int64_t kLoopRows = 32;      // played together in the loop: 32 × 512 floats of gates are 64 KB …
constexpr int64_t kNearBytes = 1 << 19;  // … beside weights that stay in L2; larger ones are read once for all rows
constexpr int64_t kPackDepth = 16;     // rows of a panel that is filled by columns, at once: a line of each column (against 64: 1/8 less)
constexpr int64_t kApart = 1 << 12;    // bytes between what two threads write: see Layout
constexpr int64_t kFarBytes = 1 << 21;  // of all that a thread reads and writes over time: beyond, it waits for L3
constexpr int64_t kLateBytes = 1 << 20;  // an accumulator above this is summed once, at the end
constexpr int64_t kLateColumns = 512;    // of its result at once: 256 × 512 floats stay in L2 over all rows
constexpr int64_t kLateRows = 64;        // as one of fewer rows: to clear and to add it costs more
constexpr double kMostBytes = 0x1p62;    // of one play: sizes beyond would overflow
constexpr int64_t kMostPanel = 64;       // columns of the widest kernels' panels
constexpr int64_t kMostLanes = 16;       // of their vectors
constexpr int64_t kTileRows = 6;         // of theirs, where columns fill a panel
// Work on a single group's step: weights times two more than there are rows, as those have to be read
// whatever the rows are. Some 70 of it take a nanosecond, and to meet and fetch what another has written
// takes two meetings' time: a second thread pays from 280 on for each nanosecond of a meeting.
constexpr double kWorthOfMeeting = 140;  // of a nanosecond of one, for each thread
constexpr double kLeastWork = 3e6;       // of a play: below it takes longer to wake a thread
constexpr double kPackWork = 12;         // of a weight that is packed

// The caller's flush-to-zero flags would change results: play in the default environment.
class FloatEnvironment {
 public:
#if OSTINATO_X86
  FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~FloatEnvironment() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#endif
};

// out[c][r] = in[r][c]
template <class T>
void transpose(int64_t R, int64_t C, const T* in, int64_t in_stride, T* out, int64_t out_stride) {
  for (int64_t r = 0; r < R; r++)
    for (int64_t c = 0; c < C; c++) out[c * out_stride + r] = in[r * in_stride + c];
}
#if OSTINATO_X86
// Four rows and columns at a time (a third of the time).
inline void transpose(int64_t R, int64_t C, const float* in, int64_t in_stride, float* out, int64_t out_stride) {
  const int64_t R4 = R / 4 * 4, C4 = C / 4 * 4;
  for (int64_t r = 0; r < R4; r += 4)
    for (int64_t c = 0; c < C4; c += 4) {
      const float* x = in + r * in_stride + c;
      __m128 v[4] = {_mm_loadu_ps(x), _mm_loadu_ps(x + in_stride), _mm_loadu_ps(x + 2 * in_stride), _mm_loadu_ps(x + 3 * in_stride)};
      _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
      for (int i = 0; i < 4; i++) _mm_storeu_ps(out + (c + i) * out_stride + r, v[i]);
    }
  transpose<float>(R - R4, C, in + R4 * in_stride, in_stride, out + R4, out_stride);
  transpose<float>(R4, C - C4, in + C4, in_stride, out + C4 * out_stride, out_stride);
}
#endif

int64_t late_steps(int64_t B) { return std::max<int64_t>(1, kGemmRows / B); }  // of one product
int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
int64_t padded(int64_t width) { return round_up(width, 16); }

// Where the rows of an operand begin, over some steps, one after the other. If all rows live to the
// end, those of other steps and rows lie at a distance from them, as long as there are as many.
template <class T> struct Gathered {
  T** rows = nullptr;  // memory of the play's: on its threads nothing may fail
  T* origin = nullptr;  // the first
  int64_t n_rows = 0, n_steps = 0;
  int64_t phase = 0;  // of the first step, where slots are used again: by it they wrap
};

template <class T> struct Place {  // a buffer, as one play sees it
  T* data;
  int64_t time, row, modulus;  // modulus 0: every step has its slot
  const int64_t* rows;  // of an argument in the caller's order: Play::rows; else null
};

template <class T> Rows<T> result_of(const Gradient& g, const Play& play) {
  const Argument& a = play.arguments[g.argument];
  return {static_cast<T*>(a.data), a.time};
}

// What all threads of a play share.
template <class T> struct Session {
  const Program& program;
  const Play& play;
  const Kernels<T>& kernels;
  const std::vector<Block>& blocks;
  const std::vector<int>& lists;  // of each instruction, the first
  const Columns& columns;
  const Sums& sums;
  const std::vector<Operand>& over_time;  // see over_time_of
  int64_t depth;  // of a step's products, of all panels
  int64_t slabs, parts;  // one of them is 1
  int64_t chunk, groups;
  int64_t loop_groups;  // played together in the loop
  bool far;             // whether what is read and written over time is more than the caches hold
  bool near_weights;    // whether the weights stay in L2
  bool single_use;      // whether each weight multiplies a few rows, once
  struct Own {
    T* registers;           // then its scratch
    Gathered<T>* gathered;  // of each operand that is read or written by rows
    T* product;             // of several pieces
    T* panel;               // of each factor, of weights that multiply once
  };
  std::vector<Own> own = {};                            // each slab's; of a single group's players each one's
  std::vector<Place<T>> places = {};                    // each slab's, of each buffer
  std::vector<T*> packed = {};                          // per weight
  std::vector<T*> packed_parts = {};                    // per task of the shared columns, and part
  std::vector<std::vector<Rows<T>>> accumulators = {};  // per gradient and group; empty: summed late
  int64_t begins[kMaxGroups + 1] = {};                  // group_begin of each
  Barrier barrier = {};
  int64_t slab_begin(int64_t slab) const { return groups * slab / slabs; }  // its first group
};

template <class T> class Player {
 public:
  // share of shares: of all that is not one slab's. Shares of a single slab meet while they play.
  Player(Session<T>& session, int64_t slab, int64_t share, int64_t shares)
      : s_(session), p_(session.program), kernels_(session.kernels), slab_(slab), share_(share), shares_(shares),
        T_(session.play.T), B_(session.play.B), places_(session.places.data() + slab * p_.buffers.size()),
        own_(session.own[share]), registers_(own_.registers), scratch_(registers_ + kRegisters), gathered_(own_.gathered),
        group0_(session.slab_begin(slab)), group1_(session.slab_begin(slab + 1)), ahead_(!session.near_weights) {}

  // The stages of a play, with a barrier between them.
  void prepare() {
    pack();
    clear_accumulators();
    if (share_ == 0) once();
    if (first()) load_carries();
  }
  void play() {
    const int64_t n_chunks = (T_ + s_.chunk - 1) / s_.chunk;
    for (int64_t i = 0; i < n_chunks; i++) {
      const int64_t at = p_.descending ? n_chunks - 1 - i : i, t0 = at * s_.chunk, t1 = std::min(T_, t0 + s_.chunk);
      s_.parts > 1 ? share_chunk(t0, t1) : play_chunk(t0, t1);
    }
    if (first()) store_carries();
    sum_own_groups();
  }
  void sum() {
    late_gradients();
    sum_groups();
  }

 private:
  struct Span { int64_t begin, end; };

  Session<T>& s_;
  const Program& p_;
  const Kernels<T>& kernels_;
  const int64_t slab_, share_, shares_, T_, B_;
  const Place<T>* const places_;
  const typename Session<T>::Own& own_;
  T *const registers_, *const scratch_;
  Gathered<T>* const gathered_;
  const int64_t group0_, group1_;
  Span spans_[kMaxGroups];
  int n_spans_ = 0;
  Ahead ahead_;

  // ---- rows and steps

  int64_t alive(int64_t begin, int64_t end, int64_t t) const {  // rows of a group that live at t
    const int64_t* lengths = s_.play.lengths;
    return std::partition_point(lengths + begin, lengths + end, [t](int64_t n) { return n > t; }) - lengths;
  }
  void find_spans(int64_t g0, int64_t g1, int64_t t) {
    n_spans_ = 0;
    if (!s_.play.lengths) {
      spans_[n_spans_++] = {s_.begins[g0], s_.begins[g1]};
      return;
    }
    for (int64_t g = g0; g < g1; g++) {
      const int64_t begin = s_.begins[g], end = alive(begin, s_.begins[g + 1], t);
      if (begin == end) continue;
      if (n_spans_ && spans_[n_spans_ - 1].end == begin) spans_[n_spans_ - 1].end = end;
      else spans_[n_spans_++] = {begin, end};
    }
  }
  template <class F> void for_spans(F f) const {
    for (int i = 0; i < n_spans_; i++) f(spans_[i]);
  }
  template <class F> void for_steps(int64_t t0, int64_t t1, F f) const {  // in playing order
    if (p_.descending) for (int64_t t = t1; t-- > t0;) f(t);
    else for (int64_t t = t0; t < t1; t++) f(t);
  }
  static T* slot(const Place<T>& b, const Operand& o, int64_t t) {  // where row 0 would begin
    t += o.dt;
    if (b.modulus) t %= b.modulus;
    return b.data + t * b.time + o.column;
  }
  T* at(const Operand& o, int64_t t, int64_t row) const {
    const Place<T>& b = places_[o.buffer];
    return slot(b, o, t) + (b.rows ? b.rows[row] : row) * b.row;
  }
  const Place<T>& place_of(int32_t buffer, int64_t row) const {  // of any slab's row
    int64_t slab = 0;
    while (row >= s_.begins[s_.slab_begin(slab + 1)]) slab++;
    return s_.places[slab * p_.buffers.size() + buffer];
  }
  // Operand number `which` of an instruction over rows and steps; and how many rows that are.
  struct Rowed { RowList<T> rows; int64_t n; };
  Rowed gather(const Instruction& x, int which, const Operand& o, int64_t g0, int64_t g1, int64_t t0, int64_t t1) {
    Gathered<T>& list = gathered_[s_.lists[&x - p_.instructions.data()] + which];
    const Place<T>& place = places_[o.buffer];
    const int64_t n_rows = s_.begins[g1] - s_.begins[g0], n_steps = t1 - t0;
    const bool own = group0_ <= g0 && g1 <= group1_;
    if (own && !s_.play.lengths && !place.rows) {
      T* const origin = at(o, t0, s_.begins[g0]);
      const int64_t phase = place.modulus ? t0 % place.modulus : 0;
      if (list.n_rows == n_rows && list.n_steps == n_steps && (list.phase == phase || n_steps == 1))
        return {{list.rows, origin - list.origin}, n_rows * n_steps};
      list.n_rows = n_rows, list.n_steps = n_steps, list.phase = phase, list.origin = origin;
    }
    int64_t n = 0;
    for_steps(t0, t1, [&](int64_t t) {
      T* const first = slot(place, o, t);
      find_spans(g0, g1, t);
      for_spans([&](Span span) {
        for (int64_t r = span.begin; r < span.end; r++)
          if (place.rows) list.rows[n++] = first + place.rows[r] * place.row;
          else if (own) list.rows[n++] = first + r * place.row;
          else list.rows[n++] = slot(place_of(o.buffer, r), o, t) + r * place.row;
      });
    });
    return {{list.rows, 0}, n};
  }

  // ---- before and after the time loop

  bool first() const { return s_.parts == 1 || share_ == 0; }  // of those that play this slab
  void meet() { s_.barrier.wait(int(share_), int(shares_)); }
  void pack() {
    if (s_.single_use) return;  // see multiply_once
    for (size_t i = 0; i < p_.weights.size(); i++) {
      if (!s_.columns.tasks.empty() && s_.columns.of_loop[i]) continue;
      const Weight& w = p_.weights[i];
      const int64_t panel = kernels_.panel, n_panels = (w.N + panel - 1) / panel;
      for (int64_t q = n_panels * share_ / shares_; q < n_panels * (share_ + 1) / shares_; q++)
        pack_panel(w, q * panel, std::min<int64_t>(w.N, (q + 1) * panel), s_.packed[i] + q * panel * w.K);
    }
    for (size_t i = 0; i < s_.columns.tasks.size(); i++)
      for (int64_t part = share_; part < s_.parts && !s_.columns.tasks[i].pieces.empty(); part += shares_)
        pack_part(s_.columns.tasks[i], part, s_.packed_parts[i * s_.parts + part]);
  }
  int64_t panel_width(int64_t n) const {  // of a panel with n columns
    return std::min(kernels_.panel, round_up(n, kernels_.lanes));
  }
  void pack_panel(const Weight& w, int64_t n0, int64_t n1, T* out) {
    const int64_t width = panel_width(n1 - n0);
    if (n1 - n0 < width) std::fill(out, out + w.K * width, T(0));
    pack_columns(w, n0, n1, out, width);
  }
  // A part's columns of all pieces, one after the other, in panels; of one factor after the other.
  void pack_part(const Columns::Task& task, int64_t part, T* out) {
    const int64_t N = shared_width(task, part, s_.parts);
    for (int32_t factor = 0; factor < task.factors; factor++) {
      const int64_t K = p_.instructions[task.begin + factor].k;
      for (int64_t n = 0; n < N; n += kernels_.panel) pack_part_panel(task, factor, part, n, std::min(N, n + kernels_.panel), out + n * K);
      out += K * round_up(N, kernels_.lanes);
    }
  }
  void pack_part_panel(const Columns::Task& task, int32_t factor, int64_t part, int64_t n0, int64_t n1, T* out) {
    const int64_t width = panel_width(n1 - n0);
    if (n1 - n0 < width) std::fill(out, out + p_.instructions[task.begin + factor].k * width, T(0));
    int64_t n = 0;  // where a piece begins among the part's columns
    for (const Columns::Piece& piece : task.pieces) {
      const Range mine = share(piece.width, part, s_.parts);
      const int64_t first = piece.begin + mine.begin - n, from = std::max(n, n0), to = std::min(n + mine.end - mine.begin, n1);
      if (from < to)
        pack_columns(p_.weights[p_.instructions[piece.gemm + factor].weight], first + from, first + to, out + (from - n0), width);
      n += mine.end - mine.begin;
    }
  }
  // Columns [n0, n1), within a panel of some width.
  void pack_columns(const Weight& w, int64_t n0, int64_t n1, T* out, int64_t panel) {
    int64_t covered = 0;
    for (const WeightBlock& b : w.blocks) covered += int64_t(b.nk) * b.nn;
    if (covered < int64_t(w.K) * w.N)
      for (int64_t k = 0; k < w.K; k++) std::fill(out + k * panel, out + k * panel + (n1 - n0), T(0));
    for (const WeightBlock& b : w.blocks) {
      const int64_t from = std::max<int64_t>(n0, b.n0), to = std::min<int64_t>(n1, b.n0 + b.nn);
      if (from >= to) continue;
      const Argument& m = s_.play.arguments[b.argument];
      const int64_t rs = m.time, cs = m.row;
      const T* src = static_cast<const T*>(m.data) + b.row * rs + (b.column + from - b.n0) * cs;
      T* dst = out + b.k0 * panel + (from - n0);
      if (rs == 1)  // transposed in memory: read along k, as much as the panel's lines stay in L1
        for (int64_t k = 0; k < b.nk; k += kPackDepth)
          transpose(to - from, std::min<int64_t>(kPackDepth, b.nk - k), src + k, cs, dst + k * panel, panel);
      else
        for (int64_t k = 0; k < b.nk; k++)
          for (int64_t n = 0; n < to - from; n++) dst[k * panel + n] = src[k * rs + n * cs];
    }
  }
  void clear_accumulators() {
    for (size_t i = 0; i < p_.gradients.size(); i++) {
      const Gradient& g = p_.gradients[i];
      const auto& sums = s_.accumulators[i];
      if (sums.empty() && share_ == 0) clear(g, result(g));
      if (first()) for (int64_t group = group0_; group < group1_ && !sums.empty(); group++) clear(g, sums[group]);
    }
  }
  static void clear(const Gradient& g, Rows<T> sum) {
    if (sum.stride == g.N) std::memset(sum.data, 0, sizeof(T) * g.K * g.N);
    else for (int64_t k = 0; k < g.K; k++) std::memset(sum.data + k * sum.stride, 0, sizeof(T) * g.N);
  }
  void once() {
    for (int32_t i = p_.once.begin; i < p_.once.end; i++) {
      const Instruction& x = p_.instructions[i];
      block(s_.blocks[i], 0, {0, 1});
      i += x.count;
    }
  }
  template <class F> void for_carries(F f) {  // f(carry, the engine's row, the caller's row)
    for (const Carry& c : p_.carries)
      for (int64_t r = s_.begins[group0_]; r < s_.begins[group1_]; r++)
        f(c, r, s_.play.rows ? s_.play.rows[r] : r);
  }
  int64_t length(int64_t row) const { return s_.play.lengths ? s_.play.lengths[row] : T_; }
  void load_carries() {
    for_carries([&](const Carry& c, int64_t r, int64_t user_row) {
      T* slot = at({c.buffer, 0, 0}, p_.descending ? length(r) : 0, r);
      const int64_t bytes = sizeof(T) * p_.buffers[c.buffer].width;
      if (!given(c.init)) std::memset(slot, 0, bytes);
      else std::memcpy(slot, row_of(c.init, user_row), bytes);
    });
  }
  void store_carries() {
    for_carries([&](const Carry& c, int64_t r, int64_t user_row) {
      if (!given(c.final)) return;
      const T* slot = at({c.buffer, 0, 0}, p_.descending ? 0 : length(r), r);
      std::memcpy(row_of(c.final, user_row), slot, sizeof(T) * p_.buffers[c.buffer].width);
    });
  }
  bool given(int32_t argument) const { return argument != -1 && s_.play.arguments[argument].data; }
  T* row_of(int32_t argument, int64_t row) const {
    const Argument& a = s_.play.arguments[argument];
    return static_cast<T*>(a.data) + row * a.row;
  }

  void play_chunk(int64_t t0, int64_t t1) {
    section(p_.before, group0_, group1_, t0, t1);
    for (int64_t g = group0_; g < group1_; g += s_.loop_groups)
      for_steps(t0, t1, [&](int64_t t) {
        const int64_t end = std::min(g + s_.loop_groups, group1_);
        look_ahead(g, end, t);
        section(p_.loop, g, end, t, t + 1);
        ahead_.take_all();
      });
    if (p_.after.begin < p_.after.end)
      for (int64_t g = group0_; g < group1_; g++) section(p_.after, g, g + 1, t0, t1);
  }

  // What the step after t reads and writes for the first time: kernels are shared by all operands, which
  // defeats the processor's own prefetchers. Not where columns are shared: of a line that another thread
  // will write, nothing is gained.
  void look_ahead(int64_t g0, int64_t g1, int64_t t) {
    const int64_t next = p_.descending ? t - 1 : t + 1;
    if (!s_.far || next < 0 || next >= T_) return;
    ahead_.clear();
    find_spans(g0, g1, next);
    for (const Operand& o : s_.over_time) {
      const Place<T>& place = places_[o.buffer];
      const int64_t bytes = p_.buffers[o.buffer].width * int64_t(sizeof(T));
      for_spans([&](Span span) {
        const int64_t row = place.row * int64_t(sizeof(T)), n = span.end - span.begin;
        if (!place.rows && row >= bytes && row < bytes + 64) return ahead_.add(at(o, next, span.begin), n * row);  // no line between
        for (int64_t r = span.begin; r < span.end; r++) ahead_.add(at(o, next, r), bytes);
      });
    }
    const int64_t rows = s_.begins[g1] - s_.begins[g0];
    ahead_.begin(s_.depth * ((rows + kTileRows - 1) / kTileRows));
  }

  // ---- a single group's rows, by several threads

  void share_chunk(int64_t t0, int64_t t1) {
    share_steps(p_.before, t0, t1);
    meet();
    for_steps(t0, t1, [&](int64_t t) { share_columns(t); });
    meet();
    for (int32_t begin = p_.after.begin, end = begin; begin < p_.after.end; begin = end, meet()) {
      const bool sums = is_sum(p_.instructions[begin]);
      while (end < p_.after.end && is_sum(p_.instructions[end]) == sums) end++;
      if (!sums) share_steps({begin, end}, t0, t1);
      for (int32_t i = begin; i < end && sums; i++) share_sum(p_.instructions[i], t0, t1);
    }
  }
  void share_steps(const Section& some, int64_t t0, int64_t t1) {
    const int64_t n = t1 - t0, begin = t0 + n * share_ / shares_, end = t0 + n * (share_ + 1) / shares_;
    if (begin < end) section(some, group0_, group1_, begin, end);
  }
  void share_sum(const Instruction& x, int64_t t0, int64_t t1) {  // its rows; a vector's columns
    if (p_.gradients[x.weight].K == 1) return accumulate(x, group0_, t0, t1, {0, 1}, share(x.n, share_, shares_));
    accumulate(x, group0_, t0, t1, {x.k * share_ / shares_, x.k * (share_ + 1) / shares_}, {0, x.n});
  }
  void share_columns(int64_t t) {
    find_spans(group0_, group1_, t);
    for (size_t i = 0; i < s_.columns.tasks.size(); i++) {
      const Columns::Task& task = s_.columns.tasks[i];
      const Instruction& x = p_.instructions[task.begin];
      if (task.meet) meet();
      for (int64_t part = share_; part < s_.parts; part += shares_)
        for_spans([&](Span span) {
          if (x.code == Code::kGemm) return multiply(task, s_.packed_parts[i * s_.parts + part], part, t, span);
          if (x.code == Code::kBlock) return block(s_.blocks[task.begin], t, span, share(x.n, part, s_.parts));
          if (part == 0) reduce(x, t, span);
        });
    }
  }
  // A part's columns: of several pieces beside one another, then laid where they belong.
  void multiply(const Columns::Task& task, const T* packed, int64_t part, int64_t t, Span span) {
    const int64_t n_rows = span.end - span.begin, N = shared_width(task, part, s_.parts);
    if (N == 0) return;
    T *a[kMostFactors][kFewRows], *init[kFewRows], *out[kFewRows];
    Factor<T> factors[kMostFactors];
    for (int f = 0; f < task.factors; f++) {
      const Instruction& x = p_.instructions[task.begin + f];
      for (int64_t r = 0; r < n_rows; r++) {
        a[f][r] = at(x.a, t, span.begin + r);
        for (int64_t k = 0; k < x.k; k += 16) __builtin_prefetch(a[f][r] + k);  // all at once from the other cores
      }
      factors[f] = {x.k, {a[f]}, packed};
      packed += x.k * round_up(N, kernels_.lanes);
    }
    if (task.pieces.size() == 1) {
      const Instruction& x = p_.instructions[task.begin];
      const int64_t column = task.pieces[0].begin + share(task.pieces[0].width, part, s_.parts).begin;
      for (int64_t r = 0; r < n_rows; r++) {
        out[r] = at(x.d, t, span.begin + r) + column;
        if (x.c.buffer != -1) init[r] = at(x.c, t, span.begin + r) + column;
      }
      return multiply(task, part, n_rows, N, factors, {x.c.buffer == -1 ? nullptr : init}, {out});
    }
    for (int64_t r = 0; r < n_rows; r++) out[r] = own_.product + r * padded(N);
    const auto for_pieces = [&](auto f) {
      int64_t n = 0;
      for (const Columns::Piece& piece : task.pieces) {
        const Range mine = share(piece.width, part, s_.parts);
        for (int64_t r = 0; r < n_rows; r++)
          f(p_.instructions[piece.gemm], piece.begin + mine.begin, span.begin + r, out[r] + n, mine.end - mine.begin);
        n += mine.end - mine.begin;
      }
    };
    for_pieces([&](const Instruction& x, int64_t column, int64_t row, T* to, int64_t n) {
      if (x.c.buffer == -1) std::memset(to, 0, sizeof(T) * size_t(n));
      else std::memcpy(to, at(x.c, t, row) + column, sizeof(T) * size_t(n));
    });
    multiply(task, part, n_rows, N, factors, {out}, {out});
    for_pieces([&](const Instruction& x, int64_t column, int64_t row, const T* from, int64_t n) {
      std::memcpy(at(x.d, t, row) + column, from, sizeof(T) * size_t(n));
    });
  }

  void multiply(const Columns::Task& task, int64_t part, int64_t n_rows, int64_t N, Factor<T>* factors, RowList<T> init,
                RowList<T> out) {
    if (!s_.single_use) return kernels_.gemm(n_rows, N, factors, task.factors, init, out, nullptr);
    multiply_once(n_rows, N, factors, task.factors, init, out, [&](int32_t factor, int64_t n0, int64_t n1, T* to) {
      pack_part_panel(task, factor, part, n0, n1, to);
    });
  }
  // Weights that multiply once are packed panel by panel in one place, which stays near (two thirds of the
  // time at 1024 units). pack_one(factor, first column, end, to).
  template <class F>
  void multiply_once(int64_t n_rows, int64_t N, Factor<T>* factors, int n_factors, RowList<T> init, RowList<T> out, F pack_one) {
    for (int64_t n0 = 0; n0 < N; n0 += kernels_.panel) {
      const int64_t n1 = std::min(N, n0 + kernels_.panel);
      T* to = own_.panel;
      for (int f = 0; f < n_factors; f++) {
        pack_one(f, n0, n1, to);
        factors[f].w = to;
        to += factors[f].K * panel_width(n1 - n0);
      }
      kernels_.gemm(n_rows, n1 - n0, factors, n_factors, {init.first, init.offset + n0}, {out.first, out.offset + n0}, nullptr);
    }
  }

  // ---- instructions

  void section(const Section& section, int64_t g0, int64_t g1, int64_t t0, int64_t t1) {
    for (int32_t i = section.begin; i < section.end; i++) {
      const Instruction& x = p_.instructions[i];
      switch (x.code) {
        case Code::kGemm: {
          const Rowed out = gather(x, 0, x.d, g0, g1, t0, t1);
          const int left = section.end - i;  // instructions
          if (out.n == 1 && !s_.single_use && left > 1 && beside(x, (&x)[1]) && !(left > 2 && continues((&x)[1], (&x)[2]))) {
            gemm_pair(x, (&x)[1], out.rows, g0, g1, t0, t1);
            i++;
            break;
          }
          int n_factors = 1;
          while (n_factors < std::min(kMostFactors, left) && continues(x, (&x)[n_factors])) n_factors++;
          gemm(&x, n_factors, out, g0, g1, t0, t1);
          i += n_factors - 1;
          break;
        }
        case Code::kOuter:
        case Code::kColumnSum: accumulate(x, g0, t0, t1, {0, x.k}, {0, x.n}); break;
        default:
          for_steps(t0, t1, [&](int64_t t) {
            find_spans(g0, g1, t);
            for_spans([&](Span span) {
              if (x.code == Code::kBlock) block(s_.blocks[i], t, span);
              else reduce(x, t, span);
            });
          });
          i += x.code == Code::kBlock ? x.count : 0;
      }
    }
  }
  // Whether a product takes the same row to the columns beside those of the one before.
  bool beside(const Instruction& x, const Instruction& next) const {
    return next.code == Code::kGemm && next.k == x.k && same(next.a, x.a) && x.a.buffer != x.d.buffer &&
           next.d.buffer == x.d.buffer && next.d.dt == x.d.dt && next.d.column == x.d.column + x.n &&
           (x.c.buffer != x.d.buffer || same(x.c, x.d)) && (next.c.buffer != x.d.buffer || same(next.c, next.d)) &&
           x.n % kernels_.panel == 0 && s_.packed[next.weight] == s_.packed[x.weight] + int64_t(x.k) * x.n;
  }
  // Both at once, of one row: alone each has too few chains to hide the latency of an addition.
  void gemm_pair(const Instruction& x, const Instruction& next, RowList<T> out, int64_t g0, int64_t g1, int64_t t0,
                 int64_t t1) {
    T* row = out[0];
    for (const Instruction* part : {&x, &next}) {
      const size_t bytes = sizeof(T) * size_t(part->n);
      if (part->c.buffer == -1) std::memset(row, 0, bytes);
      else if (!same(part->c, part->d)) std::memcpy(row, gather(*part, 1, part->c, g0, g1, t0, t1).rows[0], bytes);
      row += part->n;
    }
    const Factor<T> factor{x.k, gather(x, 2, x.a, g0, g1, t0, t1).rows, s_.packed[x.weight]};
    kernels_.gemm(1, x.n + next.n, &factor, 1, out, out, nullptr);
  }
  void gemm(const Instruction* x, int n_factors, const Rowed& out, int64_t g0, int64_t g1, int64_t t0, int64_t t1) {
    RowList<T> init;
    if (x->c.buffer != -1) init = gather(*x, 1, x->c, g0, g1, t0, t1).rows;
    Factor<T> factors[kMostFactors];
    for (int f = 0; f < n_factors; f++)
      factors[f] = {x[f].k, gather(x[f], 2, x[f].a, g0, g1, t0, t1).rows, s_.packed[x[f].weight]};
    if (s_.single_use)
      return multiply_once(out.n, x->n, factors, n_factors, init, out.rows, [&](int32_t factor, int64_t n0, int64_t n1, T* to) {
        pack_panel(p_.weights[x[factor].weight], n0, n1, to);
      });
    for (int64_t r = 0; r < out.n; r += kGemmRows) {
      kernels_.gemm(std::min(kGemmRows, out.n - r), x->n, factors, n_factors, init.from(r), out.rows.from(r), s_.far ? &ahead_ : nullptr);
      for (int f = 0; f < n_factors; f++) factors[f].a = factors[f].a.from(kGemmRows);
    }
  }
  // Some rows and columns of a sum.
  void accumulate(const Instruction& x, int64_t group, int64_t t0, int64_t t1, Range rows, Range columns) {
    const int64_t K = rows.end - rows.begin, N = columns.end - columns.begin;
    const size_t number = size_t(&x - p_.instructions.data());
    if (s_.sums.skipped[number] || s_.accumulators[x.weight].empty() || N == 0) return;  // empty: late
    Rows<T> sum = s_.accumulators[x.weight][group];
    sum.data += rows.begin * sum.stride + columns.begin;
    Operand a = x.a, b = x.b;
    (x.code == Code::kOuter ? b : a).column += int32_t(columns.begin);
    const Rowed first = gather(x, 0, a, group, group + 1, t0, t1);
    if (x.code == Code::kColumnSum) {
      const int32_t scaled = s_.sums.scaled[number];
      if (scaled < 0) return kernels_.row_sums(first.n, N, first.rows, sum.data, {}, nullptr);
      const Instruction& y = p_.instructions[scaled];
      return kernels_.row_sums(first.n, N, first.rows, sum.data, gather(y, 0, y.a, group, group + 1, t0, t1).rows,
                               s_.accumulators[y.weight][group].data + columns.begin);
    }
    a.column += int32_t(rows.begin);
    if (K > 0) outer(K, N, gather(x, 0, a, group, group + 1, t0, t1), gather(x, 1, b, group, group + 1, t0, t1), sum);
  }
  void outer(int64_t K, int64_t N, const Rowed& a, const Rowed& b, Rows<T> sum) {
    for (int64_t r = 0; r < a.n; r += kOuterRows)
      kernels_.outer(std::min(kOuterRows, a.n - r), K, N, a.rows.from(r), b.rows.from(r), sum.data, sum.stride, scratch_);
  }
  void reduce(const Instruction& x, int64_t t, Span span) {
    const int64_t n = s_.play.rows ? 1 : span.end - span.begin;  // rows in one stride
    for (int64_t r = span.begin; r < span.end; r += n) {
      const Rows<const T> a{at(x.a, t, r), places_[x.a.buffer].row};
      const Rows<T> d{at(x.d, t, r), places_[x.d.buffer].row};
      (x.code == Code::kRowSum ? kernels_.row_sum : kernels_.row_max)(n, x.n, a, d);
    }
  }

  // The whole list of operations on one strip while it is in L1, then on the next.
  void block(const Block& b, int64_t t, Span span) { block(b, t, span, {0, b.width}); }
  void block(const Block& b, int64_t t, Span span, Range columns) {
    const int64_t W = columns.end - columns.begin, C = std::min(b.strip, W);
    if (W == 0) return;
    const int n_streams = int(b.streams.size());
    bool scattered = false;  // whether rows lie in another order. Against copies in strips: better from H = 16 on
    for (const Block::Stream& x : b.streams) scattered = scattered || places_[x.operand.buffer].rows;
    const int64_t R = scattered ? 1 : b.strip / C;  // rows in one stride
    Rows<T> table[kMaxBlock * 4 + kMaxRegisters];
    for (int i = 0; i < n_streams; i++) {
      const Place<T>& place = places_[b.streams[i].operand.buffer];
      table[i] = {at(b.streams[i].operand, t, span.begin) + (b.streams[i].one_column ? 0 : columns.begin), place.row};
    }
    for (int i = 0; i < b.n_registers; i++) table[n_streams + i] = {registers_ + i * b.strip, C};
    for (int64_t r = span.begin; r < span.end; r += R) {
      const int64_t n_rows = std::min(R, span.end - r);
      for (int64_t c = 0; c < W; c += C) {
        const int64_t n = std::min(C, W - c);
        const bool next_rows = c + C >= W, last = next_rows && r + R >= span.end;
        auto stride = [&](int i) {  // from one strip to the next
          const bool one_column = b.streams[i].one_column;
          if (!next_rows) return one_column ? 0 : C;
          const int64_t* rows = places_[b.streams[i].operand.buffer].rows;
          return (rows ? rows[r + 1] - rows[r] : R) * table[i].stride - (one_column ? 0 : c);
        };
        for (const Block::Step& step : b.steps)
          kernels_.elementwise[step.kernel](n_rows, n, table, step.which, T(step.s));
        if (!last) for (int i = 0; i < n_streams; i++) table[i].data += stride(i);
      }
    }
  }

  // ---- gradients

  // Large gradients: every thread sums its own rows of the result over all rows of the batch.
  void late_gradients() {
    for (int32_t i = p_.after.begin; i < p_.after.end; i++) {
      const Instruction& x = p_.instructions[i];
      if (x.code == Code::kBlock) i += x.count;
      if (x.code != Code::kOuter || !s_.accumulators[x.weight].empty()) continue;
      const int64_t k0 = int64_t(x.k) * share_ / shares_, k1 = int64_t(x.k) * (share_ + 1) / shares_;
      if (k0 == k1) continue;
      Operand a = x.a, b = x.b;
      a.column += int32_t(k0);
      Rows<T> sum = result(p_.gradients[x.weight]);
      sum.data += k0 * sum.stride;
      const int64_t steps = late_steps(B_), n_blocks = (T_ + steps - 1) / steps;
      for (int64_t n = 0; n < x.n; n += kLateColumns) {
        const int64_t width = std::min<int64_t>(kLateColumns, x.n - n);
        for (int64_t j = 0; j < n_blocks; j++) {
          const int64_t t0 = (p_.descending ? n_blocks - 1 - j : j) * steps, t1 = std::min(T_, t0 + steps);
          outer(k1 - k0, width, gather(x, 0, a, 0, s_.groups, t0, t1), gather(x, 1, b, 0, s_.groups, t0, t1), sum);
        }
        b.column += int32_t(width), sum.data += width;
      }
    }
  }
  // Groups are summed in pairs, then pairs of pairs, into the first one's sum, which is the result where
  // that is not transposed. What is all its own a slab sums while others still play (6 % of a
  // backward pass at 32 units: little is left to be fetched from another core).
  void sum_own_groups() {
    for (size_t i = 0; i < p_.gradients.size(); i++)
      for_pairs(i, [&](int64_t left, int64_t right, int64_t slab) {
        if (slab == slab_) sum_pair(i, left, right, 0, p_.gradients[i].K, 0, p_.gradients[i].N);
      });
  }
  void sum_groups() {
    for (size_t i = 0; i < p_.gradients.size(); i++) {
      const Gradient& g = p_.gradients[i];
      if (s_.accumulators[i].empty()) continue;
      // Slabs share the rows of the result, so that no two write to one line; of a vector, its columns.
      const bool by_k = g.K > 1 && !g.transposed;
      const int64_t size = by_k ? g.K : g.N, begin = size * share_ / shares_, end = size * (share_ + 1) / shares_;
      const int64_t k0 = by_k ? begin : 0, k1 = by_k ? end : g.K, n0 = by_k ? 0 : begin, n1 = by_k ? g.N : end;
      for_pairs(i, [&](int64_t left, int64_t right, int64_t slab) {
        if (slab < 0) sum_pair(i, left, right, k0, k1, n0, n1);
      });
      for (const Sums::Copy& c : s_.sums.copies)
        if (size_t(c.from) == i) copy_sum(c, n0, n1);
      if (!g.transposed) continue;
      const Rows<T> out = result(g), sum = s_.accumulators[i][0];
      for (int64_t k = k0; k < k1; k++)
        for (int64_t n = n0; n < n1; n++) out.data[n * out.stride + k] = sum.data[k * sum.stride + n];
    }
  }
  void copy_sum(const Sums::Copy& c, int64_t n0, int64_t n1) {  // of columns [n0, n1)
    const Gradient& to = p_.gradients[c.to];
    n0 = std::max<int64_t>(n0, c.column), n1 = std::min<int64_t>(n1, c.column + to.N);
    if (n0 < n1) std::memcpy(result(to).data + (n0 - c.column), result(p_.gradients[c.from]).data + n0, sizeof(T) * size_t(n1 - n0));
  }
  // f(first group of the left half, and of the right one, the slab that has both or −1), in order.
  template <class F> void for_pairs(size_t gradient, F f) const {
    const int64_t groups = int64_t(s_.accumulators[gradient].size());
    for (int64_t n = 1; n < groups; n *= 2)
      for (int64_t left = 0; left + n < groups; left += 2 * n) {
        const int64_t slab = slab_of(left);
        f(left, left + n, slab == slab_of(std::min(left + 2 * n, groups) - 1) ? slab : -1);
      }
  }
  int64_t slab_of(int64_t group) const {
    int64_t slab = 0;
    while (group >= s_.slab_begin(slab + 1)) slab++;
    return slab;
  }
  void sum_pair(size_t gradient, int64_t left, int64_t right, int64_t k0, int64_t k1, int64_t n0, int64_t n1) {
    const Rows<T> a = s_.accumulators[gradient][left], b = s_.accumulators[gradient][right];
    for (int64_t k = k0; k < k1; k++) {
      T* const out = a.data + k * a.stride;
      const T* const part = b.data + k * b.stride;
      for (int64_t n = n0; n < n1; n++) out[n] += part[n];
    }
  }
  Rows<T> result(const Gradient& g) const { return result_of<T>(g, s_.play); }
};

template <class T> void run_thread(void* context, int id, int n_threads) noexcept {
  FloatEnvironment environment;
  Session<T>& s = *static_cast<Session<T>*>(context);
  auto of_slabs = [&](void (Player<T>::*stage)()) {
    if (s.parts > 1) return (Player<T>(s, 0, id, n_threads).*stage)();
    for (int64_t slab = id; slab < s.slabs; slab += n_threads) (Player<T>(s, slab, slab, s.slabs).*stage)();
  };
  of_slabs(&Player<T>::prepare);
  s.barrier.wait(id, n_threads);
  of_slabs(&Player<T>::play);
  if (s.program.gradients.empty()) return;
  s.barrier.wait(id, n_threads);
  of_slabs(&Player<T>::sum);
}

// What the loop reads and writes over time: of each buffer the slot that comes last.
std::vector<Operand> over_time_of(const Program& program) {
  std::vector<Operand> found;
  for (int32_t i = program.loop.begin; i < program.loop.end; i++) {
    const Instruction& x = program.instructions[i];
    for (const Operand* o : {&x.d, &x.a, &x.b, &x.c}) {
      if (o->buffer < 0 || x.code == Code::kBlock) continue;
      const Kind kind = program.buffers[o->buffer].kind;
      if (kind != Kind::kTime && kind != Kind::kTape && kind != Kind::kChunk) continue;
      const auto same = std::find_if(found.begin(), found.end(), [&](const Operand& y) { return y.buffer == o->buffer; });
      if (same == found.end()) found.push_back({o->buffer, 0, o->dt});
      else same->dt = program.descending ? std::min(same->dt, o->dt) : std::max(same->dt, o->dt);
    }
  }
  return found;
}

int64_t depth_of(const Program& program, int64_t panel) {
  int64_t depth = 0;
  for (int32_t i = program.loop.begin; i < program.loop.end; i++) {
    const Instruction& x = program.instructions[i];
    if (x.code == Code::kGemm) depth += (x.n + panel - 1) / panel * x.k;
  }
  return depth;
}

}  // namespace

template <class T>
Executor<T>::Executor(Program program, Workspaces& workspaces) : program_(std::move(program)), workspaces_(workspaces) {
  validate(program_);
  columns_ = columns_of(program_);
  sums_ = sums_of(program_);
  over_time_ = over_time_of(program_);
  blocks_.resize(program_.instructions.size());
  int lists = 0;
  for (size_t i = 0; i < blocks_.size(); i++) {
    const Code code = program_.instructions[i].code;
    if (code == Code::kBlock) blocks_[i] = Block(&program_.instructions[i], sizeof(T));
    lists_.push_back(lists);
    lists += code == Code::kGemm ? 3 : code == Code::kOuter ? 2 : code == Code::kColumnSum;
  }
  lists_.push_back(lists);
}
template <class T> Executor<T>::~Executor() = default;

const Columns kNotShared{};

// How much memory a play needs, and for what: first what slabs share, then each one's own, of which
// nothing lies in one page with another's. The processor fetches ahead within a page, and would take
// from another core what that is about to write (a third of the time at 32 rows of 32 units).
template <class T> class Layout {
 public:
  // parts: see parts_of.
  Layout(const Program& program, const Columns& shared, const Sums& sums, const Play& play, int64_t parts, int64_t lanes)
      : p_(program), columns_(parts > 1 ? shared : kNotShared), sums_(sums), T_(play.T), B_(play.B), lanes_(lanes), groups_(n_groups(play.B)),
        slabs_(std::max<int64_t>(1, std::min<int64_t>(play.threads, groups_))), parts_(parts),
        late_(p_.gradients.size()), lasts_(p_.buffers.size()) {
    if (most_bytes() > kMostBytes) throw std::length_error("play: so many steps and rows need more than 2^62 bytes");
    int64_t near_bytes = 0;  // of a group's accumulators
    for (size_t i = 0; i < p_.gradients.size(); i++) {
      const Gradient& g = p_.gradients[i];
      const bool large = size(g) * int64_t(sizeof(T)) > kLateBytes, few = T_ * B_ <= kLateRows * groups_;
      late_[i] = g.K > 1 && groups_ > 1 && !g.transposed && (large || few);
      if (accumulated(i)) near_bytes += size(g) * int64_t(sizeof(T));
    }
    const bool near = near_bytes > 0 && near_bytes <= kNearSums;
    chunk_ = std::min(T_, std::max<int64_t>(1, (near ? kNearChunkRows : kChunkRows) * groups_ / B_));
    for (int32_t i = p_.after.begin; i < p_.after.end; i++) {
      const Instruction& x = p_.instructions[i];
      if (x.code == Code::kBlock) i += x.count;
      if (x.code == Code::kOuter && late_[x.weight]) lasts_[x.a.buffer] = lasts_[x.b.buffer] = true;
    }
  }

  int64_t groups() const { return groups_; }
  int64_t slabs() const { return slabs_; }
  int64_t parts() const { return parts_; }
  const Columns& columns() const { return columns_; }  // none where they are not shared
  int64_t players() const { return std::max(slabs_, parts_); }
  int64_t slab_begin(int64_t slab) const { return groups_ * slab / slabs_; }
  int64_t rows(int64_t slab) const { return group_begin(B_, slab_begin(slab + 1)) - group_begin(B_, slab_begin(slab)); }
  int64_t chunk() const { return chunk_; }
  bool near_weights() const { return weights() * int64_t(sizeof(T)) <= kNearBytes; }
  int64_t loop_groups() const {
    return near_weights() ? std::max<int64_t>(1, kLoopRows * groups_ / B_) : groups_;
  }
  int64_t bytes_over_time() const {
    int64_t width = 0;
    for (const Buffer& b : p_.buffers)
      if (b.kind == Kind::kTime || b.kind == Kind::kTape) width += b.width;
    return T_ * B_ * width * int64_t(sizeof(T));
  }
  // Not copies; and not large ones, which are summed at the end: what they read must last until then.
  bool accumulated(size_t gradient) const { return !late_[gradient] && !sums_.copied[gradient]; }
  // The first group's sum is taken in the result, if that has the same order.
  bool in_result(size_t gradient, int64_t group) const { return group == 0 && !p_.gradients[gradient].transposed; }
  int64_t slots(size_t buffer) const {
    switch (p_.buffers[buffer].kind) {
      case Kind::kStep: return 1;
      case Kind::kChunk: return lasts_[buffer] ? T_ : chunk_;
      case Kind::kPair: return 2;
      default: return 0;
    }
  }

  // In elements, but for most_rows.
  bool single_use() const { return T_ == 1 && groups_ == 1; }
  int64_t weight(size_t i) const {
    const Weight& w = p_.weights[i];
    if (single_use()) return 0;
    return !columns_.tasks.empty() && columns_.of_loop[i] ? 0 : round_up(w.N, lanes_) * w.K;
  }
  int64_t weight(const Columns::Task& task, int64_t part) const {
    int64_t K = 0;
    if (single_use()) return 0;
    for (int32_t i = task.begin; i < task.begin + task.factors && !task.pieces.empty(); i++) K += p_.instructions[i].k;
    return round_up(shared_width(task, part, parts_), lanes_) * K;
  }
  int64_t weights() const {
    int64_t n = 0;
    for (size_t i = 0; i < p_.weights.size(); i++) n += weight(i);
    for (const Columns::Task& task : columns_.tasks)
      for (int64_t part = 0; part < parts_; part++) n += weight(task, part);
    return n;
  }
  int64_t panels(int64_t panel) const {  // of the factors of one product, where weights multiply once
    int64_t K = 0;
    for (const Weight& w : p_.weights) K = std::max<int64_t>(K, w.K);
    return single_use() ? kMostFactors * K * panel : 0;
  }
  int64_t product() const {  // of several pieces
    int64_t n = 0;
    for (const Columns::Task& task : columns_.tasks)
      for (int64_t part = 0; part < parts_; part++) n = std::max(n, B_ * padded(shared_width(task, part, parts_)));
    return n;
  }
  int64_t local(size_t i) const { return p_.buffers[i].kind == Kind::kLocal ? padded(p_.buffers[i].width) : 0; }
  int64_t locals() const {
    int64_t n = 0;
    for (size_t i = 0; i < p_.buffers.size(); i++) n += local(i);
    return n;
  }
  int64_t of_a_row(size_t i) const { return slots(i) * padded(p_.buffers[i].width); }  // in all slots
  int64_t buffers(int64_t slab) const {
    int64_t n = 0;
    for (size_t i = 0; i < p_.buffers.size(); i++) n += rows(slab) * of_a_row(i);
    return n;
  }
  int64_t accumulator(size_t i, int64_t group) const {
    return !accumulated(i) || in_result(i, group) ? 0 : padded(size(p_.gradients[i]));
  }
  int64_t accumulators(int64_t slab) const {
    int64_t n = 0;
    for (size_t i = 0; i < p_.gradients.size(); i++)
      for (int64_t g = slab_begin(slab); g < slab_begin(slab + 1); g++) n += accumulator(i, g);
    return n;
  }
  int64_t registers(int64_t panel) const {  // and the scratch
    int64_t scratch = 0;
    for (const Gradient& g : p_.gradients) scratch = std::max(scratch, outer_scratch(g.K, panel));
    return kRegisters + scratch;
  }
  int64_t most_rows() const {  // of one list
    const bool any_late = std::find(late_.begin(), late_.end(), true) != late_.end();
    int64_t of_slab = 0;
    for (int64_t slab = 0; slab < slabs_; slab++) of_slab = std::max(of_slab, rows(slab));
    return std::max(of_slab * chunk_, any_late ? B_ * std::min(T_, late_steps(B_)) : 0);
  }
  int64_t bytes(int64_t panel, int64_t lists) const {  // lists: of a slab
    int64_t n = bytes_of<T>(locals()) + bytes_of<T>(weights()) + kApart;
    for (int64_t slab = 0; slab < slabs_; slab++) n += bytes_of<T>(accumulators(slab)) + bytes_of<T>(buffers(slab));
    return n + players() * (bytes_of<T>(registers(panel)) + bytes_of<T>(product()) + bytes_of<T>(panels(panel)) + bytes_of<Gathered<T>>(lists) +
                            bytes_of<T*>(lists * most_rows()) + kApart);
  }

 private:
  static int64_t size(const Gradient& g) { return int64_t(g.K) * g.N; }
  // No sum or product above is larger; a double, as it may be past the integers.
  double most_bytes() const {
    double fixed = kMaxGroups * (double(kRegisters) + double(kApart)), per_row = 0;
    for (const Weight& w : p_.weights) fixed += (double(w.N + kMostLanes) + double(kMaxGroups * kMostFactors * kMostPanel)) * w.K;
    for (const Columns::Task& task : columns_.tasks)
      for (int32_t i = task.begin; i < task.end && !task.pieces.empty(); i++) {
        const Instruction& x = p_.instructions[i];
        fixed += double(x.n + kMostLanes * parts_) * x.k + double(parts_ * B_) * double(padded(x.n));
      }
    for (const Gradient& g : p_.gradients) fixed += double(kMaxGroups) * double(padded(size(g)) + outer_scratch(g.K, kMostPanel));
    for (const Buffer& b : p_.buffers) per_row += double(padded(b.width));
    const double pointers = double(kMaxGroups * 3 * p_.instructions.size() * sizeof(T*));
    return (fixed + per_row) * sizeof(T) + double(B_) * (double(T_) + 1) * (per_row * sizeof(T) + pointers);
  }
  const Program& p_;
  const Columns& columns_;
  const Sums& sums_;
  const int64_t T_, B_, lanes_, groups_, slabs_, parts_;
  int64_t chunk_;
  std::vector<bool> late_, lasts_;
};

namespace {

// By how many threads the columns of a step are shared.
int64_t most_parts(const Columns& columns, const Play& play) {
  return columns.tasks.empty() || n_groups(play.B) > 1 ? 1 : std::max(1, std::min(play.threads, Barrier::kMost));
}
int64_t parts_of(const Columns& columns, const Play& play) {
  const int64_t most = most_parts(columns, play);
  const double work = columns.weights * (double(play.B) + 2);
  if (most == 1 || (play.worth == 0 && work * double(play.T) + kPackWork * columns.weights < kLeastWork)) return 1;
  const double worth = play.worth > 0 ? double(play.worth) : kWorthOfMeeting * meeting_ns(int(most));
  const double pays = work / worth / double(std::max<int64_t>(1, columns.meetings));
  return pays < double(most) ? std::max<int64_t>(1, int64_t(pays)) : most;
}

// Where a slab finds each buffer: at the caller's, among the locals, or in its own memory.
template <class T> void add_places(Session<T>& s, const Layout<T>& layout, int64_t slab, T* locals, T* memory) {
  const int64_t first = s.begins[s.slab_begin(slab)], n = layout.rows(slab);
  for (size_t i = 0; i < s.program.buffers.size(); i++) {
    const Buffer& b = s.program.buffers[i];
    const int64_t row = padded(b.width), slots = layout.slots(i);
    const bool theirs = b.kind == Kind::kTime || b.kind == Kind::kVector || b.kind == Kind::kTape;
    const Argument a = theirs ? s.play.arguments[b.argument] : Argument{};
    T* const data = static_cast<T*>(a.data);
    switch (b.kind) {
      case Kind::kTime: s.places.push_back({data, a.time, a.row, 0, s.play.rows}); break;
      case Kind::kVector: s.places.push_back({data, 0, 0, 0, nullptr}); break;
      case Kind::kTape: s.places.push_back({data + first * (s.play.T + b.extra - 1) * a.row, n * a.row, a.row, 0, nullptr}); break;
      case Kind::kLocal: s.places.push_back({locals, 0, 0, 0, nullptr}); break;
      default: {
        const bool wraps = slots > 1 && (b.kind == Kind::kPair || slots < s.play.T);
        s.places.push_back({memory - first * row, slots == 1 ? 0 : n * row, row, wraps ? slots : 0, nullptr});
      }
    }
    locals += layout.local(i), memory += n * layout.of_a_row(i);
  }
}
template <class T> void add_accumulators(Session<T>& s, const Layout<T>& layout, int64_t slab, T* memory) {
  for (size_t i = 0; i < s.program.gradients.size(); i++)
    for (int64_t g = s.slab_begin(slab); g < s.slab_begin(slab + 1) && layout.accumulated(i); g++) {
      const Gradient& x = s.program.gradients[i];
      s.accumulators[i].push_back(layout.in_result(i, g) ? result_of<T>(x, s.play) : Rows<T>{memory, x.N});
      memory += layout.accumulator(i, g);
    }
}

}  // namespace

template <class T> int64_t Executor<T>::needed_bytes(const Play& play) const {
  const Kernels<T>& kernels = ostinato::kernels<T>(play.isa);
  const auto bytes = [&](int64_t parts) {
    return Layout<T>(program_, columns_, sums_, play, parts, kernels.lanes).bytes(kernels.panel, lists_.back());
  };
  if (play.worth > 0) return bytes(parts_of(columns_, play));
  int64_t most = 0;
  for (int64_t parts = most_parts(columns_, play); parts > 0; parts--) most = std::max(most, bytes(parts));
  return most;
}

template <class T> void Executor<T>::play(const Play& play) {
  const Kernels<T>& kernels = ostinato::kernels<T>(play.isa);
  const Layout<T> layout(program_, columns_, sums_, play, parts_of(columns_, play), kernels.lanes);
  const int64_t panel = kernels.panel, lists = lists_.back(), most_rows = layout.most_rows();
  const bool far = layout.bytes_over_time() > layout.slabs() * kFarBytes;
  Session<T> s{program_,      play,           kernels,        blocks_,         lists_,               layout.columns(), sums_, over_time_, depth_of(program_, panel),
               layout.slabs(), layout.parts(), layout.chunk(), layout.groups(), layout.loop_groups(), far, layout.near_weights(),
               layout.single_use()};
  for (int64_t g = 0; g <= s.groups; g++) s.begins[g] = group_begin(play.B, g);

  std::unique_ptr<Memory> work = workspaces_.take();
  char* at = work->get(layout.bytes(panel, lists));
  T* const locals = piece<T>(at, layout.locals());
  T* packed = piece<T>(at, layout.weights());
  for (size_t i = 0; i < program_.weights.size(); i++) {
    s.packed.push_back(packed);
    packed += layout.weight(i);
  }
  for (const Columns::Task& task : layout.columns().tasks)
    for (int64_t part = 0; part < s.parts; part++) {
      s.packed_parts.push_back(packed);
      packed += layout.weight(task, part);
    }
  s.accumulators.resize(program_.gradients.size());
  for (int64_t player = 0; player < layout.players(); player++) {
    at += kApart;
    if (player < s.slabs) {
      add_accumulators(s, layout, player, piece<T>(at, layout.accumulators(player)));
      add_places(s, layout, player, locals, piece<T>(at, layout.buffers(player)));
    }
    T* const registers = piece<T>(at, layout.registers(panel));
    T* const product = piece<T>(at, layout.product());
    T* const panels = piece<T>(at, layout.panels(panel));
    s.own.push_back({registers, piece<Gathered<T>>(at, lists), product, panels});
    T** rows = piece<T*>(at, lists * most_rows);
    for (int64_t i = 0; i < lists; i++) s.own[player].gathered[i] = {rows + i * most_rows};
  }

  parallel(int(layout.players()), run_thread<T>, &s);
  workspaces_.give(std::move(work));
}

template class Executor<float>;
template class Executor<double>;

}  // namespace ostinato
