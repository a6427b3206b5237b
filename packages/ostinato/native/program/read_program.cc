#include <stdexcept>

#include "program/layout.h"
#include "program/program.h"

namespace ostinato {
namespace {

class NumberReader {
 public:
  explicit NumberReader(const std::vector<int64_t>& values) : values_(values) {}

  template <class M> void number(const char*, M& member) { member = M(next()); }
  void number(const char*, bool& member) { member = next() != 0; }
  template <class M> void part(const char*, M& member) { visit(*this, member); }
  template <class M> void list(const char*, std::vector<M>& members) {
    const int32_t n = next();
    if (n < 0 || size_t(n) > values_.size())
      throw std::invalid_argument("invalid program: a count out of range");
    for (int32_t i = 0; i < n; i++) {
      members.emplace_back();
      visit(*this, members.back());
    }
  }
  void end() const {
    if (at_ != values_.size()) throw std::invalid_argument("invalid program: numbers left over");
  }

 private:
  int32_t next() {
    if (at_ >= values_.size()) throw std::invalid_argument("invalid program: truncated");
    const int64_t v = values_[at_++];
    if (v < INT32_MIN || v > INT32_MAX) throw std::invalid_argument("invalid program: a number out of range");
    return int32_t(v);
  }

  const std::vector<int64_t>& values_;
  size_t at_ = 0;
};

}  // namespace

Program read_program(const std::vector<int64_t>& values, const std::vector<double>& scalars) {
  NumberReader reader(values);
  Program p;
  visit(reader, p);
  reader.end();
  if (p.instructions.size() != scalars.size())
    throw std::invalid_argument("invalid program: one scalar an instruction is wanted");
  for (size_t i = 0; i < scalars.size(); i++) p.instructions[i].s = scalars[i];
  return p;
}

}  // namespace ostinato
