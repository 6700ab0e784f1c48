// The folder of one run: run.json, config.yaml, metrics.jsonl, exit.json, logs/, checkpoints/.
// While a RunFolder lives, its process holds the folder: a second job is refused, with the holder's
// name. Rank 0 creates it, inside run_together(), so that a refusal reaches all ranks.
//
// The lock is a FileLock (data/files/file_lock.hpp) on FOLDER/run.lock.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/files/file_lock.hpp"
#include "tensor/error.hpp"
#include "trainer/run/run_marker.hpp"
#include "trainer/watch/exit_file.hpp"

namespace switchyard {

class RunFolder {
 public:
  // Creates the folders and takes the lock. ConfigError if another job holds it, or if the folder
  // holds somebody's files (trainer/run/foreign_files.hpp): then nothing has changed. IoError if
  // the folder cannot be made or written.
  explicit RunFolder(std::string path);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string logs() const { return path_ + "/logs"; }
  std::string checkpoints() const { return path_ + "/checkpoints"; }
  std::string metrics() const { return path_ + "/metrics.jsonl"; }
  // A sentence about a dead job whose lock was taken over; empty otherwise.
  const std::string& note() const { return note_; }

  // What was known when this object was made: the course of earlier starts, if any.
  const RunMarker& marker() const { return marker_; }
  void mark(const RunMarker& marker);
  void write_config(const std::string& yaml) const;
  void write_exit(ExitCode code, const std::string& reason, std::int64_t step) const {
    write_exit_file(path_, code, reason, step);
  }

 private:
  void lock();

  std::string path_;
  std::string note_;
  RunMarker marker_;
  std::optional<FileLock> lock_;
};

}  // namespace switchyard
