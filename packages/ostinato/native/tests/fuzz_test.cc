// Programs that are cut, random or changed: refused with a message, or played within their memory.
// AddressSanitizer watches that memory: every argument ends where the program's reach ends.
#include <cstdio>

#include "kernels/dispatch.h"
#include "programs.h"

namespace ostinato {
namespace {

using Integers = std::vector<int64_t>;

bool refused(const Integers& values, const std::vector<double>& factors) {
  try {
    validate(read_program(values, factors));
  } catch (const std::invalid_argument& error) {
    CHECK(std::string(error.what()).rfind("invalid program: ", 0) == 0, error.what());
    return true;
  }
  return false;
}

// Numbers around the limits of validate (−49 is the last register), and the ends of int32.
const int64_t kEdges[] = {-51,       -50,       -49,
                          -3,        -2,        -1,
                          0,         1,         2,
                          5,         64,        65,
                          127,       1 << 24,   (1 << 24) + 1,
                          INT32_MAX, INT32_MIN, int64_t(INT32_MAX) + 1};

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random(seed) {}

  void change(Integers& values, std::vector<double>& factors) {
    const int64_t n = int64_t(values.size()), kind = random.below(20);
    if (kind == 0) values.resize(size_t(random.below(n)));
    else if (kind == 1) std::reverse(values.begin() + random.below(n), values.end());
    else if (kind == 2)
      for (int64_t& value : values) value = random.below(24) - 3;
    else if (kind == 3 && !factors.empty()) factors.resize(size_t(random.below(int64_t(factors.size()) + 2)));
    else
      for (int64_t i = random.below(3); i >= 0; i--) change_one(values[size_t(random.below(n))], values);
  }
  // One more instruction, the same as some other.
  void insert(Program& p) {
    const Instruction copy = random.pick(p.instructions);
    const int32_t at = int32_t(random.below(int64_t(p.instructions.size())));
    for (int32_t i = 0; i < at; i++)
      if (p.instructions[size_t(i)].code == Code::kBlock && i + p.instructions[size_t(i)].count >= at)
        p.instructions[size_t(i)].count++;
    p.instructions.insert(p.instructions.begin() + at, copy);
    for (Section* s : {&p.once, &p.before, &p.loop, &p.after}) {
      s->begin += s->begin > at;
      s->end += s->end > at;
    }
  }

  Random random;

