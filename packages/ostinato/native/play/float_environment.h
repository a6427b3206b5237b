#pragma once
#include <cstdint>

#include "platform.h"

namespace ostinato {

// The engine computes as if numbers below the smallest normal one were zero, whatever the caller has set: on
// some processors such a number costs a hundred cycles. While one of these lives, its thread rounds to
// nearest, reads such numbers as zeros and writes zeros for them; a number that is only moved stays. x86
// decides after rounding, ARM before: a result that would round up to the smallest normal number is zero on
// ARM. On other processors the caller's environment stays.
class FloatEnvironment {
 public:
  FloatEnvironment()
      : saved_(FloatState::read()), changes_((saved_ & ~FloatState::kFlags) != FloatState::kOurs) {
    if (changes_) FloatState::write(FloatState::kOurs);
  }
  ~FloatEnvironment() {
    if (changes_) FloatState::write(saved_);
  }

 private:
  // Writing the register takes some 10 ns, a tenth of a small model's step: it is left out where the caller
  // has the same environment.
  uint64_t saved_;
  bool changes_;
};

}  // namespace ostinato
