// Operations on fibres: operands that are spread over an axis are read where they lie, and sums of products
// are added up without a place for the product. A fibre is as many neighbouring columns as the last axis has:
// see Fibres in kernels/kernels.h.
#pragma once
#include <cstdint>

#include "plan/blocks.h"

namespace ostinato {

// The strips that such operations can be played in: as many columns as divide `cycle` and are a multiple of
// `unit`. Then no strip crosses from one block of a spread operand into the next. cycle = 0: there are none.
struct Strips {
  int64_t cycle = 0, unit = 1;
  int64_t longest(int64_t most) const {  // 0: none
    int64_t n = most / unit * unit;
    while (n > 0 && cycle % n) n -= unit;
    return n;
  }
};

// Rewrites the operations of a block that have kernels on fibres. Spreads and products that no operation
// reads any more are left out. unit: of the block's folded sums.
Strips play_on_fibres(BlockPlan& plan, int64_t unit);

}  // namespace ostinato
