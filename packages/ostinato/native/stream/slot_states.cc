#include "stream/slot_states.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "platform.h"
#include "play/float_environment.h"

namespace ostinato {

void SlotStates::Free::operator()(float* memory) const { std::free(memory); }

SlotStates::SlotStates(std::shared_ptr<const StreamModel> model, int64_t capacity)
    : model_(std::move(model)), capacity_(capacity) {
  if (capacity < 1) throw std::invalid_argument("a pool has at least one slot");
  const size_t row = size_t(std::max<int64_t>(1, model_->carry_floats()));
  carries_.reset(static_cast<float*>(std::calloc(size_t(capacity), row * sizeof(float))));
  if (!carries_) throw std::bad_alloc();
  steps_.resize(size_t(capacity));
  last_push_.resize(size_t(capacity));
  const int64_t sizes[] = {kStepRows * model_->carry_floats(),
                           model_->prepares() ? kStepRows * model_->row_floats() : 0,
                           model_->scratch_floats(kStepRows)};
  int64_t bytes = 0;
  for (int64_t n : sizes) bytes += bytes_of<float>(n);
  char* at = memory_.reserve(bytes);
  gathered_ = piece<float>(at, sizes[0]);
  prepared_ = piece<float>(at, sizes[1]);
  scratch_ = piece<float>(at, sizes[2]);
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

// Rows as the step reads them, at most kStepRows.
Rows<const float> SlotStates::prepared(int64_t n_rows, Rows<const float> x) const {
  if (!model_->prepares()) return x;
  const int64_t width = model_->row_floats();
  for (int64_t r = 0; r < n_rows; r++)
    model_->preparation().apply(x.data + r * x.stride, prepared_ + r * width);
  return {prepared_, width};
}
int64_t SlotStates::first_not_finite(int64_t n_rows, Rows<const float> x) const {
  for (int64_t r = 0; r < n_rows; r++)
    if (!all_finite(prepared(1, {x.data + r * x.stride, x.stride}).data, model_->row_floats())) return r;
  return n_rows;
}

int64_t SlotStates::push(int64_t n_rows, const int64_t* slots, Rows<const float> x, Rows<float> answer,
                         bool only_finite) {
  check_all(n_rows, slots);
  FloatEnvironment environment;
  if (only_finite) {
    const int64_t first = first_not_finite(n_rows, x);
    if (first < n_rows) return first;
  }
  for (int64_t r = 0; r < n_rows; r += kStepRows) {
    const int64_t n = std::min(kStepRows, n_rows - r);
    gather(n, slots + r, gathered_);
    for (int64_t i = r + n; i < std::min(n_rows, r + n + kStepRows); i++)  // the next rows come meanwhile
      for (int64_t k = 0; k < model_->carry_floats(); k += kLineFloats)
        prefetch_for_writing(carries_.get() + slots[i] * model_->carry_floats() + k);
    float* const out = answer.data ? answer.data + r * answer.stride : nullptr;
    const Rows<const float> rows = prepared(n, {x.data + r * x.stride, x.stride});
    model_->step_rows(n, rows, gathered_, {out, answer.stride}, scratch_);
    scatter(n, slots + r, gathered_);
  }
  return n_rows;
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
