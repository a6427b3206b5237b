#pragma once
#include <algorithm>
#include <cstdint>

#include "platform.h"
#include "tuning.h"

namespace ostinato {

// Ranges of memory that are needed soon: add them, begin, and hand the prefetcher to the products of a step.
// A product fetches a line into L2 at each k, or at every other: if all were fetched at once, more lines
// would be asked for than a core can wait for at a time.
class Prefetcher {
 public:
  explicit Prefetcher(bool weights_are_far = false) : far_weights(weights_are_far) {}

  // Whether the weights do not stay in L2: then the first tiles of a panel prefetch the next panel instead.
  const bool far_weights;

  void clear() {
    first_ = n_ = 0;
    last_page_ = 0;
  }
  // Fetches the first line of each page at once, all pages one after the other: to translate the address of
  // a page takes about 40 ns, for which a product would wait each time (1 to 2 % of training on long
  // sequences). Ranges for which there is no room are left out.
  void add(const void* data, int64_t bytes) {
    const char* at = static_cast<const char*>(data);
    for (const char* line = at; line < at + bytes;
         line += kPageBytes - reinterpret_cast<uintptr_t>(line) % kPageBytes) {
      const uintptr_t page = reinterpret_cast<uintptr_t>(line) / kPageBytes;
      if (page != last_page_) prefetch_to_l2(line);
      last_page_ = page;
    }
    if (n_ > 0 && ranges_[n_ - 1].end == at) {
      ranges_[n_ - 1].end += bytes;
    } else if (n_ < kMaxRanges) {
      ranges_[n_++] = {at, at + bytes};
    }
  }
  // After all ranges were added. fetches: how many the products of the step can make. If there are twice as
  // many as lines, a line is fetched at every other k, which slows the products down less (1 %).
  void begin(int64_t fetches) {
    int64_t bytes = 0;
    for (int i = 0; i < n_; i++) bytes += ranges_[i].end - ranges_[i].at;
    step_ = 2 * bytes <= kLineBytes * fetches ? kLineBytes / 2 : kLineBytes;
  }
  int64_t step() const { return step_; }  // bytes from one fetch to the next

  // Takes up to n fetches. Sets `at` to where they begin and returns how many they are; returns n and leaves
  // `at` where nothing is left. Ranges that are much shorter than n are fetched here and now. Caller: a type
  // of the calling file's own, so that no copy compiled for one instruction set serves another.
  template <class Caller, class T> int64_t take(int64_t n, const T*& at) {
    for (int64_t lines = 0; first_ < n_ && lines < n / 4; first_++) {
      Range& x = ranges_[first_];
      const int64_t fetches = (x.end - x.at + step_ - 1) / step_;
      if (fetches >= std::min(n / 2, kWorthwhileLines)) {
        at = reinterpret_cast<const T*>(x.at);
        n = std::min(n, fetches);
        x.at += n * step_;
        if (x.at >= x.end) first_++;
        return n;
      }
      fetch(x);
      lines += (x.end - x.at) / kLineBytes + 1;
    }
    return n;
  }
  // Fetches the next lines here and now, n at most.
  void fetch_next(int64_t n) {
    while (n > 0 && first_ < n_) {
      Range& x = ranges_[first_];
      const Range part{x.at, std::min(x.end, x.at + n * kLineBytes)};
      fetch(part);
      n -= (part.end - part.at + kLineBytes - 1) / kLineBytes;
      x.at = part.end;
      if (x.at >= x.end) first_++;
    }
  }
  void fetch_rest() {
    for (; first_ < n_; first_++) fetch(ranges_[first_]);
  }

 private:
  struct Range {
    const char *at, *end;
  };
  static void fetch(const Range& x) {
    for (const char* at = x.at; at < x.end; at += kLineBytes) prefetch_to_l2(at);
  }

  Range ranges_[kMaxRanges];
  int first_ = 0, n_ = 0;
  int64_t step_ = kLineBytes;
  uintptr_t last_page_ = 0;
};

}  // namespace ostinato
