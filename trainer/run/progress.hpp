// What a person sees of a run: one live line, rewritten in place on a terminal, plain lines now and
// then elsewhere, and a summary at the end. The texts come from pure functions; the classes only
// count and write. Rank 0 alone has them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

namespace switchyard {

struct ProgressLine {
  std::int64_t step = 0;
  std::int64_t num_steps = 0;
  double loss = 0;
  double tokens_per_second = 0;
  std::optional<double> peak_share =
      std::nullopt;    // of the arithmetic peak, 1 is all of it; none if unknown
  double balance = 0;  // load, maximum over mean, of the worst layer
  std::optional<double> eta_seconds = std::nullopt;
  std::optional<std::int64_t> balance_layer =
      std::nullopt;  // which that is, where there are others
};
// "step 120/300  loss 3.412  1.9k tok/s  41% of peak  balance 1.08 layer 3  ETA 00:42", without the
// parts that do not fit into `columns`: the balance goes first, the step last.
std::string format_progress_line(const ProgressLine& line, std::size_t columns = 1000);

// Rates over the last steps, without the first ones of a process (which allocate and warm up).
class RateWindow {
 public:
  explicit RateWindow(int skip_steps = 2, int window_steps = 20)
      : skip_(skip_steps), window_(static_cast<std::size_t>(window_steps)) {}
  // One step's tokens and seconds; time between steps (evaluation, checkpoints) is left out.
  void add(double num_tokens, double seconds);
  double tokens_per_second() const;  // from the steps so far if there are no later ones
  double seconds_per_step() const;

 private:
  struct Sample {
    double num_tokens;
    double seconds;
  };
  int skip_;
  std::size_t window_;
  std::deque<Sample> samples_;
};

class RunProgress {
 public:
  // Of the terminal that `out` writes to; empty where it is none.
  using Columns = std::function<int()>;

  // `out` is borrowed; first_step is the first to be taken. The columns are asked for each line, so
  // that it fits after the window has changed. Not on a terminal: a line for the first step, for
  // the last, and each `every_seconds`.
  RunProgress(std::ostream& out, Columns columns, std::int64_t first_step, std::int64_t num_steps,
              double every_seconds = 10);
  ~RunProgress() { finish(); }
  RunProgress(const RunProgress&) = delete;
  RunProgress& operator=(const RunProgress&) = delete;

  struct Step {
    std::int64_t step = 0;
    double loss = 0;
    double balance = 0;
    std::optional<std::int64_t> balance_layer = std::nullopt;
    double num_tokens = 0;  // of this step
    double seconds = 0;     // of this step
    std::optional<double> flops_per_token = std::nullopt;
    std::optional<double> peak_flops_per_second = std::nullopt;  // of all ranks
  };
  void step(const Step& step);
  // A line of its own, above the live one.
  void note(const std::string& text);
  void finish();  // ends the live line

  double tokens_per_second() const { return rates_.tokens_per_second(); }

 private:
  // What a line may have: the last column stays free, as some terminals wrap when it is written.
  std::size_t room() const { return static_cast<std::size_t>(std::max(columns_(), 2) - 1); }

  std::ostream& out_;
  Columns columns_;
  std::int64_t first_step_;
  std::int64_t num_steps_;
  double every_seconds_;
  double since_line_ = 0;  // seconds of steps since the last plain line
  RateWindow rates_;
  ProgressLine last_;
  std::string live_;  // what stands on the terminal's last line, of last_
};

// Whether the file descriptor is a terminal that can rewrite a line (TERM is not "dumb").
bool is_live_terminal(int file_descriptor);
// Its columns now; 80 where it does not tell. A rank's own terminal is one that mpirun made: that
// which mpirun itself writes to counts.
int terminal_columns(int file_descriptor);

struct RunSummary {
  std::int64_t first_step = 0;  // after which this process started
  std::int64_t last_step = 0;
  std::int64_t num_steps = 0;
  double loss = 0;
  std::optional<double> validation_loss = std::nullopt;
  std::int64_t num_tokens = 0;  // of this process
  double seconds = 0;           // of this process
  double tokens_per_second = 0;
  std::optional<double> peak_share = std::nullopt;
  std::int64_t memory_bytes = 0;  // the fullest rank's peak
  std::string checkpoint;         // newest; empty if none
  std::vector<std::string> next;  // commands that make sense now
};
std::string format_summary(const RunSummary& summary);  // several lines, each with its end

}  // namespace switchyard
