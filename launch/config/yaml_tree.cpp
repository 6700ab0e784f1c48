#include "launch/config/yaml_tree.hpp"

#include <fmt/core.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/mark.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <sstream>

#include "launch/config/value.hpp"

namespace switchyard {
namespace {

Place place_of(const YAML::Mark& mark) {
  if (mark.is_null()) return {};
  return {.line = mark.line + 1, .column = mark.column + 1};
}

Place place_of(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const std::size_t start = before.rfind('\n');
  const std::size_t column = start == std::string_view::npos ? offset + 1 : offset - start;
  return {.line = static_cast<int>(line), .column = static_cast<int>(column)};
}

YamlNode node_at(const YAML::Mark& mark, YamlNode::Kind kind) {
  YamlNode node;
  node.kind = kind;
  node.place = place_of(mark);
  return node;
}

// Whether the quoted scalar that begins at `offset` ends before the text does: yaml-cpp 0.7 takes
// the rest of the file for its content otherwise.
bool is_closed(std::string_view text, std::size_t offset) {
  if (offset >= text.size()) return true;
  const char quote = text[offset];
  if (quote != '"' && quote != '\'') return true;  // a block scalar
  for (std::size_t i = offset + 1; i < text.size(); ++i) {
    if (quote == '"' && text[i] == '\\') {
      ++i;
    } else if (text[i] == quote) {
      if (quote == '"' || i + 1 == text.size() || text[i + 1] != quote) return true;
      ++i;  // '' stands for one quote
    }
  }
  return false;
}

// Tabs that indent are the mistake that the parser's own messages explain least.
std::string_view tab_advice(std::string_view text, int line) {
  for (int skipped = 1; skipped < line; ++skipped) {
    const std::size_t end = text.find('\n');
    if (end == std::string_view::npos) return {};
    text.remove_prefix(end + 1);
  }
  const std::string_view indentation = text.substr(0, text.find_first_not_of(" \t"));
  return indentation.find('\t') == std::string_view::npos ? "" : "; indent with spaces, not tabs";
}

class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::string_view text, std::vector<Mistake>& mistakes)
      : text_(text), mistakes_(mistakes) {}

  YamlNode take_root() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark& /*mark*/) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse(mark, "", anchor);
    add(node_at(mark, YamlNode::Kind::null));
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t /*anchor*/) override {
    mistakes_.push_back({place_of(mark), "aliases (*name) are not supported; write the value out"});
    add(node_at(mark, YamlNode::Kind::alias));
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse(mark, tag, anchor);
    YamlNode node = node_at(mark, YamlNode::Kind::scalar);
    node.text = value;
    node.quoted = tag == "!";
    if (node.quoted && !is_closed(text_, static_cast<std::size_t>(mark.pos))) {
      mistakes_.push_back({place_of(mark), "not YAML: this quote is never closed"});
    }
    add(std::move(node));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value /*style*/) override {
    refuse(mark, tag, anchor);
    open_.push_back(node_at(mark, YamlNode::Kind::list));
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value /*style*/) override {
    refuse(mark, tag, anchor);
    open_.push_back(node_at(mark, YamlNode::Kind::map));
    has_key_.push_back(false);
  }
  void OnMapEnd() override {
    has_key_.pop_back();
    close();
  }

 private:
  void refuse(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    if (anchor != 0) {
      mistakes_.push_back(
          {place_of(mark), "anchors (&name) are not supported; write the value out"});
    }
    // The parser gives "?" or nothing for plain values and "!" for quoted ones.
    if (!tag.empty() && tag != "?" && tag != "!") {
      mistakes_.push_back({place_of(mark), fmt::format("tags ({}) are not supported; leave it out",
                                                       for_message(tag))});
    }
  }

  void close() {
    YamlNode node = std::move(open_.back());
    open_.pop_back();
    add(std::move(node));
  }

  void add(YamlNode node) {
    if (open_.empty()) {
      root_ = std::move(node);
      return;
    }
    YamlNode& parent = open_.back();
    if (parent.kind == YamlNode::Kind::list) {
      parent.elements.push_back(std::move(node));
      return;
    }
    if (has_key_.back()) {
      parent.entries.back().value = std::move(node);
    } else {
      parent.entries.push_back({std::move(node), {}});
    }
    has_key_.back() = !has_key_.back();
  }

  std::string_view text_;
  std::vector<Mistake>& mistakes_;
  YamlNode root_;
  std::vector<YamlNode> open_;  // from the root down
  std::vector<bool> has_key_;   // for each open map: a key waits for its value
};

bool is_readable(std::string_view text, std::vector<Mistake>& mistakes) {
  if (const auto offset = find_bad_utf8(text)) {
    mistakes.push_back(
        {place_of(text, *offset), fmt::format("byte 0x{:02x} is not UTF-8; save the file as UTF-8",
                                              static_cast<unsigned char>(text[*offset]))});
    return false;
  }
  if (const auto offset = find_control_character(text)) {
    mistakes.push_back(
        {place_of(text, *offset), fmt::format("control character 0x{:02x}; this is not a YAML text",
                                              static_cast<unsigned char>(text[*offset]))});
    return false;
  }
  return true;
}

}  // namespace

std::string_view YamlNode::kind_name() const {
  constexpr std::string_view names[] = {"nothing", "a value", "a list", "a map", "an alias"};
  return names[static_cast<std::size_t>(kind)];
}

YamlNode parse_yaml(std::string_view text, std::vector<Mistake>& mistakes) {
  if (!is_readable(text, mistakes)) return {};
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (text.substr(0, byte_order_mark.size()) == byte_order_mark) {
    text.remove_prefix(byte_order_mark.size());
  }
  TreeBuilder builder(text, mistakes);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    if (!parser.HandleNextDocument(builder)) return {};
    YamlNode root = builder.take_root();
    // What follows the document is read only to say that it should not be there.
    std::vector<Mistake> ignored;
    TreeBuilder rest(text, ignored);
    if (parser.HandleNextDocument(rest)) {
      mistakes.push_back({rest.take_root().place,
                          "a second document begins; a configuration is one YAML document"});
    }
    return root;
  } catch (const YAML::Exception& error) {
    const Place place = place_of(error.mark);
    mistakes.push_back(
        {place, fmt::format("not YAML: {}{}", error.msg, tab_advice(text, place.line))});
    return {};
  }
}

}  // namespace switchyard
