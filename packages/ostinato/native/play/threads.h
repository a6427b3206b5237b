// Threads: those of the OpenMP runtime that the process has already loaded (PyTorch's), so that two pools
// never fight for the cores. It is found by enumeration and never linked, because wheels rename it.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

#include "tuning.h"

namespace ostinato {

// Runs body(context, id, n) on n threads, n ≤ wanted, and returns when all are done. n < wanted where the
// runtime gives fewer. A second caller at the same time, a forked child, and a process without an OpenMP
// runtime play on their own thread alone. So does a caller whose threads other programs put aside, see
// solitude.h.
void parallel(int wanted, void (*body)(void* context, int id, int n), void* context);

// For people: the file name of the runtime in use, or why there is none.
std::string threading_runtime();

// Where a few threads meet again and again. They spin, since all of them are known to be running. Each has a
// line of its own, which the others read: to arrive is one write, and to leave costs one way between cores.
class Barrier {
 public:
  void wait(int id, int n);

 private:
  struct alignas(kLineBytes) Arrivals {
    std::atomic<uint32_t> n{0};
  };
  Arrivals of_[kMaxGroups];
};

// The nanoseconds that n threads take to meet at a barrier, measured at most 20 ms ago. Infinite if the
// runtime gives fewer threads, and while another caller has them.
double barrier_ns(int n);

}  // namespace ostinato
