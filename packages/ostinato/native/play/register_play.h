// Plays register code: a single group of rows, on the caller's thread. Schedule:
//   fill the fixed registers · `once` · load carries
//   chunk by chunk: each step of each row · each late term over all steps and rows of the chunk
//   store carries and gradients
#pragma once
#include <algorithm>
#include <cstring>

#include "kernels/kernels.h"
#include "plan/register_code.h"
#include "play/float_environment.h"
#include "play/machine_code.h"
#include "play/request.h"
#include "play/workspaces.h"
#include "program/program.h"

namespace ostinato {
namespace {

// What a play of register code keeps, in elements. chunk: steps.
struct RegisterMemory {
  int64_t registers, streams, moves, sums, kept;

  RegisterMemory(const RegisterCode& code, int64_t n_rows, int64_t chunk)
      : registers(n_rows * code.n_registers), streams(n_rows * int64_t(code.streams.size())),
        moves(int64_t(code.streams.size())), sums(code.n_sums), kept(n_rows * chunk * code.n_kept) {}
  template <class T> int64_t bytes() const {
    return bytes_of<T>(registers) + bytes_of<T*>(streams) + bytes_of<int64_t>(moves) + bytes_of<T>(sums) +
           bytes_of<T>(kept);
  }
};

template <class T> class RegisterPlay {
 public:
  // machine_code: null, or what to call instead of the kernel.
  RegisterPlay(const Program& program, const RegisterCode& code, const PlayRequest& request,
               const Kernels<T>& kernels, const MachineCode<T>* machine_code, int64_t chunk, char* memory)
      : p_(program), code_(code), request_(request), kernels_(kernels), machine_code_(machine_code),
        chunk_(chunk), n_streams_(int64_t(code.streams.size())) {
    const RegisterMemory sizes(code, request.B, chunk);
    registers_ = piece<T>(memory, sizes.registers);
    streams_ = piece<T*>(memory, sizes.streams);
    moves_ = piece<int64_t>(memory, sizes.moves);
    sums_ = piece<T>(memory, sizes.sums);
    kept_ = piece<T>(memory, sizes.kept);
  }

  void run() {
    const FloatEnvironment environment;
    fill_fixed_registers();
    load_carries();
    place_streams();
    std::fill_n(sums_, code_.n_sums, T(0));
    const int64_t T_steps = request_.T, n_chunks = (T_steps + chunk_ - 1) / chunk_;
    for (int64_t i = 0; i < n_chunks; i++) {
      const int64_t begin = (p_.descending ? n_chunks - 1 - i : i) * chunk_;
      play_chunk(std::min(T_steps, begin + chunk_) - begin);
    }
    store_carries();
    for (size_t i = 0; i < p_.gradients.size(); i++)
      store_gradient(p_.gradients[i], sums_ + code_.first_sum[i]);
  }

 private:
  T* registers_of(int64_t row) const { return registers_ + row * code_.n_registers; }
  T** streams_of(int64_t row) const { return streams_ + row * n_streams_; }
  template <class F> void for_rows(F f) const {
    for (int64_t r = 0; r < request_.B; r++) f(r);
  }

  void fill_fixed_registers() {
    T* const first = registers_of(0);
    std::fill_n(first, code_.n_registers, T(0));
    for (const RegisterCode::Constant& x : code_.constants) first[x.d] = T(x.value);
    for (const RegisterCode::Element& x : code_.elements) {
      const Argument& a = request_.arguments[x.argument];
      const int64_t at = x.row < 0 ? x.column : x.row * a.time + x.column * a.row;
      first[x.d] = static_cast<const T*>(a.data)[at];
    }
    kernels_.play_registers(code_.once.data(), 1, first, nullptr, nullptr, 0, nullptr);
    for (int64_t r = 1; r < request_.B; r++) std::copy_n(first, code_.n_registers, registers_of(r));
  }

  // ---- Carries

  const Buffer& buffer_of(const RegisterCode::CarryColumn& x) const {
    return p_.buffers[size_t(p_.carries[size_t(x.carry)].buffer)];
  }
  T* row_of(int32_t argument, int64_t row) const {  // null: zeros, or not wanted
    if (argument < 0 || !request_.arguments[argument].data) return nullptr;
    return static_cast<T*>(request_.arguments[argument].data) + row * request_.arguments[argument].row;
  }
  void load_carries() {
    for (const RegisterCode::CarryColumn& x : code_.carries) {
      const Carry& carry = p_.carries[size_t(x.carry)];
      const Buffer& buffer = buffer_of(x);
      for_rows([&](int64_t r) {
        const T* const init = row_of(carry.init, r);
        T& value = registers_of(r)[x.d] = init ? init[x.column] : T(0);
        if (buffer.kind != Kind::kPair) *address(buffer, p_.descending ? request_.T : 0, r, x.column) = value;
      });
    }
  }
  void store_carries() const {
    for (const RegisterCode::CarryColumn& x : code_.carries)
      for_rows([&](int64_t r) {
        if (T* const final = row_of(p_.carries[size_t(x.carry)].final, r))
          final[x.column] = registers_of(r)[x.d];
      });
  }

  // ---- Memory of arguments

  int64_t time_stride(const Buffer& b) const {
    const Argument& a = request_.arguments[b.argument];
    return b.kind == Kind::kTape ? request_.B * a.row : a.time;
  }
  T* address(const Buffer& b, int64_t slot, int64_t row, int64_t column) const {
    const Argument& a = request_.arguments[b.argument];
    return static_cast<T*>(a.data) + slot * time_stride(b) + row * a.row + column;
  }
  void place_streams() {
    const int64_t first = p_.descending ? request_.T - 1 : 0;
    for (int64_t i = 0; i < n_streams_; i++) {
      const RegisterCode::Stream& x = code_.streams[size_t(i)];
      if (x.buffer < 0) {
        moves_[i] = request_.B * code_.n_kept;
        kept_stream_ = i;
        continue;
      }
      const Buffer& buffer = p_.buffers[size_t(x.buffer)];
      moves_[i] = (p_.descending ? -1 : 1) * time_stride(buffer);
      for_rows([&](int64_t r) { streams_of(r)[i] = address(buffer, first + x.dt, r, 0); });
    }
  }

  // ---- Steps

  void play_chunk(int64_t n_steps) {
    if (kept_stream_ >= 0)
      for_rows([&](int64_t r) { streams_of(r)[kept_stream_] = kept_ + r * code_.n_kept; });
    const int64_t together = request_.B == 1 ? n_steps : 1;
    for (int64_t i = 0; i < n_steps; i += together)
      for_rows([&](int64_t r) { play_steps(together, registers_of(r), streams_of(r)); });
    // The kept operands lie step after step and row after row, which is the order of a term's sum.
    const int64_t move = code_.n_kept;
    for (size_t i = 0; i < code_.late_terms.size(); i++) {
      T* kept = kept_;
      if (machine_code_) {
        machine_code_->late_terms[i](n_steps * request_.B, registers_, &kept, &move, sums_);
      } else {
        kernels_.play_registers(code_.late_terms[i].data(), n_steps * request_.B, registers_, &kept, &move, 1,
                                sums_);
      }
    }
  }
  void play_steps(int64_t n_steps, T* registers, T** streams) {
    if (machine_code_) return machine_code_->step(n_steps, registers, streams, moves_, sums_);
    kernels_.play_registers(code_.step.data(), n_steps, registers, streams, moves_, n_streams_, sums_);
  }
  void store_gradient(const Gradient& g, const T* sum) const {
    const Argument& a = request_.arguments[g.argument];
    T* const out = static_cast<T*>(a.data);
    for (int64_t k = 0; k < g.K; k++)
      for (int64_t n = 0; n < g.N; n++)
        out[g.transposed ? n * a.time + k : k * a.time + n] = sum[k * g.N + n];
  }

  const Program& p_;
  const RegisterCode& code_;
  const PlayRequest& request_;
  const Kernels<T>& kernels_;
  const MachineCode<T>* const machine_code_;
  const int64_t chunk_, n_streams_;
  int64_t kept_stream_ = -1;
  T* registers_;    // [row][register]
  T** streams_;     // [row][stream]
  int64_t* moves_;  // [stream]
  T* sums_;
  T* kept_;  // [step of a chunk][row][operand of a late term]
};

}  // namespace
}  // namespace ostinato
