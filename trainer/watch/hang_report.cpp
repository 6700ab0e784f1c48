#include "trainer/watch/hang_report.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

namespace switchyard {

namespace {

constexpr std::size_t most_lines = 16;  // about ranks that wait, or their counts

// One collective of one group, on whatever rank.
struct Key {
  std::string group;
  int leader = 0;
  std::uint64_t sequence = 0;
  auto operator<=>(const Key&) const = default;  // NOLINT(modernize-use-nullptr): not ours
};

struct Member {
  int rank = 0;
  const LogState* state = nullptr;
  std::uint8_t group = 0;  // in its own table
};

struct Waited {
  CollectiveRecord record;          // of the first rank that waits
  const LogState* state = nullptr;  // that rank's
  std::vector<int> waiting;
  double seconds = 0;  // the longest wait
};

std::string place_text(std::int64_t step, std::int32_t layer, Part part, bool backward,
                       RunSection section) {
  std::string text;
  if (part != Part::other) text += fmt::format(" {}", name_of(part));
  if (layer >= 0) text += fmt::format(", layer {}{}", layer, backward ? " backward" : "");
  switch (section) {
    case RunSection::setup:
      return text + " in setup";
    case RunSection::step:
      return text + fmt::format(", step {}", step);
    case RunSection::evaluation:
      return text + fmt::format(", evaluation after step {}", step);
    case RunSection::checkpoint:
      return text + fmt::format(", checkpoint after step {}", step);
  }
  return text;
}

class Analysis {
 public:
  Analysis(std::span<const RankView> ranks, std::int64_t now, double seconds)
      : ranks_(ranks), now_(now), seconds_(seconds) {
    for (int rank = 0; rank < num_ranks(); ++rank) note_waiting(rank);
  }

  HangReport report() {
    HangReport report;
    for (int rank = 0; rank < num_ranks(); ++rank)
      if (is_culprit(rank)) report.culprits.push_back(rank);
    std::string lines;
    for (const int rank : report.culprits) lines += blame(rank);
    if (report.culprits.empty()) lines = explain_all_waiting();
    report.explained_by = report.culprits;
    if (report.culprits.empty()) report.explained_by.assign(at_odds_.begin(), at_odds_.end());
    report.headline = lines.substr(0, lines.find('\n'));
    report.text = fmt::format("hang: no progress for {:.1f} s\n", seconds_) + lines;
    report.text += describe_waiting();
    return report;
  }

 private:
  int num_ranks() const { return static_cast<int>(ranks_.size()); }
  const RankView& view(int rank) const { return ranks_[static_cast<std::size_t>(rank)]; }

  std::string name(int rank) const { return fmt::format("rank {} ({})", rank, view(rank).host); }

  Key key_of(const LogState& state, const CollectiveRecord& record) const {
    const GroupState& group = state.groups[record.group];
    return {group.name.data(), group.leader, record.sequence};
  }

  void note_waiting(int rank) {
    const RankView& rank_view = view(rank);
    if (!rank_view.state || !rank_view.state->is_waiting) return;
    if (rank_view.health != RankView::Health::alive) return;
    const LogState& state = *rank_view.state;
    Waited& waited = waited_[key_of(state, state.waiting)];
    if (waited.waiting.empty()) {
      waited.record = state.waiting;
      waited.state = &state;
    }
    waited.waiting.push_back(rank);
    waited.seconds =
        std::max(waited.seconds, static_cast<double>(now_ - state.waiting.waited) * 1e-9);
  }

  bool is_culprit(int rank) const {
    const RankView& rank_view = view(rank);
    if (rank_view.health != RankView::Health::alive || !rank_view.state) return true;
    return !rank_view.state->is_waiting && rank_view.state->leave == Leave::running;
  }

  // The members of a group as far as their ranks have said that they belong to it.
  std::vector<Member> members(const Key& key) const {
    std::vector<Member> found;
    for (int rank = 0; rank < num_ranks(); ++rank) {
      if (!view(rank).state) continue;
      const LogState& state = *view(rank).state;
      for (std::uint32_t i = 0; i < state.num_groups; ++i)
        if (key.group == state.groups[i].name.data() && key.leader == state.groups[i].leader)
          found.push_back({rank, &state, static_cast<std::uint8_t>(i)});
    }
    return found;
  }

