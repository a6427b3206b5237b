#include "play/threads.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>

#include "platform.h"
#include "play/solitude.h"
#include "tuning.h"

namespace ostinato {
namespace {

struct Runtime {
  void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
  int (*thread_id)() = nullptr;
  int (*team_size)() = nullptr;
  int (*most)() = nullptr;
  std::string name = "none loaded in this process";
};

Runtime find_runtime() {
  Runtime r;
  const std::string path = loaded_library({"libgomp", "libiomp5", "libomp"});
  if (path.empty()) return r;
  auto symbol = [&](const char* name) { return function_of(path, name); };
  Runtime found;
  found.parallel = reinterpret_cast<decltype(r.parallel)>(symbol("GOMP_parallel"));
  found.thread_id = reinterpret_cast<int (*)()>(symbol("omp_get_thread_num"));
  found.team_size = reinterpret_cast<int (*)()>(symbol("omp_get_num_threads"));
  found.most = reinterpret_cast<int (*)()>(symbol("omp_get_max_threads"));
  found.name = path.substr(path.find_last_of("/\\") + 1);
  return found.parallel && found.thread_id && found.team_size && found.most ? found : r;
}

std::atomic<bool> busy{false};

// Whether this is a child that was forked after the first use. Its threads are gone, and the loader's lock
// may be held for ever, so nothing is looked up there.
bool forked() {
  static std::atomic<bool> child{false};
  const auto in_child = [] {
    child = true;
    busy = false;
  };
  static const bool registered = call_in_forked_children(in_child);
  return registered && child;
}

// Looked up again until found: torch may be imported after us.
const Runtime& runtime() {
  static std::atomic<const Runtime*> found{nullptr};
  static const Runtime none;
  if (const Runtime* r = found.load()) return *r;
  Runtime r = find_runtime();
  if (!r.parallel) return none;
  const Runtime* fresh = new Runtime(r);
  const Runtime* expected = nullptr;
  if (!found.compare_exchange_strong(expected, fresh)) delete fresh;
  return *found.load();
}

Solitude solitude;

struct ParallelCall {
  void (*body)(void*, int, int);
  void* context;
  const Runtime* runtime;
  int wanted;
  int64_t begin;
  std::atomic<int64_t> lost{0};
};
void enter(void* p) {
  ParallelCall* call = static_cast<ParallelCall*>(p);
  const int id = call->runtime->thread_id(), n = std::min(call->wanted, call->runtime->team_size());
  if (id >= n) return;
  const int64_t core = thread_cpu_ns();
  call->body(call->context, id, n);
  const int64_t lost = now_ns() - call->begin - (thread_cpu_ns() - core);
  int64_t most = call->lost.load(std::memory_order_relaxed);
  while (lost > most && !call->lost.compare_exchange_weak(most, lost)) {
  }
}

}  // namespace

void parallel(int wanted, void (*body)(void*, int, int), void* context) {
  if (forked() || wanted <= 1) return body(context, 0, 1);
  const Runtime& r = runtime();
  if (!r.parallel) return body(context, 0, 1);
  // To play alone helps only if no other operation uses the team: PyTorch's own make its threads wait for one
  // another in any case.
  const bool only_ours = r.most() == 1;
  const int64_t now = now_ns();
  if ((only_ours && solitude.lasts(now)) || busy.exchange(true)) return body(context, 0, 1);
  ParallelCall call{body, context, &r, wanted, now};
  // Always at least as many as PyTorch takes: libgomp ends the threads that a smaller team has no use for,
  // and the next larger team has to start them again (40 times the time, at 2 and 8 threads in turn).
  r.parallel(enter, &call, unsigned(std::max(wanted, r.most())), 0);
  busy = false;
  solitude.after(call.begin, now_ns(), call.lost);
}

std::string threading_runtime() { return forked() ? "forked process: one thread" : runtime().name; }

void Barrier::wait(int id, int n) {
  if (n == 1) return;
  const uint32_t mine = of_[id].n.load(std::memory_order_relaxed) + 1;
  of_[id].n.store(mine, std::memory_order_release);
  for (int other = 0; other < n; other++)  // which may already have arrived at the next meeting
    for (int i = 0; int32_t(of_[other].n.load(std::memory_order_acquire) - mine) < 0; i++) {
      if (i < kSpins) {
        if (i > kSpinsWithoutPause) pause_in_spin();
      } else {
        std::this_thread::yield();
      }
    }
}

namespace {

struct BarrierTiming {
  Barrier barrier;
  int wanted;
  double ns = std::numeric_limits<double>::infinity();
};
void time_barrier(void* context, int id, int n) {
  BarrierTiming& m = *static_cast<BarrierTiming*>(context);
  if (n < m.wanted) return;
  m.barrier.wait(id, n);                     // all have begun
  for (int burst = 0; burst < 3; burst++) {  // the shortest of three: an interruption only adds
    constexpr int kTimes = 4;
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kTimes; i++) m.barrier.wait(id, n);
    const std::chrono::duration<double, std::nano> spent = std::chrono::steady_clock::now() - begin;
    if (id == 0) m.ns = std::min(m.ns, spent.count() / kTimes);
  }
}

}  // namespace

double barrier_ns(int n) {
  using std::chrono::steady_clock;
  static std::atomic<int64_t> when[kMaxGroups + 1];
  static std::atomic<double> found[kMaxGroups + 1];
  const int64_t now = std::chrono::nanoseconds(steady_clock::now().time_since_epoch()).count();
  if (const int64_t then = when[n].load(); then != 0 && now - then < kBarrierTimeIsFreshNs)
    return found[n].load();
  BarrierTiming timing{{}, n};
  parallel(n, time_barrier, &timing);
  found[n] = timing.ns;
  when[n] = now;
  return timing.ns;
}

}  // namespace ostinato
