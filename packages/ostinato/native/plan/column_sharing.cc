#include "plan/column_sharing.h"

namespace ostinato {
namespace {

// Which threads read or write some columns.
enum class By {
  kShare,     // each thread its share of these columns
  kAll,       // each thread all of them
  kFirst,     // the first thread alone
  kOwnShare,  // each thread a share that is cut as in no other stage
};

// What one instruction reads or writes.
struct Access {
  int32_t buffer, column, width, dt;
  bool write;
  By by;
  int64_t step = 0;
  int32_t stage = 0;  // its first instruction
  bool operator==(const Access& x) const {
    return buffer == x.buffer && column == x.column && width == x.width && dt == x.dt && write == x.write &&
           by == x.by;
  }
};

class ColumnAnalysis {
 public:
  explicit ColumnAnalysis(const Program& program) : p_(program) {}

  ColumnSharing run() {
    if (reaches_other_steps(p_.before) || reaches_other_steps(p_.after)) return {};
    find_stages();
    find_accesses_of_blocks();
    for (ColumnSharing::Stage& stage : columns_.stages)
      if (p_.instructions[stage.begin].code == Code::kGemm) find_pieces(stage);
    for (const ColumnSharing::Stage& stage : columns_.stages)
      if (depends_on_itself(accesses(stage))) return {};
    find_barriers();
    find_weights();
    return columns_;
  }

 private:
  const Program& p_;
  ColumnSharing columns_;
  std::vector<Access> of_blocks_;

  // Threads share this section by steps. Whether one thread would write a slot that another one reads.
  bool reaches_other_steps(const Section& section) const {
    std::vector<Access> found;
    for (int32_t i = section.begin; i < section.end; i++) {
      const Instruction& x = p_.instructions[i];
      for (const Operand* o : {&x.d, &x.a, &x.b, &x.c})
        if (o->buffer >= 0) found.push_back({o->buffer, 0, 0, o->dt, o == &x.d, By::kAll});
    }
    for (const Access& x : found)
      for (const Access& y : found)
        if (x.buffer == y.buffer && x.dt != y.dt && x.write) return true;
    return false;
  }

  void find_stages() {
    for (int32_t i = p_.loop.begin; i < p_.loop.end;) {
      const Instruction& x = p_.instructions[i];
      ColumnSharing::Stage stage{i, i + 1};
      if (x.code == Code::kBlock) stage.end += x.count;
      if (x.code == Code::kGemm) {
        while (stage.end < p_.loop.end && beside(stage, p_.instructions[stage.end])) stage.end++;
        if (stage.end == i + 1)
          while (stage.factors < kMaxFactors && stage.end < p_.loop.end &&
                 continues(x, p_.instructions[stage.end])) {
            stage.end++;
            stage.factors++;
          }
      }
      if (is_shared(p_, x)) columns_.products += multiplications(p_.products[size_t(x.weight)]);
      i = stage.end;
      columns_.stages.push_back(stage);
    }
  }
  // Whether a product has the factor of the stage's products and is independent of their results.
  bool beside(const ColumnSharing::Stage& stage, const Instruction& next) const {
    if (next.code != Code::kGemm) return false;
    for (int32_t i = stage.begin; i < stage.end; i++) {
      const Instruction& x = p_.instructions[i];
      if (x.k != next.k || !same(x.a, next.a) || overlap(x.d, x.n, next.d, next.n) ||
          overlap(x.d, x.n, next.c, next.n) || overlap(x.c, x.n, next.d, next.n) ||
          overlap(x.d, x.n, next.a, next.k))
        return false;
    }
    return true;
  }
  static bool overlap(const Operand& x, int32_t nx, const Operand& y, int32_t ny) {
    return x.buffer == y.buffer && x.column < y.column + ny && y.column < x.column + nx;
  }

  // Cuts a product's columns where columns begin or end that a block reads or writes at once. So r, z and n
  // of a GRU are each shared in the same way as the state.
  void find_pieces(ColumnSharing::Stage& stage) {
    for (int32_t i = stage.begin; i < stage.end; i++)
      columns_.weights += double(p_.instructions[i].k) * p_.instructions[i].n;
    for (int32_t i = stage.begin; i < (stage.factors > 1 ? stage.begin + 1 : stage.end); i++) {
      const Instruction& x = p_.instructions[i];
      std::vector<int32_t> cuts{0, x.n};
      for (const Operand* o : {&x.d, &x.c})
        for (const Access& y : of_blocks_)
          if (y.buffer == o->buffer)
            for (int32_t cut : {y.column - o->column, y.column + y.width - o->column})
              if (cut > 0 && cut < x.n) cuts.push_back(cut);
      std::sort(cuts.begin(), cuts.end());
      for (size_t j = 1; j < cuts.size(); j++)
        if (cuts[j] > cuts[j - 1]) stage.pieces.push_back({i, cuts[j - 1], cuts[j] - cuts[j - 1]});
    }
  }
  void find_accesses_of_blocks() {
    for (const ColumnSharing::Stage& stage : columns_.stages)
      if (p_.instructions[stage.begin].code == Code::kBlock)
        for (const Access& x : accesses(stage))
          if (x.by == By::kShare) of_blocks_.push_back(x);
  }

