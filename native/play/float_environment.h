#pragma once
#include <cstdint>
#if OSTINATO_X86
#include <immintrin.h>
#endif

namespace ostinato {

// The caller may have set flush-to-zero, which would change results: while one of these lives, its thread
// computes in the default environment.
class FloatEnvironment {
 public:
#if OSTINATO_X86 || OSTINATO_ARM64
  FloatEnvironment() : saved_(read()), changes_((saved_ & ~kFlags) != kDefault) {
    if (changes_) write(kDefault);
  }
  ~FloatEnvironment() {
    if (changes_) write(saved_);
  }

 private:
  // Writing the register takes some 10 ns, a tenth of a small model's step. Most callers have the default
  // environment: for them nothing is written. kFlags: the exceptions that have occurred, such as an overflow.
#if OSTINATO_X86
  static constexpr uint64_t kDefault = 0x1f80, kFlags = 0x3f;
  static uint64_t read() { return _mm_getcsr(); }
  static void write(uint64_t state) { _mm_setcsr(unsigned(state)); }
#else
  static constexpr uint64_t kDefault = 0, kFlags = 0;  // flags of exceptions are in another register
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
