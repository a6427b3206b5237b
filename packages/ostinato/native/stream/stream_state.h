// One stream: the carry of a model between two steps, and how many steps it has seen.
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "play/float_environment.h"
#include "stream/stream_model.h"

namespace ostinato {

// While one of these lives, its thread alone uses a stream or a pool. A second thread is refused, and does
// not wait. Throws std::runtime_error.
class SoleUse {
 public:
  explicit SoleUse(std::atomic_flag& flag) : flag_(flag) {
    if (flag_.test_and_set(std::memory_order_acquire)) refuse();
  }
  SoleUse(const SoleUse&) = delete;
  ~SoleUse() { flag_.clear(std::memory_order_release); }

  [[noreturn]] static void refuse();

 private:
  std::atomic_flag& flag_;
};

class StreamState {
 public:
  explicit StreamState(std::shared_ptr<const StreamModel> model);
  StreamState(const StreamState& other);  // a fork

  // One step: no allocation, no lock, no system call. x: [input_floats]. answer: [answer_floats], or null.
  // With `only_finite`, returns false and leaves the stream as it is where the row that the step would read
  // has NaN or an infinite value.
  bool step(const float* x, float* answer, bool only_finite = false);
  // The same, for a caller that plays many: to ask for the environment waits for all computations before it,
  // which takes up to a tenth of a small step.
  bool step(const FloatEnvironment&, const float* x, float* answer, bool only_finite = false);
  // The answer to the steps so far, if the model has a map.
  void answer(float* answer);
  void reset();
  void set(int64_t steps, const float* carry);

  const StreamModel& model() const { return *model_; }
  int64_t steps() const { return steps_; }
  float* carry() { return carry_.get(); }
  std::atomic_flag& in_use() { return in_use_; }
  static constexpr int64_t bytes_beside_the_carry();

 private:
  std::shared_ptr<const StreamModel> model_;
  std::unique_ptr<float[]> carry_;
  std::unique_ptr<float[]> scratch_;  // null where it lies on the stack
  int64_t steps_ = 0;
  std::atomic_flag in_use_ = ATOMIC_FLAG_INIT;
};
constexpr int64_t StreamState::bytes_beside_the_carry() { return int64_t(sizeof(StreamState)); }
static_assert(sizeof(StreamState) <= 64, "a stream is its carry and at most 64 bytes");

}  // namespace ostinato
