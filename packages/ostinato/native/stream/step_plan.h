// One step of a program, made ready to be played again and again on one row, or on a few: weights are packed,
// `once` is played and every operand is an offset, so that a step neither plans nor allocates. It runs on the
// caller's thread alone.
//
//   place     where a step finds values: constants, the old carry, the new one, scratch, and the ports
//   port      an argument over time: an input or an output of the step, bound at each play
//   capacity  rows that are played at once, at most
//
// The bits are those of Executor: the same kernels, on the same chains of additions.
#pragma once
#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "plan/blocks.h"
#include "play/request.h"
#include "play/within_rows.h"
#include "play/workspaces.h"
#include "program/program.h"
#include "stream/row_step.h"

namespace ostinato {

// The place of an operand's rows: element (row, i) = data[row · stride + i], see StepPlan::address.
struct StepOperand {
  int32_t place = -1;  // −1: none
  int32_t start = 0;   // of its buffer, in elements of one row
  int32_t column = 0;
  int32_t stride = 0;  // of its buffer; 0 for a port, whose stride the caller sets
};

// One place, as a step finds it. Own memory lies buffer after buffer, each [rows, width].
struct StepPlace {  // not initialized: an array has room for kMaxPorts, and a step uses a few
  float* data;
  int64_t rows;    // of own memory; else 1
  int64_t stride;  // of a port; else 0
};

class StepPlan {
 public:
  // The places that every step has; port i is place kFirstPort + i.
  enum Place : int32_t { kConstants, kCarry, kNewCarry, kScratch, kFirstPort };

  // Reads the weights and vectors among the arguments, and keeps copies.
  // Throws std::invalid_argument: the program is invalid, or not one of a step (see check_is_step).
  StepPlan(const Program& program, const Argument* arguments, const std::string& isa);
  StepPlan(const StepPlan&) = delete;
  StepPlan& operator=(const StepPlan&) = delete;

  // A step of n_rows ≤ kStepRows rows. places: [kFirstPort + ports], with the carry, the new carry and the
  // ports; constants and scratch are set here. carry and new carry: own memory of n_rows rows, apart; in the
  // end the carry is the new one. scratch: scratch_floats(n_rows) floats.
  void compute(int64_t n_rows, StepPlace* places, float* scratch) const noexcept;

  // The same for a row alone. new_carry: where in its scratch the new carry lies. ports: by port.
  RowStep row_step(int32_t new_carry, const std::vector<RowOperand>& ports) const;

  const std::vector<int32_t>& ports() const { return ports_; }         // by port: its argument
  const std::vector<int32_t>& port_widths() const { return widths_; }  // by port
  const std::vector<int32_t>& carry_widths() const { return carry_widths_; }
  int64_t carry_floats() const { return carry_floats_; }  // of a row
  int64_t scratch_floats(int64_t n_rows) const { return scratch_floats_ * n_rows + register_floats_; }
  int64_t multiplies() const { return multiplies_; }      // of products, for a row
  int64_t weight_bytes() const { return weight_bytes_; }  // that a step reads
  float* constants() const { return data_; }
  const char* isa() const { return kernels_.name; }

 private:
  struct Product {
    // Results that lie side by side and multiply the same factors.
    struct Start {
      StepOperand from;  // none: zeros
      StepOperand to;
      int32_t n;
    };
    int32_t n = 0;
    StepOperand d, init;
    std::vector<Start> starts;  // laid into d before the product; then init is d
    int n_factors = 0;
    struct {
      int32_t k;
      StepOperand a;
      const float* w;
    } factors[kMaxFactors];
  };
  struct Stream {
    StepOperand operand;
    bool whole;  // as in BlockPlan
  };
  struct Block {
    Block(BlockPlan made, std::vector<Stream> operands)
        : plan(std::move(made)), streams(std::move(operands)), columns(std::min(plan.strip, plan.width)),
          rows(plan.strip / columns) {}

    BlockPlan plan;
    std::vector<Stream> streams;
    int64_t columns, rows;  // of a strip, at most
  };
  struct Within {  // rows: see play/within_rows.h
    Instruction x;
    StepOperand a, b, d;
  };
  struct Action {
    enum { kProduct, kBlock, kWithin } kind;
    int32_t index;
  };
  struct CarryPart {  // of a row of the carry
    int32_t start, width;
  };
  class Maker;
  class RowMaker;

  static float* address(const StepPlace* places, const StepOperand& o) {
    const StepPlace& p = places[o.place];
    return p.data + o.start * p.rows + o.column;
  }
  static int64_t stride(const StepPlace* places, const StepOperand& o) {
    return o.stride + places[o.place].stride;
  }
  void play_product(const Product& x, int64_t n_rows, const StepPlace* places) const;
  void play_block(const Block& x, int64_t n_rows, const StepPlace* places, float* registers) const;
  void play_within(const Within& x, int64_t n_rows, const StepPlace* places) const;

  const Kernels<float>& kernels_;
  Workspace constants_;    // vectors, and weights in panels
  float* data_ = nullptr;  // of the constants
  std::vector<Product> products_;
  std::vector<Block> blocks_;
  std::vector<Within> within_;
  WithinRows rows_;
  std::vector<Action> actions_;
  std::vector<CarryPart> copied_;  // carries that are not written where the old one lies
  std::vector<int32_t> ports_, widths_, carry_widths_;
  int64_t carry_floats_ = 0, scratch_floats_ = 0, register_floats_ = 0;
  int64_t multiplies_ = 0, weight_bytes_ = 0;
};

}  // namespace ostinato
