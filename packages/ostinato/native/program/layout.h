// The order in which a program is written as integers. src/ostinato/engine/program.py writes the same order;
// tests/engine/test_tables.py compares the two, name by name.
//
// A visitor has
//   number(name, member)    one integer
//   part(name, member)      a structure: visit(visitor, member)
//   list(name, members)     a length, then each member: visit(visitor, member)
// Scalars (Instruction::s) are not among the integers: they are a list of their own.
#pragma once
#include "program/program.h"

namespace ostinato {

template <class V> void visit(V& v, Buffer& b) {
  v.number("kind", b.kind);
  v.number("width", b.width);
  v.number("extra", b.extra);
  v.number("argument", b.argument);
}
template <class V> void visit(V& v, WeightBlock& b) {
  v.number("argument", b.argument);
  v.number("k0", b.k0);
  v.number("nk", b.nk);
  v.number("n0", b.n0);
  v.number("nn", b.nn);
  v.number("row", b.row);
  v.number("column", b.column);
}
template <class V> void visit(V& v, Weight& w) {
  v.number("K", w.K);
  v.number("N", w.N);
  v.list("blocks", w.blocks);
}
template <class V> void visit(V& v, Gradient& g) {
  v.number("K", g.K);
  v.number("N", g.N);
  v.number("argument", g.argument);
  v.number("transposed", g.transposed);
}
template <class V> void visit(V& v, Carry& c) {
  v.number("buffer", c.buffer);
  v.number("init", c.init);
  v.number("final", c.final);
}
template <class V> void visit(V& v, ElementRun& r) {
  v.number("start", r.start);
  v.number("count", r.count);
  v.number("step", r.step);
}
template <class V> void visit(V& v, IndexTable& t) {
  v.number("width", t.width);
  v.list("runs", t.runs);
}
template <class V> void visit(V& v, SmallProduct& p) {
  v.number("groups", p.groups);
  v.number("M", p.M);
  v.number("K", p.K);
  v.number("N", p.N);
  v.number("across", p.across);
  v.number("table", p.table);
}
template <class V> void visit(V& v, Operand& o) {
  v.number("buffer", o.buffer);
  v.number("column", o.column);
  v.number("dt", o.dt);
}
template <class V> void visit(V& v, Instruction& x) {
  v.number("code", x.code);
  v.number("op", x.op);
  v.number("n", x.n);
  v.number("k", x.k);
  v.number("weight", x.weight);
  v.number("count", x.count);
  v.number("inner", x.inner);
  v.part("d", x.d);
  v.part("a", x.a);
  v.part("b", x.b);
  v.part("c", x.c);
}
template <class V> void visit(V& v, Section& s) {
  v.number("begin", s.begin);
  v.number("end", s.end);
}
template <class V> void visit(V& v, Program& p) {
  v.number("n_arguments", p.n_arguments);
  v.number("descending", p.descending);
  v.list("buffers", p.buffers);
  v.list("weights", p.weights);
  v.list("gradients", p.gradients);
  v.list("carries", p.carries);
  v.list("tables", p.tables);
  v.list("products", p.products);
  v.list("instructions", p.instructions);
  v.part("once", p.once);
  v.part("before", p.before);
  v.part("loop", p.loop);
  v.part("after", p.after);
}

}  // namespace ostinato
