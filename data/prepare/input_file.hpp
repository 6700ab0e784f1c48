// One input of `prepare` as lines: a plain file, or one compressed by gzip or Zstandard, read in
// order, in little memory. Private to data/*.cpp.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {

// The files to read, in order: inputs as given, folders searched through and sorted, each file once
// even if it has several names. DataError when an input does not exist, IoError when a folder that
// was named cannot be listed. Links to folders are not followed: they may lead in circles. What
// is hidden (.git, .name.swp) or an editor's backup (name~, #name#, name.bak) is not taken from a
// folder; who wants it names it.
struct InputList {
  struct LeftOut {
    std::string path;
    std::string_view reason;
    std::string detail;
    bool is_by_rule = false;  // no fault: hidden files, backups
  };
  std::vector<std::string> files;
  std::vector<std::string> other_names;  // of files that are in `files` already
  std::vector<LeftOut> left_out;  // of folders: devices, dangling links, what may not be read
  std::int64_t total_bytes = 0;   // on the disk
};
InputList find_inputs(const std::vector<std::string>& inputs);

// By the name, in any case, with or without .gz or .zst behind.
enum class TextKind : std::uint8_t {
  plain,
  json_lines,  // .jsonl, .ndjson, .jsonlines: an object a line
  json,        // .json: an array of objects, or objects one after another
};
TextKind text_kind_of(std::string_view path);

class InputFile {
 public:
  explicit InputFile(const std::string& path);  // IoError when it cannot be opened or read
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  bool is_empty() const;
  bool looks_binary() const;  // a NUL byte near the beginning
  bool looks_utf16() const;   // a byte order mark of UTF-16

  enum class Line : std::uint8_t {
    whole,    // a line, or the rest of the file
    part,     // at most max_bytes of a longer line, whole characters; the next call goes on in it
    end,      // no more
    damaged,  // the compressed data is broken or cut short; nothing follows
  };
  // `line` keeps its line end.
  Line next_line(std::string& line, std::int64_t max_bytes);

  std::int64_t bytes_read() const;  // on the disk, so far

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace switchyard
