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
  FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
  ~FloatEnvironment() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#endif
};

}  // namespace ostinato
