// A group that notes every exchange when it is started, and whose exchanges seem to take longer
// than they do: test() says no a drawn number of times first. Ranks draw differently, from fixed
// seeds, so that what a program does by timing shows as logs that differ between ranks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "parallel/group/group.hpp"

namespace switchyard::test {

// What one rank started, in order, over all groups.
struct StartLog {
  struct Start {
    std::vector<int> members;  // of the group, as ranks of the world
    std::string what;          // operation, axis and bytes of the operand
  };
  explicit StartLog(std::uint64_t seed) : random(seed) {}

  std::vector<Start> starts;
  std::mt19937_64 random;
  // Called when somebody begins to wait for an exchange: the `what` of its start.
  std::function<void(const std::string& what)> on_wait;
};

class RecordedGroup final : public Group {
 public:
  static constexpr int most_delays = 30;  // of one exchange, calls of test()

  // Of the world: borrows both. Subgroups own what they wrap.
  RecordedGroup(Group& sound, StartLog& log)
      : Group(sound.name(), sound.rank(), sound.size(), sound.topology()),
        sound_(&sound),
        log_(log) {
    for (int rank = 0; rank < size(); ++rank) members_.push_back(rank);
  }

  Event start_all_reduce(const TensorView& whole, ReduceOp op) override {
    note("all_reduce", whole.num_bytes());
    return delayed(sound_->start_all_reduce(whole, op));
  }
  Event start_reduce_scatter(const TensorView& whole, const TensorView& staging) override {
    note("reduce_scatter", whole.num_bytes());
    return delayed(sound_->start_reduce_scatter(whole, staging));
  }
  Event start_all_gather(const TensorView& whole) override {
    note("all_gather", whole.num_bytes());
    return delayed(sound_->start_all_gather(whole));
  }
  using Group::start_all_to_all_v;
  Event start_all_to_all_v(const TensorView& send, const RankRows& to, const TensorView& recv,
                           const RankRows& from) override {
    note("all_to_all", 0);  // each rank sends what it has
    return delayed(sound_->start_all_to_all_v(send, to, recv, from));
  }
  Event start_broadcast(const TensorView& whole, int root) override {
    note("broadcast", whole.num_bytes());
    return delayed(sound_->start_broadcast(whole, root));
  }
  Event start_send_receive(const TensorView& send, int to, const TensorView& recv,
                           int from) override {
    note("send_receive", 0);
    return delayed(sound_->start_send_receive(send, to, recv, from));
  }
  void barrier() override {
    note("barrier", 0);
    sound_->barrier();
  }
  void progress() override { sound_->progress(); }
  void all_gather_values(std::span<const std::int64_t> mine, std::span<std::int64_t> all) override {
    note("all_gather_values", std::ssize(mine));
    sound_->all_gather_values(mine, all);
  }
  void all_reduce_values(std::span<double> values, ReduceOp op) override {
    note("all_reduce_values", std::ssize(values));
    sound_->all_reduce_values(values, op);
  }
  void all_reduce_values(std::span<std::int64_t> values, ReduceOp op) override {
    note("all_reduce_values", std::ssize(values));
    sound_->all_reduce_values(values, op);
  }
  void broadcast_text(std::string& text, int root) override {
    note("broadcast_text", 0);
    sound_->broadcast_text(text, root);
  }
  std::unique_ptr<Group> subgroup(std::string name,
                                  const std::vector<std::vector<int>>& partition) override {
    std::vector<int> members;
    for (const int index : partition[static_cast<std::size_t>(place_in(partition).list)])
      members.push_back(members_[static_cast<std::size_t>(index)]);
    return std::make_unique<RecordedGroup>(sound_->subgroup(std::move(name), partition),
                                           std::move(members), log_);
  }

  RecordedGroup(std::unique_ptr<Group> sound, std::vector<int> members, StartLog& log)
      : Group(sound->name(), sound->rank(), sound->size(), sound->topology()),
        owned_(std::move(sound)),
        sound_(owned_.get()),
        members_(std::move(members)),
        log_(log) {}

 private:
  class Delayed final : public Event::Pending {
   public:
    Delayed(Event event, int num_delays, const StartLog& log)
        : event_(std::move(event)),
          num_delays_(num_delays),
          log_(log),
          what_(log.starts.back().what) {}
    bool test() override {
      if (num_delays_ == 0) return event_.test();
      --num_delays_;
      event_.test();
      return false;
    }
    void wait_host() override {
      if (log_.on_wait) log_.on_wait(what_);
      event_.wait_host();
    }

   private:
    Event event_;
    int num_delays_;
    const StartLog& log_;
    std::string what_;
  };

  void note(const char* operation, std::int64_t size) {
    log_.starts.push_back(
        {members_, std::string(operation) + " " + name() + " " + std::to_string(size)});
  }
  Event delayed(Event event) {
    const int num_delays = std::uniform_int_distribution<int>(0, most_delays)(log_.random);
    return Event(std::make_unique<Delayed>(std::move(event), num_delays, log_));
  }

  std::unique_ptr<Group> owned_;
  Group* sound_;
  std::vector<int> members_;
  StartLog& log_;
};

// Exchanges of groups that `rank` and `other` are both in, a line each, in the order of `log`.
inline std::string shared_starts(const StartLog& log, int rank, int other) {
  const auto holds = [](const std::vector<int>& members, int wanted) {
    return std::find(members.begin(), members.end(), wanted) != members.end();
  };
  std::string text;
  for (const StartLog::Start& start : log.starts)
    if (holds(start.members, rank) && holds(start.members, other)) text += start.what + "\n";
  return text;
}

// The first difference between this rank's log and another's, in the groups that they share; empty
// if there is none. Collective.
inline std::string difference_of_starts(const StartLog& log, Group& world) {
  std::string difference;
  for (int rank = 0; rank < world.size(); ++rank)
    for (int other = 0; other < world.size(); ++other) {
      std::string theirs = shared_starts(log, world.rank(), other);
      world.broadcast_text(theirs, rank);  // meant for `other`
      if (world.rank() != other || rank == other || !difference.empty()) continue;
      const std::string mine = shared_starts(log, other, rank);
      const auto [at, there] =
          std::mismatch(mine.begin(), mine.end(), theirs.begin(), theirs.end());
      if (at == mine.end() && there == theirs.end()) continue;
      const auto line_of = [](const std::string& text, std::size_t position) {
        const std::size_t begin = position == 0 ? 0 : text.rfind('\n', position - 1) + 1;
        return text.substr(begin, text.find('\n', position) - begin);
      };
      const auto position = static_cast<std::size_t>(at - mine.begin());
      difference = "rank " + std::to_string(other) + " starts " + line_of(mine, position) +
                   " where rank " + std::to_string(rank) + " starts " + line_of(theirs, position);
    }
  return difference;
}

}  // namespace switchyard::test
