#include "programs.h"

#include <numeric>

#include "kernels/dispatch.h"
#include "program/layout.h"

namespace ostinato {
namespace {

// Arguments and buffers of sample_program.
// clang-format off
enum SampleArgument : int32_t {
  kX, kInit, kLast, kStates, kU, kW, kBias, kOut, kTape,
  kGradU, kGradW, kGradBias, kGradTape, kGradPart, kGradColumn, kGradProduct, kArguments
};
enum SampleBuffer : int32_t { bX, bStates, bBias, bScaled, bDrive, bFollower, bSum, bOut, bTotals, bTape,
  bOuter, bTaken, bSmall };
// clang-format on

Operand in(int32_t buffer, int32_t column = 0, int32_t dt = 0) { return {buffer, column, dt}; }
Operand reg(int32_t number) { return {-2 - number, 0, 0}; }

Instruction blank(Code code) {
  Instruction x{};
  x.code = code;
  return x;
}
Instruction block(int32_t n, int32_t count) {
  Instruction x = blank(Code::kBlock);
  x.n = n;
  x.count = count;
  return x;
}
Instruction op(Op name, Operand d, Operand a, Operand b = {}, Operand c = {}, double s = 0) {
  Instruction x = blank(Code::kOp);
  x.op = name;
  x.d = d;
  x.a = a;
  x.b = b;
  x.c = c;
  x.s = s;
  return x;
}
Instruction gemm(int32_t weight, int32_t k, int32_t n, Operand d, Operand a, Operand c = {}) {
  Instruction x = blank(Code::kGemm);
  x.weight = weight;
  x.k = k;
  x.n = n;
  x.d = d;
  x.a = a;
  x.c = c;
  return x;
}
Instruction reduction(Code code, int32_t n, Operand d, Operand a, int32_t times = 0, int32_t inner = 1) {
  Instruction x = blank(code);
  x.n = n;
  x.k = times ? times : n;
  x.inner = inner;
  x.d = d;
  x.a = a;
  return x;
}
Instruction sum(Code code, int32_t gradient, int32_t k, int32_t n, Operand a, Operand b = {}) {
  Instruction x = blank(code);
  x.weight = gradient;
  x.k = k;
  x.n = n;
  x.a = a;
  x.b = b;
  return x;
}
Instruction product_sum(int32_t gradient, int32_t product, int32_t k, int32_t n, Operand a, Operand b) {
  Instruction x = sum(Code::kProductSum, gradient, k, n, a, b);
  x.count = product;
  return x;
}
Instruction within(Code code, int32_t number, int32_t n, Operand d, Operand a, Operand b = {}) {
  Instruction x = blank(code);
  x.weight = number;
  x.n = n;
  x.d = d;
  x.a = a;
  x.b = b;
  return x;
}
Instruction spread(Operand d, Operand a, int32_t times, int32_t inner = 1) {
  Instruction x = blank(Code::kBroadcast);
  x.k = times;
  x.inner = inner;
  x.d = d;
  x.a = a;
  return x;
}

struct Writer {
  std::vector<int64_t> out;
  template <class M> void number(const char*, M& member) { out.push_back(int64_t(member)); }
  template <class M> void part(const char*, M& member) { visit(*this, member); }
  template <class M> void list(const char*, std::vector<M>& members) {
    out.push_back(int64_t(members.size()));
    for (M& member : members) visit(*this, member);
  }
};

}  // namespace

Program sample_program(int32_t F, int32_t H, bool descending) {
  const int32_t now = descending ? 1 : 0, then = 1 - now;
  Program p;
  p.n_arguments = kArguments;
  p.descending = descending;
  p.buffers = {{Kind::kTime, F, 0, kX},     {Kind::kTime, H, 1, kStates}, {Kind::kVector, H, 0, kBias},
               {Kind::kLocal, H, 0, -1},    {Kind::kChunk, H, 0, -1},     {Kind::kPair, H, 0, -1},
               {Kind::kStep, 2 * H, 0, -1}, {Kind::kTime, H, 0, kOut},    {Kind::kChunk, 2, 0, -1},
               {Kind::kTape, H, 0, kTape},   {Kind::kStep, 2 * H, 0, -1},  {Kind::kChunk, 2 * H, 0, -1},
               {Kind::kStep, 4, 0, -1}};
  p.tables = {{2 * H, {{2 * H - 2, H, -2}, {2 * H - 1, H, -2}}},
              {2 * H, {{0, 2 * H, 1}}},                        // [H, 2]
              {2 * H, {{-1, 1, 0}, {0, H - 1, 1}, {H, H, 1}}}};  // [2, H], the first row moved by one
  p.products = {{1, H, 1, 2, false}, {1, 2, H, 2, false}, {1, 2, H, 2, false, 1}, {1, 2, H, 2, true, 2}};
  const int32_t half = H / 2;  // the halves of W stand in the argument in the other order, one row apart
  p.weights = {{F, H, {{kU, 0, F, 0, H, 0, 0}}},
               {H, H, {{kW, 0, half, 0, H, H - half + 1, 0}, {kW, half, H - half, 0, H, 0, 0}}},
               {H, H, {{kW, 0, H, 0, H, 0, 0}}}};
  p.gradients = {{F, H, kGradU, true},     {H, H, kGradW, false},        {1, H, kGradBias, false},
                 {1, H, kGradTape, false}, {1, H - 1, kGradPart, false}, {1, H, kGradColumn, false},
                 {2, 2, kGradProduct, false}};
  p.carries = {{bStates, kInit, kLast}, {bFollower, -1, -1}};
  const auto section = [&](const std::vector<Instruction>& list) {
    const int32_t begin = int32_t(p.instructions.size());
    p.instructions.insert(p.instructions.end(), list.begin(), list.end());
    return Section{begin, int32_t(p.instructions.size())};
  };
  p.once = section({block(H, 1), op(kOp_mul_s, in(bScaled), in(bBias), {}, {}, .5)});
  p.before = section({gemm(0, F, H, in(bDrive), in(bX))});
  p.loop = section({
      gemm(1, H, H, in(bSum), in(bStates, 0, now), in(bDrive)),
      gemm(2, H, H, in(bSum, H), in(bStates, 0, now), in(bScaled)),  // beside: of one row both at once
      block(H, 3),
      op(kOp_fma, reg(0), in(bSum), in(bSum, H), in(bScaled)),
      op(kOp_tanh, in(bStates, 0, then), reg(0)),
      op(kOp_lerp, in(bFollower, 0, then), in(bFollower, 0, now), in(bStates, 0, then), in(bScaled)),
      reduction(Code::kRowSum, H, in(bTotals, 0), in(bStates, 0, then)),
      reduction(Code::kRowMax, H, in(bTotals, 1), in(bStates, 0, then)),
      block(H, 4),
      spread(reg(1), in(bTotals, 0), H),
      spread(reg(0), in(bTotals, 1), H),
      op(kOp_fma, in(bOut), reg(1), reg(0), in(bFollower, 0, then)),
      op(kOp_copy, in(bTape), in(bOut)),
      within(Code::kProduct, 0, 2 * H, in(bOuter), in(bStates, 0, then), in(bTotals)),  // [H, 2]
      within(Code::kTake, 0, 2 * H, in(bTaken), in(bOuter)),                             // [2, H], reversed
      within(Code::kProduct, 1, 4, in(bSmall), in(bTaken), in(bOuter)),
      within(Code::kProduct, 2, 4, in(bSmall), in(bTaken), in(bOuter)),
      reduction(Code::kRowSum, 2 * H, in(bTotals), in(bTaken), H),
      block(2 * H, 2),
      spread(reg(0), in(bSmall, 2), H, 2),
      op(kOp_mul, in(bTaken), in(bTaken), reg(0)),
      reduction(Code::kRowMax, 2 * H, in(bFollower, 0, then), in(bTaken), 2, H),
  });
  p.after = section({
      sum(Code::kOuter, 0, F, H, in(bX), in(bTape)),
      sum(Code::kOuter, 1, H, H, in(bStates, 0, now), in(bTape)),
      sum(Code::kColumnSum, 2, 1, H, in(bDrive)),
      sum(Code::kColumnSum, 4, 1, H - 1, in(bTape, 1)),  // a part of the next: copied
      sum(Code::kColumnSum, 3, 1, H, in(bTape)),
      sum(Code::kOuter, 5, 1, H, in(bX), in(bTape)),  // with the one before
      product_sum(6, 3, 2, 2, in(bTaken), in(bTaken)),
  });
  return p;
}

Program sample_step(int32_t F, int32_t H) {
  Program p = sample_program(F, H, false);
  for (Buffer& b : p.buffers)
    if (b.kind == Kind::kTape) b.kind = Kind::kTime;  // a second output
  p.gradients.clear();
  p.instructions.resize(size_t(p.after.begin));
  p.after.end = p.after.begin;
  return p;
}

Program gru_step(int32_t F, int32_t H) {
  enum Buffers : int32_t { bCarry, bY, bGates, bInput, bHidden, bOfHidden, bInputs, bOfInput };
  Program p;
  p.n_arguments = kGruArguments;
  p.buffers = {{Kind::kPair, H, 0, -1},          {Kind::kTime, H, 0, kGruY},
               {Kind::kStep, 4 * H, 0, -1},      {Kind::kTime, F, 0, kGruX},
               {Kind::kLocal, H, 0, -1},         {Kind::kVector, 3 * H, 0, kGruBiasH},
               {Kind::kLocal, 3 * H, 0, -1},     {Kind::kVector, 3 * H, 0, kGruBiasX}};
  p.weights = {{H, H, {{kGruW, 0, H, 0, H, 0, 2 * H}}},
               {F, 3 * H, {{kGruU, 0, F, 0, 3 * H, 0, 0}}},
               {H, 2 * H, {{kGruW, 0, H, 0, 2 * H, 0, 0}}}};
  p.carries = {{bCarry, kGruInit, kGruLast}};
  const Operand old = in(bCarry), next = in(bCarry, 0, 1), n = in(bGates), r = in(bGates, H),
                z = in(bGates, 2 * H), x = in(bGates, 3 * H);
  p.instructions = {
      block(H, 1),
      op(kOp_copy, in(bHidden), in(bOfHidden, 2 * H)),
      block(3 * H, 1),
      op(kOp_add, in(bInputs), in(bOfInput), in(bOfHidden)),
      gemm(0, H, H, n, old, in(bHidden)),
      gemm(1, F, 3 * H, r, in(bInput), in(bInputs)),
      gemm(2, H, 2 * H, r, old, r),
      block(H, 9),
      op(kOp_sigmoid, reg(0), r),
      op(kOp_sigmoid, reg(1), z),
      op(kOp_mul, reg(0), reg(0), n),
      op(kOp_add, reg(0), x, reg(0)),
      op(kOp_tanh, reg(0), reg(0)),
      op(kOp_sub, reg(2), old, reg(0)),
      op(kOp_mul, reg(2), reg(1), reg(2)),
      op(kOp_add, next, reg(0), reg(2)),
      op(kOp_copy, in(bY), next),
  };
  p.once = {0, 4};
  p.before = {4, 4};
  p.loop = {4, 17};
  p.after = {17, 17};
  return p;
}

Program carries_step(int32_t H) {
  enum Buffers : int32_t { bX, bY, bSum, bFirst, bSecond, bReadBehind, bSpread, bParts, bEnd };
  Program p;
  p.n_arguments = kCarriesArguments;
  p.buffers = {{Kind::kTime, H, 0, kCarriesX}, {Kind::kTime, H, 0, kCarriesY}};
  for (int32_t i = bSum; i < bEnd; i++) {
    p.buffers.push_back({Kind::kPair, H, 0, -1});
    p.carries.push_back({i, i == bSum ? kCarriesInit : -1, -1});
  }
  const int32_t times = H % 2 ? H : 2;  // of the spread: its first element, or its first half
  const auto old = [](int32_t buffer) { return in(buffer); };
  const auto next = [](int32_t buffer) { return in(buffer, 0, 1); };
  p.instructions = {
      block(H, 6),
      op(kOp_add, next(bSum), old(bSum), in(bX)),
      op(kOp_add, next(bFirst), old(bSecond), in(bX)),
      op(kOp_tanh, next(bSecond), old(bFirst)),
      op(kOp_sub, next(bReadBehind), in(bX), old(bReadBehind)),
      spread(reg(1), old(bSpread), times, H / times),
      op(kOp_add, next(bSpread), reg(1), next(bSum)),
      block(H, 4),
      op(kOp_mul, reg(0), old(bReadBehind), next(bReadBehind)),
      op(kOp_add, reg(0), reg(0), next(bFirst)),
      op(kOp_add, reg(0), reg(0), next(bSecond)),
      op(kOp_add, in(bY), reg(0), next(bSpread)),
      block(1, 1),
      op(kOp_sub, in(bParts, 0, 1), in(bParts, H - 1), in(bY)),
      block(H - 1, 1),
      op(kOp_add, in(bParts, 1, 1), in(bParts), in(bX)),
      block(H, 1),
      op(kOp_add, in(bY), in(bY), next(bParts)),
  };
  p.once = p.before = {0, 0};
  p.loop = {0, int32_t(p.instructions.size())};
  p.after = {p.loop.end, p.loop.end};
  return p;
}

std::vector<int64_t> numbers(const Program& p) {
  Program copy = p;
  Writer writer;
  visit(writer, copy);
  return writer.out;
}
std::vector<double> scalars(const Program& p) {
  std::vector<double> out;
  for (const Instruction& x : p.instructions) out.push_back(x.s);
  return out;
}

std::vector<Extent> extents(const Program& p, int64_t T, int64_t B, bool transposed) {
  struct Use {  // of elements i · time + j · row + c, for i < I, j < J, c < C
    int32_t argument;
    int64_t I, J, C;
  };
  std::vector<Use> uses;
  for (const Buffer& b : p.buffers) {
    if (b.kind == Kind::kTime) uses.push_back({b.argument, T + b.extra, B, b.width});
    if (b.kind == Kind::kTape) uses.push_back({b.argument, T + b.extra, B, b.width});
    if (b.kind == Kind::kVector) uses.push_back({b.argument, 1, 1, b.width});
  }
  for (const Carry& c : p.carries)
    for (int32_t argument : {c.init, c.final})
      if (argument != -1) uses.push_back({argument, 1, B, p.buffers[size_t(c.buffer)].width});
  for (const Weight& w : p.weights)
    for (const WeightBlock& b : w.blocks)
      uses.push_back({b.argument, int64_t(b.row) + b.nk, int64_t(b.column) + b.nn, 1});
  for (const Gradient& g : p.gradients)
    uses.push_back({g.argument, g.transposed ? g.N : g.K, 1, g.transposed ? g.K : g.N});

  std::vector<Use> most(size_t(p.n_arguments), {0, 1, 1, 1});
  for (const Use& use : uses) {
    Use& m = most[size_t(use.argument)];
    m = {0, std::max(m.I, use.I), std::max(m.J, use.J), std::max(m.C, use.C)};
  }
  std::vector<Extent> found;
  for (const Use& m : most)
    found.push_back(transposed && m.C == 1 ? Extent{1, m.I, 0} : Extent{m.J * m.C, m.C, 0});
  for (const Buffer& b : p.buffers) {  // a tape is dense, whatever else the argument is
    if (b.kind != Kind::kTape) continue;
    const Use& m = most[size_t(b.argument)];
    found[size_t(b.argument)] = {m.J * m.C, m.C, 0};
  }
  for (const Use& use : uses) {
    Extent& e = found[size_t(use.argument)];
    e.size = std::max(e.size, (use.I - 1) * e.time + (use.J - 1) * e.row + use.C);
  }
  return found;
}

Setting::Setting(int64_t n_steps, int64_t n_rows, bool ragged, Random random)
    : T(n_steps), B(n_rows), isa(available_isas().front()) {
  if (!ragged) return;
  for (int64_t r = 0; r < B; r++) lengths.push_back(random.below(T + 1));
  std::sort(lengths.rbegin(), lengths.rend());
  rows.resize(size_t(B));
  std::iota(rows.rbegin(), rows.rend(), 0);
}
PlayRequest Setting::request(const Argument* arguments) const {
  PlayRequest p;
  p.T = T;
  p.B = B;
  p.arguments = arguments;
  p.threads = threads;
  p.work_per_thread = work_per_thread;
  p.isa = isa;
  if (!lengths.empty()) {
    p.lengths = lengths.data();
    p.rows = rows.data();
  }
  return p;
}

}  // namespace ostinato
