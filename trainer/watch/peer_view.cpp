#include "trainer/watch/peer_view.hpp"

#include <algorithm>

namespace switchyard {

namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace

PeerView::PeerView(const SideFiles& files, const Topology& topology, const LogState& own)
    : files_(files),
      topology_(topology),
      rank_(own.rank),
      process_space_(own.process_space),
      peers_(static_cast<std::size_t>(topology.num_ranks())) {
  for (Peer& each : peers_) each.moved = each.beaten = Clock::now();
}

void PeerView::observe() {
  for (int rank = 0; rank < topology_.num_ranks(); ++rank) {
    if (rank == rank_) continue;
    Peer& seen = peer(rank);
    const std::optional<LogState> now = files_.read(rank);
    if (!now) continue;
    const Clock::time_point time = Clock::now();
    if (!seen.state || now->progress() != seen.state->progress()) seen.moved = time;
    if (!seen.state || now->beats != seen.state->beats) seen.beaten = time;
    seen.state = now;
  }
}

double PeerView::seconds_still() const {
  double least = 1e9;
  for (int rank = 0; rank < topology_.num_ranks(); ++rank) {
    const Peer& seen = peers_[static_cast<std::size_t>(rank)];
    const bool running = !seen.state || seen.state->leave == Leave::running;
    if (rank != rank_ && running) least = std::min(least, seconds_since(seen.moved));
  }
  return least;
}

std::vector<RankView> PeerView::views(const LogState& own, double silent_seconds) const {
  std::vector<RankView> views(peers_.size());
  for (int rank = 0; rank < topology_.num_ranks(); ++rank) {
    RankView& view = views[static_cast<std::size_t>(rank)];
    const Peer& seen = peers_[static_cast<std::size_t>(rank)];
    view.host = topology_.name_of(topology_.host_of(rank));
    view.state = rank == rank_ ? std::optional(own) : seen.state;
    if (rank == rank_ || !seen.state || seen.state->leave != Leave::running) continue;
    if (seconds_since(seen.beaten) >= silent_seconds) view.health = RankView::Health::silent;
    if (!is_visible(seen)) continue;
    const ProcessState process = process_state(*seen.state);
    if (process == ProcessState::gone) view.health = RankView::Health::gone;
    if (process == ProcessState::stopped) view.health = RankView::Health::stopped;
  }
  return views;
}

// A process of the same host may live in another container, where its number means nothing here.
bool PeerView::is_visible(const Peer& peer) const {
  return peer.state && peer.state->process_space == process_space_;
}

bool PeerView::is_lost(int rank) {
  Peer& seen = peer(rank);
  if (seen.is_lost) return true;
  if (!seen.state) seen.state = files_.read(rank);
  if (!is_visible(seen) || process_state(*seen.state) != ProcessState::gone) return false;
  seen.state = files_.read(rank);  // the last word of it, which may have been its leave
  seen.is_lost = seen.state && seen.state->leave == Leave::running;
  return seen.is_lost;
}

bool PeerView::next_is_lost() {
  const std::vector<int>& local = topology_.local_ranks();
  if (local.size() < 2) return false;
  const std::size_t next = static_cast<std::size_t>(topology_.local_rank() + 1) % local.size();
  return is_lost(local[next]);
}

std::vector<int> PeerView::lost_here() {
  std::vector<int> lost;
  for (const int rank : topology_.local_ranks())
    if (rank != rank_ && is_lost(rank)) lost.push_back(rank);
  return lost;
}

std::vector<int> PeerView::silent_elsewhere(double seconds) const {
  std::vector<int> silent;
  for (int rank = 0; rank < topology_.num_ranks(); ++rank) {
    const Peer& seen = peers_[static_cast<std::size_t>(rank)];
    if (topology_.share_host(rank, rank_) || !seen.state) continue;
    if (seen.state->leave == Leave::running && seconds_since(seen.beaten) >= seconds)
      silent.push_back(rank);
  }
  return silent;
}

}  // namespace switchyard
