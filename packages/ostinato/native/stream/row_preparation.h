// From the numbers that a person pushes to the row that a step reads, as in ostinato/data/prepare.py: number
// x of feature i becomes (x − mean) / scale, in double; the place of a name becomes a column for each name.
#pragma once
#include <algorithm>
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
  std::vector<int64_t> names;       // of feature i so many are known; 0 where it is a number
  bool mask = false;                // a further column behind each feature is 1 where its number is missing

  bool leaves_rows() const { return mean.empty(); }
  int64_t features() const { return int64_t(mean.size()); }
  int64_t columns() const {
    int64_t n = mask ? features() : 0;
    for (const int64_t known : names) n += std::max<int64_t>(known, 1);
    return n;
  }
  void apply(const float* x, float* row) const noexcept {
    for (size_t i = 0; i < mean.size(); i++) {
      const bool missing = std::isnan(x[i]);
      const double value = missing ? fill[i] : double(x[i]);
      if (names[i] == 0) *row++ = float((value - mean[i]) / scale[i]);
      for (int64_t k = 0; k < names[i]; k++) *row++ = is_name(missing, value, k);
      if (mask) *row++ = missing ? 1.f : 0.f;
    }
  }
  void check() const {
    if (scale.size() != mean.size() || fill.size() != mean.size() || names.size() != mean.size())
      throw std::invalid_argument("wanted a mean, a scale, a filling and a number of names for each feature");
  }

 private:
  // Column k of a name. One that is missing has zeros, or NaN where it is refused.
  static float is_name(bool missing, double place, int64_t k) noexcept {
    if (missing) return std::isnan(place) ? float(place) : 0.f;
    return place == double(k) ? 1.f : 0.f;
  }
};

}  // namespace ostinato
