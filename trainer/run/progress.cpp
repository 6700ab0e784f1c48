#include "trainer/run/progress.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

#include "trainer/number_text.hpp"

namespace switchyard {
namespace {

std::string percent(double share) {
  return fmt::format("{:.0f}%", share * 100);
}

}  // namespace

std::string format_progress_line(const ProgressLine& line, std::size_t columns) {
  std::vector<std::string> parts = {
      fmt::format("step {}/{}", line.step, line.num_steps),
      fmt::format("loss {:.3f}", line.loss),
      fmt::format("{} tok/s", format_count(line.tokens_per_second)),
      line.peak_share ? fmt::format("{} of peak", percent(*line.peak_share)) : "",
      fmt::format("balance {:.2f}", line.balance) +
          (line.balance_layer ? fmt::format(" layer {}", *line.balance_layer) : ""),
      line.eta_seconds ? fmt::format("ETA {}", format_duration(*line.eta_seconds)) : ""};
  const auto joined = [&parts] {
    std::string text;
    for (const std::string& part : parts)
      if (!part.empty()) text += (text.empty() ? "" : "  ") + part;
    return text;
  };
  for (const std::size_t least_important : {4, 3, 2, 5, 1}) {
    if (joined().size() <= columns) break;
    parts[least_important].clear();
  }
  return joined().substr(0, columns);
}

void RateWindow::add(double num_tokens, double seconds) {
  samples_.push_back({num_tokens, seconds});
  // The first steps stay only until there are others.
  if (skip_ > 0 && samples_.size() > static_cast<std::size_t>(skip_)) {
    samples_.erase(samples_.begin(), samples_.begin() + skip_);
    skip_ = 0;
  }
  if (samples_.size() > window_) samples_.pop_front();
}

double RateWindow::tokens_per_second() const {
  Sample sum{0, 0};
  for (const Sample& sample : samples_) {
    sum.num_tokens += sample.num_tokens;
    sum.seconds += sample.seconds;
  }
  return sum.seconds > 0 ? sum.num_tokens / sum.seconds : 0;
}

double RateWindow::seconds_per_step() const {
  double seconds = 0;
  for (const Sample& sample : samples_) seconds += sample.seconds;
  return samples_.empty() ? 0 : seconds / static_cast<double>(samples_.size());
}

RunProgress::RunProgress(std::ostream& out, Columns columns, std::int64_t first_step,
                         std::int64_t num_steps, double every_seconds)
    : out_(out),
      columns_(std::move(columns)),
      first_step_(first_step),
      num_steps_(num_steps),
      every_seconds_(every_seconds) {}

void RunProgress::step(const Step& step) {
  rates_.add(step.num_tokens, step.seconds);
  since_line_ += step.seconds;
  ProgressLine line{.step = step.step,
                    .num_steps = num_steps_,
                    .loss = step.loss,
                    .tokens_per_second = rates_.tokens_per_second(),
                    .balance = step.balance,
                    .balance_layer = step.balance_layer};
  if (step.flops_per_token && step.peak_flops_per_second && *step.peak_flops_per_second > 0)
    line.peak_share = line.tokens_per_second * *step.flops_per_token / *step.peak_flops_per_second;
  line.eta_seconds = rates_.seconds_per_step() * static_cast<double>(num_steps_ - step.step);

  if (columns_) {
    const std::string text = format_progress_line(line, room());
    const std::size_t old = std::min(live_.size(), room());
    out_ << '\r' << text << std::string(old - std::min(old, text.size()), ' ') << std::flush;
    last_ = line;
    live_ = text;
    return;
  }
  const bool due =
      since_line_ >= every_seconds_ || step.step == first_step_ || step.step == num_steps_;
  if (!due) return;
  since_line_ = 0;
  out_ << format_progress_line(line) << '\n' << std::flush;
}

void RunProgress::note(const std::string& text) {
  if (!live_.empty()) {
    out_ << '\r' << std::string(std::min(live_.size(), room()), ' ') << '\r';
    live_ = format_progress_line(last_, room());
  }
  out_ << text << '\n' << live_ << std::flush;
}

void RunProgress::finish() {
  if (!live_.empty()) out_ << '\n' << std::flush;
  live_.clear();
}

namespace {

// mpirun gives its ranks a pseudo-terminal even when its own output goes to a file. What counts
// then is where mpirun, our parent, writes to; behind a remote daemon nobody can tell, so it is no
// terminal.
bool launcher_writes_to_terminal(int file_descriptor) {
  std::ifstream name_file(fmt::format("/proc/{}/comm", ::getppid()));
  std::string name;
  name_file >> name;
  if (name != "mpirun" && name != "orterun" && name != "mpiexec" && name != "prterun") return false;
  std::error_code error;
  const auto target = std::filesystem::read_symlink(
      fmt::format("/proc/{}/fd/{}", ::getppid(), file_descriptor), error);
  return !error &&
         (target.string().starts_with("/dev/pts/") || target.string().starts_with("/dev/tty"));
}

}  // namespace

int terminal_columns(int file_descriptor) {
  winsize size{};
  if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) {
    ::ioctl(file_descriptor, TIOCGWINSZ, &size);
  } else {
    const std::string path = fmt::format("/proc/{}/fd/{}", ::getppid(), file_descriptor);
    const int terminal = ::open(path.c_str(), O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
    if (terminal >= 0) {
      ::ioctl(terminal, TIOCGWINSZ, &size);
      ::close(terminal);
    }
  }
  constexpr int usual = 80;
  return size.ws_col > 0 ? size.ws_col : usual;
}

bool is_live_terminal(int file_descriptor) {
  const char* terminal = std::getenv("TERM");
  if (::isatty(file_descriptor) != 1 || terminal == nullptr || std::string_view(terminal) == "dumb")
    return false;
  return std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr ||
         launcher_writes_to_terminal(file_descriptor);
}

namespace {

std::string what_is_there(const RunSummary& summary) {
  std::string text;
  if (!summary.checkpoint.empty())
    text += fmt::format("  checkpoint      {}\n", summary.checkpoint);
  for (const std::string& command : summary.next)
    text += fmt::format("  next            {}\n", command);
  return text;
}

// A finished run that was started again, or one that was stopped at once: there are no figures.
std::string summary_without_steps(const RunSummary& summary) {
  const bool is_done = summary.last_step >= summary.num_steps;
  return fmt::format("{} at step {} of {}, without a step now{}\n", is_done ? "done" : "stopped",
                     summary.last_step, summary.num_steps,
                     is_done ? "; a larger train.num_steps goes on" : "") +
         what_is_there(summary);
}

}  // namespace

std::string format_summary(const RunSummary& summary) {
  if (summary.last_step == summary.first_step) return summary_without_steps(summary);
  std::string text = fmt::format(
      "{} after step {} of {} in {}\n", summary.last_step >= summary.num_steps ? "done" : "stopped",
      summary.last_step, summary.num_steps, format_duration(summary.seconds));
  if (summary.first_step > 0)
    text += fmt::format("  continued from  step {}\n", summary.first_step);
  text += fmt::format("  loss            {:.4f}\n", summary.loss);
  if (summary.validation_loss)
    text += fmt::format("  validation      {:.4f}\n", *summary.validation_loss);
  text += fmt::format("  tokens          {}, {} a second{}\n",
                      format_count(static_cast<double>(summary.num_tokens)),
                      format_count(summary.tokens_per_second),
                      summary.peak_share ? ", " + percent(*summary.peak_share) + " of peak" : "");
  text += fmt::format("  memory          {} on the fullest rank\n",
                      format_bytes(static_cast<double>(summary.memory_bytes)));
  return text + what_is_there(summary);
}

}  // namespace switchyard
