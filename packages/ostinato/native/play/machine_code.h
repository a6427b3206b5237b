// Register code that was compiled to machine code outside of the engine.
#pragma once
#include <cstdint>
#include <vector>

namespace ostinato {

// Plays one list of instructions as Kernels::play_registers does.
template <class T>
using RegisterFunction = void (*)(int64_t n_steps, T* registers, T** streams, const int64_t* moves, T* sums);

template <class T> struct MachineCode {
  RegisterFunction<T> step;
  std::vector<RegisterFunction<T>> late_terms;
};

}  // namespace ostinato
