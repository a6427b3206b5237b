// Whether a program means the same if each step is played to its end, through `before`, `loop` and `after`,
// before the next one is: then a value that a step writes and reads again need not be memory.
#pragma once
#include <vector>

#include "program/program.h"

namespace ostinato {

class StepOrder {
 public:
  explicit StepOrder(const Program& program);
  bool holds() const;
  bool writes(int32_t buffer) const { return uses_[size_t(buffer)].written_in != 0; }

 private:
  struct BufferUse {  // sections, and shifts dt, as bits
    int read_in = 0, written_in = 0, dt_read = 0, dt_written = 0;
  };
  void note(const Section& section, int bit);
  bool keeps_order(const BufferUse& use, bool is_carry) const;
  bool arguments_are_apart(const std::vector<int>& n_carries) const;

  const Program& p_;
  std::vector<BufferUse> uses_;
};

}  // namespace ostinato
