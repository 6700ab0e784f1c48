#include "data/bpe/bpe_model.hpp"

#include <algorithm>
#include <functional>
#include <limits>
#include <queue>
#include <tuple>

namespace switchyard::bpe {

namespace {

// From here on a queue finds the next merge faster than a search through the word.
constexpr std::size_t long_word = 64;
constexpr std::int32_t no_rank = std::numeric_limits<std::int32_t>::max();

std::size_t num_text_bytes(const BpeVocabulary& vocabulary) {
  std::size_t bytes = 0;
  for (const auto& [text, token] : vocabulary.tokens) bytes += text.size();
  return bytes;
}

std::size_t num_ids(const BpeVocabulary& vocabulary) {
  std::int32_t most = -1;
  for (const auto& [text, token] : vocabulary.tokens) most = std::max(most, token);
  return static_cast<std::size_t>(most + 1);
}

// Of a character of valid UTF-8, by its first byte.
std::size_t character_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

}  // namespace

BpeModel::BpeModel(const BpeVocabulary& vocabulary)
    : index_(vocabulary.tokens.size(), num_text_bytes(vocabulary)),
      merges_(vocabulary.merges.size()),
      byte_tokens_(vocabulary.byte_tokens),
      of_bytes_(vocabulary.of_bytes),
      byte_fallback_(vocabulary.byte_fallback),
      fuse_unknown_(vocabulary.fuse_unknown),
      whole_words_first_(vocabulary.whole_words_first),
      unknown_(vocabulary.unknown),
      whole_(num_ids(vocabulary)) {
  for (const auto& [text, token] : vocabulary.tokens) index_.add(text, token);
  std::int32_t rank = 0;
  for (const MergeRule& rule : vocabulary.merges)
    merges_.set(rule.left, rule.right, {rank++, rule.token});
  for (std::size_t byte = 0; byte < first_symbols_.size(); ++byte) {
    const char c = static_cast<char>(byte);
    first_symbols_[byte] = index_.find({&c, 1});
  }
}

void BpeModel::encode(std::string_view word, std::vector<std::int32_t>& tokens) const {
  const std::int32_t whole = index_.find(word);
  if (whole >= 0) {
    std::atomic<Whole>& known = whole_[static_cast<std::size_t>(whole)];
    if (whole_words_first_ || known.load(std::memory_order_relaxed) == Whole::made_by_merges) {
      tokens.push_back(whole);
      return;
    }
  }
  const std::size_t begin = tokens.size();
  add_symbols(word, tokens);
  const std::span<std::int32_t> symbols = std::span(tokens).subspan(begin);
  const std::size_t count = symbols.size() < long_word ? merge_short(symbols) : merge_long(symbols);
  tokens.resize(begin + count);
  if (whole < 0) return;
  const bool is_made = count == 1 && tokens[begin] == whole;
  whole_[static_cast<std::size_t>(whole)].store(is_made ? Whole::made_by_merges : Whole::never_made,
                                                std::memory_order_relaxed);
}

bool BpeModel::add_bytes(std::string_view character, std::vector<std::int32_t>& tokens) const {
  if (!byte_fallback_) return false;
  const auto token_of = [&](char c) { return byte_tokens_[static_cast<unsigned char>(c)]; };
  if (std::ranges::any_of(character, [&](char c) { return token_of(c) < 0; })) return false;
  for (const char c : character) tokens.push_back(token_of(c));
  return true;
}

void BpeModel::add_symbols(std::string_view word, std::vector<std::int32_t>& tokens) const {
  bool after_unknown = false;
  while (!word.empty()) {
    const std::size_t length =
        of_bytes_ ? 1 : std::min(word.size(), character_length(word.front()));
    const std::string_view symbol = word.substr(0, length);
    word.remove_prefix(length);
    const std::int32_t token =
        of_bytes_ ? first_symbols_[static_cast<unsigned char>(symbol[0])] : index_.find(symbol);
    const bool is_unknown = token < 0 && !add_bytes(symbol, tokens);
    if (token >= 0)
      tokens.push_back(token);
    else if (is_unknown && unknown_ >= 0 && !(fuse_unknown_ && after_unknown))
      tokens.push_back(unknown_);
    after_unknown = is_unknown;
  }
}

std::size_t BpeModel::merge_short(std::span<std::int32_t> symbols) const {
  std::size_t count = symbols.size();
  if (count < 2) return count;
  std::array<Merge, long_word> merges;  // of each symbol with the next
  const auto find = [&](std::size_t i) {
    Merge merge = merges_.find(symbols[i], symbols[i + 1]);
    if (merge.rank < 0) merge.rank = no_rank;
    return merge;
  };
  for (std::size_t i = 0; i + 1 < count; ++i) merges[i] = find(i);
  while (count > 1) {
    std::size_t best = 0;
    for (std::size_t i = 1; i + 1 < count; ++i)
      if (merges[i].rank < merges[best].rank) best = i;
    if (merges[best].rank == no_rank) break;
    symbols[best] = merges[best].token;
    for (std::size_t i = best + 1; i + 1 < count; ++i) {
      symbols[i] = symbols[i + 1];
      merges[i - 1] = merges[i];
    }
    --count;
    if (best > 0) merges[best - 1] = find(best - 1);
    if (best + 1 < count) merges[best] = find(best);
  }
  return count;
}

// The symbols are a linked list, and a queue holds what could be merged when it was pushed: an
// entry whose symbols have changed since is passed over.
std::size_t BpeModel::merge_long(std::span<std::int32_t> symbols) const {
  using Entry = std::tuple<std::int32_t, std::size_t, std::int32_t>;  // rank, place, new token
  const std::size_t end = symbols.size();
  std::vector<std::size_t> next(end), before(end);
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue;
  const auto push = [&](std::size_t left) {
    if (left >= end || next[left] >= end) return;
    const Merge merge = merges_.find(symbols[left], symbols[next[left]]);
    if (merge.rank >= 0) queue.emplace(merge.rank, left, merge.token);
  };
  for (std::size_t i = 0; i < end; ++i) {
    next[i] = i + 1;
    before[i] = i == 0 ? end : i - 1;
  }
  for (std::size_t i = 0; i + 1 < end; ++i) push(i);
  while (!queue.empty()) {
    const auto [rank, left, token] = queue.top();
    queue.pop();
    const std::size_t right = next[left];
    if (symbols[left] < 0 || right >= end) continue;
    const Merge merge = merges_.find(symbols[left], symbols[right]);
    if (merge.rank != rank || merge.token != token) continue;
    symbols[left] = token;
    symbols[right] = -1;
    next[left] = next[right];
    if (next[left] < end) before[next[left]] = left;
    push(before[left]);
    push(left);
  }
  // std::ranges::remove is beyond clang 14, with which this is fuzzed.
  return static_cast<std::size_t>(std::remove(symbols.begin(), symbols.end(), -1) -
                                  symbols.begin());
}

}  // namespace switchyard::bpe
