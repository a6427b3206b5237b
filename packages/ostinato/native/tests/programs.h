// Programs to play, and memory for their arguments.
#pragma once
#include <algorithm>

#include "play/executor.h"
#include "tests.h"

namespace ostinato {

// Every kind of buffer, instruction and section in one program: a tanh RNN of F inputs and H states,
// a second state that follows the first, outputs, and sums over rows and steps as gradients. H ≥ 2.
Program sample_program(int32_t F, int32_t H, bool descending);

// The same without gradients, tapes and `after`: what a stream can play.
enum SampleStepArgument : int32_t { kSampleX = 0, kSampleInit = 1, kSampleOut = 7 };
Program sample_step(int32_t F, int32_t H);

// A gated recurrent unit as the compiler lowers it for many rows: products of one factor that lie side by
// side, with another one between.
enum GruArgument : int32_t {
  kGruX, kGruY, kGruInit, kGruLast, kGruU, kGruW, kGruBiasX, kGruBiasH, kGruArguments
};
Program gru_step(int32_t F, int32_t H);

// Carries that may be written where the old ones lie, and others that may not: of two that change places one
// may; of one that is read behind its new value, spread, or written in two parts, none. F = H.
enum CarriesArgument : int32_t { kCarriesX, kCarriesY, kCarriesInit, kCarriesArguments };
Program carries_step(int32_t H);

// The integers from which read_program makes this program, and the scalars.
std::vector<int64_t> numbers(const Program& program);
std::vector<double> scalars(const Program& program);

// Strides of an argument, and how many elements of it the program may touch, by the rules of request.h.
struct Extent {
  int64_t time = 0, row = 0, size = 0;
};
std::vector<Extent> extents(const Program& program, int64_t T, int64_t B, bool transposed);

// Arguments, each in memory of its own that ends where the program's reach ends.
template <class T> class Arrays {
 public:
  Arrays(const Program& program, int64_t n_steps, int64_t n_rows, Random random, bool transposed = false,
         double scale = 1) {
    for (const Extent& extent : extents(program, n_steps, n_rows, transposed)) {
      values_.emplace_back(size_t(extent.size));
      for (T& value : values_.back()) value = T(random.number() * scale);
      arguments_.push_back({values_.back().data(), extent.time, extent.row});
    }
  }
  Arrays(const Arrays&) = delete;
  const Argument* arguments() const { return arguments_.data(); }
  const std::vector<std::vector<T>>& values() const { return values_; }

 private:
  std::vector<std::vector<T>> values_;
  std::vector<Argument> arguments_;
};

// How a program is played: ragged, with falling lengths and the caller's rows in another order; or not.
struct Setting {
  int64_t T, B;
  int threads = 1;
  int64_t work_per_thread = PlayRequest().work_per_thread;
  std::string isa;
  std::vector<int64_t> lengths, rows;

  Setting(int64_t n_steps, int64_t n_rows, bool ragged, Random random);
  PlayRequest request(const Argument* arguments) const;
};

}  // namespace ostinato
