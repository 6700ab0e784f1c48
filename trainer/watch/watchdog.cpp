#include "trainer/watch/watchdog.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>

#include "tensor/error.hpp"
#include "trainer/watch/exit_file.hpp"
#include "trainer/watch/peer_view.hpp"

namespace switchyard {

namespace {

// The first ranks look for the reason of a hang, so that a thousand do not read a thousand files
// each; the others only if these do not.
constexpr double share_watched = 0.4;  // of the limit that all others must be seen still
constexpr double longest_tick = 0.5;   // seconds
constexpr double longest_nap = 0.1;    // before a look at whether the launcher asks to end
constexpr double longest_copy = 1.0;   // between copies of the log in RUN/watch
constexpr double alarmed_copy = 0.25;  // the same when a rank may have died
constexpr double slow_copy = 0.2;      // to write: the file system is busy
constexpr std::size_t most_stacks = 4;

std::chrono::duration<double> seconds_of(double count) {
  return std::chrono::duration<double>(count);
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
  if (has_claim_) return crash_.release();
  follow_claim();
  if (crash_.has_come()) return follow_crash();
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
  if (seconds_since(written_) >= slow_copy) slow_copy_at_ = Clock::now();
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

double Watchdog::seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void Watchdog::sleep_for(double seconds) {
  std::this_thread::sleep_for(seconds_of(seconds));
}

double Watchdog::seconds_still() const {
  return seconds_since(moved_);
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
