// From the numbers that a person pushes to the row that a step reads, as in ostinato/data/prepare.py: number
// x of feature i becomes (x − mean) / scale, in double.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

namespace ostinato {

// True if all values are finite: NaN and infinite values have all bits of the exponent set. The bits are
// compared as integers, because compilers vectorise that.
inline bool all_finite(const float* x, int64_t n) {
  constexpr uint32_t exponent = 0x7f800000;
  uint32_t found = 0;
  for (int64_t i = 0; i < n; i++) {
    uint32_t bits;
    std::memcpy(&bits, x + i, sizeof bits);
    found |= uint32_t((bits & exponent) == exponent);
  }
  return found == 0;
}

struct RowPreparation {
  std::vector<double> mean, scale;  // by feature; none: rows are read as they are
  std::vector<double> fill;         // what a missing number (NaN) becomes; NaN where it stays
  bool mask = false;                // a further column behind each feature is 1 where its number is missing

  bool leaves_rows() const { return mean.empty(); }
  int64_t features() const { return int64_t(mean.size()); }
  int64_t columns() const { return features() * (mask ? 2 : 1); }
  void apply(const float* x, float* row) const noexcept {
    for (size_t i = 0; i < mean.size(); i++) {
      const bool missing = std::isnan(x[i]);
      const double value = missing ? fill[i] : double(x[i]);
      *row++ = float((value - mean[i]) / scale[i]);
      if (mask) *row++ = missing ? 1.f : 0.f;
    }
  }
  void check() const {
    if (scale.size() != mean.size() || fill.size() != mean.size())
      throw std::invalid_argument("wanted a mean, a scale and a filling for each feature");
  }
};

}  // namespace ostinato
