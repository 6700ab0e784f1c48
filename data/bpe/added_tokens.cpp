#include "data/bpe/added_tokens.hpp"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

namespace switchyard::bpe {

namespace {

unsigned char byte_at(std::string_view text, std::size_t at) {
  return static_cast<unsigned char>(text[at]);
}

bool is_space(utf8proc_int32_t c) {
  const utf8proc_category_t category = utf8proc_category(c);
  return (c >= 0x9 && c <= 0xD) || c == 0x85 || category == UTF8PROC_CATEGORY_ZS ||
         category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
}

bool is_word_character(utf8proc_int32_t c) {
  const utf8proc_category_t category = utf8proc_category(c);
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NL) ||
         category == UTF8PROC_CATEGORY_PC;
}

utf8proc_int32_t first_character(std::string_view text, std::size_t& length) {
  utf8proc_int32_t c = -1;
  length = static_cast<std::size_t>(
      utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                       static_cast<utf8proc_ssize_t>(text.size()), &c));
  return c;
}

std::string_view last_character(std::string_view text) {
  std::size_t begin = text.size() - 1;
  while (begin > 0 && (byte_at(text, begin) & 0xC0) == 0x80) --begin;
  return text.substr(begin);
}

bool has_word_beside(std::string_view before, std::string_view behind) {
  std::size_t length = 0;
  return (!before.empty() && is_word_character(first_character(last_character(before), length))) ||
         (!behind.empty() && is_word_character(first_character(behind, length)));
}

std::size_t spaces_at_end(std::string_view text) {
  std::size_t bytes = 0, length = 0;
  while (bytes < text.size()) {
    const std::string_view last = last_character(text.substr(0, text.size() - bytes));
    if (!is_space(first_character(last, length))) break;
    bytes += last.size();
  }
  return bytes;
}

std::size_t spaces_at_begin(std::string_view text) {
  std::size_t bytes = 0, length = 0;
  while (bytes < text.size() && is_space(first_character(text.substr(bytes), length)))
    bytes += length;
  return bytes;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), begins_a_token_(256) {
  std::erase_if(tokens_, [](const AddedToken& token) { return token.text.empty(); });
  std::ranges::sort(tokens_, {}, &AddedToken::text);
  const auto doubled = std::ranges::unique(tokens_, {}, &AddedToken::text);
  tokens_.erase(doubled.begin(), doubled.end());
  for (const AddedToken& token : tokens_) begins_a_token_[byte_at(token.text, 0)] = true;
}

// Narrows the sorted tokens byte by byte down to those that the text goes on with.
const AddedToken* AddedTokens::longest_at(std::string_view rest) const {
  const AddedToken* longest = nullptr;
  auto begin = tokens_.begin(), end = tokens_.end();
  for (std::size_t at = 0; begin != end; ++at) {
    if (begin->text.size() == at) longest = &*begin++;
    if (at == rest.size()) break;
    const auto byte_of = [&](const AddedToken& token) { return byte_at(token.text, at); };
    const auto same = std::ranges::equal_range(begin, end, byte_at(rest, at), {}, byte_of);
    begin = same.begin();
    end = same.end();
  }
  return longest;
}

void AddedTokens::for_each_part(
    std::string_view text, const std::function<void(std::int32_t, std::string_view)>& take) const {
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size() && !tokens_.empty();) {
    const AddedToken* token =
        begins_a_token_[byte_at(text, at)] ? longest_at(text.substr(at)) : nullptr;
    if (token == nullptr) {
      ++at;
      continue;
    }
    const std::size_t end = at + token->text.size();
    const std::string_view before = text.substr(0, at), behind = text.substr(end);
    at = end;
    if (token->single_word && has_word_beside(before, behind)) continue;
    std::size_t begin = before.size();
    if (token->takes_left_space) begin -= std::min(spaces_at_end(before), begin - done);
    if (token->takes_right_space) at += spaces_at_begin(behind);
    if (done < begin) take(-1, text.substr(done, begin - done));
    take(token->id, text.substr(begin, at - begin));
    done = at;
  }
  if (done < text.size()) take(-1, text.substr(done));
}

}  // namespace switchyard::bpe