  // The collective by which `rank` holds up the most others, if they wait for it directly.
  const Waited* held_up_by(int rank, bool& has_entered) const {
    const Waited* most = nullptr;
    for (const auto& [key, waited] : waited_) {
      const std::vector<Member> group = members(key);
      const auto member =
          std::find_if(group.begin(), group.end(), [&](const Member& m) { return m.rank == rank; });
      const bool unknown = !view(rank).state && key.group == "world";
      if (member == group.end() && !unknown) continue;
      const bool entered =
          !unknown && member->state->groups[member->group].num_entered >= key.sequence;
      const bool better = most == nullptr || (has_entered && !entered) ||
                          (has_entered == entered && waited.waiting.size() > most->waiting.size());
      if (!better) continue;
      most = &waited;
      has_entered = entered;
    }
    return most;
  }

  std::string blame(int rank) const {
    bool has_entered = false;
    const Waited* waited = held_up_by(rank, has_entered);
    std::string text = name(rank);
    if (waited != nullptr) {
      text += fmt::format(" {} {}{}; {} wait{} since {:.1f} s",
                          has_entered ? "has entered but does not complete" : "has not entered",
                          switchyard::describe(waited->record, *waited->state), group_text(*waited),
                          join_ranks(waited->waiting), waited->waiting.size() == 1 ? "s" : "",
                          waited->seconds);
    } else {
      text += " stands still";
    }
    return text + "\n  " + condition(rank) + "\n";
  }

  static std::string group_text(const LogState& state, const CollectiveRecord& record) {
    const GroupState& group = state.groups[record.group];
    return fmt::format(" (group {} of {})", group.name.data(), group.size);
  }
  static std::string group_text(const Waited& waited) {
    return group_text(*waited.state, waited.record);
  }

  std::string condition(int rank) const {
    const RankView& rank_view = view(rank);
    if (!rank_view.state) return "it has not opened the run's folder yet";
    const LogState& state = *rank_view.state;
    const std::string at = switchyard::describe(state.place, state.section);
    switch (rank_view.health) {
      case RankView::Health::stopped:
        return fmt::format("its process {} is stopped, by a signal or a debugger; it was {}",
                           state.process, at);
      case RankView::Health::silent:
        return fmt::format(
            "its process {} gives no sign of life, stopped or with its host gone; it "
            "was {}",
            state.process, at);
      case RankView::Health::gone:
        return fmt::format("its process {} is gone; it was {}", state.process, at);
      case RankView::Health::alive:
        break;
    }
    return fmt::format("its process {} is alive, outside of any collective, {}", state.process, at);
  }

  std::string explain_all_waiting() {
    std::string text;
    for (const auto& [key, waited] : waited_) {
      const std::vector<Member> group = members(key);
      text += missing_members(key, waited, group);
      text += differences(key, waited, group);
    }
    if (text.empty())
      text = fmt::format(
          "all ranks have entered {} and none completes it: look at the network between their "
          "hosts\n",
          waited_.empty() ? "their collectives"
                          : switchyard::describe(waited_.begin()->second.record,
                                                 *waited_.begin()->second.state));
    return text;
  }

  // Ranks that wait in another collective instead.
  std::string missing_members(const Key& key, const Waited& waited,
                              const std::vector<Member>& group) {
    std::string text;
    for (const Member& member : group) {
      const LogState& state = *member.state;
      if (state.groups[member.group].num_entered >= key.sequence) continue;
      set_at_odds(member.rank, waited);
      const std::string instead =
          state.is_waiting
              ? fmt::format("waits in {}{}", switchyard::describe(state.waiting, state),
                            group_text(state, state.waiting))
              : "has finished";
      text += fmt::format("{} has not entered {}{} but {}; {} wait{} since {:.1f} s\n",
                          name(member.rank), switchyard::describe(waited.record, *waited.state),
                          group_text(waited), instead, join_ranks(waited.waiting),
                          waited.waiting.size() == 1 ? "s" : "", waited.seconds);
    }
    return text;
  }

