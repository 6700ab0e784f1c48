// What the ranks of a run leave for one another in RUN/watch/: a copy of each rank's log of
// collectives (rank-N, replaced at every heartbeat), the stacks of stuck ranks, the claim of the
// one rank that ends the job for all, and its report. Files need no MPI, and hosts share the run's
// folder.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "parallel/group/collective_log.hpp"

namespace switchyard {

// The whole text of a file, by a rename, without waiting for the disk, which may take longer than a
// process has that a launcher is about to kill: it outlives the process, if not a power cut.
void write_file_at_once(const std::string& path, const std::string& text);  // IoError

// Why a job ends before its time, and the code that all ranks then end with.
struct Claim {
  enum class Kind : std::uint8_t { failed, hang, lost };
  Kind kind = Kind::failed;
  int code = 0;
};

class SideFiles {
 public:
  // The folder RUN/watch without what an earlier start left in it, before any rank has an object.
  // Files of other names stay. IoError.
  static void prepare(const std::string& run_folder);

  SideFiles(const std::string& run_folder, int rank);

  void write(const LogState& state) const;  // IoError
  // Another rank's state: from its memory if that is a process of this host, else its file. None if
  // it has left no file.
  std::optional<LogState> read(int rank) const;

  // True for one caller among all ranks, ever.
  bool claim(const Claim& claim) const;
  std::optional<Claim> claimed() const;

  // A rank believes that another one has died, and is the first of all to do so; or not any more.
  bool suspect() const;
  void drop_suspicion() const;

  void write_stack(const std::string& text) const;
  std::string read_stack(int rank) const;  // empty if there is none
  void write_report(const std::string& text) const;
  bool has_report() const;
  std::string report_path() const { return folder_ + "/report.txt"; }

 private:
  std::string path_of(int rank) const;

  std::string folder_;
  int rank_;
};

}  // namespace switchyard
