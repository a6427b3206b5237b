#include "allocations.h"

#include <cstdlib>
#include <new>

std::atomic<int64_t> allocations_left{-1};
#if OSTINATO_TSAN
const bool allocations_can_fail = false;
#else
const bool allocations_can_fail = true;

void* operator new(std::size_t n) {
  if (allocations_left >= 0 && allocations_left-- == 0) throw std::bad_alloc();
  if (void* p = std::malloc(n ? n : 1)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
#endif

// With a sanitizer too, memory that cannot be had is a failed allocation, not the end.
extern "C" const char* __asan_default_options() { return "allocator_may_return_null=1"; }
extern "C" const char* __tsan_default_options() { return "allocator_may_return_null=1 halt_on_error=1"; }
