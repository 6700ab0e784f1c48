#include "data/tokenizer.hpp"

#include <numeric>

#include "data/files/utf8.hpp"
#include "scratch_folder.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

class TokenizerTest : public ScratchFolder {};

std::vector<std::string> training_texts() {
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i)
    texts.push_back("The " + std::to_string(i) +
                    "th train passes the switchyard, and every wagon "
                    "finds\n  its own track" +
                    std::string(static_cast<std::size_t>(i % 3), '.') +
                    " Gr\xC3\xBC\xC3\x9F"
                    "e!\n");
  return texts;
}

std::string stream(const Tokenizer& tokenizer, const std::vector<std::int32_t>& tokens) {
  StreamingDecoder decoder(tokenizer);
  std::string text;
  for (std::int32_t token : tokens) {
    const std::string piece = decoder.push(token);
    EXPECT_EQ(first_invalid_utf8(piece), piece.size());
    text += piece;
  }
  return text + decoder.finish();
}

TEST_F(TokenizerTest, BytesOfAllValues) {
  const auto tokenizer = make_byte_tokenizer();
  std::string text(256, '\0');
  std::iota(text.begin(), text.end(), '\0');
  const std::vector<std::int32_t> tokens = tokenizer->encode(text);
  for (std::size_t i = 0; i < 256; ++i) EXPECT_EQ(tokens[i], static_cast<std::int32_t>(i));
  EXPECT_EQ(tokenizer->decode(tokens), text);
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{'a', 256, 'b', 9999}),
            "ab" + std::string(replacement_character));
  EXPECT_EQ(load_tokenizer_blob(tokenizer->serialize(), "test")->name(), "bytes");
}

TEST_F(TokenizerTest, StreamingHoldsBackIncompleteCharacters) {
  const auto tokenizer = make_byte_tokenizer();
  StreamingDecoder decoder(*tokenizer);
  EXPECT_EQ(decoder.push(0xF0), "");
  EXPECT_EQ(decoder.push(0x9F), "");
  EXPECT_EQ(decoder.push(0x9A), "");
  EXPECT_EQ(decoder.push(0x82), "\xF0\x9F\x9A\x82");
  EXPECT_EQ(decoder.push(0xE2), "");
  EXPECT_EQ(decoder.push('x'), std::string(replacement_character) + "x");
  EXPECT_EQ(decoder.push(0xC3), "");
  EXPECT_EQ(decoder.finish(), replacement_character);
  EXPECT_EQ(decoder.finish(), "");
}

