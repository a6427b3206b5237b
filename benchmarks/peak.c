// How fast n cores multiply at best: fused multiply-adds on registers alone, in GFLOP/s of float32.
// usage: peak core core …
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
enum { LANES = 16 };
#else
enum { LANES = 8 };
#endif
typedef float Vector __attribute__((vector_size(LANES * sizeof(float))));
enum { CHAINS = 12, ROUNDS = 200000 };  // more chains than any core's latency × ports
enum { TRIES = 100 };         // short ones: a neighbour on the core spoils some, not all

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static volatile float sink;
static double seconds[64];

static void *multiply(void *argument) {
  const intptr_t *me = argument;  // number, core
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(me[1], &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
  Vector acc[CHAINS], a, b;
  for (int j = 0; j < LANES; j++) a[j] = 0.999f, b[j] = 1e-3f;
  for (int i = 0; i < CHAINS; i++) acc[i] = b * (float)i;
  double best = 1e9;
  for (int try = 0; try < TRIES; try++) {
    const double begin = now();
    for (int r = 0; r < ROUNDS; r++) {
#pragma GCC unroll 12
      for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * a + b;
    }
    const double took = now() - begin;
    best = took < best ? took : best;
  }
  for (int i = 0; i < CHAINS; i++) sink = acc[i][0];
  seconds[me[0]] = best;
  return NULL;
}

int main(int argc, char **argv) {
  pthread_t threads[64];
  intptr_t arguments[64][2];
  const int n = argc - 1 < 64 ? argc - 1 : 64;
  for (int i = 0; i < n; i++) {
    arguments[i][0] = i, arguments[i][1] = atoi(argv[i + 1]);
    if (pthread_create(&threads[i], NULL, multiply, arguments[i])) return 1;
  }
  double rate = 0;
  for (int i = 0; i < n; i++) {
    pthread_join(threads[i], NULL);
    rate += 2e-9 * CHAINS * LANES * ROUNDS / seconds[i];
  }
  printf("%.1f\n", rate);
  return 0;
}
