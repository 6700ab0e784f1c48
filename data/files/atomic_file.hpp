// Files that are complete or absent. An OutputFile is written under a temporary name beside the
// final one, "NAME.tmp-HOST-PID", and takes its final name in one step after it is on the disk, so
// nobody ever sees half a file under a final name; if the object dies before commit() the temporary
// goes too. Temporaries that a killed process left behind are removed by the next writer.
//
// All functions throw IoError with the path and the system's reason.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace switchyard {

enum class Existing : std::uint8_t {
  refuse,   // a file of the final name is an error, also if it appears while writing
  replace,  // anything but a regular file (a folder, a device) is an error all the same
};

class OutputFile {
 public:
  // Creates nothing: the caller writes to temporary_path() with whatever library it likes.
  explicit OutputFile(std::string path, Existing existing = Existing::replace);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  const std::string& path() const { return path_; }
  const std::string& temporary_path() const { return temporary_path_; }

  // Syncs the temporary, gives it the final name, syncs the folder.
  void commit();

 private:
  std::string path_;
  std::string temporary_path_;
  Existing existing_;
  bool committed_ = false;
};

// The whole content at once: JSON, YAML, small texts.
void write_file_atomically(const std::string& path, std::string_view content);

// The whole content of a file of at most `max_bytes`.
std::string read_file(const std::string& path, std::int64_t max_bytes = std::int64_t{1} << 30);

void sync_file(const std::string& path);    // fsync of the contents
void sync_folder(const std::string& path);  // fsync of the names in it

// Removes "PREFIX*.tmp-HOST-PID" files in `folder` whose process on this host is gone; returns how
// many. Never throws: cleaning is a courtesy.
int remove_stale_temporaries(const std::string& folder, std::string_view prefix) noexcept;

// IoError unless the file system of `folder` has `bytes` free. Asked before an HDF5 file is
// written: HDF5's own path through a full disk is not safe (1.10.8 can crash).
void require_free_space(const std::string& folder, std::int64_t bytes, std::string_view purpose);

}  // namespace switchyard
