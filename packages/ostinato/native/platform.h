// What differs between processors, compilers and systems. Besides this header only the vectors of an
// instruction set (kernels/vec_*.h, kernels/isa_*.cc) name any of them. The functions in the unnamed
// namespace are compiled anew in each file, so that no copy for one instruction set serves another.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#if OSTINATO_X86
#include <immintrin.h>
#elif OSTINATO_ARM64
#include <arm_neon.h>
#endif
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OSTINATO_ADDRESS_SANITIZER 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define OSTINATO_ADDRESS_SANITIZER 1
#endif
#if OSTINATO_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#endif

// Memory of the function that asks for it.
#define OSTINATO_ON_STACK(bytes) __builtin_alloca(bytes)

namespace ostinato {

// ---- Systems: platform.cc

int64_t l1_data_bytes();  // 0 if it is not known
int64_t now_ns();         // of a clock that only goes forward
int64_t thread_cpu_ns();  // the time for which this thread had a core
bool call_in_forked_children(void (*f)());

char* aligned_memory(size_t line, size_t bytes);  // bytes: a multiple of line; nullptr if there is no memory
void free_aligned_memory(char* memory);

// The path of a library in this process whose file's name contains one of three names; "" if there is none.
std::string loaded_library(const char* const (&names)[3]);
void* function_of(const std::string& library, const char* name);  // nullptr if there is none

// ---- Processors

#if OSTINATO_X86
bool has_avx2();    // and fused multiply-adds
bool has_avx512();  // F, DQ, BW and VL
#endif

namespace {

inline void prefetch_to_l1(const void* line) { __builtin_prefetch(line, 0, 3); }
inline void prefetch_to_l2(const void* line) { __builtin_prefetch(line, 0, 2); }
inline void prefetch_for_writing(const void* line) { __builtin_prefetch(line, 1, 3); }

// While a thread waits for another: what it does for the other one of its core.
inline void pause_in_spin() {
#if OSTINATO_X86
  _mm_pause();
#endif
}

// How a thread rounds, and what it makes of numbers below the smallest normal one.
// kOurs: see FloatEnvironment; kFlags: the exceptions that have occurred, such as an overflow.
struct FloatState {
#if OSTINATO_X86
  static constexpr uint64_t kOurs = 0x1f80 | 0x8000 | 0x40, kFlags = 0x3f;  // default, FTZ, DAZ
  static uint64_t read() { return _mm_getcsr(); }
  static void write(uint64_t state) { _mm_setcsr(unsigned(state)); }
#elif OSTINATO_ARM64
  static constexpr uint64_t kOurs = 1 << 24, kFlags = 0;  // FZ; flags of exceptions are in another register
  static uint64_t read() {
    uint64_t state;
    __asm__ volatile("mrs %0, fpcr" : "=r"(state));
    return state;
  }
  static void write(uint64_t state) { __asm__ volatile("msr fpcr, %0" : : "r"(state)); }
#else
  static constexpr uint64_t kOurs = 0, kFlags = 0;
  static uint64_t read() { return kOurs; }
  static void write(uint64_t) {}
#endif
};

// out[c][r] = in[r][c] of four rows and columns
inline void transpose_4x4(const float* in, int64_t in_stride, float* out, int64_t out_stride) {
#if OSTINATO_X86
  __m128 v[4];
  for (int i = 0; i < 4; i++) v[i] = _mm_loadu_ps(in + i * in_stride);
  _MM_TRANSPOSE4_PS(v[0], v[1], v[2], v[3]);
  for (int i = 0; i < 4; i++) _mm_storeu_ps(out + i * out_stride, v[i]);
#elif OSTINATO_ARM64
  float32x4_t v[4];
  for (int i = 0; i < 4; i++) v[i] = vld1q_f32(in + i * in_stride);
  for (int i = 0; i < 2; i++) {
    const float32x4x2_t even = vzipq_f32(v[0], v[2]), odd = vzipq_f32(v[1], v[3]);
    v[0] = even.val[0], v[1] = even.val[1], v[2] = odd.val[0], v[3] = odd.val[1];
  }
  for (int i = 0; i < 4; i++) vst1q_f32(out + i * out_stride, v[i]);
#else
  for (int r = 0; r < 4; r++)
    for (int c = 0; c < 4; c++) out[c * out_stride + r] = in[r * in_stride + c];
#endif
}

// Memory that nobody may touch, for AddressSanitizer.
#if OSTINATO_ADDRESS_SANITIZER
constexpr bool kForbids = true;
inline void forbid(const void* memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
inline void allow(const void* memory, size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
constexpr bool kForbids = false;
inline void forbid(const void*, size_t) {}
inline void allow(const void*, size_t) {}
#endif

}  // namespace
}  // namespace ostinato
