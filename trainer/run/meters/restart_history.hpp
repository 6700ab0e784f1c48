// What a run's folder knows of its earlier starts. Every start of training is recorded in
// FOLDER/restarts.json; together with exit.json, which the earlier start wrote if it could say a
// last word, that tells whether this start is a restart, why, and what was lost.
//
// A start is a restart if an earlier one did not finish the run. It follows progress if it begins
// at a later step than the one before. After three restarts in a row without progress the next is
// refused, so that a batch system does not start a lost job for ever. A refusal forgets the count:
// whoever starts the run after it has read the message. exit.json is removed by a start: while a
// run trains, and after it was killed without a word, there is none.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "trainer/run/meters/metrics.hpp"

namespace switchyard {

inline constexpr std::int64_t max_restarts_without_progress = 3;

double unix_seconds();  // now, since 1970

class RestartHistory {
 public:
  // Records a start at `now`, before anything large is done: what is killed in its setup counts
  // too. `newest_step` is that of the newest checkpoint, valid or not (0: none); with `anew` the
  // earlier starts are forgotten. ProgressError if restarts lead nowhere; IoError. For one process
  // of the run.
  RestartHistory(const std::string& folder, std::int64_t newest_step, bool anew, double now);

  // Once the state of `step` is restored, from the checkpoint in the folder `checkpoint` (empty:
  // none), and before metrics.jsonl is cut to it. Returns what to write there if this is a restart.
  std::optional<RestartMetrics> begin(std::int64_t step, const std::string& checkpoint, double now);

 private:
  struct Record {  // restarts.json
    std::int64_t restarts = 0;
    std::int64_t starts_without_progress = 0;  // in a row, the latest included
    std::int64_t first_step = 0;               // restored by the latest start that came so far
    std::int64_t newest_step = 0;              // of the newest checkpoint at the latest start
    double started = 0;                        // the latest start
    double counted_until = 0;                  // lost time before this is in metrics.jsonl
  };
  static std::optional<Record> read(const std::string& path);
  void write() const;

  std::string folder_;
  Record record_;
  bool is_restart_ = false;
  std::string reason_;  // why the earlier start ended
};

// A sentence for the log.
std::string to_sentence(const RestartMetrics& restart);

}  // namespace switchyard
