#include "stream/stream_model.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace ostinato {
namespace {

int64_t in_lines(int64_t floats) { return (floats + kLineFloats - 1) / kLineFloats * kLineFloats; }

// Places the wanted outputs of a step side by side in the row of the answer, and the others in scratch, which
// nobody reads.
void place_outputs(const BoundPlan& bound, int64_t n_rows, StepPlace* places, Rows<float> answer,
                   float* dropped) {
  const std::vector<int32_t>& widths = bound.plan->port_widths();
  const auto drop = [&](int32_t port) {
    places[StepPlan::kFirstPort + port] = {dropped, 1, widths[size_t(port)]};
    dropped += n_rows * widths[size_t(port)];
  };
  for (int32_t port : bound.dropped) drop(port);
  for (int32_t port : bound.outputs) {
    if (answer.data) {
      places[StepPlan::kFirstPort + port] = {answer.data, 1, answer.stride};
      answer.data += widths[size_t(port)];
    } else {
      drop(port);
    }
  }
}

}  // namespace

BoundPlan::BoundPlan(std::unique_ptr<const StepPlan> made, std::vector<int32_t> of_inputs,
                     std::vector<int32_t> of_outputs)
    : plan(std::move(made)), inputs(std::move(of_inputs)), outputs(std::move(of_outputs)) {
  const std::vector<int32_t>& ports = plan->ports();
  if (int64_t(ports.size()) > kMaxPorts)
    throw std::invalid_argument("a step has " + std::to_string(ports.size()) +
                                " inputs and outputs; a stream plays at most " + std::to_string(kMaxPorts) +
                                ": join some of them into one tensor");
  std::vector<bool> named(ports.size());
  const auto to_port = [&](int32_t& argument) {
    const auto found = std::find(ports.begin(), ports.end(), argument);
    argument = found == ports.end() ? -1 : int32_t(found - ports.begin());
    if (argument >= 0) named[size_t(argument)] = true;
  };
  for (int32_t& x : inputs) to_port(x);
  for (int32_t& y : outputs) {
    to_port(y);
    if (y < 0) throw std::invalid_argument("the program does not write an output that is wanted");
    output_floats += plan->port_widths()[size_t(y)];
  }
  for (size_t i = 0; i < ports.size(); i++)
    if (!named[i]) {
      dropped.push_back(int32_t(i));
      dropped_floats += plan->port_widths()[i];
    }
}

RowStep BoundPlan::row_step(const std::vector<RowOperand>& from, int64_t new_carry, int64_t unwanted,
                            bool answers) const {
  const std::vector<int32_t>& widths = plan->port_widths();
  std::vector<RowOperand> ports(widths.size());
  const auto place = [&](int32_t port, RowOperand::Base base, int64_t& at) {
    ports[size_t(port)] = {base, int32_t(at)};
    at += widths[size_t(port)];
  };
  int64_t answer = 0;
  for (size_t i = 0; i < inputs.size(); i++)
    if (inputs[i] >= 0) ports[size_t(inputs[i])] = from[i];
  for (int32_t port : dropped) place(port, RowOperand::kScratch, unwanted);
  for (int32_t port : outputs) {
    if (answers) place(port, RowOperand::kAnswer, answer);
    else place(port, RowOperand::kScratch, unwanted);
  }
  return plan->row_step(int32_t(new_carry), ports);
}

