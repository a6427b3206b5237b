// A model as streams play it: one step, and the map from the states after it to an answer.
//
//   carry    all states of a stream, one behind the other: `carry_floats` floats
//   answer   one row of floats: what the map gives, or without a map the outputs of the step
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "stream/row_preparation.h"
#include "stream/step_plan.h"

namespace ostinato {

// A plan, with the arguments of its program that are a model's inputs and outputs. An output that is not
// named is computed and dropped.
struct BoundPlan {
  BoundPlan(std::unique_ptr<const StepPlan> plan, std::vector<int32_t> inputs, std::vector<int32_t> outputs);

  std::unique_ptr<const StepPlan> plan;
  std::vector<int32_t> inputs, outputs;  // by input or output: its port; −1: the program does not read it
  std::vector<int32_t> dropped;          // other ports
  int64_t output_floats = 0, dropped_floats = 0;

  int32_t input_width(size_t i) const { return plan->port_widths()[size_t(inputs[i])]; }
  // A step of one row. from: where the inputs lie. new_carry, unwanted: where in its scratch the new carry
  // and the dropped outputs lie. answers: whether the named outputs are the answer, or dropped.
  RowStep row_step(const std::vector<RowOperand>& from, int64_t new_carry, int64_t unwanted,
                   bool answers) const;
};

class StreamModel {
 public:
  // row_floats: of the step's input, which it may not read. map: as inputs the states of the step, in their
  // order; null: no map. init: the carry of a new stream.
  // Throws std::invalid_argument where these do not fit.
  StreamModel(int64_t row_floats, BoundPlan step, std::unique_ptr<const BoundPlan> map,
              std::vector<float> init, RowPreparation preparation = {});

  // The values of a row as it is pushed, and as the step reads it.
  int64_t input_floats() const { return prepares() ? preparation_.features() : row_floats(); }
  int64_t row_floats() const { return row_floats_; }
  bool prepares() const { return !preparation_.leaves_rows(); }
  const RowPreparation& preparation() const { return preparation_; }
  int64_t carry_floats() const { return step_.plan->carry_floats(); }
  int64_t answer_floats() const { return map_ ? map_->output_floats : step_.output_floats; }
  const std::vector<int32_t>& carry_widths() const { return step_.plan->carry_widths(); }
  const std::vector<float>& init() const { return init_; }
  int64_t scratch_floats(int64_t n_rows) const;
  // Floats of a stream's scratch: the scratch of one row, a prepared row, and the gap to the next cache line.
  int64_t stream_floats() const { return stream_floats_; }
  float* prepared_row(float* scratch) const { return scratch + one_row_floats_; }
  int64_t multiplies() const { return step_.plan->multiplies() + (map_ ? map_->plan->multiplies() : 0); }
  int64_t weight_bytes() const {
    return step_.plan->weight_bytes() + (map_ ? map_->plan->weight_bytes() : 0);
  }

  // One step of n_rows ≤ kStepRows rows. carry: [rows, width] state after state; the new one is written over
  // it. answer: without data none is computed. scratch: scratch_floats(n_rows) floats, aligned to a line.
  void step_rows(int64_t n_rows, Rows<const float> x, float* carry, Rows<float> answer,
                 float* scratch) const noexcept;
  // The same of one row: x [row_floats]; carry and answer are dense.
  void step_row(const float* x, float* carry, float* answer, float* scratch) const noexcept;
  // The answer to a carry, if there is a map.
  void map_row(float* carry, float* answer, float* scratch) const noexcept;
  void map_rows(int64_t n_rows, float* carry, Rows<float> answer, float* scratch) const noexcept;
  bool has_map() const { return map_ != nullptr; }

 private:
  int64_t row_floats_;
  BoundPlan step_;
  std::unique_ptr<const BoundPlan> map_;
  std::vector<float> init_;
  RowPreparation preparation_;
  int64_t one_row_floats_ = 0, stream_floats_ = 0;
  std::optional<RowStep> silent_;     // a step without an answer
  std::optional<RowStep> answering_;  // a step with its answer; or the map, if there is one
};

}  // namespace ostinato
