// Matrices for the tests of kernels, which notice a write beside their rows.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "tests.h"

namespace ostinato {

// Rows with a gap between them that nobody may touch; the last ends where the memory ends. Their list
// points before them, by its offset.
template <class T> class Matrix {
 public:
  Matrix(int64_t rows, int64_t columns, Random& random)
      : rows_(rows), columns_(columns), values_(size_t(kOffset + (rows - 1) * stride() + columns), kMark) {
    for (int64_t r = 0; r < rows; r++)
      for (int64_t c = 0; c < columns; c++) at(r, c) = T(random.number());
  }
  int64_t stride() const { return columns_ + 3; }
  T& at(int64_t r, int64_t c) { return values_[size_t(kOffset + r * stride() + c)]; }
  T at(int64_t r, int64_t c) const { return values_[size_t(kOffset + r * stride() + c)]; }
  T* data() { return values_.data() + kOffset; }
  RowList<T> list() {
    pointers_.clear();
    for (int64_t r = 0; r < rows_; r++) pointers_.push_back(&at(r, 0) - kOffset);
    return {pointers_.data(), kOffset};
  }
  bool gaps_untouched() const {
    for (int64_t r = 0; r + 1 < rows_; r++)
      for (int64_t c = columns_; c < stride(); c++)
        if (at(r, c) != kMark) return false;
    return true;
  }
  bool operator==(const Matrix& other) const { return same(values_, other.values_); }

 private:
  static constexpr T kMark = -77;
  static constexpr int64_t kOffset = 2;
  int64_t rows_, columns_;
  std::vector<T> values_;
  std::vector<T*> pointers_;
};

inline std::string shape(const char* isa, int64_t rows, int64_t K, int64_t N) {
  return std::string(isa) + ", " + std::to_string(rows) + " rows, K " + std::to_string(K) + ", N " +
         std::to_string(N);
}

}  // namespace ostinato
