// The engine's constants, each with its arithmetic. They assume caches as on current x86-64 cores: L1 of
// 32 to 48 KB, L2 of 1 to 2 MB, lines of 64 bytes, pages of 4 KB. A percentage is the measured difference
// to the alternative named beside it.
//
// Three kinds of constants stand elsewhere. The sizes of register tiles follow from an instruction set's
// registers and stand with their kernels: gemm-inl.h, products-inl.h, arrays-inl.h. The limits of a program
// are a part of its format: program/program.h. The sixteen lanes of a sum are a part of the result, as
// another number would change its bits: program/arrays.h.
#pragma once
#include <cstdint>

namespace ostinato {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kLineFloats = kLineBytes / int64_t(sizeof(float));
constexpr int64_t kPageBytes = 4096;

// ---- Row groups: see n_groups in play/request.h

// Also the most threads that play together, whether they share rows or columns.
constexpr int kMaxGroups = 8;
// Rows of a group, at least.
constexpr int64_t kGroupRows = 4;
// Rows of a single group, at most: from twice kGroupRows rows on there are two groups.
constexpr int64_t kSingleGroupRows = 2 * kGroupRows - 1;

// ---- Chunks of steps, products, rows of the loop

// A chunk is as many steps as hold this many rows of a group. The accumulators of a group are visited once
// a chunk, so a long chunk reads and writes them rarely.
constexpr int64_t kChunkRows = 256;
// Where the accumulators of a group stay in L1 and L2 (below kNearSumBytes), visiting them is cheap, and a
// short chunk keeps the intermediate values near as well: 5 % at H = 32, 2 % at H = 128.
constexpr int64_t kNearChunkRows = 32;
constexpr int64_t kNearSumBytes = 1 << 17;
// Rows of a chunk where units have sums of their own, which do not stay in L1 from one chunk to the next.
constexpr int64_t kUnitChunkRows = 64;
// Rows of one product: 256 rows × 256 floats of its factor are 256 KB and stay in L2.
constexpr int64_t kGemmRows = 256;
// Rows played together in the loop: 32 rows × 512 floats of gates are 64 KB, in L2 beside the weights …
constexpr int64_t kLoopRows = 32;
// … if these are at most 512 KB. Larger weights are read once a step for all rows of the slab.
constexpr int64_t kNearWeightBytes = 1 << 19;
// Fewer rows, down to one group, if their values in a step exceed 512 KB: rows of 4,096 floats in seven
// buffers are 112 KB each, and the instructions of a step pass over them one after the other.
constexpr int64_t kNearStepBytes = 1 << 19;
// Rows of a register tile whose columns fill a panel, on every instruction set: see tile_rows.
constexpr int kTileRows = 6;
// Products that are summed in one pass over their result.
constexpr int kMaxFactors = 3;

// ---- Packing

// Rows of a panel that are filled at once from a transposed weight. 16 floats are one line of each source
// column: 1/8 less time than with 64 rows.
constexpr int64_t kPackRows = 16;

// ---- Memory

// A forward pass that keeps more than this first asks how much memory the machine has.
constexpr int64_t kAskForMemoryBytes = 1 << 28;
// Bytes between what two threads write: one page. The processor prefetches within a page, and would take
// from another core the lines that that core is about to write (a third of the time at 32 rows × 32 units).
constexpr int64_t kThreadGapBytes = kPageBytes;
// If a slab reads and writes more than 2 MB over time, its data comes from L3 or memory: then each step
// prefetches the rows of the next one.
constexpr int64_t kFarBytes = 1 << 21;
// Bytes of one play, at most. A double, because the estimate may lie beyond the integers.
constexpr double kMaxPlayBytes = 0x1p62;
// Columns of the widest panel and of the widest vector, those of AVX-512 in float32: bounds for the estimate.
constexpr int64_t kMaxPanel = 64;
constexpr int64_t kMaxLanes = 16;
// Columns to which rows of own memory are padded: 16 floats are one line.
constexpr int64_t kRowPadding = 16;
// Workspaces that plays leave for later ones: so many calls at a time allocate none.
constexpr int kKeptWorkspaces = 4;

// ---- Weight gradients

// Rows of one call of the outer-product kernel. 128 rows: level, but 3 % slower for a large result.
constexpr int64_t kOuterRows = 256;
// Sums of products within rows: the lanes of a register tile add up the products of so many rows of the
// batch before they are folded. With K = 64, a tile's four rows of a are 16 KB for all of these. 8 rows: 8 %
// slower, as the lanes are folded more often; 32 rows: 4 %.
constexpr int64_t kSummedRows = 16;
// Rows of the result in a register tile of such a sum.
constexpr int64_t kSumRows = 4;
// An outer product whose result has at least this many rows reads each row of b so often that it copies the
// rows of b side by side first.
constexpr int64_t kPackedColumns = 60;
// An accumulator above 1 MB does not stay in L2: its gradient is summed once, after the last step, straight
// into the result …
constexpr int64_t kLateBytes = 1 << 20;
// … in strips of columns: 256 rows × 512 floats of b are 512 KB and stay in L2 for all rows of the result.
constexpr int64_t kLateColumns = 512;
// So is any gradient over at most this many rows a group: clearing and adding accumulators would cost more.
constexpr int64_t kLateRows = 64;

// ---- Elementwise blocks

// Columns of a strip if a block plays one row at a time; short rows fill a strip together. 128 floats are
// 512 bytes, so the strips of 60 operands stay in an L1 of 32 KB.
constexpr int64_t kStrip = 128;
constexpr int64_t kLongestStrip = 512;
// Operations on fibres need no register for an operand that is spread: a strip may be a matrix of 32 × 32.
constexpr int64_t kLongestStripOfFibres = 1024;
// A strip doubles while the strips of all operands that are used again fit into 2/3 of L1, and into 32 KB.
// With 1/3 of a 48-KB L1: sLSTM 3 % slower, LEM and LSTM 1 %.
constexpr int64_t kNearStripBytes = 1 << 15;
constexpr int64_t l1_for_strips(int64_t l1_bytes) { return l1_bytes * 2 / 3; }
constexpr int64_t kUnknownL1Bytes = 1 << 15;

// ---- Register code

// Numbers that a step computes or moves, at most: planning takes some 50 ns each. Instructions name
// registers, columns and sums by 16 bits.
constexpr int64_t kMostNumbersOfAStep = 10'000;

// A program is compiled to machine code, if that is possible at all, when its plays have taken so long:
// compiling takes 10 to 300 ms on another thread, and a program that is played once needs none.
constexpr int64_t kCompileAfterNs = 5'000'000;

// ---- Prefetching: see Prefetcher in kernels/prefetcher.h

// Ranges shorter than this many lines are fetched at once instead of a line at each k.
constexpr int64_t kWorthwhileLines = 32;
constexpr int kMaxRanges = 512;

// ---- Threads that share columns

// A thread's columns begin at a multiple of 16 floats, one line, so that no two threads write to one line.
constexpr int64_t kShareColumns = 16;
// The work of a step is weights · (rows + 2): the weights are read whatever the rows are, which costs as
// much as two rows. About 70 units take a nanosecond. A barrier plus fetching what another core has written
// takes 2 · barrier_ns, so one more thread pays from 140 · barrier_ns units on, for each barrier of a step.
constexpr double kWorkPerBarrierNs = 140;
// Units of a whole play (about 40 µs): below, waking a thread takes longer than it saves.
constexpr double kLeastSharedWork = 3e6;
// Multiplications of a row, from which threads share a product within rows: 16,384 take about as long as a
// barrier. The first thread plays a smaller product alone.
constexpr double kLeastSharedProduct = 1 << 14;
// Packing a weight costs as much as this many multiplications by it.
constexpr double kPackWork = 12;

// ---- Streams

// Rows of a pool that play a step together: as many as fill the register tiles, and few enough for their
// gates to stay in L1 (32 rows × 128 floats are 16 KB).
constexpr int64_t kStepRows = 32;
// Inputs and outputs of a step, at most. Their places are an array on the stack: 64 · 24 bytes are 1.5 KB.
constexpr int64_t kMaxPorts = 64;
// Up to here the scratch of a step lies on the caller's stack, beyond it in the stream. Threads of audio
// programs have stacks of 512 KB, of which this is an eighth.
constexpr int64_t kStackBytes = 1 << 16;
// Multiplications of a call, from which it lets other Python threads run meanwhile: some 20 µs at 25
// multiplications a nanosecond.
constexpr int64_t kLongMultiplies = 500'000;

// ---- Waiting

// Polls at a barrier before a thread lets another have its core: about 20 µs.
constexpr int kSpins = 512;
// The first 8 polls do not pause, which would delay a thread whose partners are about to arrive.
constexpr int kSpinsWithoutPause = kSpins / 64;
// How long a measured barrier time is used. On a shared machine threads move between cores, which lie now
// near one another and now far apart.
constexpr int64_t kBarrierTimeIsFreshNs = 20'000'000;

// ---- A busy machine

// Without a core for more than 0.4 ms, and for more than 1/10 of a call, a thread has been put aside for
// another program (for some 3 ms); waking a sleeping thread takes 0.05 to 0.2 ms.
constexpr int64_t kLostNs = 400'000;
constexpr double kLostShare = 0.1;
// How long a caller then plays alone: at least as long as some calls, and at most so long that it soon
// finds out that the machine is free again.
constexpr int64_t kLeastAloneNs = 20'000'000;
constexpr int64_t kMostAloneNs = 160'000'000;

}  // namespace ostinato