  // Ranks that entered the same collective with another operation or with counts that do not fit.
  std::string differences(const Key& key, const Waited& waited, const std::vector<Member>& group) {
    std::string text;
    std::int64_t sent = 0;
    std::int64_t received = 0;
    std::size_t num_known = 0;
    for (const Member& member : group) {
      const CollectiveRecord* record = member.state->find(member.group, key.sequence);
      if (record == nullptr) continue;
      ++num_known;
      sent += record->bytes_sent;
      received += record->bytes_received;
      const bool same_operation = record->operation == waited.record.operation;
      const bool counts_matter = record->operation != Operation::all_to_all &&
                                 record->operation != Operation::send_receive;
      if (same_operation && (!counts_matter || record->bytes_sent == waited.record.bytes_sent))
        continue;
      set_at_odds(member.rank, waited);
      text += fmt::format(
          "{} differs: it entered {} of {} bytes where {} entered {} of {} bytes{}\n",
          name(member.rank), switchyard::describe(*record, *member.state), record->bytes_sent,
          name(waited.waiting.front()), switchyard::describe(waited.record, *waited.state),
          waited.record.bytes_sent, group_text(waited));
    }
    const bool all_known =
        num_known == static_cast<std::size_t>(waited.state->groups[waited.record.group].size);
    if (text.empty() && all_known && waited.record.operation == Operation::all_to_all &&
        sent != received) {
      text = fmt::format("the counts of {}{} differ: its ranks send {} bytes and expect {}\n",
                         switchyard::describe(waited.record, *waited.state), group_text(waited),
                         sent, received);
      text += counts_by_rank(key, waited, group);
    }
    return text;
  }

  // Totals of a rank do not tell with which other they do not fit: all are shown.
  std::string counts_by_rank(const Key& key, const Waited& waited,
                             const std::vector<Member>& group) {
    std::string text;
    for (std::size_t i = 0; i < std::min(group.size(), most_lines); ++i) {
      const Member& member = group[i];
      set_at_odds(member.rank, waited);
      const CollectiveRecord& record = *member.state->find(member.group, key.sequence);
      text += fmt::format("  {} sends {} bytes and expects {}; it {}\n", name(member.rank),
                          record.bytes_sent, record.bytes_received,
                          record.left == 0 ? "waits" : "has left");
    }
    if (group.size() > most_lines) text += "  ...\n";
    return text;
  }

  void set_at_odds(int rank, const Waited& waited) {
    at_odds_.insert(rank);
    at_odds_.insert(waited.waiting.front());
  }

  std::string describe_waiting() const {
    std::string text;
    std::size_t lines = 0;
    for (const auto& [key, waited] : waited_) {
      if (++lines > most_lines) return text + "  ...\n";
      text += fmt::format("  {} wait{} in {}{}, number {} of the group, since {:.1f} s\n",
                          join_ranks(waited.waiting), waited.waiting.size() == 1 ? "s" : "",
                          switchyard::describe(waited.record, *waited.state), group_text(waited),
                          key.sequence, waited.seconds);
    }
    return text;
  }

  std::span<const RankView> ranks_;
  std::int64_t now_;
  double seconds_;
  std::map<Key, Waited> waited_;
  std::set<int> at_odds_;  // named as waiting for different things
};

}  // namespace

std::string describe(const CollectiveRecord& record, const LogState& state) {
  return std::string(name_of(record.operation)) +
         place_text(record.step, record.layer, record.part, record.backward, state.section);
}

std::string describe(const StepPlace& place, RunSection section) {
  const std::string text = place_text(place.step, place.layer, place.part, place.backward, section);
  const std::string words = text.substr(text.find_first_not_of(" ,"));
  return words.starts_with("in ") ? words : "at " + words;
}

std::string join_ranks(std::span<const int> ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  const bool as_ranges = ranks.size() > 8;
  for (std::size_t begin = 0; begin < ranks.size();) {
    std::size_t end = begin + 1;
    while (as_ranges && end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    if (begin > 0) text += ", ";
    text += fmt::format("{}", ranks[begin]);
    if (end - begin > 1) text += fmt::format("-{}", ranks[end - 1]);
    begin = end;
  }
  return text;
}

HangReport explain_hang(std::span<const RankView> ranks, std::int64_t now, double seconds) {
  return Analysis(ranks, now, seconds).report();
}

HangReport explain_loss(std::span<const RankView> ranks, std::span<const int> lost) {
  HangReport report;
  report.culprits.assign(lost.begin(), lost.end());
  for (const int rank : lost) {
    const RankView& view = ranks[static_cast<std::size_t>(rank)];
    const std::string at = view.state
                               ? fmt::format(" (process {}) {}", view.state->process,
                                             describe(view.state->place, view.state->section))
                               : "";
    report.text +=
        view.health == RankView::Health::gone
            ? fmt::format(
                  "rank {} ({}) died without a word{}: killed (kill -9, out of memory) or "
                  "crashed\n",
                  rank, view.host, at)
            : fmt::format(
                  "rank {} ({}) gives no sign of life any more{}: killed, or its host is "
                  "gone\n",
                  rank, view.host, at);
  }
  report.headline = report.text.substr(0, report.text.find('\n'));
  return report;
}

}  // namespace switchyard
