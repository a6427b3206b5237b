#pragma once
#include <cstdint>
#if OSTINATO_X86
#include <immintrin.h>
#endif

namespace ostinato {

// The engine computes as if numbers below the smallest normal one were zero, whatever the caller has set: on
// some processors such a number costs a hundred cycles. While one of these lives, its thread rounds to
// nearest, reads such numbers as zeros and writes zeros for them; a number that is only moved stays. x86
// decides after rounding, ARM before: a result that would round up to the smallest normal number is zero on
// ARM. On other processors the caller's environment stays.
class FloatEnvironment {
 public:
#if OSTINATO_X86 || OSTINATO_ARM64
  FloatEnvironment() : saved_(read()), changes_((saved_ & ~kFlags) != kOurs) {
    if (changes_) write(kOurs);
  }
  ~FloatEnvironment() {
    if (changes_) write(saved_);
  }

 private:
  // Writing the register takes some 10 ns, a tenth of a small model's step: it is left out where the caller
  // has the same environment. kFlags: the exceptions that have occurred, such as an overflow.
#if OSTINATO_X86
  static constexpr uint64_t kOurs = 0x1f80 | 0x8000 | 0x40, kFlags = 0x3f;  // default, FTZ, DAZ
  static uint64_t read() { return _mm_getcsr(); }
  static void write(uint64_t state) { _mm_setcsr(unsigned(state)); }
#else
  static constexpr uint64_t kOurs = 1 << 24, kFlags = 0;  // FZ; flags of exceptions are in another register
  static uint64_t read() {
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return state;
  }
  static void write(uint64_t state) { __asm__ volatile("msr fpcr, %0" : : "r"(state)); }
#endif
  uint64_t saved_;
  bool changes_;
#endif
};

}  // namespace ostinato
