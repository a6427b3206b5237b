// Allocations with `new` that fail on demand.
#pragma once
#include <atomic>
#include <cstdint>

extern std::atomic<int64_t> allocations_left;  // the one after so many more fails; below zero none does
extern const bool allocations_can_fail;        // not under ThreadSanitizer: Clang's has a `new` of its own
