// Plays: equal bits with any number of threads, from several callers at once, and after a play that failed.
#include "play/executor.h"

#include <atomic>
#include <new>
#include <thread>

#include "kernels/dispatch.h"
#include "play/threads.h"
#include "allocations.h"
#include "openmp_stand_in.h"
#include "programs.h"

namespace ostinato {
namespace {

Workspaces workspaces;

template <class T> using Values = std::vector<std::vector<T>>;

template <class T> Values<T> seen(const Program& program, const Arrays<T>& arrays) {
  Values<T> values = arrays.values();
  for (const Buffer& b : program.buffers)
    if (b.kind == Kind::kTape) values[size_t(b.argument)].clear();  // in an order of its own
  return values;
}
template <class T> Values<T> played(Executor<T>& executor, const Program& program, const Setting& setting) {
  Arrays<T> arrays(program, setting.T, setting.B, Random(7));
  executor.play(setting.request(arrays.arguments()));
  return seen(program, arrays);
}
template <class T> bool equal(const Values<T>& a, const Values<T>& b) {
  bool all = a.size() == b.size();
  for (size_t i = 0; all && i < a.size(); i++) all = same(a[i], b[i]);
  return all;
}
bool close(const Values<double>& a, const Values<double>& b) {  // sums in another order
  bool all = a.size() == b.size();
  for (size_t i = 0; all && i < a.size(); i++)
    for (size_t k = 0; all && k < a[i].size(); k++)
      all = std::fabs(a[i][k] - b[i][k]) <= 1e-10 * (1 + std::fabs(b[i][k]));
  return all;
}

struct SampleSize {
  int32_t F, H;
  int64_t T, B;
};
// clang-format off
const SampleSize kSizes[] = {
    {1, 2, 1, 1},      // one row, one step
    {3, 5, 4, 3},      // a few of each
    {16, 17, 5, 9},    // two groups
    {3, 5, 70, 33},    // several chunks, of 32 rows a group
    {2, 66, 3, 34},    // columns beyond one panel
    {3, 520, 2, 9},    // a gradient above 1 MB, summed late
    {3, 5, 12, 13},    // gradients summed late over several chunks and slabs
    {3, 64, 7, 1},     // one row, columns that fill every panel
    {20, 100, 40, 1},  // one row over several chunks, columns for four threads
    {3, 41, 11, 7},    // seven rows, columns for three threads
    {1, 40, 9, 2},     // a sum of a single row
    {20, 150, 1, 1},   // weights that are used once, one row
    {3, 70, 1, 6},     // the same, six rows
};
// clang-format on

std::string name(const SampleSize& size, const Setting& setting) {
  return "F " + std::to_string(size.F) + ", H " + std::to_string(size.H) + ", T " + std::to_string(size.T) +
         ", B " + std::to_string(size.B) + ", " + std::to_string(setting.threads) +
         " threads, work per thread " + std::to_string(setting.work_per_thread) + ", " + setting.isa;
}

// The second product of the loop is added to the first, instead of lying beside it.
Program with_a_sum(Program program) {
  Instruction* loop = program.instructions.data() + program.loop.begin;
  loop[1].d = loop[1].c = loop[0].d;
  loop[3].b = loop[3].a;  // what it made before
  CHECK(continues(loop[0], loop[1]) && find_column_sharing(program).stages[0].factors == 2, "");
  return program;
}

void check_sums() {
  const Program program = sample_program(3, 5, false);
  const SumSharing sums = find_sum_sharing(program);
  const int32_t first = program.after.begin, whole = first + 4;
  CHECK(sums.copies.size() == 1 && sums.copied == std::vector<bool>({0, 0, 0, 0, 1, 0, 0}), "");
  CHECK(sums.copies[0].to == 4 && sums.copies[0].from == 3 && sums.copies[0].column == 1, "");
  for (int32_t i = 0; i < int32_t(program.instructions.size()); i++) {
    CHECK(sums.scaled_with[size_t(i)] == (i == whole ? whole + 1 : -1), std::to_string(i));
    CHECK(sums.skipped[size_t(i)] == (i == first + 3 || i == whole + 1), std::to_string(i));
  }
  Program twice = program;  // a second term: neither a copy, nor played with another
  for (int32_t i : {first + 3, whole + 1}) twice.instructions.push_back(twice.instructions[size_t(i)]);
  twice.after.end += 2;
  CHECK(find_sum_sharing(twice).copies.empty() &&
            find_sum_sharing(twice).scaled_with == std::vector<int32_t>(twice.instructions.size(), -1),
        "");
  Program in_loop = program;  // a second term of the part, in the loop
  in_loop.instructions.insert(in_loop.instructions.begin() + in_loop.loop.end,
                              in_loop.instructions[size_t(first + 3)]);
  in_loop.loop.end = ++in_loop.after.begin;
  in_loop.after.end++;
  CHECK(find_sum_sharing(in_loop).copies.empty(), "");
  for (size_t gradient : {3, 4}) {
    Program transposed = program;  // a column, whose numbers may lie apart
    transposed.gradients[gradient].transposed = true;
    CHECK(find_sum_sharing(transposed).copies.empty(), "");
  }
}

template <class T> void check_equal_bits() {
  for (const SampleSize& size : kSizes)
    for (bool descending : {false, true})
      for (int kind : {0, 1, 2}) {
        const bool ragged = kind == 1;
        const Program sample = sample_program(size.F, size.H, descending),
                      program = kind == 2 ? with_a_sum(sample) : sample;
        Executor<T> executor(program, workspaces);
        Setting setting(size.T, size.B, ragged, Random(11));
        setting.isa = "base";
        const Values<T> wanted = played(executor, program, setting);
        for (int threads : {1, 2, 3, 4})
          for (int64_t work_per_thread :
               {PlayRequest().work_per_thread, int64_t(1)})  // by rows, and where they are few by columns
            for (const std::string& isa : available_isas()) {
              setting.threads = threads;
              setting.work_per_thread = work_per_thread;
              setting.isa = isa;
              CHECK(equal(played(executor, program, setting), wanted), name(size, setting));
            }
      }
}

// ---- Sums by unit

// The arguments of a play with another memory for each gradient, [units, K, N] or transposed.
template <class T> struct UnitArguments {
  std::vector<Argument> list;
  Values<T> sums;  // by gradient

  UnitArguments(const Program& program, const Arrays<T>& arrays, int64_t n_units)
      : list(arrays.arguments(), arrays.arguments() + program.n_arguments) {
    for (const Gradient& g : program.gradients) {
      const int64_t size = int64_t(g.K) * g.N;
      sums.emplace_back(size_t(n_units * size), T(7));
      list[size_t(g.argument)] = {sums.back().data(), g.transposed ? g.K : g.N, size};
    }
  }
  void skip_rows(const Program& program, int64_t n) {
    const auto skip = [&](int32_t argument) {
      if (argument < 0) return;
      Argument& a = list[size_t(argument)];
      if (a.data) a.data = static_cast<T*>(a.data) + n * a.row;
    };
    for (const Buffer& b : program.buffers)
      if (b.kind == Kind::kTime) skip(b.argument);
    for (const Carry& c : program.carries) skip(c.init), skip(c.final);
  }
};
std::vector<Program> programs_with_sums(int32_t F, int32_t H, bool descending) {
  Program program = sample_program(F, H, descending), transposed = program;
  for (size_t i : {1, 5}) transposed.gradients[i].transposed = true;  // of outer products
  return {program, transposed};
}
template <class T> Values<T> sums_by_unit(const Program& program, const Setting& setting, int64_t unit_rows) {
  Executor<T> executor(program, workspaces);
  const Arrays<T> arrays(program, setting.T, setting.B, Random(7));
  UnitArguments<T> arguments(program, arrays, setting.B / unit_rows);
  PlayRequest request = setting.request(arguments.list.data());
  request.unit_rows = unit_rows;
  request.sums_by_unit = true;
  executor.play(request);
  return arguments.sums;
}
// Each unit played alone.
Values<double> sums_of_units(const Program& program, const Setting& setting, int64_t unit_rows) {
  Executor<double> executor(program, workspaces);
  const Arrays<double> arrays(program, setting.T, setting.B, Random(7));
  Values<double> found(program.gradients.size());
  Setting alone(setting.T, unit_rows, false, Random(11));
  alone.isa = setting.isa;
  for (int64_t unit = 0; unit < setting.B / unit_rows; unit++) {
    UnitArguments<double> arguments(program, arrays, 1);
    arguments.skip_rows(program, unit * unit_rows);
    executor.play(alone.request(arguments.list.data()));
    for (size_t i = 0; i < found.size(); i++)
      found[i].insert(found[i].end(), arguments.sums[i].begin(), arguments.sums[i].end());
  }
  return found;
}
void check_sums_by_unit() {
  for (const SampleSize& size : {SampleSize{3, 5, 4, 3}, {16, 17, 5, 9}, {3, 5, 140, 33}, {70, 20, 3, 34},
                                 {3, 5, 12, 24}, {3, 41, 9, 6}, {20, 70, 1, 1}})
    for (bool descending : {false, true})
      for (const Program& program : programs_with_sums(size.F, size.H, descending))
        for (int64_t unit_rows : {1, 2, 3}) {
          if (size.B % unit_rows || size.B / unit_rows < n_groups(size.B)) continue;
          Setting setting(size.T, size.B, false, Random(11));
          setting.isa = "base";
          const Values<double> wanted = sums_by_unit<double>(program, setting, unit_rows);
          const Values<float> bits = sums_by_unit<float>(program, setting, unit_rows);
          CHECK(close(wanted, sums_of_units(program, setting, unit_rows)), name(size, setting));
          for (int threads : {1, 3})
            for (int64_t work_per_thread : {PlayRequest().work_per_thread, int64_t(1)})
              for (const std::string& isa : available_isas()) {
                setting.threads = threads;
                setting.work_per_thread = work_per_thread;
                setting.isa = isa;
                const std::string where = name(size, setting) + ", units of " + std::to_string(unit_rows);
                CHECK(equal(sums_by_unit<double>(program, setting, unit_rows), wanted), where);
                CHECK(equal(sums_by_unit<float>(program, setting, unit_rows), bits), where);
              }
        }
}

// More is read and written over time than stays in the caches: each step prefetches the next one's rows.
void check_far_plays() {
  for (const SampleSize& size :
       {SampleSize{1, 34, 1900, 3}, SampleSize{1, 8, 1500, 31}})  // 2 MB for each slab, and more
    for (bool descending : {false, true})
      for (bool ragged : {false, true}) {
        const Program program = sample_program(size.F, size.H, descending);
        Executor<float> executor(program, workspaces);
        Setting setting(size.T, size.B, ragged, Random(11));
        setting.isa = "base";
        const Values<float> wanted = played(executor, program, setting);
        setting.isa = available_isas()[0];
        setting.work_per_thread = 1;
        for (int threads : {1, 2}) {
          setting.threads = threads;
          CHECK(equal(played(executor, program, setting), wanted), name(size, setting));
        }
      }
}

// The runtime may give fewer threads than were asked for.
void check_fewer_threads() {
  const Program program = sample_program(16, 70, false);
  Executor<float> executor(program, workspaces);
  for (int64_t rows : {33, 3}) {
    Setting setting(5, rows, true, Random(11));
    const auto wanted = played(executor, program, setting);
    setting.threads = 4;
    setting.work_per_thread = 1;
    for (int most : {1, 2, 3}) {
      openmp_stand_in_limit(most);
      CHECK(equal(played(executor, program, setting), wanted),
            std::to_string(rows) + " rows, " + std::to_string(most));
    }
    openmp_stand_in_limit(16);
  }
}

// Whether there is a barrier before each stage: the products, the block after them, the two reductions, the
// last block.
std::vector<bool> barriers(const Program& program) {
  std::vector<bool> found;
  for (const ColumnSharing::Stage& stage : find_column_sharing(program).stages)
    found.push_back(stage.barrier_before);
  return found;
}
// The program up to its operations on arrays, which one thread plays for all.
Program without_arrays(Program p) {
  const auto first = std::find_if(p.instructions.begin(), p.instructions.end(),
                                  [](const Instruction& x) { return x.code == Code::kProduct; });
  const int32_t end = int32_t(first - p.instructions.begin()), n = p.loop.end - end;
  p.instructions.erase(first, first + n);
  p.loop.end = p.after.begin = end;
  p.after.end -= n;
  return p;
}
void check_barriers_of_arrays() {
  const bool _ = false, X = true;
  // products · block · two sums || block · product · take · two products || sum || block || maximum, which
  // the first thread writes to the state that the block of the next step reads
  const std::vector<bool> wanted{_, X, X, _, X, _, _, _, _, X, X, X};
  CHECK(barriers(sample_program(3, 40, false)) == wanted, "");
}
void check_barriers() {
  using Found = std::vector<bool>;
  for (bool descending : {false, true}) {
    const Program sample = without_arrays(sample_program(3, 40, descending));
    Program program = sample;
    const ColumnSharing columns = find_column_sharing(program);
    CHECK(columns.stages[0].pieces.size() == 2 && columns.weights == 2 * 40 * 40 && columns.barriers == 2,
          "");
    CHECK(columns.loop_only == (Found{false, true, true}), "");
    CHECK(barriers(program) == (Found{false, false, true, false, true}),
          "the state is written before the barrier of the reductions");
    Program bare = program;
    for (size_t i = size_t(bare.loop.begin); i < size_t(bare.loop.end); i++)
      if (bare.instructions[i].code == Code::kRowSum || bare.instructions[i].code == Code::kRowMax)
        bare.instructions[i] = bare.instructions[size_t(bare.loop.begin)];  // the first product again
    for (Instruction& x : bare.instructions) {
      if (x.code != Code::kBroadcast) continue;
      x.code = Code::kOp;
      x.op = kOp_copy;
      x.a = {0, 0, 0};
    }
    CHECK(barriers(bare)[0] && !barriers(bare)[1], "products read the whole state of the step before");

    Instruction& last = program.instructions[size_t(program.loop.end) - 1];
    last.d = {6, 7, 0};  // over what the products wrote, but not in the same columns
    CHECK(barriers(program) == (Found{true, true, true, false, true}), "");
    last.d = {6, 0, 0};
    last.a = {6, 7, 0};  // in one block: reads what another thread may be writing
    CHECK(find_column_sharing(program).stages.empty(), "");
    for (const Section& section : {sample.before, sample.after}) {  // by steps, which are apart
      Program reaching = sample;
      Instruction& first = reaching.instructions[size_t(section.begin)];
      first.a = {1, 0, 1};
      first.d = {1, 0, 0};
      CHECK(find_column_sharing(reaching).stages.empty(), "");
    }
  }
}

// Products within rows that threads share: by places, of one matrix and of several, then what reads them.
Program with_shared_products(int32_t groups, bool across) {
  const int32_t n = 36, width = groups * n * n;
  Program p;
  p.n_arguments = 3;
  p.buffers = {{Kind::kTime, width, 0, 0}, {Kind::kVector, width, 0, 1}, {Kind::kTime, width, 0, 2},
               {Kind::kStep, width, 0, -1}};
  p.tables = {{width, {{-1, 1, 0}, {0, width - 1, 1}}}};  // moved by one
  p.products = {{groups, n, n, n, across, 0}, {groups, n, n, n, across}};
  Instruction first{}, second{}, head{}, copy{};
  first.code = second.code = Code::kProduct;
  first.n = second.n = head.n = width;
  first.d = {3, 0, 0};
  first.a = second.b = {1, 0, 0};
  first.b = {0, 0, 0};
  second.weight = 1;
  second.a = {3, 0, 0};
  second.d = copy.d = copy.a = {2, 0, 0};
  head.code = Code::kBlock;
  head.count = 1;
  copy.code = Code::kOp;
  copy.op = kOp_sin;
  p.instructions = {first, second, head, copy};
  p.loop = {0, 4};
  p.after = {4, 4};
  return p;
}
void check_shared_products() {
  for (int32_t groups : {1, 3})
    for (bool across : {false, true}) {
      const Program program = with_shared_products(groups, across);
      // The first product of the next step writes behind the barrier of the block, when all have read.
      CHECK(barriers(program) == (std::vector<bool>{false, true, true}), "each reads what all have written");
      CHECK(find_column_sharing(program).products == 2. * groups * 36 * 36 * 36, "");
      for (int64_t rows : {1, 5}) {
        Executor<float> executor(program, workspaces);
        Setting setting(4, rows, false, Random(11));
        const Values<float> one = played(executor, program, setting);
        setting.work_per_thread = 1;
        for (int threads : {2, 3, 5}) {
          setting.threads = threads;
          CHECK(equal(played(executor, program, setting), one), std::to_string(threads) + " threads");
        }
      }
    }
}

void check_that_a_wrong_play_is_seen() {
  const Program program = sample_program(3, 5, false);
  Program other = program;
  for (Instruction& x : other.instructions)
    if (x.code == Code::kOp && x.op == kOp_tanh) x.op = kOp_sin;
  const Setting setting(4, 3, false, Random(11));
  Executor<float> a(program, workspaces), b(other, workspaces);
  CHECK(!equal(played(a, program, setting), played(b, program, setting)), "");
  Executor<double> c(program, workspaces), d(other, workspaces);
  CHECK(!equal(played(c, program, setting), played(d, program, setting)), "");
}

// ---- several callers at once

void check_concurrent_plays() {
  const Program program = sample_program(16, 17, false);
  Workspaces own;
  Executor<float> executor(program, own);
  std::vector<Setting> settings;
  std::vector<Values<float>> wanted;
  int64_t most = 0;
  for (const auto& [T, B] : {std::pair<int64_t, int64_t>{3, 9}, {5, 33}, {1, 1}, {7, 20}, {9, 5}}) {
    settings.emplace_back(T, B, B > 10, Random(11));
    settings.back().threads = 2, settings.back().work_per_thread = 1;
    wanted.push_back(played(executor, program, settings.back()));
    most = std::max(most, executor.needed_bytes(settings.back().request(nullptr)));
  }
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (size_t caller = 0; caller < 4; caller++)
    callers.emplace_back([&, caller] {
      for (size_t i = 0; i < 12; i++) {
        const size_t k = (caller + i) % settings.size();
        wrong += !equal(played(executor, program, settings[k]), wanted[k]);
        wrong += own.kept_bytes() > 4 * most;
      }
    });
  for (std::thread& caller : callers) caller.join();
  CHECK(wrong == 0, std::to_string(wrong));
}

// ---- after a play that failed

template <class Error, class F> bool throws(F f) {
  try {
    f();
  } catch (const Error&) {
    return true;
  }
  return false;
}

void check_unknown_instruction_set() {
  const Program program = sample_program(3, 5, false);
  Executor<float> executor(program, workspaces);
  Setting good(4, 9, false, Random(11)), bad = good;
  good.threads = 2;
  bad.isa = "mmx";
  const auto wanted = played(executor, program, good);
  CHECK(throws<std::invalid_argument>([&] { played(executor, program, bad); }), "");
  CHECK(throws<std::invalid_argument>([&] { executor.needed_bytes(bad.request(nullptr)); }), "");
  CHECK(equal(played(executor, program, good), wanted), "");
}

// Each allocation of a play fails once, a first play's and a later one's.
void check_allocations_that_fail(bool first) {
  const Program program = sample_program(16, 17, false);
  Setting setting(5, 33, true, Random(11));
  setting.threads = 2;
  Executor<float> steady(program, workspaces);
  const auto wanted = played(steady, program, setting);
  int failures = 0;
  for (bool failed = true; failed; failures += failed) {
    Workspaces none;
    Executor<float> fresh(program, none);
    Executor<float>& executor = first ? fresh : steady;
    Arrays<float> arrays(program, setting.T, setting.B, Random(7));
    allocations_left = failures;
    failed = throws<std::bad_alloc>([&] { executor.play(setting.request(arrays.arguments())); });
    allocations_left = -1;
    CHECK(failed || equal(seen(program, arrays), wanted), std::to_string(failures));
    CHECK(equal(played(executor, program, setting), wanted), std::to_string(failures));
  }
  CHECK(failures > 3, std::to_string(failures));
}

void check_memory_that_cannot_be_had() {
  Program program = sample_program(3, 5, false);
  program.buffers.push_back({Kind::kStep, 1 << 24, 0, -1});
  Executor<float> executor(program, workspaces);
  const Setting good(4, 9, false, Random(11)), huge(1, int64_t(1) << 24, false, Random(11));  // 2^50 bytes
  const auto wanted = played(executor, program, good);
  std::vector<Argument> none(size_t(program.n_arguments));
  CHECK(throws<std::bad_alloc>([&] { executor.play(huge.request(none.data())); }), "");
  CHECK(equal(played(executor, program, good), wanted), "");
}

// Sizes whose products are past the integers.
void check_memory_past_all_numbers() {
  const Program program = sample_program(3, 5, false);
  Executor<float> executor(program, workspaces);
  const int64_t one = 1, some = int64_t(1) << 32, most = INT64_MAX;
  std::vector<Argument> none(size_t(program.n_arguments));
  for (const auto& [T, B] : {std::pair{one, most},
                             {most, one},
                             {most, most},
                             {some, some},
                             {some, some / 2},
                             {some / 4, some / 4}}) {
    PlayRequest request;
    request.T = T;
    request.B = B;
    request.arguments = none.data();
    request.isa = "base";
    CHECK(throws<std::length_error>([&] { executor.needed_bytes(request); }),
          std::to_string(T) + ", " + std::to_string(B));
    CHECK(throws<std::length_error>([&] { executor.play(request); }),
          std::to_string(T) + ", " + std::to_string(B));
  }
  Program wide = program;
  for (int i = 0; i < 1 << 14; i++) wide.weights.push_back({1 << 24, 1 << 24, {}});
  Executor<float> weights(wide, workspaces);
  CHECK(throws<std::length_error>(
            [&] { weights.needed_bytes(Setting(1, 1, false, Random(11)).request(nullptr)); }),
        "");
}

// ---- memory

void check_memory() {
  for (bool descending : {false, true}) {
    const Program program = sample_program(16, 70, descending);
    for (int64_t rows : {33, 3}) {
      Workspaces own;
      Executor<float> executor(program, own);
      Setting setting(9, rows, false, Random(11));
      setting.threads = 2;
      setting.work_per_thread = 1;
      CHECK(own.kept_bytes() == 0, "before the first play");
      for (int i = 0; i < 50; i++) {
        played(executor, program, setting);
        CHECK(own.kept_bytes() == executor.needed_bytes(setting.request(nullptr)), std::to_string(i));
      }
    }
  }
}

}  // namespace

void test_executor() {
  CHECK(threading_runtime().find("stand_in") != std::string::npos, threading_runtime());
  check_that_a_wrong_play_is_seen();
  check_sums();
  check_equal_bits<float>();
  check_equal_bits<double>();
  check_sums_by_unit();
  check_far_plays();
  check_fewer_threads();
  check_barriers();
  check_barriers_of_arrays();
  check_shared_products();
  check_concurrent_plays();
  check_unknown_instruction_set();
  if (allocations_can_fail) check_allocations_that_fail(true), check_allocations_that_fail(false);
  check_memory_that_cannot_be_had();
  check_memory_past_all_numbers();
  check_memory();
}

}  // namespace ostinato
