// What is done to a text before it is split: Unicode's normal forms (utf8proc), replacements, a
// beginning put before it. Steps in order; a Normalizer without steps changes nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "data/bpe/split_pattern.hpp"

namespace switchyard::bpe {

enum class UnicodeForm : std::uint8_t { nfc, nfd, nfkc, nfkd };
struct Prepend {
  std::string text;
};
struct Replace {
  SplitPattern pattern;
  std::string by;
};
using NormalizerStep = std::variant<UnicodeForm, Prepend, Replace>;

class Normalizer {
 public:
  explicit Normalizer(std::vector<NormalizerStep> steps = {}) : steps_(std::move(steps)) {}
  // Of valid UTF-8, into valid UTF-8. An empty text stays empty.
  std::string operator()(std::string_view text) const;
  bool changes_nothing() const { return steps_.empty(); }

 private:
  std::vector<NormalizerStep> steps_;
};

}  // namespace switchyard::bpe
