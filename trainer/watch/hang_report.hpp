// Why a job stands still, in words: from what is known of every rank's last collectives. Pure
// functions over copies; the watchdog collects them and prints the text.
//
// A rank that waits inside a collective is held up by others. Whoever holds them up does not wait
// itself: its process is stopped or gone, or it does something else. If all wait, they wait in
// different collectives, or in one whose operation or counts differ, or the network does not
// deliver.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "parallel/group/collective_log.hpp"

namespace switchyard {

// A rank as its peers see it.
struct RankView {
  enum class Health : std::uint8_t {
    alive,
    stopped,  // by a signal or a debugger
    silent,   // no sign of life: stopped, or its host is gone
    gone,     // the process does not exist any more
  };
  std::optional<LogState> state = std::nullopt;  // none: it has left no word yet
  Health health = Health::alive;
  std::string host;
};

struct HangReport {
  std::string headline;       // one sentence: who is to blame, for exit.json
  std::string text;           // lines, each with its end, headline first
  std::vector<int> culprits;  // empty when no single rank is
  // Whose stacks tell more: the culprits, or the ranks that wait for different things.
  std::vector<int> explained_by;
};

// `now`: system_nanoseconds(); seconds: without progress.
HangReport explain_hang(std::span<const RankView> ranks, std::int64_t now, double seconds);

// Ranks whose processes ended without a word.
HangReport explain_loss(std::span<const RankView> ranks, std::span<const int> lost);

// "all_to_all dispatch, layer 5, step 120"
std::string describe(const CollectiveRecord& record, const LogState& state);
// "at experts, layer 4 backward, step 120", "in setup"
std::string describe(const StepPlace& place, RunSection section);
std::string join_ranks(std::span<const int> ranks);  // "ranks 0, 1, 2", "rank 4", "ranks 0-31, 40"

}  // namespace switchyard
