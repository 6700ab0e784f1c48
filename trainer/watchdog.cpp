#include "trainer/watchdog.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>

#include "tensor/error.hpp"
#include "trainer/peer_view.hpp"
#include "trainer/run_folder.hpp"

namespace switchyard {

namespace {

// The first ranks look for the reason of a hang, so that a thousand do not read a thousand files
// each; the others only if these do not.
constexpr int num_observers = 8;
constexpr double share_watched = 0.4;        // of the limit that all others must be seen still
constexpr double longest_tick = 0.5;         // seconds
constexpr double longest_nap = 0.1;          // before a look at whether the launcher asks to end
constexpr double longest_copy = 1.0;         // between copies of the log in RUN/watch
constexpr double launcher_head_start = 1.0;  // to say itself that a process died
constexpr double alarm = 10;                 // seconds that a hint of the launcher counts
constexpr double silence =
    2;  // many copies missed when all are alarmed: a host or its processes are gone
constexpr double silence_in_save = 8;  // when a busy disk may hold up copies, too
// Fewer, which a slow disk may explain: enough for a note in exit.json before the launcher kills.
constexpr double short_silence = 1.0;
constexpr double alarmed_copy = 0.25;     // between copies when a rank may have died
constexpr double hint_before_term = 0.5;  // SIGCONT before SIGTERM, by mpirun
constexpr double patience_for_report = 3.0;
constexpr double patience_for_abort = 5.0;
constexpr std::size_t most_stacks = 4;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

std::chrono::duration<double> seconds_of(double count) {
  return std::chrono::duration<double>(count);
}

void sleep_for(double seconds) {
  std::this_thread::sleep_for(seconds_of(seconds));
}

double shortest_of(const WatchdogConfig& config) {
  double shortest = 0;
  for (const double limit : {config.setup, config.step, config.checkpoint})
    if (limit > 0 && (shortest == 0 || limit < shortest)) shortest = limit;
  return shortest;
}

std::string prefixed(const std::string& text, const std::string& prefix) {
  std::string lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines += prefix + text.substr(begin, end - begin) + "\n";
    begin = end + 1;
  }
  return lines;
}

std::string time_text() {
  const auto now = std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now());
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}", fmt::localtime(now));
}

// One call of the system each: the stuck thread may hold the locks of the library's streams.
void write_at_once(int file, const std::string& text) {
  [[maybe_unused]] const ssize_t written = ::write(file, text.data(), text.size());
}

