#pragma once
#if OSTINATO_X86
#include <immintrin.h>
#endif

namespace ostinato {

// The caller may have set flush-to-zero, which would change results: while one of these lives, its thread
// computes in the default environment.
class FloatEnvironment {
 public:
#if OSTINATO_X86
  FloatEnvironment() : saved_(_mm_getcsr()), changes_((saved_ & ~kFlags) != kDefault) {
    if (changes_) _mm_setcsr(kDefault);
  }
  ~FloatEnvironment() {
    if (changes_) _mm_setcsr(saved_);
  }

 private:
  // Writing the register takes some 10 ns, a tenth of a small model's step. Most callers have the default
  // environment: for them nothing is written. kFlags: the exceptions that have occurred, such as an overflow.
  static constexpr unsigned kDefault = 0x1f80, kFlags = 0x3f;
  unsigned saved_;
  bool changes_;
#endif
};

}  // namespace ostinato
