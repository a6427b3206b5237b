// Which sums of `after` are taken together, and which are copies of a part of another one.
#pragma once
#include <cstdint>
#include <vector>

#include "program/program.h"

namespace ostinato {

inline bool is_sum(const Instruction& x) {
  return x.code == Code::kOuter || x.code == Code::kColumnSum || x.code == Code::kProductSum;
}

struct SumSharing {
  // Gradient `to` is gradient `from`, from a column on.
  struct Copy {
    int32_t to, from, column;
  };
  // By instruction. For a sum of columns: the outer product of one column with the same rows, which is taken
  // in the same pass; or −1.
  std::vector<int32_t> scaled_with;
  std::vector<bool> skipped;  // by instruction: whether it is played with another one, or is a copy
  std::vector<bool> copied;   // by gradient
  std::vector<Copy> copies;
};

SumSharing find_sum_sharing(const Program& program);

}  // namespace ostinato
