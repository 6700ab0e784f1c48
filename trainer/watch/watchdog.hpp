// Watches that a job moves on, in a thread of each rank that never calls MPI, so that it works
// while MPI is stuck. The thread beats (in the rank's log of collectives and its copy in RUN/watch)
// and looks for four things:
//  - nothing has moved for the limit of the section: it finds out who holds up the others, one rank
//    of all prints the report, and all end with code 18;
//  - a peer's process is gone: one rank says so, and all end with code 20;
//  - this rank has crashed (CrashSignal): it says so and dies of it, unless another rank's death
//    comes to light, which it then says instead;
//  - the launcher ends the job because a rank has failed: this one leaves at once, though its other
//    thread waits in MPI.
// The report also goes to RUN/watch/report.txt, the rank's log and exit.json.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "parallel/group/group.hpp"
#include "trainer/config.hpp"
#include "trainer/watch/crash_signal.hpp"
#include "trainer/watch/side_files.hpp"
#include "trainer/watch/stack_probe.hpp"
#include "trainer/watch/stop_signal.hpp"

namespace switchyard {

class PeerView;

class Watchdog {
 public:
  // On the thread that trains. SideFiles::prepare() has been called; the references outlive this.
  // stop: may be null, where SIGTERM ends the process anyway.
  Watchdog(CollectiveLog& log, const Topology& topology, const WatchdogConfig& config,
           std::string run_folder, const StopSignal* stop);
  // This rank has finished, or its failure is known to all: it is not missed.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  void enter(RunSection section) { log_.enter_section(section); }
  // This rank alone has failed and is about to end the job. True if it is the first of all to do
  // so, and its failure is the job's; the others do not report what followed from it.
  bool claim_failure(int exit_code);

 private:
  using Clock = std::chrono::steady_clock;
  // The first ranks look for the reason of a hang, so that a thousand do not read a thousand files
  // each; the others only if these do not.
  static constexpr int num_observers = 8;
  static double seconds_since(Clock::time_point start);
  static void sleep_for(double seconds);

  void run();
  void tick();
  void write_copy();
  double limit_of(RunSection section) const;  // seconds; 0: none
  double seconds_still() const;               // without progress of this rank
  bool asked_to_end() const;                  // by SIGTERM
  bool is_hinted() const;                     // by that, or by the hint that comes before it
  bool is_alarmed() const;                    // by either, or by a crash of this rank
  void follow_claim();
  void look_for_lost();
  void look_for_silent();
  double needed_silence() const;
  void suspect(const std::vector<int>& silent);
  void drop_suspicion();
  void follow_crash();
  void report_crash();
  void look_for_hang();
  void report_hang(double seconds);
  void report_lost(const std::vector<int>& lost);
  [[noreturn]] void end_with(int exit_code);
  void announce(const std::string& text, int exit_code, const std::string& headline);
  std::string stacks_of(std::vector<int> ranks) const;  // empty: this one
  void leave_stack();

  CollectiveLog& log_;
  const Topology& topology_;
  WatchdogConfig config_;
  std::string folder_;
  const StopSignal* stop_;
  SideFiles files_;
  StackProbe probe_;
  CrashSignal crash_;
  std::unique_ptr<PeerView> peers_;
  int rank_;
  double shortest_;  // of the limits
  LogState state_;   // this rank's, of the last tick
  std::uint64_t progress_ = 0;
  Clock::time_point moved_ = Clock::now();
  Clock::time_point written_{};
  Clock::time_point slow_copy_at_{};  // the last copy that the file system held up
  Clock::time_point claim_seen_{};
  Clock::time_point crash_seen_{};
  Clock::time_point asked_at_ = Clock::now();       // or when the next rank was last seen
  Clock::time_point alarmed_at_ = Clock::now();     // since when the launcher may be ending the job
  std::atomic<bool> has_claim_{false};              // also set by the thread that trains
  std::atomic<bool> has_suspicion_{false};          // that a rank of another host has died
  std::atomic<bool> may_follow_from_death_{false};  // the failure of the thread that trains
  bool is_first_to_suspect_ = false;
  bool has_stack_ = false;
  bool was_asked_ = false;
  bool has_written_badly_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool ending_ = false;
  std::thread thread_;  // last: it uses all the others
};

}  // namespace switchyard
