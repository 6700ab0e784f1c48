#include "data/piece_borders.hpp"

#include <fmt/core.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <string>
#include <vector>

#include "data/files/utf8.hpp"

namespace switchyard {

namespace {

using Processor = sentencepiece::SentencePieceProcessor;

bool returns_unchanged(const Processor& processor, const std::string& text) {
  std::vector<int> tokens;
  std::string back;
  return processor.Encode(text, &tokens).ok() && processor.Decode(tokens, &back).ok() &&
         back == text;
}

// Normalisation shows on some of these: NFKC, case, spaces left out at the ends or in the middle.
bool keeps_texts(const Processor& processor, bool has_bytes) {
  if (!returns_unchanged(processor, "a  b c  ")) return false;
  return !has_bytes ||
         returns_unchanged(processor,
                           "Ab \n\n\t c\r\n \xEF\xAC\x81 \xE2\x91\xA0 \xEF\xBC\xA1 e\xCC\x81 ");
}

std::int32_t byte_piece(const Processor& processor, unsigned char byte) {
  const int id = processor.PieceToId(fmt::format("<0x{:02X}>", byte));
  return processor.IsByte(id) ? id : -1;
}

}  // namespace

PieceBorders borders_of(const Processor& processor) {
  PieceBorders borders;
  bool has_bytes = true;
  for (int byte = 0; byte < 256; ++byte)
    has_bytes = has_bytes && byte_piece(processor, static_cast<unsigned char>(byte)) >= 0;
  bool spaces_begin_pieces = true;
  bool lines_are_bytes = has_bytes;
  for (int id = 0; id < processor.GetPieceSize(); ++id) {
    if (processor.IsControl(id) || processor.IsByte(id) || processor.IsUnknown(id)) continue;
    std::string_view piece = processor.IdToPiece(id);
    if (piece.find('\n') != std::string_view::npos) lines_are_bytes = false;
    if (piece.find(' ') != std::string_view::npos) spaces_begin_pieces = false;
    while (piece.starts_with(space_mark)) piece.remove_prefix(space_mark.size());
    if (piece.find(space_mark) != std::string_view::npos) spaces_begin_pieces = false;
  }
  std::vector<std::string> pieces;
  const bool adds_prefix = !processor.Encode("a", &pieces).ok() || pieces.empty() ||
                           pieces.front().starts_with(space_mark);
  const bool knows_space = !processor.IsUnknown(processor.PieceToId(space_mark));
  // Behind a cut a prefix would come again: it is kept off by a line end that no piece joins.
  const bool can_cut = keeps_texts(processor, has_bytes) && (!adds_prefix || lines_are_bytes);
  borders.needs_guard = can_cut && adds_prefix;
  borders.before_space = can_cut && spaces_begin_pieces && knows_space;
  borders.behind_line = can_cut && lines_are_bytes;
  borders.writes_mark_as_bytes = can_cut && has_bytes;
  if (has_bytes)
    std::ranges::transform(space_mark, borders.mark_bytes.begin(), [&](char byte) {
      return byte_piece(processor, static_cast<unsigned char>(byte));
    });
  return borders;
}

namespace {

bool is_border(std::string_view text, std::size_t at, const PieceBorders& borders) {
  const char before = text[at - 1];
  if (borders.behind_line && before == '\n') return true;
  return borders.before_space && text[at] == ' ' && before != ' ' &&
         !text.substr(0, at).ends_with(space_mark);
}

}  // namespace

void for_each_part(std::string_view text, const PieceBorders& borders, PieceLimits limits,
                   EncodeNotes& notes, const std::function<void(std::string_view)>& take) {
  while (text.size() > limits.wanted) {
    std::size_t at = limits.wanted;
    const std::size_t end = std::min(text.size(), limits.most);
    while (at < end && !is_border(text, at, borders)) ++at;
    if (at == text.size()) break;  // no border in the rest, which is short enough
    if (at == end) {
      at = complete_utf8_prefix(text.substr(0, at));
      ++notes.num_forced_cuts;
    }
    take(text.substr(0, at));
    text.remove_prefix(at);
  }
  take(text);
}

}  // namespace switchyard
