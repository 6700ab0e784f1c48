#include "data/bpe/byte_letters.hpp"

#include <array>
#include <cstdint>

namespace switchyard::bpe {

namespace {

constexpr std::size_t num_letters = 256 + 68;  // code points in use, those below 256 with gaps

struct Letters {
  std::array<std::uint16_t, 256> of_byte{};
  std::array<std::int16_t, num_letters> byte_of{};  // -1: no letter
};

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
}

constexpr Letters make_letters() {
  Letters letters;
  for (std::int16_t& byte : letters.byte_of) byte = -1;
  unsigned next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const unsigned letter = stands_for_itself(byte) ? byte : next++;
    letters.of_byte[byte] = static_cast<std::uint16_t>(letter);
    letters.byte_of[letter] = static_cast<std::int16_t>(byte);
  }
  return letters;
}

constexpr Letters letters = make_letters();

}  // namespace

std::string letters_of_bytes(std::string_view bytes) {
  std::string text;
  for (const char c : bytes) {
    const unsigned letter = letters.of_byte[static_cast<unsigned char>(c)];
    if (letter < 0x80) {
      text.push_back(static_cast<char>(letter));
    } else {
      text.push_back(static_cast<char>(0xC0 | letter >> 6));
      text.push_back(static_cast<char>(0x80 | (letter & 0x3F)));
    }
  }
  return text;
}

std::optional<std::string> bytes_of_letters(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    unsigned letter = static_cast<unsigned char>(text[i]);
    if (letter >= 0x80) {  // two bytes of UTF-8, as no letter needs more
      if ((letter & 0xE0) != 0xC0 || i + 1 == text.size()) return std::nullopt;
      const unsigned low = static_cast<unsigned char>(text[++i]);
      if ((low & 0xC0) != 0x80) return std::nullopt;
      letter = (letter & 0x1F) << 6 | (low & 0x3F);
    }
    if (letter >= num_letters || letters.byte_of[letter] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(letters.byte_of[letter]));
  }
  return bytes;
}

}  // namespace switchyard::bpe
