#include "stream/slot_states.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "play/float_environment.h"

namespace ostinato {
namespace {

int64_t line_bytes(int64_t floats) {
  return (floats * int64_t(sizeof(float)) + kLineBytes - 1) / kLineBytes * kLineBytes;
}

}  // namespace

void SlotStates::Free::operator()(float* memory) const { std::free(memory); }

SlotStates::SlotStates(std::shared_ptr<const StreamModel> model, int64_t capacity)
    : model_(std::move(model)), capacity_(capacity) {
  if (capacity < 1) throw std::invalid_argument("a pool has at least one slot");
  const size_t row = size_t(std::max<int64_t>(1, model_->carry_floats()));
  carries_.reset(static_cast<float*>(std::calloc(size_t(capacity), row * sizeof(float))));
  if (!carries_) throw std::bad_alloc();
  steps_.resize(size_t(capacity));
  last_push_.resize(size_t(capacity));
  memory_.reserve(line_bytes(kStepRows * model_->carry_floats()) +
                  line_bytes(model_->scratch_floats(kStepRows)));
}

void SlotStates::check(int64_t slot) const {
  if (slot < 0 || slot >= capacity_)
    throw std::invalid_argument("slot " + std::to_string(slot) + " is none of this pool's, which has " +
                                std::to_string(capacity_));
}
void SlotStates::reset(int64_t slot) { set(slot, 0, model_->init().data()); }
void SlotStates::set(int64_t slot, int64_t steps, const float* carry) {
  check(slot);
  steps_[size_t(slot)] = steps;
  const int64_t n = model_->carry_floats();
  std::memcpy(carries_.get() + slot * n, carry, size_t(n) * sizeof(float));
}

void SlotStates::check_all(int64_t n_rows, const int64_t* slots) {
  if (++push_ == 0) {  // after 2^32 pushes the numbers begin again
    std::fill(last_push_.begin(), last_push_.end(), 0u);
    push_ = 1;
  }
  for (int64_t r = 0; r < n_rows; r++) {
    check(slots[r]);
    if (last_push_[size_t(slots[r])] == push_)
      throw std::invalid_argument("slot " + std::to_string(slots[r]) +
                                  " is twice in one push: push its steps one after the other");
    last_push_[size_t(slots[r])] = push_;
  }
}

void SlotStates::push(int64_t n_rows, const int64_t* slots, Rows<const float> x, Rows<float> answer) {
  check_all(n_rows, slots);
  FloatEnvironment environment;
  char* const memory = memory_.reserve(0);
  float* const carry = reinterpret_cast<float*>(memory);
  float* const scratch = reinterpret_cast<float*>(memory + line_bytes(kStepRows * model_->carry_floats()));
  for (int64_t r = 0; r < n_rows; r += kStepRows) {
    const int64_t n = std::min(kStepRows, n_rows - r);
    gather(n, slots + r, carry);
    for (int64_t i = r + n; i < std::min(n_rows, r + n + kStepRows); i++)  // the next rows come meanwhile
      for (int64_t k = 0; k < model_->carry_floats(); k += kLineBytes / int64_t(sizeof(float)))
        __builtin_prefetch(carries_.get() + slots[i] * model_->carry_floats() + k, 1);
    float* const out = answer.data ? answer.data + r * answer.stride : nullptr;
    model_->play(n, {x.data + r * x.stride, x.stride}, carry, {out, answer.stride}, scratch);
    scatter(n, slots + r, carry);
  }
}

void SlotStates::gather(int64_t n_rows, const int64_t* slots, float* carry) const {
  const int64_t all = model_->carry_floats();
  const float* const from = carries_.get();
  int64_t column = 0;
  for (int64_t width : model_->carry_widths()) {
    for (int64_t r = 0; r < n_rows; r++, carry += width)
      std::memcpy(carry, from + slots[r] * all + column, size_t(width) * sizeof(float));
    column += width;
  }
}
void SlotStates::scatter(int64_t n_rows, const int64_t* slots, const float* carry) {
  const int64_t all = model_->carry_floats();
  int64_t column = 0;
  for (int64_t width : model_->carry_widths()) {
    for (int64_t r = 0; r < n_rows; r++, carry += width)
      std::memcpy(carries_.get() + slots[r] * all + column, carry, size_t(width) * sizeof(float));
    column += width;
  }
  for (int64_t r = 0; r < n_rows; r++) steps_[size_t(slots[r])]++;
}

}  // namespace ostinato
