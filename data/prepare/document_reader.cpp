#include "data/prepare/document_reader.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "data/files/utf8.hpp"
#include "tensor/error.hpp"

namespace switchyard {

namespace {

constexpr std::int64_t messages_per_reason = 10;
constexpr std::string_view json_forms =
    "; a .json file holds an array of objects, or an object a line";

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

std::string_view without_line_end(std::string_view line) {
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  return line;
}

std::int64_t lines_before(std::string_view text, std::size_t offset) {
  return std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(offset), '\n');
}

// What else the line offers as its text.
std::string fields_of(const nlohmann::json& value) {
  if (!value.is_object()) return "";
  std::vector<std::string> names;
  for (const auto& [name, field] : value.items())
    if (field.is_string() && names.size() < 5) names.push_back("\"" + name + "\"");
  if (names.empty()) return "";
  return fmt::format(", only {} (--text-field)", fmt::join(names, ", "));
}

}  // namespace

Complaints::Complaints(bool strict, std::function<void(std::string_view)> message)
    : strict_(strict), message_(std::move(message)) {}

void Complaints::leave_out(std::string_view reason, const std::string& file, std::int64_t line,
                           std::string_view detail) {
  const std::string place = line > 0 ? fmt::format("{}:{}", file, line) : file;
  const std::string text = detail.empty() ? fmt::format("{}: {}", place, reason)
                                          : fmt::format("{}: {}: {}", place, reason, detail);
  if (strict_) throw DataError(text);
  count(reason, text);
}

void Complaints::pass_over(std::string_view reason, const std::string& file,
                           std::string_view detail) {
  count(reason, detail.empty() ? fmt::format("{}: {}", file, reason)
                               : fmt::format("{}: {}: {}", file, reason, detail));
}

void Complaints::count(std::string_view reason, const std::string& text) {
  const std::int64_t count = ++counts_[std::string(reason)];
  if (count <= messages_per_reason) say(text + "; left out");
  if (count == messages_per_reason)
    say(fmt::format("(further cases of \"{}\" are counted, not shown)", reason));
}

void Complaints::say(std::string_view message) const {
  if (message_) message_(message);
}

DocumentReader::DocumentReader(const InputList& inputs, const PrepareOptions& options,
                               Complaints& complaints)
    : inputs_(inputs), options_(options), complaints_(complaints) {}

DocumentReader::~DocumentReader() = default;

void DocumentReader::leave_out(std::string_view reason, std::int64_t line,
                               std::string_view detail) {
  complaints_.leave_out(reason, path(), line, detail);
}

bool DocumentReader::next(Document& document) {
  while (file_ || open_next_file()) {
    while (next_candidate(document))
      if (is_usable(document)) return true;
    finished_bytes_ += file_->bytes_read();
    values_.reset();
    file_.reset();
  }
  return false;
}

std::int64_t DocumentReader::bytes_read() const {
  return finished_bytes_ + (file_ ? file_->bytes_read() : 0);
}

bool DocumentReader::open_next_file() {
  while (next_file_ < inputs_.files.size()) {
    file_index_ = next_file_++;
    line_number_ = 0;
    carried_.clear();
    in_long_line_ = false;
    file_ = std::make_unique<InputFile>(path());
    if (file_->is_empty()) {
      leave_out("empty file", 0);
    } else if (file_->looks_binary()) {
      leave_out("binary file", 0, file_->looks_utf16() ? "UTF-16? Texts must be UTF-8" : "");
    } else {
      kind_ = text_kind_of(path());
      if (kind_ == TextKind::json) choose_json_form();
      return true;
    }
    file_.reset();
  }
  return false;
}

bool DocumentReader::next_candidate(Document& document) {
  document = {};
  document.file = file_index_;
  if (kind_ == TextKind::plain) return next_text(document);
  return values_ ? next_json_value(document) : next_json_line(document);
}

// A .json file whose first line is a whole object has an object a line: then a broken line costs
// nothing but itself.
void DocumentReader::choose_json_form() {
  std::string first;
  const InputFile::Line read = file_->next_line(first, options_.max_document_bytes);
  if (read == InputFile::Line::whole && nlohmann::json::accept(first) &&
      first.find('{') == first.find_first_not_of(" \t"))
    carried_ = std::move(first);
  else
    values_ = std::make_unique<JsonValues>(*file_, std::move(first), options_.max_document_bytes);
}

bool DocumentReader::is_separator(std::string_view line) const {
  switch (options_.separator) {
    case DocumentSeparator::automatic:
      return without_line_end(line) == "%";
    case DocumentSeparator::blank_line:
      return is_blank(line);
    case DocumentSeparator::none:
      return false;
  }
  return false;
}

