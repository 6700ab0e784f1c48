// The documents of all inputs, one after another, and the complaints about what is no document.
// Private to data/*.cpp.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/prepare/input_file.hpp"
#include "data/prepare/json_values.hpp"
#include "data/prepare/prepare.hpp"

namespace switchyard {

// Says what is left out and counts it by reason. After the first few of a reason it only counts.
class Complaints {
 public:
  // strict: a complaint is a DataError. Without `message` they are only counted.
  Complaints(bool strict, std::function<void(std::string_view)> message);

  // line 0: the whole file.
  void leave_out(std::string_view reason, const std::string& file, std::int64_t line,
                 std::string_view detail = {});
  // The same for what is left out by a rule: no fault, so `strict` lets it pass.
  void pass_over(std::string_view reason, const std::string& file, std::string_view detail = {});
  void say(std::string_view message) const;  // a remark, nothing is left out
  const std::map<std::string, std::int64_t>& counts() const { return counts_; }

 private:
  void count(std::string_view reason, const std::string& text);

  bool strict_;
  std::function<void(std::string_view)> message_;
  std::map<std::string, std::int64_t> counts_;
};

struct Document {
  std::string text;        // valid UTF-8 without NUL, not blank
  std::size_t prompt = 0;  // its first bytes, which are read and not learned
  std::size_t file = 0;    // index into the files
  std::int64_t line = 0;   // where it begins, from 1
};

class DocumentReader {
 public:
  DocumentReader(const InputList& inputs, const PrepareOptions& options, Complaints& complaints);
  ~DocumentReader();
  DocumentReader(const DocumentReader&) = delete;
  DocumentReader& operator=(const DocumentReader&) = delete;

  bool next(Document& document);    // false: that was all
  std::int64_t bytes_read() const;  // of the files as they lie on the disk

 private:
  bool open_next_file();
  bool next_candidate(Document& document);  // from the open file; false at its end
  bool next_text(Document& document);
  bool next_json_line(Document& document);
  bool next_json_value(Document& document);
  bool take_text(const std::string& json, Document& document);
  void choose_json_form();
  bool is_separator(std::string_view line) const;
  bool is_usable(const Document& document);
  const std::string& path() const { return inputs_.files[file_index_]; }
  void leave_out(std::string_view reason, std::int64_t line, std::string_view detail = {});

  const InputList& inputs_;
  const PrepareOptions& options_;
  Complaints& complaints_;
  std::unique_ptr<InputFile> file_;
  TextKind kind_ = TextKind::plain;
  std::unique_ptr<JsonValues> values_;  // of a .json file that is not an object a line
  std::size_t next_file_ = 0;
  std::size_t file_index_ = 0;
  std::int64_t line_number_ = 0;  // lines of the file that were begun
  std::int64_t finished_bytes_ = 0;
  std::string carried_;  // a line read already, the first of the next document
  bool in_long_line_ = false;
};

}  // namespace switchyard
