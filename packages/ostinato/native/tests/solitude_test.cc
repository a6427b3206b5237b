// When a caller plays alone: on times that the test makes up.
#include "play/solitude.h"

#include "tests.h"

namespace ostinato {
namespace {

constexpr int64_t kPlay = 1'000'000, kLost = 2 * kLostNs;

void check_a_lost_core_ends_the_team_for_a_while() {
  Solitude solitude;
  CHECK(!solitude.lasts(0), "before the first play");
  solitude.after(0, kPlay, kLostNs);
  CHECK(!solitude.lasts(kPlay), "a short wait, as for a thread that slept");
  solitude.after(0, kPlay, kLost);
  CHECK(solitude.lasts(kPlay) && solitude.lasts(kPlay + kLeastAloneNs - 1), "");
  CHECK(!solitude.lasts(kPlay + kLeastAloneNs), "");
}

void check_a_long_play_may_lose_more() {
  Solitude solitude;
  solitude.after(0, 100 * kPlay, kLost);
  CHECK(!solitude.lasts(100 * kPlay), "less than a tenth of the play");
}

void check_it_doubles_up_to_a_bound_and_ends_when_the_machine_is_free() {
  Solitude solitude;
  int64_t now = 0;
  for (int64_t length = kLeastAloneNs; length < 4 * kMostAloneNs; length *= 2) {
    solitude.after(now, now + kPlay, kLost);
    now += kPlay + std::min(length, kMostAloneNs);
    CHECK(solitude.lasts(now - 1) && !solitude.lasts(now), std::to_string(length));
  }
  for (int64_t length = kMostAloneNs; length >= kLeastAloneNs; length /= 2) {
    now += length + 1;
    solitude.after(now - kPlay, now, 0);
    CHECK(!solitude.lasts(now), "a play that lost nothing makes nobody wait");
  }
  solitude.after(now, now + kPlay, kLost);
  CHECK(!solitude.lasts(now + kPlay + kLeastAloneNs), "what was long ago is forgotten");
}

}  // namespace

void test_solitude() {
  check_a_lost_core_ends_the_team_for_a_while();
  check_a_long_play_may_lose_more();
  check_it_doubles_up_to_a_bound_and_ends_when_the_machine_is_free();
}

}  // namespace ostinato