StreamModel::StreamModel(int64_t row_floats, BoundPlan step, std::unique_ptr<const BoundPlan> map,
                         std::vector<float> init, RowPreparation preparation)
    : row_floats_(row_floats), step_(std::move(step)), map_(std::move(map)), init_(std::move(init)),
      preparation_(std::move(preparation)) {
  preparation_.check();
  if (step_.inputs.size() != 1) throw std::invalid_argument("a stream's step has one input");
  if (row_floats_ < 1 || (step_.inputs[0] >= 0 && step_.input_width(0) != row_floats_))
    throw std::invalid_argument("the step's input is not " + std::to_string(row_floats_) + " values wide");
  if (prepares() && preparation_.columns() != row_floats_)
    throw std::invalid_argument("prepared rows have " + std::to_string(preparation_.columns()) +
                                " columns, and the step reads " + std::to_string(row_floats_));
  if (int64_t(init_.size()) != carry_floats())
    throw std::invalid_argument("a stream begins with " + std::to_string(carry_floats()) +
                                " values of its states, not " + std::to_string(init_.size()));
  one_row_floats_ = scratch_floats(1);
  stream_floats_ = one_row_floats_ + in_lines(1) + (prepares() ? row_floats_ : 0);
  const int64_t new_carry = in_lines(step_.plan->scratch_floats(1));
  const int64_t unwanted = new_carry + in_lines(carry_floats());
  silent_ = step_.row_step({{RowOperand::kInput, 0}}, new_carry, unwanted, false);
  if (!map_) {
    answering_ = step_.row_step({{RowOperand::kInput, 0}}, new_carry, unwanted, true);
    return;
  }
  if (map_->plan->carry_floats()) throw std::invalid_argument("the map to an answer has states");
  if (map_->inputs.size() != carry_widths().size())
    throw std::invalid_argument("the map to an answer does not read the step's states");
  for (size_t i = 0; i < map_->inputs.size(); i++)
    if (map_->inputs[i] >= 0 && map_->input_width(i) != carry_widths()[i])
      throw std::invalid_argument("the map to an answer reads state " + std::to_string(i) +
                                  " in another width");
  std::vector<RowOperand> states;
  int32_t state = 0;
  for (int32_t width : carry_widths()) {
    states.push_back({RowOperand::kCarry, state});
    state += width;
  }
  answering_ = map_->row_step(states, 0, in_lines(map_->plan->scratch_floats(1)), true);
}

int64_t StreamModel::scratch_floats(int64_t n_rows) const {
  const int64_t step = in_lines(step_.plan->scratch_floats(n_rows)) + in_lines(carry_floats() * n_rows) +
                       (step_.dropped_floats + step_.output_floats) * n_rows;
  const int64_t of_map =
      map_ ? in_lines(map_->plan->scratch_floats(n_rows)) + map_->dropped_floats * n_rows : 0;
  return in_lines(std::max(step, of_map));
}

void StreamModel::step_rows(int64_t n_rows, Rows<const float> x, float* carry, Rows<float> answer,
                            float* scratch) const noexcept {
  StepPlace places[StepPlan::kFirstPort + kMaxPorts];
  float* const new_carry = scratch + in_lines(step_.plan->scratch_floats(n_rows));
  float* const dropped = new_carry + in_lines(carry_floats() * n_rows);
  places[StepPlan::kCarry] = {carry, n_rows, 0};
  places[StepPlan::kNewCarry] = {new_carry, n_rows, 0};
  if (step_.inputs[0] >= 0)
    places[StepPlan::kFirstPort + step_.inputs[0]] = {const_cast<float*>(x.data), 1, x.stride};
  place_outputs(step_, n_rows, places, map_ ? Rows<float>{nullptr, 0} : answer, dropped);
  step_.plan->compute(n_rows, places, scratch);
  if (map_ && answer.data) map_rows(n_rows, carry, answer, scratch);
}

void StreamModel::step_row(const float* x, float* carry, float* answer, float* scratch) const noexcept {
  const bool answers = answer && !map_;
  (answers ? answering_ : silent_)
      ->compute({{step_.plan->constants(), scratch, carry, const_cast<float*>(x), answer}});
  if (answer && map_) map_row(carry, answer, scratch);
}
void StreamModel::map_row(float* carry, float* answer, float* scratch) const noexcept {
  answering_->compute({{map_->plan->constants(), scratch, carry, nullptr, answer}});
}

void StreamModel::map_rows(int64_t n_rows, float* carry, Rows<float> answer, float* scratch) const noexcept {
  StepPlace places[StepPlan::kFirstPort + kMaxPorts];
  float* state = carry;
  for (size_t i = 0; i < map_->inputs.size(); i++) {
    const int32_t width = carry_widths()[i];
    if (map_->inputs[i] >= 0) places[StepPlan::kFirstPort + map_->inputs[i]] = {state, 1, width};
    state += n_rows * width;
  }
  place_outputs(*map_, n_rows, places, answer, scratch + in_lines(map_->plan->scratch_floats(n_rows)));
  map_->plan->compute(n_rows, places, scratch);
}

}  // namespace ostinato
