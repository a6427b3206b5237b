// Which instruction sets this machine has, and their kernels.
#pragma once
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace ostinato {

std::vector<std::string> available_isas();  // the best first

// Kernels by name ("avx512", "avx2", "neon", "base"). Throws std::invalid_argument for a set that this
// machine lacks.
template <class T> const Kernels<T>& kernels(const std::string& isa);

}  // namespace ostinato
