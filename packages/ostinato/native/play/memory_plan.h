// How much memory a play needs, and for what. The workspace is one piece
// (the accumulators of a run that is played in segments are the caller's):
//   shared          local buffers · packed weights
//   each player     gap · accumulators · buffers (a slab's) · registers and scratch · product · panels ·
//                   row caches and their lists
// The gap of a page keeps two players from writing to one page: see kThreadGapBytes.
//
// Sizes are in elements, unless a name says bytes, rows or steps.
#pragma once
#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <vector>

#include "play/session.h"

namespace ostinato {
namespace {

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }
inline int64_t padded(int64_t width) { return round_up(width, kRowPadding); }
// Steps of one product of a late gradient.
inline int64_t late_steps(int64_t B) { return std::max<int64_t>(1, kGemmRows / B); }

const ColumnSharing kNotShared{};

template <class T> class MemoryPlan {
 public:
  // n_parts: how many threads share the columns of a step; 1: none do.
  MemoryPlan(const PlannedProgram& plan, const PlayRequest& request, int64_t n_parts,
             const Kernels<T>& kernels)
      : program_(plan.program), columns_(n_parts > 1 ? plan.columns : kNotShared), sums_(plan.sums),
        segment_(request.segment), n_lists_(plan.n_lists), T_(request.T),
        run_T_(segment_ ? segment_->run_steps : T_), B_(request.B), panel_(kernels.panel),
        lanes_(kernels.lanes), unit_rows_(request.unit_rows), by_unit_(request.sums_by_unit),
        n_row_groups_(ostinato::n_groups(B_)), n_groups_(by_unit_ ? B_ / unit_rows_ : n_row_groups_),
        n_slabs_(std::max<int64_t>(1, std::min<int64_t>(request.threads, n_row_groups_))), n_parts_(n_parts),
        late_(program_.gradients.size()), kept_to_the_end_(program_.buffers.size()) {
    if (bound_on_bytes() > kMaxPlayBytes)
      throw std::length_error("play: so many steps and rows need more than 2^62 bytes");
    chunk_ = std::min(T_, steps_of(choose_late_gradients()));
    for (int32_t i = program_.after.begin; i < program_.after.end; i++) {
      const Instruction& x = program_.instructions[i];
      if (x.code == Code::kBlock) i += x.count;
      if (x.code == Code::kOuter && late_[x.weight])
        kept_to_the_end_[x.a.buffer] = kept_to_the_end_[x.b.buffer] = true;
    }
  }

  // ---- The schedule

  int64_t n_groups() const { return n_groups_; }
  int64_t n_slabs() const { return n_slabs_; }
  int64_t n_parts() const { return n_parts_; }
  int64_t n_players() const { return std::max(n_slabs_, n_parts_); }
  const ColumnSharing& columns() const { return columns_; }
  int64_t group_begin(int64_t group) const {
    return by_unit_ ? group * unit_rows_ : ostinato::group_begin(B_, group, unit_rows_);
  }
  int64_t first_group(int64_t slab) const {
    const int64_t first = n_row_groups_ * slab / n_slabs_;
    return by_unit_ ? ostinato::group_begin(B_, first, unit_rows_) / unit_rows_ : first;
  }
  int64_t rows_of_slab(int64_t slab) const {
    return group_begin(first_group(slab + 1)) - group_begin(first_group(slab));
  }
  int64_t chunk() const { return chunk_; }
  // Steps that are whole chunks, however much is accumulated.
  int64_t whole_chunks() const {
    return std::min(T_, std::lcm(steps_of(kNearChunkRows), steps_of(kChunkRows)));
  }
  bool single_use() const { return T_ == 1 && n_groups_ == 1; }
  bool near_weights() const { return weights() * int64_t(sizeof(T)) <= kNearWeightBytes; }
  int64_t loop_groups() const {
    if (!near_weights()) return n_groups_;
    const int64_t near_rows = kNearStepBytes / std::max<int64_t>(1, step_of_a_row() * int64_t(sizeof(T)));
    return std::max<int64_t>(1, std::min(kLoopRows, near_rows) * n_groups_ / B_);
  }
  bool far() const {
    int64_t width = 0;
    for (const Buffer& b : program_.buffers)
      if (b.kind == Kind::kTime || b.kind == Kind::kTape) width += b.width;
    return T_ * B_ * width * int64_t(sizeof(T)) > n_slabs_ * kFarBytes;
  }

  // ---- Shared memory

  int64_t local(size_t i) const {
    return program_.buffers[i].kind == Kind::kLocal ? padded(program_.buffers[i].width) : 0;
  }
  int64_t locals() const {
    int64_t n = 0;
    for (size_t i = 0; i < program_.buffers.size(); i++) n += local(i);
    return n;
  }
  int64_t weight(size_t i) const {
    const Weight& w = program_.weights[i];
    if (single_use()) return 0;
    return !columns_.stages.empty() && columns_.loop_only[i] ? 0 : round_up(w.N, lanes_) * w.K;
  }
  int64_t weight_part(const ColumnSharing::Stage& stage, int64_t part) const {
    if (single_use()) return 0;
    int64_t K = 0;
    for (int32_t i = stage.begin; i < stage.begin + stage.factors && !stage.pieces.empty(); i++)
      K += program_.instructions[i].k;
    return round_up(part_width(stage, part, n_parts_), lanes_) * K;
  }
  int64_t weights() const {
    int64_t n = 0;
    for (size_t i = 0; i < program_.weights.size(); i++) n += weight(i);
    for (const ColumnSharing::Stage& stage : columns_.stages)
      for (int64_t part = 0; part < n_parts_; part++) n += weight_part(stage, part);
    return n;
  }

  // ---- A player's memory

  int64_t slots(size_t buffer) const {
    switch (program_.buffers[buffer].kind) {
      case Kind::kStep: return 1;
      case Kind::kChunk: return kept_to_the_end_[buffer] ? T_ : chunk_;
      case Kind::kPair: return 2;
      default: return 0;
    }
  }
  int64_t buffer_of_a_row(size_t i) const { return slots(i) * padded(program_.buffers[i].width); }
  int64_t buffers(int64_t slab) const {
    int64_t n = 0;
    for (size_t i = 0; i < program_.buffers.size(); i++) n += rows_of_slab(slab) * buffer_of_a_row(i);
    return n;
  }
  // Whether each group has an accumulator.
  bool accumulated(size_t gradient) const { return !late_[gradient] && !sums_.copied[gradient]; }
  // The first group accumulates in the result, if that has the same order. Units do in their own.
  bool in_result(size_t gradient, int64_t group) const {
    return by_unit_ || (group == 0 && !program_.gradients[gradient].transposed);
  }
  int64_t accumulator(size_t i, int64_t group) const {
    return !accumulated(i) || in_result(i, group) ? 0 : padded(size(program_.gradients[i]));
  }
  int64_t accumulators(int64_t slab) const {
    int64_t n = 0;
    for (size_t i = 0; i < program_.gradients.size(); i++)
      for (int64_t g = first_group(slab); g < first_group(slab + 1); g++) n += accumulator(i, g);
    return n;
  }
  int64_t accumulator_bytes() const {  // of all slabs, where one play leaves them to the next
    int64_t n = 0;
    for (int64_t slab = 0; slab < n_slabs_; slab++) n += bytes_of<T>(accumulators(slab)) + kThreadGapBytes;
    return n;
  }
  int64_t registers() const {  // with the scratch of outer products
    int64_t scratch = 0;
    for (const Gradient& g : program_.gradients) {
      const bool exchanged = by_unit_ && g.transposed;
      scratch = std::max(scratch, outer_scratch(exchanged ? g.N : g.K, panel_));
    }
    for (int32_t i = program_.after.begin; i < program_.after.end; i++) {
      const Instruction& x = program_.instructions[i];
      if (x.code == Code::kBlock) i += x.count;
      if (x.code == Code::kProductSum)
        scratch = std::max(scratch, product_sum_scratch(program_.products[x.count].K));
    }
    return kRegisterElements + scratch;
  }
  int64_t product() const {  // a part's result of several pieces
    int64_t n = 0;
    for (const ColumnSharing::Stage& stage : columns_.stages)
      for (int64_t part = 0; part < n_parts_; part++)
        n = std::max(n, B_ * padded(part_width(stage, part, n_parts_)));
    return n;
  }
  int64_t panels() const {  // of all factors of a product, where weights are used once
    int64_t K = 0;
    for (const Weight& w : program_.weights) K = std::max<int64_t>(K, w.K);
    return single_use() ? kMaxFactors * K * panel_ : 0;
  }
  int64_t rows_of_a_list() const {
    const bool any_late = std::find(late_.begin(), late_.end(), true) != late_.end();
    int64_t most = 0;
    for (int64_t slab = 0; slab < n_slabs_; slab++) most = std::max(most, rows_of_slab(slab));
    return std::max(most * chunk_, any_late ? B_ * std::min(T_, late_steps(B_)) : 0);
  }

  int64_t bytes() const {
    int64_t n = bytes_of<T>(locals()) + bytes_of<T>(weights()) + kThreadGapBytes;
    for (int64_t slab = 0; slab < n_slabs_; slab++)
      n += (segment_ ? 0 : bytes_of<T>(accumulators(slab))) + bytes_of<T>(buffers(slab));
    const int64_t lists = bytes_of<RowCache<T>>(n_lists_) + bytes_of<T*>(n_lists_ * rows_of_a_list());
    return n + n_players() * (bytes_of<T>(registers()) + bytes_of<T>(product()) + bytes_of<T>(panels()) +
                              lists + kThreadGapBytes);
  }

 private:
  int64_t step_of_a_row() const {  // elements of a row that one step of the loop reads and writes
    int64_t width = 0;
    for (const Buffer& b : program_.buffers)
      if (b.kind != Kind::kVector && b.kind != Kind::kLocal)
        width += (b.kind == Kind::kPair ? 2 : 1) * b.width;
    return width;
  }
  int64_t steps_of(int64_t rows_of_a_group) const {
    return std::max<int64_t>(1, rows_of_a_group * n_groups_ / B_);
  }
  static int64_t size(const Gradient& g) { return int64_t(g.K) * g.N; }

  // Returns how many rows of a group a chunk has. A transposed gradient is never late: its sum needs memory
  // of its own order. Nor is one of several terms: late, each would be summed over the whole run, and a run
  // in segments has another order.
  int64_t choose_late_gradients() {
    int64_t accumulator_bytes = 0;  // of a group
    std::vector<int> n_terms(program_.gradients.size());
    for (const Instruction& x : program_.instructions)
      if (x.code == Code::kOuter) n_terms[x.weight]++;
    for (size_t i = 0; i < program_.gradients.size(); i++) {
      const Gradient& g = program_.gradients[i];
      const int64_t bytes = size(g) * int64_t(sizeof(T));
      const bool few_rows = run_T_ * B_ <= kLateRows * n_groups_;
      late_[i] = !by_unit_ && g.K > 1 && n_groups_ > 1 && !g.transposed && n_terms[i] == 1 &&
                 (bytes > kLateBytes || few_rows);
      if (accumulated(i)) accumulator_bytes += bytes;
    }
    if (by_unit_) return kUnitChunkRows;
    return accumulator_bytes > 0 && accumulator_bytes <= kNearSumBytes ? kNearChunkRows : kChunkRows;
  }

  // A bound for bytes() and every integer above: a double cannot overflow, so it is compared first.
  double bound_on_bytes() const {
    double fixed = kMaxGroups * (double(kRegisterElements) + double(kThreadGapBytes)), per_row = 0;
    for (const Weight& w : program_.weights)
      fixed += (double(w.N + kMaxLanes) + double(kMaxGroups * kMaxFactors * kMaxPanel)) * w.K;
    for (const ColumnSharing::Stage& stage : columns_.stages)
      for (int32_t i = stage.begin; i < stage.end && !stage.pieces.empty(); i++) {
        const Instruction& x = program_.instructions[i];
        fixed += double(x.n + kMaxLanes * n_parts_) * x.k + double(n_parts_ * B_) * double(padded(x.n));
      }
    for (const SmallProduct& x : program_.products)
      fixed += double(kMaxGroups) * double(product_sum_scratch(x.K));
    for (const Gradient& g : program_.gradients)
      fixed += double(kMaxGroups) * double(padded(size(g)) + outer_scratch(std::max(g.K, g.N), kMaxPanel));
    for (const Buffer& b : program_.buffers) per_row += double(padded(b.width));
    const double pointers = double(kMaxGroups * 3 * program_.instructions.size() * sizeof(T*));
    return (fixed + per_row) * sizeof(T) + double(B_) * (double(T_) + 1) * (per_row * sizeof(T) + pointers);
  }

  const Program& program_;
  const ColumnSharing& columns_;
  const SumSharing& sums_;
  const Segment* const segment_;
  const int64_t n_lists_, T_, run_T_, B_, panel_, lanes_, unit_rows_;
  const bool by_unit_;
  const int64_t n_row_groups_, n_groups_, n_slabs_, n_parts_;
  int64_t chunk_;
  std::vector<bool> late_;             // by gradient
  std::vector<bool> kept_to_the_end_;  // by buffer: read by a late gradient
};

}  // namespace
}  // namespace ostinato
