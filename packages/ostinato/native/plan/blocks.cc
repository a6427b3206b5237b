#include "plan/blocks.h"

#include <algorithm>
#include <numeric>
#include <string_view>

#include "kernels/kernels.h"
#include "plan/fibres.h"
#include "platform.h"

namespace ostinato {
namespace {

// Bytes that the strips of a block's operands may have and stay in L1.
int64_t near_strip_bytes() {
  const int64_t l1 = l1_data_bytes();
  return std::min(kNearStripBytes, l1_for_strips(l1 > 0 ? l1 : kUnknownL1Bytes));
}

// Whether an operation reads its instruction's scalar: by its name, as ops.def says.
bool has_scalar(int32_t op) {
  const std::string_view name = kOpRows[op].name;
  return name == "fill" || (name.size() > 2 && name.substr(name.size() - 2) == "_s");
}

// The kernel of two operations, where the first one's result is operand `place` of the second; −1: none.
int32_t pair_of(int32_t first, int32_t second, int place) {
  if (second == kOp_add || second == kOp_mul) place = 0;
  for (int32_t i = 0; i < kPairCount; i++)
    if (kPairRows[i].first == first && kPairRows[i].second == second && kPairRows[i].place == place)
      return kFirstPair + i;
  return -1;
}

int64_t readers(const Program& program, int32_t buffer) {
  int64_t n = 0;
  for (const Instruction& x : program.instructions)
    for (const Operand* o : {&x.a, &x.b, &x.c}) n += o->buffer == buffer;
  return n;
}

// True if an operation of the block computes this operand.
bool is_computed(const Instruction* block, const Operand& o) {
  const auto gives = [&](const Instruction& x) { return same(x.d, o); };
  return o.buffer >= 0 && std::any_of(block + 1, block + 1 + block->count, gives);
}

// The sums behind a block that can be folded into it. A strip is a multiple of `unit`, so that no sum of
// neighbours is cut.
struct FoldedSums {
  int32_t count = 0;
  int64_t unit = 1;
};
FoldedSums find_folded_sums(const Program& program, int32_t head, int32_t end) {
  const Instruction* const block = &program.instructions[size_t(head)];
  const Instruction* const first = block + 1 + block->count;
  FoldedSums found;
  for (const Instruction* x = first; x < program.instructions.data() + end; x++) {
    if (x->code != Code::kRowSum || x->n != block->n || found.count == kMaxBlock) break;
    const int64_t unit = x->inner > 1 ? found.unit : std::lcm(found.unit, int64_t(x->k));
    if (unit > kLongestStripOfFibres || !is_computed(block, x->a)) break;
    bool alone = true;  // nothing of the block, and no other sum, lies where this one is written
    for (const Instruction* y = block + 1; y < x; y++) {
      const int32_t n = y < first ? block->n : y->n;
      for (const Operand* o : {&y->d, &y->a, &y->b, &y->c})
        alone = alone && apart(x->d, folded(x->n, *x), *o, n);
    }
    if (!alone) break;
    found.count++;
    found.unit = unit;
  }
  return found;
}

// Values that only the folded sums read stay in registers and never reach memory. instructions: the block's
// head, its n operations, then the sums.
void keep_in_registers(const Program& program, std::vector<Instruction>& instructions, int32_t n) {
  int32_t next = 0;  // register
  for (int32_t i = 1; i <= n; i++)
    for (const Operand* o : {&instructions[i].d, &instructions[i].a, &instructions[i].b, &instructions[i].c})
      if (o->buffer < -1) next = std::max(next, -1 - o->buffer);
  for (size_t i = size_t(n) + 1; i < instructions.size() && next < kMaxRegisters; i++) {
    const Operand from = instructions[i].a;
    const Kind kind = from.buffer < 0 ? Kind::kEnd : program.buffers[size_t(from.buffer)].kind;
    if ((kind != Kind::kStep && kind != Kind::kChunk) || readers(program, from.buffer) != 1) continue;
    instructions[i].a = {-2 - next++, 0, 0};
    for (int32_t j = 1; j <= n; j++)
      if (same(instructions[j].d, from)) instructions[j].d = instructions[i].a;
  }
}

}  // namespace

int BlockPlan::Operation::arity() const {
  if (kernel == kSpreads) return 1;
  if (kernel == kFolds) return fibre ? 2 : 1;
  const int32_t elementwise = kernel == kOnFibres ? kFibreKernels[number] : kernel;
  if (elementwise < kOpCount) return kOpRows[elementwise].arity;
  if (elementwise >= kFirstFused) return kFusedRows[elementwise - kFirstFused].arity;
  const PairRow& pair = kPairRows[elementwise - kFirstPair];
  return kOpRows[pair.first].arity + kOpRows[pair.second].arity - 1;
}

BlockPlan::BlockPlan(const Instruction* head, int64_t item)
    : BlockPlan(std::vector<Instruction>(head, head + 1 + head->count), 0, 1, item, Columns::kAny) {}

BlockPlan BlockPlan::with_sums(const Program& program, int32_t head, int32_t end, int64_t item) {
  const auto first = program.instructions.begin() + head;
  const FoldedSums sums = find_folded_sums(program, head, end);
  std::vector<Instruction> both(first, first + 1 + first->count + sums.count);
  keep_in_registers(program, both, first->count);
  BlockPlan plan(both, sums.count, sums.unit, item, Columns::kWholeRows);
  return plan.n_registers * plan.strip <= kRegisterElements ? plan : BlockPlan(&*first, item);
}

// instructions: the block's head, its operations, then the sums.
BlockPlan::BlockPlan(const std::vector<Instruction>& instructions, int32_t n_sums, int64_t unit,
                     int64_t item, Columns columns)
    : width(instructions[0].n), n_folded(n_sums) {
  const auto for_operations = [&](auto f) {
    for (size_t i = 1; i < instructions.size(); i++) f(instructions[i]);
  };
  const auto is_whole = [](const Instruction& x, const Operand* o) {
    return (x.code == Code::kBroadcast && o == &x.a) || (x.code == Code::kRowSum && o == &x.d);
  };
  for_operations([&](const Instruction& x) {
    for (const Operand* o : {&x.a, &x.b, &x.c, &x.d}) find(*o, is_whole(x, o));
  });
  // Registers come after the streams in the table, so operands are numbered when all streams are known.
  for_operations([&](const Instruction& x) {
    const int32_t kernel = x.code == Code::kBroadcast ? kSpreads : x.code == Code::kRowSum ? kFolds : x.op;
    operations.push_back({kernel,
                          x.s,
                          {find(x.a, is_whole(x, &x.a)), find(x.b), find(x.c), find(x.d, is_whole(x, &x.d))},
                          axis_of(x)});
  });
  // Operations of arrays may be played on fibres instead, as their kernels are.
  if (std::all_of(operations.begin(), operations.end(), [](const Operation& x) { return x.kernel >= 0; }))
    for (size_t root = operations.size(); root-- > 0;) fuse(root);
  for (size_t i = 0; i < operations.size();)
    if (!join_reader(i)) i++;
  const Strips strips = columns == Columns::kWholeRows ? play_on_fibres(*this, unit) : Strips{};
  renumber_registers();
  for (const Operation& x : operations) n_with_axes += x.kernel < 0;
  const int64_t near = operands_used_again();
  const auto fits = [&](int64_t n) {
    return n * near * item <= near_strip_bytes() && n * n_registers <= kRegisterElements;
  };
  if (strips.cycle) {
    const int64_t least = strips.longest(std::max(kStrip, strips.unit));
    strip = strips.longest(kLongestStripOfFibres);
    while (strip > least && !fits(strip)) strip = strips.longest(strip - 1);
    return;
  }
  strip = (kStrip + unit - 1) / unit * unit;
  while (strip < kLongestStrip && fits(2 * strip)) strip *= 2;
}

int16_t BlockPlan::find(const Operand& o, bool whole) {
  if (o.buffer == -1) return 0;  // not looked at
  if (o.buffer < -1) {
    const int number = -2 - o.buffer;
    n_registers = std::max(n_registers, number + 1);
    return int16_t(streams.size() + number);
  }
  for (size_t i = 0; i < streams.size(); i++)
    if (same(streams[i].operand, o) && streams[i].whole == whole) return int16_t(i);
  streams.push_back({o, whole});
  return int16_t(streams.size() - 1);
}

// Leaves out registers whose only reader has joined their writer.
void BlockPlan::renumber_registers() {
  const int16_t first = int16_t(streams.size());
  std::vector<int16_t> number(size_t(n_registers), -1);
  n_registers = 0;
  for (Operation& x : operations)
    for (int i : {0, 1, 2, 3})
      if (x.which[i] >= first && (i == 3 || i < x.arity())) {
        int16_t& found = number[size_t(x.which[i] - first)];
        if (found < 0) found = int16_t(n_registers++);
        x.which[i] = int16_t(first + found);
      }
}

int64_t BlockPlan::operands_used_again() const {
  std::vector<int> uses(streams.size() + size_t(n_registers));
  for (const Operation& x : operations) {
    for (int operand = 0; operand < x.arity(); operand++) uses[size_t(x.which[operand])]++;
    uses[size_t(x.which[3])]++;
  }
  return std::count_if(uses.begin(), uses.end(), [](int n) { return n > 1; });
}

// How often the result of an operation, a register, is read.
int BlockPlan::readers(size_t operation) const {
  const int16_t result = operations[operation].which[3];
  int found = 0;
  for (size_t i = operation + 1; i < operations.size(); i++) {
    for (int operand = 0; operand < operations[i].arity(); operand++)
      found += operations[i].which[operand] == result;
    if (operations[i].which[3] == result) break;
  }
  return found;
}

// If a register holds a result for one later operation alone, joins the two. Returns whether it did.
bool BlockPlan::join_reader(size_t first) {
  const int16_t result = operations[first].which[3];
  if (result < int16_t(streams.size())) return false;
  size_t second = 0;
  int reads = 0, place = 0;
  for (size_t i = first + 1; i < operations.size(); i++) {
    for (int operand = 0; operand < operations[i].arity(); operand++)
      if (operations[i].which[operand] == result) {
        second = i;
        place = operand;
        reads++;
      }
    if (operations[i].which[3] == result) break;
  }
  if (reads != 1) return false;
  const Operation &x = operations[first], &y = operations[second];
  const int32_t kernel = pair_of(x.kernel, y.kernel, place);
  if (kernel < 0) return false;
  for (size_t i = first + 1; i < second; i++)
    for (int operand = 0; operand < x.arity(); operand++)
      if (overlap(x.which[operand], operations[i].which[3])) return false;
  Operation both{kernel, has_scalar(x.kernel) ? x.s : y.s, {}};
  int n = 0;
  for (int operand = 0; operand < x.arity(); operand++) both.which[n++] = x.which[operand];
  for (int operand = 0; operand < y.arity(); operand++)
    if (operand != place) both.which[n++] = y.which[operand];
  both.which[3] = y.which[3];
  operations[second] = both;
  operations.erase(operations.begin() + int64_t(first));
  return true;
}

// Whether two entries of the table share an element.
bool BlockPlan::overlap(int16_t x, int16_t y) const {
  const int16_t n = int16_t(streams.size());
  if (x >= n || y >= n) return x == y;
  return !apart(streams[size_t(x)].operand, width, streams[size_t(y)].operand, width);
}

}  // namespace ostinato
