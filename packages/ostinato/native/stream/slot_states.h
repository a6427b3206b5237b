// Many streams of one model, numbered by slots, of which any rows are played together.
#pragma once
#include <atomic>
#include <memory>
#include <vector>

#include "stream/stream_model.h"
#include "stream/stream_state.h"

namespace ostinato {

class SlotStates {
 public:
  SlotStates(std::shared_ptr<const StreamModel> model, int64_t capacity);
  SlotStates(const SlotStates&) = delete;

  // One step of each slot: row r of x and answer belongs to slots[r]. answer: without data none is computed.
  // Throws std::invalid_argument, before any slot has moved, where a slot does not exist or is there twice.
  // With `only_finite`, returns the first row that would be read with NaN or an infinite value, and moves no
  // slot; else n_rows.
  int64_t push(int64_t n_rows, const int64_t* slots, Rows<const float> x, Rows<float> answer,
               bool only_finite = false);
  void reset(int64_t slot);
  void set(int64_t slot, int64_t steps, const float* carry);
  void check(int64_t slot) const;  // throws std::invalid_argument

  const StreamModel& model() const { return *model_; }
  int64_t capacity() const { return capacity_; }
  int64_t steps(int64_t slot) const { return steps_[size_t(slot)]; }
  const float* carry(int64_t slot) const { return carries_.get() + slot * model_->carry_floats(); }
  std::atomic_flag& in_use() { return in_use_; }

 private:
  void check_all(int64_t n_rows, const int64_t* slots);
  int64_t first_not_finite(int64_t n_rows, Rows<const float> x) const;
  Rows<const float> prepared(int64_t n_rows, Rows<const float> x) const;
  void gather(int64_t n_rows, const int64_t* slots, float* carry) const;
  void scatter(int64_t n_rows, const int64_t* slots, const float* carry);

  std::shared_ptr<const StreamModel> model_;
  int64_t capacity_;
  struct Free {
    void operator()(float* memory) const;
  };
  std::unique_ptr<float[], Free> carries_;  // [capacity, carry_floats]; pages that no slot used cost nothing
  std::vector<int64_t> steps_;
  std::vector<uint32_t> last_push_;  // by slot: the number of the push that it was last a part of
  uint32_t push_ = 0;
  Workspace memory_;  // a gathered carry, prepared rows, and scratch
  float *gathered_ = nullptr, *prepared_ = nullptr, *scratch_ = nullptr;
  std::atomic_flag in_use_ = ATOMIC_FLAG_INIT;
};

}  // namespace ostinato
