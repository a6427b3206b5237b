// Streams and pools: the bits of the batch engine, and nothing allocated in a step.
#include <numeric>
#include <thread>

#include "kernels/dispatch.h"
#include "stream/slot_states.h"
#include "stream/stream_state.h"
#include "allocations.h"
#include "programs.h"

namespace ostinato {
namespace {

Workspaces workspaces;

// A step program, and which of its arguments are its input, the output that is the answer, the initial carry.
struct StepCase {
  std::string name;
  Program program;
  int32_t x, y, init;
};
std::vector<StepCase> cases() {
  std::vector<StepCase> found;
  // clang-format off
  const struct { int32_t F, H; } sizes[] = {
      {1, 2},            // less than a vector
      {3, 15}, {8, 16},  // a vector, and one lane less
      {5, 17},           // one lane more
      {8, 64},           // several panels, all whole
      {7, 150},          // three panels
  };
  // clang-format on
  for (const auto& size : sizes) {
    const std::string name = ", F " + std::to_string(size.F) + ", H " + std::to_string(size.H);
    found.push_back({"sample" + name, sample_step(size.F, size.H), kSampleX, kSampleOut, kSampleInit});
    found.push_back({"gru" + name, gru_step(size.F, size.H), kGruX, kGruY, kGruInit});
    found.push_back({"carries" + name, carries_step(size.H), kCarriesX, kCarriesY, kCarriesInit});
  }
  const int32_t H = 2 * int32_t(kLongestStrip) + 6;
  found.push_back({"carries of several strips", carries_step(H), kCarriesX, kCarriesY, kCarriesInit});
  return found;
}

// The batch engine's play of T steps on B rows, each argument in memory of its own.
struct Batch {
  Batch(const StepCase& c, int64_t n_steps, int64_t n_rows, const std::string& isa)
      : T(n_steps), B(n_rows), arrays(c.program, n_steps, n_rows, Random(7)) {
    Executor<float> executor(c.program, workspaces);
    Setting setting(T, B, false, Random(11));
    setting.isa = isa;
    executor.play(setting.request(arrays.arguments()));
  }
  const float* row(int32_t argument, int64_t t, int64_t r) const {
    const Argument& a = arrays.arguments()[argument];
    return static_cast<const float*>(a.data) + t * a.time + r * a.row;
  }
  int64_t T, B;
  Arrays<float> arrays;
};

// The carry that a row begins with: that of the carries without an argument for it is zero.
std::vector<float> first_carry(const StepCase& c, const Batch& batch, int64_t r) {
  std::vector<float> found;
  for (const Carry& carry : c.program.carries) {
    const int32_t width = c.program.buffers[size_t(carry.buffer)].width;
    if (carry.init < 0) found.resize(found.size() + size_t(width));
    else found.insert(found.end(), batch.row(carry.init, 0, r), batch.row(carry.init, 0, r) + width);
  }
  return found;
}

std::shared_ptr<const StreamModel> model_of(const StepCase& c, const Batch& batch, const std::string& isa) {
  auto plan = std::make_unique<StepPlan>(c.program, batch.arrays.arguments(), isa);
  BoundPlan step(std::move(plan), {c.x}, {c.y});
  const int64_t F = step.input_width(0);
  return std::make_shared<StreamModel>(F, std::move(step), nullptr, first_carry(c, batch, 0));
}

bool same_row(const float* a, const std::vector<float>& b) {
  bool all = true;
  for (size_t i = 0; i < b.size(); i++) all = all && same(a[i], b[i]);
  return all;
}

void check_streams(const StepCase& c, const Batch& wanted, const std::string& isa) {
  const auto model = model_of(c, wanted, isa);
  std::vector<float> answer(size_t(model->answer_floats()));
  for (int64_t r : {int64_t(0), wanted.B - 1}) {
    StreamState stream(model);
    stream.set(0, first_carry(c, wanted, r).data());
    for (int64_t t = 0; t < wanted.T; t++) {
      allocations_left = 1000;
      stream.step(wanted.row(c.x, t, r), answer.data());
      const int64_t left = allocations_left.exchange(-1);
      CHECK(!allocations_can_fail || left == 1000, "a step allocates memory: " + c.name);
      CHECK(same_row(wanted.row(c.y, t, r), answer), c.name + ", " + isa + ", step " + std::to_string(t));
    }
    CHECK(stream.steps() == wanted.T, "");
  }
}

// Rows of a pool, each of which takes part in a push or not.
void check_slots(const StepCase& c, const Batch& wanted, const std::string& isa, Random random) {
  const auto model = model_of(c, wanted, isa);
  const int64_t B = wanted.B, F = model->input_floats(), K = model->answer_floats();
  SlotStates pool(model, 2 * B);
  std::vector<int64_t> slot(static_cast<size_t>(B));
  std::iota(slot.begin(), slot.end(), B / 2);
  std::reverse(slot.begin(), slot.end());
  for (int64_t r = 0; r < B; r++) pool.set(slot[size_t(r)], 0, first_carry(c, wanted, r).data());
  for (bool more = true; more;) {
    more = false;
    std::vector<int64_t> rows, slots;
    for (int64_t r = 0; r < B; r++) {
      const bool left = pool.steps(slot[size_t(r)]) < wanted.T;
      more = more || left;
      if (!left || random.chance(30)) continue;
      rows.push_back(r);
      slots.push_back(slot[size_t(r)]);
    }
    const int64_t n = int64_t(rows.size()), gap = 3;
    std::vector<float> x(size_t(n * (F + gap))), answer(size_t(n * (K + gap)));
    for (int64_t i = 0; i < n; i++)
      std::memcpy(&x[size_t(i * (F + gap))], wanted.row(c.x, pool.steps(slots[size_t(i)]), rows[size_t(i)]),
                  size_t(F) * sizeof(float));
    pool.push(n, slots.data(), {x.data(), F + gap}, {answer.data(), K + gap});
    for (int64_t i = 0; i < n; i++) {
      const auto begin = answer.begin() + i * (K + gap);
      CHECK(same_row(wanted.row(c.y, pool.steps(slots[size_t(i)]) - 1, rows[size_t(i)]), {begin, begin + K}),
            c.name + ", " + isa + ", row " + std::to_string(i) + " of " + std::to_string(n));
    }
  }
}

void check_equal_bits() {
  for (const StepCase& c : cases()) {
    const Batch wanted(c, 6, 41, "base");
    for (const std::string& isa : available_isas()) {
      check_streams(c, wanted, isa);
      check_slots(c, wanted, isa, Random(3));
    }
  }
}

// The answer as a map of the states, a program of its own.
void check_map() {
  const int32_t H = 17, K = 3;
  const StepCase c{"gru", gru_step(5, H), kGruX, kGruY, kGruInit};
  const Batch batch(c, 4, 1, available_isas()[0]);
  Program map;
  map.n_arguments = 4;
  map.buffers = {{Kind::kTime, H, 0, 0}, {Kind::kTime, K, 0, 1}, {Kind::kVector, K, 0, 2}};
  map.weights = {{H, K, {{3, 0, H, 0, K, 0, 0}}}};
  map.instructions.resize(1);
  Instruction& product = map.instructions[0];
  product.code = Code::kGemm;
  product.n = K, product.k = H, product.d = {1, 0, 0}, product.a = {0, 0, 0}, product.c = {2, 0, 0};
  map.once = map.before = map.loop = {0, 0};
  map.after = {0, 1};
  const Arrays<float> arrays(map, 1, 1, Random(5));
  auto plan = std::make_unique<StepPlan>(map, arrays.arguments(), available_isas()[0]);
  auto step = std::make_unique<StepPlan>(c.program, batch.arrays.arguments(), available_isas()[0]);
  auto bound = std::make_unique<const BoundPlan>(
      BoundPlan(std::move(plan), std::vector<int32_t>{0}, std::vector<int32_t>{1}));
  const auto model = std::make_shared<StreamModel>(5, BoundPlan(std::move(step), {c.x}, {}),
                                                   std::move(bound), first_carry(c, batch, 0));
  StreamState stream(model);
  std::vector<float> answer(K), again(K);
  for (int64_t t = 0; t < batch.T; t++)
    stream.step(batch.row(c.x, t, 0), t + 1 < batch.T ? nullptr : answer.data());
  stream.answer(again.data());
  CHECK(same(answer, again), "the answer of the last step, and of the carry after it");
  const float *h = batch.row(c.y, batch.T - 1, 0), *w = arrays.values()[3].data(),
              *bias = arrays.values()[2].data();
  for (int32_t k = 0; k < K; k++) {
    float wanted = bias[k];
    for (int32_t i = 0; i < H; i++) wanted = std::fmaf(h[i], w[i * K + k], wanted);
    CHECK(same(wanted, answer[size_t(k)]), std::to_string(k));
  }
}

template <class F> std::string refusal(F f) {
  try {
    f();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

void check_refusals() {
  const StepCase c{"gru", gru_step(2, 3), kGruX, kGruY, kGruInit};
  const Batch batch(c, 1, 1, "base");
  const auto made = [&](auto change) {
    Program program = c.program;
    change(program);
    return refusal([&] { StepPlan(program, batch.arrays.arguments(), "base"); });
  };
  CHECK(made([](Program&) {}).empty(), "");
  CHECK(made([](Program& p) { p.descending = true; }) != "", "");
  CHECK(made([](Program& p) { p.carries.clear(); }) != "", "");
  CHECK(made([](Program& p) { p.buffers[1].kind = Kind::kTape; }) != "", "");
  CHECK(made([](Program& p) { p.gradients = {{1, 1, 0}}; }) != "", "");
  CHECK(made([](Program& p) { p.instructions[4].k = 1; }) != "", "an invalid program");

  const auto model = model_of(c, batch, "base");
  SlotStates pool(model, 4);
  std::vector<float> x(8), answer(12);
  const auto push = [&](std::vector<int64_t> slots) {
    const int64_t n = int64_t(slots.size());
    return refusal([&] { pool.push(n, slots.data(), {x.data(), 2}, {answer.data(), 3}); });
  };
  CHECK(push({0, 3}).empty() && pool.steps(0) == 1 && pool.steps(3) == 1, "");
  CHECK(push({1, 4}).find("slot 4") == 0 && push({1, -1}) != "", "");
  CHECK(push({1, 2, 1}).find("twice") != std::string::npos, "");
  CHECK(pool.steps(1) == 0 && pool.steps(2) == 0, "a push that is refused moves no slot");
  CHECK(push({2, 1}).empty() && pool.steps(2) == 1, "");
}

void check_sole_use() {
  const StepCase c{"gru", gru_step(2, 3), kGruX, kGruY, kGruInit};
  const Batch batch(c, 1, 1, "base");
  StreamState stream(model_of(c, batch, "base"));
  {
    const SoleUse first(stream.in_use());
    std::string second;
    std::thread([&] { second = refusal([&] { SoleUse use(stream.in_use()); }); }).join();
    CHECK(second.find("one owner") != std::string::npos, second);
  }
  CHECK(refusal([&] { SoleUse use(stream.in_use()); }).empty(), "free again");
}

}  // namespace

void test_streams() {
  check_equal_bits();
  check_map();
  check_refusals();
  check_sole_use();
}

}  // namespace ostinato
