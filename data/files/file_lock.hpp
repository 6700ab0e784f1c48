// A file that one process holds at a time, and that says who holds it. The lock is an
// open-file-description lock, which the system releases when the process dies, also across hosts
// where the file system supports locks. Where locks are not supported, the process named in the
// file decides: alive or unknown (another host) holds it, dead does not.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace switchyard {

class FileLock {
 public:
  // Opens the file, which is made if need be. IoError.
  explicit FileLock(std::string path);
  ~FileLock();  // gives the lock back; the file stays, empty
  FileLock(FileLock&& other) noexcept
      : path_(std::move(other.path_)),
        note_(std::move(other.note_)),
        file_(std::exchange(other.file_, -1)),
        is_taken_(std::exchange(other.is_taken_, false)) {}
  FileLock& operator=(FileLock&&) = delete;
  FileLock(const FileLock&) = delete;

  struct Holder {
    std::string name;  // "process 12 on host, since 2026-..."; empty: it has not said so yet
    bool is_of_unknown_host = false;  // nobody can tell whether it is alive
  };
  // Takes the lock, or says who has it.
  std::optional<Holder> try_take();
  // Of a lock that was taken: the dead process that had not given it back; empty otherwise.
  const std::string& dead_holder() const { return note_; }

  // Whether another process holds that file now; false if there is none.
  static bool is_held(const std::string& path);

 private:
  void sign();

  std::string path_;
  std::string note_;
  int file_ = -1;
  bool is_taken_ = false;
};

}  // namespace switchyard
