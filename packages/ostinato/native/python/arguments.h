// The arguments of a program, found among the tensors of a call.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <vector>

#include "play/request.h"
#include "python/views.h"
#include "tuning.h"

namespace ostinato {

using Integers = std::vector<int64_t>;
using Objects = std::vector<nanobind::object>;

enum class How : int64_t {
#define HOW(name, python_name) name,
#include "python/how.def"
#undef HOW
};

enum : int64_t {
#define LIST(name, python_name) name,
#include "python/lists.def"
#undef LIST
  kLists
};
using TensorLists = Objects[kLists];

// Tensor number `at` of a list, and how the argument lies in it. p, q: see how.def.
struct ArgumentSource {
  int64_t list, at;
  How how;
  int64_t p, q;
};

// Tapes begin at a page. What a thread reads of a tape at one step then lies on two pages instead of three,
// say, and to translate the address of each takes about 13 ns: 1 to 2 % of training on long sequences.
inline char* next_page(char* data) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(data);
  return reinterpret_cast<char*>((address + kPageBytes - 1) / kPageBytes * kPageBytes);
}

struct Addresses {
  std::vector<Argument> list;
  std::vector<std::vector<char>> copies;  // of vectors that were not dense
  Addresses() = default;
  Addresses(Addresses&&) = default;  // a copy would point into the other's
};

// From (address, time stride, row stride) of each argument, in elements.
inline Addresses addresses_of(const Integers& numbers) {
  if (numbers.size() % 3) throw std::invalid_argument("wanted an address and two strides for each argument");
  Addresses found;
  for (size_t i = 0; i < numbers.size(); i += 3)
    found.list.push_back({reinterpret_cast<void*>(numbers[i]), numbers[i + 1], numbers[i + 2]});
  return found;
}

inline Argument dense_vector(const View& v, Addresses& all) {
  if (v.n_axes == 0 || v.shape[0] < 2 || v.strides[0] == 1) return {v.data, 0, 0};
  std::vector<char>& copy = all.copies.emplace_back(v.shape[0] * v.item);
  for (int64_t i = 0; i < v.shape[0]; i++)
    std::memcpy(copy.data() + i * v.item, v.data + i * v.strides[0] * v.item, v.item);
  return {copy.data(), 0, 0};
}

inline Argument argument_of(const ArgumentSource& source, nanobind::handle tensor, int64_t n_steps,
                            int64_t n_rows, Addresses& all) {
  if (tensor.is_none()) {
    if (source.how != How::kRows) throw std::invalid_argument("a tensor is missing");
    return {nullptr, 0, 0};
  }
  const View v = view_of(tensor);
  switch (source.how) {
    case How::kStrided:
      return v.n_axes < 2 ? Argument{v.data, 0, 0} : Argument{v.data, v.strides[0], v.strides[1]};
    case How::kVector: return dense_vector(v, all);
    case How::kTransposed: return {v.data, v.strides[1], v.strides[0]};
    case How::kRows: return {v.data, 0, v.elements() / n_rows};
    case How::kTape: return {next_page(v.data) + source.q * n_steps * n_rows * v.item, 0, source.p};
    case How::kPart:  // of a sum, or of one for each unit
      return {v.data + source.p * v.item, source.q, v.n_axes ? v.strides[0] : 0};
  }
  throw std::invalid_argument("no such source");
}

}  // namespace ostinato
