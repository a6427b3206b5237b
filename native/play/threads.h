// Threads: those of the OpenMP runtime that the process has already loaded (PyTorch's), so that two
// pools never fight for the cores. It is found by enumeration, never linked: wheels rename it.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

namespace ostinato {

// Runs body(id, n) on n threads, n ≤ wanted (fewer where the runtime gives fewer), and returns when
// all are done. A second caller at the same time, a forked child, and a process without an OpenMP
// runtime play alone.
void parallel(int wanted, void (*body)(void* context, int id, int n), void* context);

// The runtime in use, for people: the file's name, or why there is none.
std::string threading_runtime();

// A few threads barrier_before, again and again; they spin, since every one of them is known to be running. Each has
// a line of its own that the others read: to arrive is one write, to leave costs one way between cores.
class Barrier {
 public:
  static constexpr int kMaxThreads = 8;
  void wait(int id, int n);

 private:
  struct alignas(64) Arrivals { std::atomic<uint32_t> n{0}; };
  Arrivals of_[kMaxThreads];
};

// Nanoseconds for n threads to barrier_before: infinite where the runtime gives fewer, and while another caller has
// them. At most 20 ms old: cores that a machine shares with others move together and apart.
double barrier_ns(int n);

}  // namespace ostinato
