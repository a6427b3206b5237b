// When to play on one thread, because other programs want the cores.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

#include "tuning.h"

namespace ostinato {

// On a busy machine the threads of a team rarely run at the same time, and each waits for the others. So
// after a play in which one was put aside, the caller plays alone for a while: twice as long each time that
// this happens again, and half as long after each such while without it. All times are in nanoseconds, of
// one clock. Callers on several threads may overwrite each other's result, which costs nothing but time.
class Solitude {
 public:
  bool lasts(int64_t now) const { return now < until_.load(std::memory_order_relaxed); }

  // After a play of a team. lost: the longest time for which a thread of the team had no core.
  void after(int64_t begin, int64_t end, int64_t lost) {
    const int64_t length = length_.load(std::memory_order_relaxed);
    if (lost > std::max(kLostNs, int64_t(kLostShare * double(end - begin)))) {
      length_ = std::clamp(2 * length, kLeastAloneNs, kMostAloneNs);
      until_ = end + length_;
    } else if (length > 0 && end - until_ > length) {
      length_ = length > kLeastAloneNs ? length / 2 : 0;
      until_ = end;
    }
  }

 private:
  std::atomic<int64_t> until_{0}, length_{0};
};

}  // namespace ostinato
