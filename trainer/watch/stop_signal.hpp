// Stops a run on request. SIGUSR1, SIGTERM, SIGINT and, unless it is ignored (nohup), SIGHUP of a
// terminal that went away ask for a stop after the step under way: the trainer sees requested(),
// agrees over the ranks, saves and ends with code 16. A second signal ends the process at once,
// with the same code and nothing saved; but a checkpoint that is being saved (Saving) is finished
// first, and only one more signal gives it up.
//
// SIGCONT is no request: mpirun sends it to all ranks as soon as one has died, seconds before
// SIGTERM, and so it is a hint to look around.
//
// One object, created in main, whose life covers the run; it restores the default actions. A
// handler of the system gets no argument of ours, so stop_signal.cpp keeps one static pointer to
// that object. With CrashSignal's it is the only mutable global of the program.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace switchyard {

class StopSignal {
 public:
  // While it lives, a checkpoint is being saved. One at a time.
  class Saving {
   public:
    explicit Saving(StopSignal& stop);
    ~Saving();
    Saving(const Saving&) = delete;
    Saving& operator=(const Saving&) = delete;

   private:
    StopSignal& stop_;
  };

  // Launchers and batch systems often deliver one request twice (to the process and to its group):
  // what follows the first within `same_request_ms` counts as the same.
  explicit StopSignal(std::int64_t same_request_ms = 500);
  ~StopSignal();
  StopSignal(const StopSignal&) = delete;
  StopSignal& operator=(const StopSignal&) = delete;

  bool requested() const { return signal_.load() != 0; }
  std::string name() const { return name_of(number()); }
  int number() const { return signal_.load(); }  // SIGUSR1, ...; 0 if not requested
  static std::string name_of(int number);        // "SIGUSR1"; empty for 0
  // Whether SIGCONT has come within the last seconds.
  bool was_continued(double seconds) const;

 private:
  static void handle(int signal);
  void receive(int signal);

  std::atomic<int> signal_{0};                 // the first one received
  std::atomic<std::int64_t> received_ms_{0};   // when, or the one that waits for the save
  std::atomic<std::int64_t> continued_ms_{0};  // the last SIGCONT; 0: none
  std::atomic<bool> is_saving_{false};
  std::atomic<bool> waits_for_save_{false};  // a second signal came during this save
  std::int64_t same_request_ms_;
};

}  // namespace switchyard
