// Which sums of a program are taken at once, and which are not taken at all, as another has the same terms.
#pragma once
#include <cstdint>
#include <vector>

#include "program/program.h"

namespace ostinato {

inline bool is_sum(const Instruction& x) { return x.code == Code::kOuter || x.code == Code::kColumnSum; }

struct SumSharing {
  struct Copy { int32_t to, from, column; };  // gradients, and where in the second the first one begins
  std::vector<int32_t> scaled_with;  // of each sum of columns: the product of one column with the same rows, or −1
  std::vector<bool> skipped;    // of each instruction: played with another, or a copy
  std::vector<bool> copied;     // of each gradient
  std::vector<Copy> copies;
};

SumSharing find_sum_sharing(const Program& program);

}  // namespace ostinato