  std::vector<Access> accesses(const ColumnSharing::Stage& stage) const {
    std::vector<Access> found;
    const auto add = [&](const Operand& o, int32_t begin, int32_t width, bool write, By by) {
      if (o.buffer < 0) return;
      const Access x{o.buffer, o.column + begin, width, o.dt, write, by};
      if (std::find(found.begin(), found.end(), x) == found.end()) found.push_back(x);
    };
    const Instruction& head = p_.instructions[stage.begin];
    switch (head.code) {
      case Code::kGemm:
        for (int32_t i = stage.begin; i < stage.begin + stage.factors; i++)
          add(p_.instructions[i].a, 0, p_.instructions[i].k, false, By::kAll);
        for (const ColumnSharing::Piece& piece : stage.pieces) {
          const Instruction& x = p_.instructions[piece.gemm];
          add(x.c, piece.begin, piece.width, false, By::kShare);
          add(x.d, piece.begin, piece.width, true, By::kShare);
        }
        break;
      case Code::kBlock:
        for (int32_t i = stage.begin + 1; i < stage.end; i++) {
          const Instruction& x = p_.instructions[i];
          const bool spread = x.code == Code::kBroadcast;
          add(x.a, 0, spread ? folded(head.n, x) : head.n, false, spread ? By::kAll : By::kShare);
          add(x.b, 0, head.n, false, By::kShare);
          add(x.c, 0, head.n, false, By::kShare);
          add(x.d, 0, head.n, true, By::kShare);
        }
        break;
      case Code::kColumnSum: add(head.a, 0, head.n, false, By::kShare); break;
      case Code::kTake:
        add(head.a, 0, p_.tables[head.weight].width, false, By::kFirst);
        add(head.d, 0, head.n, true, By::kFirst);
        break;
      case Code::kProduct: {
        const SmallProduct& x = p_.products[head.weight];
        const bool shared = is_shared(p_, head);
        add(head.a, 0, columns_of_a(x), false, shared ? By::kAll : By::kFirst);
        add(head.b, 0, columns_of_b(p_, x), false, shared ? By::kAll : By::kFirst);
        add(head.d, 0, columns_of_d(x), true, shared ? By::kOwnShare : By::kFirst);
        break;
      }
      default:
        add(head.a, 0, head.n, false, By::kFirst);
        add(head.d, 0, folded(head.n, head), true, By::kFirst);
        break;
    }
    for (Access& x : found) x.stage = stage.begin;
    return found;
  }

  bool same_slot(const Access& x, const Access& y) const {
    const int64_t forward = p_.descending ? -1 : 1, apart = (x.step - y.step) * forward + x.dt - y.dt;
    switch (p_.buffers[x.buffer].kind) {
      case Kind::kTime:
      case Kind::kTape:
      case Kind::kChunk: return apart == 0;  // threads meet between chunks
      case Kind::kPair: return apart % 2 == 0;
      default: return true;
    }
  }
  bool conflict(const Access& x, const Access& y) const {
    if (x.buffer != y.buffer || !(x.write || y.write) || !same_slot(x, y)) return false;
    if (x.column >= y.column + y.width || y.column >= x.column + x.width) return false;
    if (x.by == By::kShare && y.by == By::kShare) return x.column != y.column || x.width != y.width;
    if (x.by == By::kOwnShare && y.by == By::kOwnShare) return x.stage != y.stage;
    return x.by != By::kFirst || y.by != By::kFirst;
  }
  bool depends_on_itself(const std::vector<Access>& list) const {
    for (const Access& x : list)
      for (const Access& y : list)
        if (conflict(x, y)) return true;
    return false;
  }

  // Over three steps, because a pair's slots are used again after two.
  void find_barriers() {
    std::vector<Access> since;  // the last barrier
    for (int64_t t = 0; t < 3; t++)
      for (ColumnSharing::Stage& stage : columns_.stages) {
        std::vector<Access> now = accesses(stage);
        for (Access& x : now) x.step = t;
        for (const Access& x : now)
          for (const Access& y : since) stage.barrier_before = stage.barrier_before || conflict(x, y);
        if (stage.barrier_before) since.clear();
        since.insert(since.end(), now.begin(), now.end());
      }
    for (const ColumnSharing::Stage& stage : columns_.stages) columns_.barriers += stage.barrier_before;
  }

  void find_weights() {
    columns_.loop_only.assign(p_.weights.size(), false);
    for (bool loop : {true, false})
      for (int32_t i = 0; i < int32_t(p_.instructions.size()); i++) {
        const Instruction& x = p_.instructions[i];
        const bool in_loop = i >= p_.loop.begin && i < p_.loop.end;
        if (x.code == Code::kGemm && in_loop == loop) columns_.loop_only[x.weight] = loop;
      }
  }
};

}  // namespace

ColumnSharing find_column_sharing(const Program& program) { return ColumnAnalysis(program).run(); }

}  // namespace ostinato