bool DocumentReader::next_text(Document& document) {
  const auto most = static_cast<std::size_t>(options_.max_document_bytes);
  document.line = std::max<std::int64_t>(1, line_number_ + (carried_.empty() ? 1 : 0));
  document.text = std::exchange(carried_, {});
  std::string line;
  while (true) {
    const InputFile::Line kind = file_->next_line(line, options_.max_document_bytes);
    if (kind == InputFile::Line::damaged) {
      leave_out("damaged compressed file", line_number_ + 1, "the rest cannot be read");
      return false;
    }
    if (kind == InputFile::Line::end) return !document.text.empty();
    if (!in_long_line_) ++line_number_;
    const bool begins_line = !std::exchange(in_long_line_, kind == InputFile::Line::part);
    if (begins_line && kind == InputFile::Line::whole && is_separator(line)) {
      // Several blank lines in a row are one border.
      if (document.text.empty() && options_.separator == DocumentSeparator::blank_line) {
        document.line = line_number_ + 1;
        continue;
      }
      return true;
    }
    if (!document.text.empty() && document.text.size() + line.size() > most) {
      complaints_.say(
          fmt::format("{}:{}: a document longer than {} bytes is cut here "
                      "(--max-document-megabytes)",
                      path(), line_number_, most));
      carried_ = std::move(line);
      return true;
    }
    document.text += line;
  }
}

bool DocumentReader::next_json_line(Document& document) {
  std::string line;
  while (true) {
    line = std::exchange(carried_, {});
    const InputFile::Line kind =
        line.empty() ? file_->next_line(line, options_.max_document_bytes) : InputFile::Line::whole;
    if (kind == InputFile::Line::end) return false;
    if (kind == InputFile::Line::damaged) {
      leave_out("damaged compressed file", line_number_ + 1, "the rest cannot be read");
      return false;
    }
    const bool continues = std::exchange(in_long_line_, kind == InputFile::Line::part);
    if (!continues) ++line_number_;
    if (in_long_line_ && !continues)
      leave_out("line too long", line_number_,
                fmt::format("more than {} bytes (--max-document-megabytes)",
                            options_.max_document_bytes));
    if (continues || in_long_line_ || is_blank(line)) continue;

    document.line = line_number_;
    if (take_text(line, document)) return true;
  }
}

bool DocumentReader::next_json_value(Document& document) {
  std::string value;
  while (true) {
    const JsonValues::Found found = values_->next(value);
    document.line = values_->line();
    switch (found) {
      case JsonValues::Found::end:
        return false;
      case JsonValues::Found::damaged:
        leave_out("damaged compressed file", document.line, "the rest cannot be read");
        return false;
      case JsonValues::Found::broken:
        leave_out("broken JSON", document.line);
        break;
      case JsonValues::Found::too_long:
        leave_out("value too long", document.line,
                  fmt::format("more than {} bytes (--max-document-megabytes){}",
                              options_.max_document_bytes, json_forms));
        break;
      case JsonValues::Found::value:
        if (take_text(value, document)) return true;
        break;
    }
  }
}

// The text of a JSON object that begins at document.line. False: it has none, which is told.
bool DocumentReader::take_text(const std::string& json, Document& document) {
  if (first_invalid_utf8(json) != json.size()) {
    leave_out("bad UTF-8", document.line);
    return false;
  }
  const auto has_prompt = [&](const nlohmann::json& object) {
    return !options_.prompt_field.empty() && object.contains(options_.prompt_field);
  };
  const nlohmann::json value = nlohmann::json::parse(json, nullptr, false);
  if (value.is_discarded()) {
    leave_out("broken JSON", document.line);
  } else if (!value.is_object() || !value.contains(options_.text_field)) {
    leave_out("missing field", document.line,
              fmt::format("no \"{}\" in the {}{}{}", options_.text_field,
                          values_ ? "value" : "line", fields_of(value), values_ ? json_forms : ""));
  } else if (!value.at(options_.text_field).is_string()) {
    leave_out("field is not a text", document.line, options_.text_field);
  } else if (has_prompt(value) && !value.at(options_.prompt_field).is_string()) {
    leave_out("field is not a text", document.line, options_.prompt_field);
  } else {
    if (has_prompt(value)) document.text = value.at(options_.prompt_field).get<std::string>();
    document.prompt = document.text.size();
    document.text += value.at(options_.text_field).get<std::string>();
    return true;
  }
  return false;
}

bool DocumentReader::is_usable(const Document& document) {
  const std::string_view text = document.text;
  if (is_blank(text)) {
    leave_out("empty document", document.line);
    return false;
  }
  // In JSON the place is where the value begins.
  const bool is_json = kind_ != TextKind::plain;
  const std::size_t bad = first_invalid_utf8(text);
  if (bad != text.size()) {
    leave_out("bad UTF-8", document.line + (is_json ? 0 : lines_before(text, bad)),
              fmt::format("byte 0x{:02x}", static_cast<unsigned char>(text[bad])));
    return false;
  }
  const std::size_t nul = text.find('\0');
  if (nul != std::string_view::npos) {
    leave_out("NUL byte", document.line + (is_json ? 0 : lines_before(text, nul)));
    return false;
  }
  return true;
}

}  // namespace switchyard
