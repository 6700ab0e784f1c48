// The part of the watchdog that is about ends: of other ranks, and what follows from them here.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>

#include "tensor/error.hpp"
#include "trainer/watch/exit_file.hpp"
#include "trainer/watch/peer_view.hpp"
#include "trainer/watch/watchdog.hpp"

namespace switchyard {

namespace {

// All in seconds.
constexpr double launcher_head_start = 1.0;  // to say itself that a process died
constexpr double failure_head_start = 2.0;   // for a suspicion to arise, after a failed exchange
constexpr double alarm = 10;                 // that a hint of the launcher counts
// Many copies missed when all are alarmed: a host or its processes are gone.
constexpr double silence = 2;
constexpr double silence_in_save = 3;       // when others' disks may be busier than this rank's
constexpr double silence_on_busy_disk = 8;  // when this rank's own copies are held up, too
constexpr double memory_of_busy_disk = 10;
// Fewer, but more than lie between two copies of a rank that is not alarmed: enough for a note in
// exit.json before the launcher kills.
constexpr double short_silence = 1.3;
constexpr double hint_before_term = 0.5;  // SIGCONT before SIGTERM, by mpirun
constexpr double hint_after_crash = 1.0;  // by then a launcher has told of another rank's death
constexpr double longest_doubt = 3.0;     // about the cause of a crash
constexpr double patience_for_report = 3.0;
constexpr double patience_for_abort = 5.0;

}  // namespace

bool Watchdog::claim_failure(int exit_code) {
  // An exchange fails, too, when the rank at its other end has died: that is the cause to tell.
  if (exit_code == static_cast<int>(ExitCode::io)) {
    may_follow_from_death_ = true;
    sleep_for(failure_head_start);
    if (has_suspicion_) {
      sleep_for(patience_for_abort);  // the launcher ends this rank
      return false;
    }
  }
  has_claim_ = true;
  if (files_.claim({Claim::Kind::failed, exit_code})) {
    log_.set_leave(Leave::failed);
    files_.write(log_.read());
    return true;
  }
  has_claim_ = false;
  // The first one is about to end all; its report stands alone if this rank holds its own back.
  sleep_for(patience_for_abort);
  return false;
}

bool Watchdog::asked_to_end() const {
  return stop_ != nullptr && stop_->number() == SIGTERM;
}

bool Watchdog::is_hinted() const {
  return asked_to_end() || (stop_ != nullptr && stop_->was_continued(alarm));
}

bool Watchdog::is_alarmed() const {
  return crash_.has_come() || is_hinted();
}

void Watchdog::follow_claim() {
  const double limit = limit_of(state_.section);
  const double worried = limit > 0 ? std::min(limit / 2, 5.0) : 5.0;
  // What has been seen counts although the job may move again: the launcher wakes stopped ranks.
  const bool was_seen = claim_seen_ != Clock::time_point{};
  const bool is_over = asked_to_end() || crash_.has_come();
  if (!was_seen && !is_over && seconds_still() < worried) return;
  const std::optional<Claim> claim = files_.claimed();
  if (!claim) return;
  if (!was_seen) claim_seen_ = Clock::now();
  const double seen = seconds_since(claim_seen_);
  if (claim->kind == Claim::Kind::failed) {
    // The rank that failed prints its message before it has the others ended.
    if (asked_to_end() || seen >= patience_for_abort) end_with(claim->code);
    return;
  }
  if (claim->kind == Claim::Kind::hang && !crash_.has_come()) leave_stack();
  if (files_.has_report() || seen >= patience_for_report) end_with(claim->code);
}

void Watchdog::look_for_lost() {
  if (asked_to_end()) {
    const std::vector<int> lost = peers_->lost_here();
    if (!lost.empty()) return report_lost(lost);
    // The others only if the hosts of the first ranks are gone.
    if (rank_ < num_observers || seconds_since(asked_at_) >= alarm) look_for_silent();
    return;
  }
  if (is_hinted()) {
    const std::vector<int> lost = peers_->lost_here();
    if (!lost.empty()) return report_lost(lost);
    if (rank_ < num_observers) look_for_silent();
  } else {
    drop_suspicion();
  }
  if (!peers_->next_is_lost()) {
    asked_at_ = Clock::now();
    return;
  }
  if (seconds_since(asked_at_) >= launcher_head_start) report_lost(peers_->lost_here());
}

// A save may hold up copies. Those of this rank go to the same file system and tell how busy it is.
double Watchdog::needed_silence() const {
  if (state_.section != RunSection::checkpoint) return silence;
  const bool is_busy = seconds_since(slow_copy_at_) < memory_of_busy_disk;
  return is_busy ? silence_on_busy_disk : silence_in_save;
}

// A rank of another host that was killed: the launcher is about to ask this one to end, and soon
// kills it.
void Watchdog::look_for_silent() {
  peers_->observe();
  const bool is_held_up = state_.is_waiting || may_follow_from_death_;
  if (!is_held_up || seconds_since(alarmed_at_) < short_silence) return;
  const double limit = needed_silence();
  if (seconds_since(asked_at_) >= limit && seconds_still() >= limit / 2) {
    const std::vector<int> lost = peers_->silent_elsewhere(limit);
    if (!lost.empty()) return report_lost(lost);
  }
  const std::vector<int> silent = peers_->silent_elsewhere(short_silence);
  if (silent.empty() || rank_ >= num_observers) return;
  if (!has_suspicion_) suspect(silent);
  // A hint long before SIGTERM: this is mpirun, which kills next and lets nobody save.
  const bool is_doomed =
      asked_to_end() && asked_at_ - alarmed_at_ >= std::chrono::duration<double>(hint_before_term);
  if (is_doomed && is_first_to_suspect_) report_lost(silent);
}

// A note for the case that this rank is killed before it can say more.
void Watchdog::suspect(const std::vector<int>& silent) {
  has_suspicion_ = true;
  // The first to see silence is right: the launcher then ends one host after the other.
  is_first_to_suspect_ = files_.suspect();
  if (!is_first_to_suspect_) return;
  const HangReport report = explain_loss(peers_->views(state_, short_silence), silent);
  write_exit_file_at_once(folder_, ExitCode::lost_rank, report.headline, state_.place.step);
}

// The run goes on after all; a busy disk silenced a rank.
void Watchdog::drop_suspicion() {
  if (!has_suspicion_.exchange(false) || !is_first_to_suspect_) return;
  remove_exit_file(folder_);
  files_.drop_suspicion();
}

// The thread that trains is held by the handler of a crash: of its own making, or of MPI's, which
// does not bear the death of a rank that it exchanges with.
void Watchdog::follow_crash() {
  peers_->observe();
  if (crash_seen_ == Clock::time_point{}) crash_seen_ = Clock::now();
  const double seen = seconds_since(crash_seen_);
  const std::vector<int> lost = peers_->lost_here();
  if (!lost.empty()) return report_lost(lost);
  const std::vector<int> silent = peers_->silent_elsewhere(is_hinted() ? short_silence : silence);
  if (!silent.empty() && seen >= short_silence) return report_lost(silent);
  // No rank elsewhere that has not been seen to beat since.
  const bool is_alone = !is_hinted() && peers_->silent_elsewhere(seen).empty();
  const bool is_certain = is_alone && (seen >= hint_after_crash || topology_.num_ranks() == 1);
  if (is_certain || seen >= longest_doubt) report_crash();
}

void Watchdog::report_crash() {
  const int code = static_cast<int>(ExitCode::lost_rank);
  // As a failure of this rank: the others leave the first word to its process's end.
  if (!files_.claim({Claim::Kind::failed, code})) return;
  has_claim_ = true;
  log_.set_leave(Leave::failed);
  write_copy();
  const std::string headline =
      fmt::format("rank {} ({}) crashed (process {}) {}: {}", rank_,
                  topology_.name_of(topology_.host_of(rank_)), ::getpid(),
                  describe(state_.place, state_.section), crash_.describe());
  const std::string stack = crash_.stack();
  announce(headline + (stack.empty() ? "\n" : fmt::format("\nstack of rank {}:\n", rank_)) + stack,
           code, headline);
  crash_.release();
}

void Watchdog::report_lost(const std::vector<int>& lost) {
  const int code = static_cast<int>(ExitCode::lost_rank);
  if (!files_.claim({Claim::Kind::lost, code})) return;
  has_claim_ = true;
  peers_->observe();
  const HangReport report = explain_loss(peers_->views(state_, silence), lost);
  announce(report.text, code, report.headline);
  end_with(code);
}

}  // namespace switchyard
