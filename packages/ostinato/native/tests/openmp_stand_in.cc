// What the engine asks of an OpenMP runtime, on plain threads: the real one is not built with
// ThreadSanitizer, which then sees races where there are none. It is found like the real one, by its
// file's name; see threads.cc.
#include "openmp_stand_in.h"

#include <pthread.h>

#include <atomic>

namespace {

constexpr int kMost = 16;
std::atomic<int> limit{kMost};
thread_local int thread_id = 0, team_size = 1;

struct Member {
  void (*body)(void*);
  void* context;
  int id, n;
};
void* run(void* p) {
  const Member& member = *static_cast<Member*>(p);
  thread_id = member.id;
  team_size = member.n;
  member.body(member.context);
  thread_id = 0;
  team_size = 1;
  return nullptr;
}

}  // namespace

void openmp_stand_in_limit(int n) { limit = n < kMost ? n : kMost; }

extern "C" {
EXPORTED int omp_get_thread_num() { return thread_id; }
EXPORTED int omp_get_num_threads() { return team_size; }
EXPORTED int omp_get_max_threads() { return 3; }

EXPORTED void GOMP_parallel(void (*body)(void*), void* context, unsigned wanted, unsigned) {
  const int most = limit, n = int(wanted) < most ? int(wanted) : most;
  Member members[kMost];
  pthread_t threads[kMost];
  for (int i = 0; i < n; i++) members[i] = {body, context, i, n};
  for (int i = 1; i < n; i++)
    if (pthread_create(&threads[i], nullptr, run, &members[i]) != 0) __builtin_trap();
  run(&members[0]);
  for (int i = 1; i < n; i++) pthread_join(threads[i], nullptr);
}
}