// The signals of the process go to its other threads.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~BlockedSignals() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  BlockedSignals(const BlockedSignals&) = delete;
  BlockedSignals& operator=(const BlockedSignals&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

Watchdog::Watchdog(CollectiveLog& log, const Topology& topology, const WatchdogConfig& config,
                   std::string run_folder, const StopSignal* stop)
    : log_(log),
      topology_(topology),
      config_(config),
      folder_(std::move(run_folder)),
      stop_(stop),
      files_(folder_, log.read().rank),
      rank_(log.read().rank),
      shortest_(shortest_of(config)) {
  peers_ = std::make_unique<PeerView>(files_, topology_, log_.read());
  state_ = log_.read();
  files_.write(state_);
  const BlockedSignals blocked;
  thread_ = std::thread([this] { run(); });
}

Watchdog::~Watchdog() {
  if (!has_claim_) log_.set_leave(Leave::done);
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  wake_.notify_one();
  thread_.join();
  try {
    files_.write(log_.read());
  } catch (const Error&) {
    // The peers then see a process that ended without a word; the launcher knows better.
  }
}

bool Watchdog::claim_failure(int exit_code) {
  // An exchange fails, too, when the rank at its other end has died: that is the cause to tell.
  if (exit_code == static_cast<int>(ExitCode::io)) {
    may_follow_from_death_ = true;
    sleep_for(launcher_head_start + longest_tick);
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

void Watchdog::run() {
  const double period =
      shortest_ > 0 ? std::clamp(shortest_ / 80, 0.02, longest_tick) : longest_tick;
  const double nap = std::min(period, longest_nap);
  Clock::time_point ticked = Clock::now();
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, seconds_of(nap), [this] { return ending_; })) {
    // A rank that is asked to end has a second or so before the launcher kills it.
    if (!is_alarmed() && seconds_since(ticked) + nap / 2 < period) continue;
    ticked = Clock::now();
    try {
      tick();
    } catch (const std::exception& error) {
      // A full disk, say: the job is not the worse for it, only less well watched.
      write_at_once(STDERR_FILENO,
                    fmt::format("switchyard: the watchdog of rank {}: {}\n", rank_, error.what()));
      wake_.wait_for(lock, std::chrono::seconds(60), [this] { return ending_; });
    }
  }
}

void Watchdog::tick() {
  log_.beat();
  state_ = log_.read();
  if (state_.progress() != progress_) {
    progress_ = state_.progress();
    moved_ = Clock::now();
  }
  const double usual =
      shortest_ > 0 ? std::clamp(shortest_ / 20, 0.05, longest_copy) : longest_copy;
  const double period = is_alarmed() ? std::min(usual, alarmed_copy) : usual;
  if (seconds_since(written_) >= period) write_copy();
  if (!is_alarmed()) alarmed_at_ = Clock::now();
  if (asked_to_end() && !was_asked_) {
    was_asked_ = true;
    asked_at_ = Clock::now();
  }
  if (has_claim_) return;
  follow_claim();
  look_for_lost();
  look_for_hang();
}

void Watchdog::write_copy() {
  written_ = Clock::now();
  try {
    files_.write(state_);
  } catch (const IoError& error) {
    // Ranks of this host read the memory itself; the job goes on.
    if (!has_written_badly_)
      write_at_once(STDERR_FILENO,
                    fmt::format("switchyard: watchdog of rank {}: {}\n", rank_, error.what()));
    has_written_badly_ = true;
  }
}

double Watchdog::limit_of(RunSection section) const {
  switch (section) {
    case RunSection::setup:
      return config_.setup;
    case RunSection::step:
    case RunSection::evaluation:
      return config_.step;
    case RunSection::checkpoint:
      return config_.checkpoint;
  }
  return 0;
}

double Watchdog::seconds_still() const {
  return seconds_since(moved_);
}

bool Watchdog::asked_to_end() const {
  return stop_ != nullptr && stop_->number() == SIGTERM;
}

bool Watchdog::is_alarmed() const {
  return asked_to_end() || (stop_ != nullptr && stop_->was_continued(alarm));
}

void Watchdog::follow_claim() {
  const double limit = limit_of(state_.section);
  const double worried = limit > 0 ? std::min(limit / 2, 5.0) : 5.0;
  // What has been seen counts although the job may move again: the launcher wakes stopped ranks.
  const bool was_seen = claim_seen_ != Clock::time_point{};
  if (!was_seen && !asked_to_end() && seconds_still() < worried) return;
  const std::optional<Claim> claim = files_.claimed();
  if (!claim) return;
  if (!was_seen) claim_seen_ = Clock::now();
  const double seen = seconds_since(claim_seen_);
  if (claim->kind == Claim::Kind::failed) {
    // The rank that failed prints its message before it has the others ended.
    if (asked_to_end() || seen >= patience_for_abort) end_with(claim->code);
    return;
  }
  if (claim->kind == Claim::Kind::hang) leave_stack();
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
  if (is_alarmed()) {
    const std::vector<int> lost = peers_->lost_here();
    if (!lost.empty()) return report_lost(lost);
    if (rank_ < num_observers) look_for_silent();
  }
  if (!peers_->next_is_lost()) {
    asked_at_ = Clock::now();
    return;
  }
  if (seconds_since(asked_at_) >= launcher_head_start) report_lost(peers_->lost_here());
}

// A rank of another host that was killed: the launcher is about to ask this one to end, and soon
// kills it.
void Watchdog::look_for_silent() {
  peers_->observe();
  const bool is_held_up = state_.is_waiting || may_follow_from_death_;
  if (!is_held_up || seconds_since(alarmed_at_) < short_silence) return;
  const double limit = state_.section == RunSection::checkpoint ? silence_in_save : silence;
  if (seconds_since(asked_at_) >= limit && seconds_still() >= limit / 2) {
    const std::vector<int> lost = peers_->silent_elsewhere(limit);
    if (!lost.empty()) return report_lost(lost);
  }
  const std::vector<int> silent = peers_->silent_elsewhere(short_silence);
  if (silent.empty() || rank_ >= num_observers) return;
  if (!has_suspicion_) suspect(silent);
  // A hint long before SIGTERM: this is mpirun, which kills next and lets nobody save.
  const bool is_doomed = asked_to_end() && asked_at_ - alarmed_at_ >= seconds_of(hint_before_term);
  if (is_doomed && is_first_to_suspect_) report_lost(silent);
}

// A note for the case that this rank is killed before it can say more. If the run ends well after
// all (a busy disk silenced a rank), its own last word replaces it.
void Watchdog::suspect(const std::vector<int>& silent) {
  has_suspicion_ = true;
  // The first to see silence is right: the launcher then ends one host after the other.
  is_first_to_suspect_ = ::access((folder_ + "/exit.json").c_str(), F_OK) != 0;
  if (!is_first_to_suspect_) return;
  const HangReport report = explain_loss(peers_->views(state_, short_silence), silent);
  write_exit_file_at_once(folder_, ExitCode::lost_rank, report.headline, state_.place.step);
}

void Watchdog::look_for_hang() {
  const double limit = limit_of(state_.section);
  const double still = seconds_still();
  if (limit <= 0 || still < (rank_ < num_observers ? limit / 2 : limit)) return;
  peers_->observe();
  if (still >= limit && peers_->seconds_still() >= share_watched * limit) report_hang(still);
}

void Watchdog::report_hang(double seconds) {
  leave_stack();
  const int code = static_cast<int>(ExitCode::hang);
  if (!files_.claim({Claim::Kind::hang, code})) return;
  has_claim_ = true;
  // Time for the others to see the claim and leave their stacks.
  sleep_for(std::clamp(seconds / 50, 0.04, 3 * longest_tick));
  peers_->observe();
  peers_->lost_here();
  const HangReport report =
      explain_hang(peers_->views(state_, share_watched * limit_of(state_.section)),
                   system_nanoseconds(), seconds);
  announce(report.text + stacks_of(report.explained_by), code, report.headline);
  end_with(code);
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

void Watchdog::announce(const std::string& text, int exit_code, const std::string& headline) {
  write_at_once(STDERR_FILENO, prefixed(text, "switchyard: "));
  try {
    const std::string path = fmt::format("{}/logs/rank-{}.log", folder_, rank_);
    std::ofstream log(path, std::ios::app);
    log << prefixed(text, time_text() + " error ") << std::flush;
    write_exit_file_at_once(folder_, static_cast<ExitCode>(exit_code), headline, state_.place.step);
    files_.write_report(text);
  } catch (const std::exception& error) {
    write_at_once(STDERR_FILENO, fmt::format("switchyard: {}\n", error.what()));
  }
}

std::string Watchdog::stacks_of(std::vector<int> ranks) const {
  if (ranks.empty()) ranks.push_back(rank_);
  std::string text;
  for (std::size_t i = 0; i < std::min(ranks.size(), most_stacks); ++i) {
    const std::string stack = files_.read_stack(ranks[i]);
    if (!stack.empty()) text += fmt::format("stack of rank {}:\n{}", ranks[i], stack);
  }
  return text;
}

void Watchdog::leave_stack() {
  if (has_stack_) return;
  has_stack_ = true;
  files_.write_stack(probe_.take(std::chrono::milliseconds(200)));
}

void Watchdog::end_with(int exit_code) {
  ::_exit(exit_code);
}

}  // namespace switchyard