TEST_F(TokenizerTest, Utf8FollowsTheStandard) {
  for (std::string_view good : {"", "a", "\xC2\x80", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
                                "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_EQ(first_invalid_utf8(good), good.size()) << good;
  for (std::string_view bad : {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80",
                               "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5", "\xC3", "\xE2\x82"})
    EXPECT_EQ(first_invalid_utf8("ok" + std::string(bad)), 2u) << bad;
}

TEST_F(TokenizerTest, SentencePieceTrainsSilentlyAndIsLossless) {
  ::testing::internal::CaptureStderr();
  const auto texts = training_texts();
  const auto tokenizer = train_sentencepiece(texts, {.vocab_size = 400});
  EXPECT_EQ(tokenizer->vocab_size(), 400);
  std::string strange = "  two spaces, tabs\t\tand\n\n\nlines \r\n";
  strange += "\xF0\x9F\x9A\x82 \xD0\x96 42 %\n ";
  for (const std::string& text :
       {texts[5], strange, std::string(" "), std::string("\n"), std::string()}) {
    const std::vector<std::int32_t> tokens = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(tokens), text);
    EXPECT_EQ(stream(*tokenizer, tokens), text);
    EXPECT_LE(tokens.size(), text.size());
  }
  EXPECT_LT(tokenizer->encode(texts[5]).size(), texts[5].size() / 2);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

// The letters around U+2581, spaces beside it, it alone, at both ends, in rows.
TEST_F(TokenizerTest, TheMarkOfSpacesIsATextLikeAnyOther) {
  const auto tokenizer = train_sentencepiece(training_texts(), {.vocab_size = 400});
  const std::string mark = "\xE2\x96\x81";
  for (const std::string& text :
       {mark, mark + mark, "a" + mark + "b", " " + mark + " ", mark + " train", "train" + mark,
        "The " + mark + "train passes" + mark + mark + "\n" + mark + " the switchyard",
        "\xE2\x96\x80\xE2\x96\x82" + mark + "\xF0\x9F\x9A\x82", std::string(" ") + mark + "\n\n"}) {
    EncodeNotes notes;
    const std::vector<std::int32_t> tokens = tokenizer->encode(text, notes);
    EXPECT_EQ(tokenizer->decode(tokens), text);
    EXPECT_EQ(stream(*tokenizer, tokens), text);
    EXPECT_EQ(notes.num_lost_marks, 0);
  }
}

// Cut at every border that there is, a text has the tokens that it has in one piece.
TEST_F(TokenizerTest, PartsHaveTheTokensOfTheWhole) {
  const auto whole = train_sentencepiece(training_texts(), {.vocab_size = 400});
  const std::string blob = whole->serialize();
  const std::string model = blob.substr(blob.find('\n') + 1);
  std::string long_text;
  for (const std::string& text : training_texts()) long_text += text;
  std::string nasty = "\n\n  two  spaces\t\ttabs \n\r\n a\n b \n\n\n   ";
  nasty +=
      "\xF0\x9F\x9A\x82 \xD0\x96\xD0\x96 \xC3\xA9 \xE2\x96\x81 \xE2\x96\x81\xE2\x96\x81x 4 2 %\n ";
  for (const std::size_t wanted : {1, 2, 3, 7, 64, 1000}) {
    const auto cut = load_sentencepiece_model(model, "cut", {.wanted = wanted, .most = 1 << 20});
    for (const std::string& text : {long_text, nasty, nasty + nasty, std::string(300, ' '),
                                    std::string(300, '\n'), std::string("a")}) {
      EncodeNotes notes;
      EXPECT_EQ(cut->encode(text, notes), whole->encode(text))
          << wanted << ": " << text.substr(0, 40);
      EXPECT_EQ(notes.num_forced_cuts, 0);
    }
  }
}

// Models of others: with a space before every text, as Mixtral's; and with spaces left out, which
// cannot be cut without a trace. Both made of a model of ours, whose settings lie behind each
// other.
TEST_F(TokenizerTest, ModelsThatAddOrLeaveOutSpaces) {
  const std::string blob = train_sentencepiece(training_texts(), {.vocab_size = 400})->serialize();
  std::string model = blob.substr(blob.find('\n') + 1);
  const auto set = [&](char field) {  // a setting of its own is false: field, 0
    const std::size_t at = model.find(std::string{field, '\0'}, model.find("identity"));
    ASSERT_NE(at, std::string::npos);
    model[at + 1] = 1;
  };
  set('\x18');  // add_dummy_prefix
  const auto whole = load_sentencepiece_model(model, "prefix");
  ASSERT_EQ(whole->token_bytes(whole->encode("a").front()).front(), ' ');
  std::string text =
      "The train passes,\n\nand  every wagon \xC3\xA9\xF0\x9F\x9A\x82 finds its own track\n ";
  for (const std::size_t wanted : {1, 5, 20}) {
    EncodeNotes notes;
    const auto cut = load_sentencepiece_model(model, "cut", {.wanted = wanted, .most = 1 << 20});
    EXPECT_EQ(cut->encode(text, notes), whole->encode(text));
    EXPECT_EQ(notes.num_forced_cuts, 0);
  }
  const std::string marked =
      "a\xE2\x96\x81 track\xE2\x96\x81"
      "b";
  EXPECT_EQ(whole->decode(whole->encode(marked)), marked);

  set('\x20');  // remove_extra_whitespaces
  const auto forced = load_sentencepiece_model(model, "forced", {.wanted = 10, .most = 40});
  EncodeNotes notes;
  forced->encode(text, notes);
  EXPECT_EQ(notes.num_forced_cuts, 1);
  forced->encode(marked, notes);
  EXPECT_EQ(notes.num_lost_marks, 2);
}

TEST_F(TokenizerTest, ATextWithoutBordersIsCutAtCharactersAndThatIsCounted) {
  const auto whole = train_sentencepiece(training_texts(), {.vocab_size = 400});
  const std::string blob = whole->serialize();
  const auto cut = load_sentencepiece_model(blob.substr(blob.find('\n') + 1), "cut",
                                            {.wanted = 10, .most = 100});
  std::string text = "x";
  while (text.size() < 1000) text += "\xC3\xA9\xE2\x82\xAC";
  EncodeNotes notes;
  EXPECT_EQ(cut->decode(cut->encode(text, notes)), text);
  EXPECT_EQ(notes.num_forced_cuts, 10);
  EXPECT_EQ(cut->decode(cut->encode(text + " " + text, notes)), text + " " + text);
  EXPECT_EQ(notes.num_forced_cuts, 30);
}

TEST_F(TokenizerTest, SentencePieceIsDeterministicAndSurvivesSerialization) {
  const auto texts = training_texts();
  const auto one = train_sentencepiece(texts, {.vocab_size = 350});
  const auto again = train_sentencepiece(texts, {.vocab_size = 350});
  EXPECT_EQ(one->serialize(), again->serialize());
  const auto copy = load_tokenizer_blob(one->serialize(), "a blob");
  EXPECT_EQ(copy->encode(texts[1]), one->encode(texts[1]));
  EXPECT_EQ(copy->end_of_document(), one->end_of_document());
  const std::vector<std::int32_t> odd{one->end_of_document(), -1, 99999};
  EXPECT_EQ(one->decode(odd),
            std::string(replacement_character) + std::string(replacement_character));

  const std::string blob = one->serialize();
  write("copy.model", std::string_view(blob).substr(blob.find('\n') + 1));
  EXPECT_EQ(make_tokenizer(path("copy.model"))->encode(texts[2]), one->encode(texts[2]));
}

TEST_F(TokenizerTest, ErrorsAreClear) {
  ::testing::internal::CaptureStderr();
  EXPECT_THROW(load_sentencepiece_file(path("absent.model")), IoError);
  write("bad.model", "this is not a model");
  EXPECT_TRUE(contains(message_of<DataError>([&] { load_sentencepiece_file(path("bad.model")); }),
                       "bad.model: is not a SentencePiece model"));
  std::string characters;  // U+4E00 and on, 1000 of them
  for (int c = 0x4E00; c < 0x4E00 + 1000; ++c)
    for (const int byte : {0xE0 | c >> 12, 0x80 | (c >> 6 & 0x3F), 0x80 | (c & 0x3F)})
      characters += static_cast<char>(byte);
  EXPECT_TRUE(contains(
      message_of<DataError>([&] { train_sentencepiece({characters}, {.vocab_size = 400}); }),
      "Choose a larger vocabulary."));
  EXPECT_THROW(load_tokenizer_blob("nonsense", "x.h5"), DataError);
  EXPECT_THROW(train_sentencepiece({}, {.vocab_size = 400}), DataError);
  EXPECT_THROW(train_sentencepiece({"abc"}, {.vocab_size = 20}), ConfigError);
  EXPECT_TRUE(contains(
      message_of<DataError>([&] { train_sentencepiece({"a short text"}, {.vocab_size = 9000}); }),
      "at most, and 300 is the least; give more text, or use the tokenizer \"bytes\""));
  EXPECT_TRUE(contains(
      message_of<DataError>([&] { train_sentencepiece(training_texts(), {.vocab_size = 9000}); }),
      "at most; choose from 300 to "));
  EXPECT_TRUE(
      contains(message_of<ConfigError>([&] { train_sentencepiece({"abc"}, {.vocab_size = 299}); }),
               "choose at least 300 (256 bytes, </s>, <unk> and some characters)"));
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace switchyard
