// What Python mirrors by hand, as lists of names and values: tests compare both sides.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "kernels/kernels.h"
#include "program/layout.h"
#include "program/program.h"
#include "python/arguments.h"

namespace ostinato {

template <class N> using NamedValues = std::vector<std::pair<std::string, N>>;

inline NamedValues<int> ops() {  // names and arities
  NamedValues<int> rows;
  for (const OpRow& row : kOpRows) rows.emplace_back(row.name, row.arity);
  return rows;
}

inline std::map<std::string, NamedValues<int64_t>> tables() {
  return {
      {"Kind",
       {
#define KIND(name, python_name) {#python_name, int64_t(Kind::name)},
#include "program/kinds.def"
#undef KIND
       }},
      {"Code",
       {
#define CODE(name, python_name) {#python_name, int64_t(Code::name)},
#include "program/codes.def"
#undef CODE
       }},
      {"How",
       {
#define HOW(name, python_name) {#python_name, int64_t(How::name)},
#include "python/how.def"
#undef HOW
       }},
      {"lists",
       {
#define LIST(name, python_name) {#python_name, int64_t(name)},
#include "python/lists.def"
#undef LIST
       }},
      {"limits",
       {{"MAX_ARGUMENTS", kMaxArguments},
        {"MAX_BLOCK", kMaxBlock},
        {"MAX_REGISTERS", kMaxRegisters},
        {"MAX_WIDTH", kMaxWidth},
        {"PANEL", kMaxPanel},
        {"STRETCH", kStretch}}},
  };
}

// Every number of a program by its path, like instructions.2.a.buffer.
class PathLister {
 public:
  NamedValues<int64_t> found;

  template <class M> void number(const char* name, M& member) {
    found.emplace_back(path_ + name, int64_t(member));
  }
  template <class M> void part(const std::string& name, M& member) {
    const std::string before = path_;
    path_ += name + ".";
    visit(*this, member);
    path_ = before;
  }
  template <class M> void list(const std::string& name, std::vector<M>& members) {
    for (size_t i = 0; i < members.size(); i++) part(name + "." + std::to_string(i), members[i]);
  }

 private:
  std::string path_;
};

inline NamedValues<int64_t> numbers_by_path(const std::vector<int64_t>& values,
                                            const std::vector<double>& scalars) {
  Program p = read_program(values, scalars);
  PathLister lister;
  visit(lister, p);
  return lister.found;
}

}  // namespace ostinato
