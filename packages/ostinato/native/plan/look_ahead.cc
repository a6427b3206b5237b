#include "plan/look_ahead.h"

#include <algorithm>

namespace ostinato {

std::vector<Operand> streamed_operands(const Program& program) {
  std::vector<Operand> found;
  for (int32_t i = program.loop.begin; i < program.loop.end; i++) {
    const Instruction& x = program.instructions[size_t(i)];
    if (x.code == Code::kBlock) continue;
    for (const Operand* o : {&x.d, &x.a, &x.b, &x.c}) {
      if (o->buffer < 0) continue;
      const Kind kind = program.buffers[size_t(o->buffer)].kind;
      if (kind != Kind::kTime && kind != Kind::kTape && kind != Kind::kChunk) continue;
      const auto in_buffer = [&](const Operand& y) { return y.buffer == o->buffer; };
      const auto known = std::find_if(found.begin(), found.end(), in_buffer);
      if (known == found.end()) {
        found.push_back({o->buffer, 0, o->dt});
      } else {
        known->dt = program.descending ? std::min(known->dt, o->dt) : std::max(known->dt, o->dt);
      }
    }
  }
  return found;
}

int64_t loop_depth(const Program& program, int64_t panel) {
  int64_t depth = 0;
  for (int32_t i = program.loop.begin; i < program.loop.end; i++) {
    const Instruction& x = program.instructions[size_t(i)];
    if (x.code == Code::kGemm) depth += (x.n + panel - 1) / panel * x.k;
  }
  return depth;
}

}  // namespace ostinato