 private:
  void change_one(int64_t& value, const Integers& values) {
    const int64_t kind = random.below(3);
    value = kind == 0 ? random.pick(kEdges) : kind == 1 ? value + random.below(5) - 2 : random.pick(values);
  }
};

constexpr int64_t kMaxElements = 1 << 16;  // larger programs are valid, and take long

// Plays the program within exactly the memory that it may touch. False if that is too large to try.
bool play_within_memory(const Program& program, Random& random) {
  Setting setting(1 + random.below(5), 1 + random.below(20), random.chance(50), random);
  // Lengths that do not fall are the caller's mistake: another result, which stays within the memory.
  if (random.chance(20)) std::reverse(setting.lengths.begin(), setting.lengths.end());
  setting.threads = int(1 + random.below(3));
  setting.isa = random.pick(available_isas());
  setting.work_per_thread =
      random.chance(70) ? 1 : INT64_MAX;  // few rows are shared by columns, or are one thread's
  const bool transposed = random.chance(30);
  Workspaces workspaces;  // as large as this play needs
  Executor<float> executor(program, workspaces);
  const int64_t needed = executor.needed_bytes(setting.request(nullptr));
  int64_t elements = needed / int64_t(sizeof(float));
  for (const Extent& extent : extents(program, setting.T, setting.B, transposed)) elements += extent.size;
  if (elements > kMaxElements) return false;
  Arrays<float> arrays(program, setting.T, setting.B, random, transposed);
  executor.play(setting.request(arrays.arguments()));
  CHECK(workspaces.kept_bytes() == needed,
        std::to_string(workspaces.kept_bytes()) + " bytes for " + std::to_string(needed));
  return true;
}

// Whether a program has register code, which then leaves every argument as the interpreter does, within
// exactly the memory that it may touch.
template <class T> bool play_registers(const Program& program, Random& random) {
  Workspaces workspaces;
  Executor<T> executor(program, workspaces);
  if (!executor.register_code()) return false;
  Setting setting(1 + random.below(40), 1 + random.below(7), false, random);
  setting.isa = random.pick(available_isas());
  const bool transposed = random.chance(30);
  const Random contents = random;
  std::vector<std::vector<T>> seen[2];
  for (Tier tier : {Tier::kInterpreter, Tier::kRegisters}) {
    Arrays<T> arrays(program, setting.T, setting.B, contents, transposed);
    PlayRequest request = setting.request(arrays.arguments());
    request.tier = tier;
    executor.play(request);
    seen[tier == Tier::kRegisters] = arrays.values();
    if (tier == Tier::kInterpreter) continue;
    Workspaces own;
    Executor<T> again(program, own);
    again.play(request);
    CHECK(own.kept_bytes() == again.needed_bytes(request), std::to_string(own.kept_bytes()));
  }
  for (size_t i = 0; i < seen[0].size(); i++)
    CHECK(same(seen[0][i], seen[1][i]), "argument " + std::to_string(i) + ", T " + std::to_string(setting.T) +
                                            ", B " + std::to_string(setting.B) + ", " + setting.isa);
  return true;
}

std::vector<Program> samples() {
  std::vector<Program> list = {sample_program(3, 5, false), sample_program(2, 66, true),
                               sample_program(17, 16, true), sample_program(1, 2, false)};
  for (int32_t H : {2, 3, 5})
    for (bool descending :
         {false, true}) {  // without the sum of products, which register code does not cover
      Program p = sample_program(H == 5 ? 1 : 2, H, descending);
      p.instructions.pop_back();
      p.after.end--;
      list.push_back(p);
    }
  for (const Program& p : {gru_step(2, 3), carries_step(2), carries_step(4)}) list.push_back(p);
  return list;
}

}  // namespace

void test_refusals() {
  for (const Program& program : samples()) {
    const Integers values = numbers(program);
    const std::vector<double> factors = scalars(program);
    CHECK(!refused(values, factors), "");
    Integers more = values;
    more.push_back(0);
    CHECK(refused(more, factors) && refused(values, {}) && refused({}, {}), "");
    for (size_t n = 0; n < values.size(); n++) {
      CHECK(refused({values.begin(), values.begin() + int64_t(n)}, factors), std::to_string(n));
      for (int64_t huge : {int64_t(INT32_MAX) + 1, int64_t(INT32_MIN) - 1, INT64_MAX, INT64_MIN}) {
        Integers changed = values;
        changed[n] = huge;
        CHECK(refused(changed, factors), std::to_string(n));
      }
    }
  }
}

void test_fuzzed_programs(int64_t iterations) {
  Mutator mutator(1);
  Random& random = mutator.random;
  const std::vector<Program> first = samples();
  std::vector<Program> pool = first;  // what was accepted is changed further
  int64_t n_refused = 0, n_played = 0, n_large = 0, n_registers = 0;
  for (int64_t i = 0; i < iterations; i++) {
    Program base = random.pick(pool);
    if (random.chance(20) && base.instructions.size() < 60) mutator.insert(base);
    Integers values = numbers(base);
    std::vector<double> factors = scalars(base);
    if (random.chance(90)) mutator.change(values, factors);
    if (refused(values, factors)) {
      n_refused++;
      continue;
    }
    const Program program = read_program(values, factors);
    if (!play_within_memory(program, random)) {
      n_large++;
      continue;
    }
    n_played++;
    n_registers +=
        random.chance(50) ? play_registers<float>(program, random) : play_registers<double>(program, random);
    if (random.chance(5)) pool = first;
    pool.push_back(program);
  }
  std::printf("%lld refused, %lld played, %lld of them as register code, too, %lld too large to play\n",
              static_cast<long long>(n_refused), static_cast<long long>(n_played),
              static_cast<long long>(n_registers), static_cast<long long>(n_large));
  CHECK(n_refused >= iterations / 4 && n_played >= iterations / 10, "the changes are too wild, or too tame");
  CHECK(n_registers >= iterations / 100, "few of the programs have register code");
}

}  // namespace ostinato
