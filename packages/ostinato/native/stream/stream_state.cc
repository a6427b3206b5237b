#include "stream/stream_state.h"

#include <cstring>
#include <stdexcept>

namespace ostinato {
namespace {

float* next_line(float* at) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(at);
  return reinterpret_cast<float*>((address + kLineBytes - 1) / kLineBytes * kLineBytes);
}

}  // namespace

void SoleUse::refuse() {
  throw std::runtime_error(
      "another thread is using this at the same moment: a stream or a pool has one owner. Give each thread "
      "a stream of its own");
}

StreamState::StreamState(std::shared_ptr<const StreamModel> model)
    : model_(std::move(model)), carry_(new float[size_t(model_->carry_floats())]) {
  const int64_t scratch = model_->stream_floats();
  if (scratch * int64_t(sizeof(float)) > kStackBytes) scratch_.reset(new float[size_t(scratch)]);
  reset();
}
StreamState::StreamState(const StreamState& other) : StreamState(other.model_) {
  set(other.steps_, other.carry_.get());
}

void StreamState::reset() { set(0, model_->init().data()); }

void StreamState::set(int64_t steps, const float* carry) {
  steps_ = steps;
  std::memcpy(carry_.get(), carry, size_t(model_->carry_floats()) * sizeof(float));
}

// The scratch of a step. On the stack it lives as long as the function that asks for it.
#define OSTINATO_SCRATCH         \
  next_line(scratch_             \
                ? scratch_.get() \
                : static_cast<float*>(OSTINATO_ON_STACK(size_t(model_->stream_floats()) * sizeof(float))))

bool StreamState::step(const float* x, float* answer, bool only_finite) {
  return step(FloatEnvironment(), x, answer, only_finite);
}
bool StreamState::step(const FloatEnvironment&, const float* x, float* answer, bool only_finite) {
  float* const scratch = OSTINATO_SCRATCH;
  if (model_->prepares()) {
    float* const prepared = model_->prepared_row(scratch);
    model_->preparation().apply(x, prepared);
    x = prepared;
  }
  if (only_finite && !all_finite(x, model_->row_floats())) return false;
  model_->step_row(x, carry_.get(), answer, scratch);
  steps_++;
  return true;
}

void StreamState::answer(float* answer) {
  const FloatEnvironment environment;
  model_->map_row(carry_.get(), answer, OSTINATO_SCRATCH);
}

}  // namespace ostinato
