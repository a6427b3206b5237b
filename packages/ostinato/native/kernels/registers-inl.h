// Register code, played by threaded dispatch: each instruction jumps to the next one's code by itself, so
// that the processor predicts each jump by its own history. Included inside the namespace of one instruction
// set.
#pragma once

template <class T, class Op> T on_numbers(T a, T b, T c) {
  using V = One<T>;
  return Op::of(V::all(a), V::all(b), V::all(c), c).v;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"  // addresses of labels are an extension of GCC and Clang

template <class T>
void play_registers(const RegisterInstruction* code, int64_t n_steps, T* registers, T** streams,
                    const int64_t* moves, int64_t n_streams, T* sums) {
  using V = One<T>;
  static const void* const labels[] = {
#define OP(name, arity, expression) &&at_##name,
#include "kernels/ops.def"
#undef OP
      &&at_load, &&at_store, &&at_add_to, &&at_multiply_to, &&at_end};
  T* const R = registers;
  const RegisterInstruction* at = code;
#define NEXT goto* labels[at->op]
  NEXT;
#define OP(name, arity, expression)                                           \
  at_##name : {                                                               \
    const V a = V::all(R[at->a]), b = V::all(R[at->b]), c = V::all(R[at->c]); \
    const T s = R[at->c];                                                     \
    (void)a, (void)b, (void)c, (void)s;                                       \
    R[at->d] = (expression).v;                                                \
    at++;                                                                     \
    NEXT;                                                                     \
  }
#include "kernels/ops.def"
#undef OP
at_load:
  R[at->d] = streams[at->a][at->b];
  at++;
  NEXT;
at_store:
  streams[at->a][at->b] = R[at->c];
  at++;
  NEXT;
at_add_to:
  sums[at->d] = add(V::all(sums[at->d]), V::all(R[at->a])).v;
  at++;
  NEXT;
at_multiply_to:
  sums[at->d] = fma(V::all(R[at->a]), V::all(R[at->b]), V::all(sums[at->d])).v;
  at++;
  NEXT;
at_end:
  for (int64_t i = 0; i < n_streams; i++) streams[i] += moves[i];
  if (--n_steps == 0) return;
  at = code;
  NEXT;
#undef NEXT
}

#pragma GCC diagnostic pop
