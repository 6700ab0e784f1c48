#include "data/prepare/input_file.hpp"

#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>
#include <span>
#include <utility>

#include "data/files/utf8.hpp"
#include "data/prepare/byte_source.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t buffer_bytes = std::size_t{256} << 10;
constexpr std::size_t binary_probe_bytes = std::size_t{64} << 10;

bool ends_with_in_any_case(std::string_view text, std::string_view lower_case_end) {
  if (text.size() < lower_case_end.size()) return false;
  return std::ranges::equal(
      text.substr(text.size() - lower_case_end.size()), lower_case_end,
      [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

// Why a name in a folder is no text that somebody put there to be read; empty: it may be one.
std::string_view rule_against(std::string_view name) {
  if (name.starts_with('.')) return "hidden file or folder";
  const bool is_backup = name.ends_with('~') || (name.starts_with('#') && name.ends_with('#')) ||
                         ends_with_in_any_case(name, ".bak") || ends_with_in_any_case(name, ".swp");
  return is_backup ? "backup file" : "";
}

// Whether it is a link, and its path: sorted by the names, not by the file system's order, and a
// link after the file it points to.
using FoundFile = std::pair<bool, std::string>;

// Appends the files of a folder and of those within it.
void find_files(const std::string& folder, bool is_named, std::vector<FoundFile>& files,
                InputList& list) {
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    std::error_code unknown;  // of a link that leads to itself, say: no folder, and told later
    const std::string path = entry->path().string();
    const bool is_link = entry->is_symlink(unknown);
    if (const auto rule = rule_against(entry->path().filename().string()); !rule.empty())
      list.left_out.push_back({path, rule, "", true});
    else if (!entry->is_directory(unknown))
      files.emplace_back(is_link, path);
    else if (is_link)
      list.left_out.push_back({path, "link to a folder", "to have it read, name it as an input"});
    else
      find_files(path, false, files, list);
  }
  if (!error) return;
  if (is_named) throw IoError(fmt::format("{}: cannot list: {}", folder, error.message()));
  list.left_out.push_back({folder, "unreadable folder", error.message()});
}

void add_file(InputList& list, std::set<std::string>& known, const std::string& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error) || error) {
    list.left_out.push_back({path, "not a file", ""});
  } else if (!known.insert(fs::canonical(path).string()).second) {
    list.other_names.push_back(path);
  } else {
    list.files.push_back(path);
    list.total_bytes += static_cast<std::int64_t>(fs::file_size(path));
  }
}

void add_folder(InputList& list, std::set<std::string>& known, const std::string& folder) {
  std::vector<FoundFile> files;
  find_files(folder, true, files, list);
  std::ranges::sort(files);
  for (const auto& [is_link, path] : files) {
    std::error_code absent;
    if (fs::exists(path, absent) && ::access(path.c_str(), R_OK) != 0)
      list.left_out.push_back({path, "unreadable file", std::strerror(errno)});
    else
      add_file(list, known, path);
  }
}

}  // namespace

InputList find_inputs(const std::vector<std::string>& inputs) {
  InputList list;
  std::set<std::string> known;
  for (const std::string& input : inputs) {
    std::error_code error;
    const fs::file_status status = fs::status(input, error);
    if (!fs::exists(status)) throw DataError(fmt::format("{}: there is no such input", input));
    if (fs::is_directory(status))
      add_folder(list, known, input);
    else
      add_file(list, known, input);
  }
  return list;
}

TextKind text_kind_of(std::string_view path) {
  path = without_compression(path);
  for (const std::string_view end : {".jsonl", ".ndjson", ".jsonlines"})
    if (ends_with_in_any_case(path, end)) return TextKind::json_lines;
  return ends_with_in_any_case(path, ".json") ? TextKind::json : TextKind::plain;
}

struct InputFile::State {
  bool refill();
  void give_back(std::string_view tail);

  std::unique_ptr<ByteSource> source;
  std::string buffer;
  std::size_t next = 0;  // first byte of the buffer that no line has taken
  bool is_damaged = false;
};

// More bytes into the buffer; false at the end of the file and where compressed data is damaged.
bool InputFile::State::refill() {
  buffer.erase(0, next);
  next = 0;
  const std::size_t kept = buffer.size();
  buffer.resize(kept + buffer_bytes);
  const ByteSource::Read read = source->read(std::span(buffer).subspan(kept));
  buffer.resize(kept + read.count);
  is_damaged = read.is_damaged;
  return read.count > 0;
}

// The end of what a line took lies before `next` again.
void InputFile::State::give_back(std::string_view tail) {
  const std::size_t kept = std::min(next, tail.size());
  next -= kept;
  buffer.insert(0, tail.substr(0, tail.size() - kept));  // taken before the last refill
}

InputFile::InputFile(const std::string& path) : state_(std::make_unique<State>()) {
  state_->source = open_bytes(path);
  state_->refill();  // a file that is damaged from its first byte on is left to next_line()
  constexpr std::string_view byte_order_mark = "\xEF\xBB\xBF";
  if (state_->buffer.starts_with(byte_order_mark)) state_->next = byte_order_mark.size();
}

InputFile::~InputFile() = default;

bool InputFile::is_empty() const {
  return state_->buffer.empty() && !state_->is_damaged;
}

bool InputFile::looks_binary() const {
  return state_->buffer.substr(0, binary_probe_bytes).find('\0') != std::string::npos;
}

bool InputFile::looks_utf16() const {
  return state_->buffer.starts_with("\xFF\xFE") || state_->buffer.starts_with("\xFE\xFF");
}

InputFile::Line InputFile::next_line(std::string& line, std::int64_t max_bytes) {
  State& state = *state_;
  line.clear();
  const auto limit = static_cast<std::size_t>(max_bytes);
  while (!state.is_damaged) {
    const std::size_t end = state.buffer.find('\n', state.next);
    const std::size_t stop = end == std::string::npos ? state.buffer.size() : end + 1;
    const std::size_t count = std::min(stop - state.next, limit - line.size());
    line.append(state.buffer, state.next, count);
    state.next += count;
    if (!line.empty() && line.back() == '\n') return Line::whole;
    if (line.size() == limit) {
      // A character cut in two would be no UTF-8 in either piece.
      const std::size_t whole = complete_utf8_prefix(line);
      if (whole > 0) {
        state.give_back(std::string_view(line).substr(whole));
        line.resize(whole);
      }
      return Line::part;
    }
    if (!state.refill() && !state.is_damaged) return line.empty() ? Line::end : Line::whole;
  }
  return Line::damaged;
}

std::int64_t InputFile::bytes_read() const {
  return state_->source->bytes_read();
}

}  // namespace switchyard
