// ostinato_tests [mutated programs [test …]]: all tests, or those named
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>

#include "kernels/dispatch.h"
#include "play/float_environment.h"
#include "play/threads.h"
#include "tests.h"

int main(int n_words, char** words) {
  using namespace ostinato;
  const int64_t iterations = n_words > 1 ? std::atoll(words[1]) : 20000;
  if (iterations < 0) {
    std::fprintf(stderr, "%s: wanted a number of mutated programs, not %s\n", words[0], words[1]);
    return 2;
  }
  const struct {
    const char* name;
    std::function<void()> run;
  } tests[] = {
      {"kernels", test_kernels},
      {"elementwise", test_elementwise},
      {"blocks", test_blocks},
      {"fibres", test_fibres},
      {"executor", test_executor},
      {"solitude", test_solitude},
      {"register code", test_register_code},
      {"streams", test_streams},
      {"refusals", test_refusals},
      {"fuzzed programs", [iterations] { test_fuzzed_programs(iterations); }},
  };
  const FloatEnvironment environment;  // the kernels' own
  std::string isas;
  for (const std::string& isa : available_isas()) isas += " " + isa;
  std::printf("instruction sets:%s; threads: %s\n", isas.c_str(), threading_runtime().c_str());
  int failed = 0, run = 0;
  for (const auto& test : tests) {
    const auto named = [&](const char* word) { return word == std::string(test.name); };
    if (n_words > 2 && std::none_of(words + 2, words + n_words, named)) continue;
    const auto start = std::chrono::steady_clock::now();
    std::string result = "ok";
    run++;
    try {
      test.run();
    } catch (const std::exception& error) {
      result = std::string("FAILED: ") + error.what(), failed++;
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    std::printf("%-16s %6.2f s  %s\n", test.name, seconds.count(), result.c_str());
    std::fflush(stdout);
  }
  if (run == 0) std::fprintf(stderr, "%s: no test is named so\n", words[0]);
  return failed ? 1 : run == 0 ? 2 : 0;
}
