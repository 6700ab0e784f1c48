// What the watchdog of one rank sees of the other ranks, and since when it stands still. Clocks of
// different hosts are never compared: a rank stands still while this rank, by its own clock, sees
// its figures unchanged.
#pragma once

#include <chrono>
#include <vector>

#include "parallel/group/topology.hpp"
#include "trainer/watch/hang_report.hpp"
#include "trainer/watch/side_files.hpp"

namespace switchyard {

class PeerView {
 public:
  // own: this rank's state.
  PeerView(const SideFiles& files, const Topology& topology, const LogState& own);

  // Looks at all ranks.
  void observe();
  // As of the last observe(). The least time that any other rank has been seen without progress.
  double seconds_still() const;
  // A rank is silent when its heart has not been seen to beat for that long.
  std::vector<RankView> views(const LogState& own, double silent_seconds) const;

  // The processes of this host that ended without taking leave: of the next rank only, or of all.
  bool next_is_lost();
  std::vector<int> lost_here();
  // Ranks of other hosts whose hearts do not beat; after observe().
  std::vector<int> silent_elsewhere(double seconds) const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Peer {
    std::optional<LogState> state;
    Clock::time_point moved;   // last progress seen
    Clock::time_point beaten;  // last heartbeat seen
    bool is_lost = false;
  };

  Peer& peer(int rank) { return peers_[static_cast<std::size_t>(rank)]; }
  bool is_lost(int rank);
  bool is_visible(const Peer& peer) const;  // its process, from here

  const SideFiles& files_;
  const Topology& topology_;
  int rank_;
  std::uint64_t process_space_;
  std::vector<Peer> peers_;
};

}  // namespace switchyard
