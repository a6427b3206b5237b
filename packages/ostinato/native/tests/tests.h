// The native tests: the engine without Python, so that the sanitizers see all of it.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

// `what` is evaluated only if the check fails.
#define CHECK(holds, what)                                                                 \
  do {                                                                                     \
    if (!(holds))                                                                          \
      throw ostinato::CheckFailed(std::string(__FILE__) + ":" + std::to_string(__LINE__) + \
                                  ": " #holds ": " + (what));                              \
  } while (0)

namespace ostinato {

struct CheckFailed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Each throws CheckFailed at the first check that does not hold.
void test_kernels();
void test_elementwise();
void test_blocks();
void test_fibres();
void test_executor();
void test_solitude();
void test_register_code();
void test_streams();
void test_refusals();
void test_fuzzed_programs(int64_t iterations);

class Random {
 public:
  explicit Random(uint32_t seed) : engine_(seed) {}
  int64_t below(int64_t n) { return int64_t(engine_() % uint64_t(n)); }
  bool chance(int percent) { return below(100) < percent; }
  double number() { return double(engine_()) / 2147483648. - 1; }  // in [−1, 1)
  template <class List> auto pick(const List& list) {
    return *(std::begin(list) + below(int64_t(std::size(list))));
  }

 private:
  std::mt19937 engine_;
};

// Equal to the bit. Any two NaNs are equal: nobody promises the bits of a NaN.
template <class T> bool same(T a, T b) { return (a != a && b != b) || std::memcmp(&a, &b, sizeof(T)) == 0; }
template <class T> bool same(const std::vector<T>& a, const std::vector<T>& b) {
  bool all = a.size() == b.size();
  for (size_t i = 0; all && i < a.size(); i++) all = same(a[i], b[i]);
  return all;
}

}  // namespace ostinato
