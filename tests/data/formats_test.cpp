// Token files of other programs, in and out: those that Megatron's own code wrote
// (tests/golden/make_megatron_golden.py) come back byte for byte; damaged ones are refused.
#include <cstring>
#include <filesystem>

#include "data/formats/megatron_index.hpp"
#include "data/formats/token_documents.hpp"
#include "data/prepare/prepare.hpp"
#include "data/token_file.hpp"
#include "scratch_folder.hpp"
#include "tensor/error.hpp"
#include "tensor/random.hpp"

namespace switchyard {
namespace {

class FormatsTest : public ScratchFolder {
 protected:
  static std::string golden(std::string_view name) {
    return std::string(GOLDEN_FOLDER "/megatron/").append(name);
  }
  static std::string golden_bytes(std::string_view name) { return test::contents_of(golden(name)); }
  PrepareSummary convert(const std::string& input, std::string_view output,
                         const std::string& tokenizer = "bytes", bool drop_ends = false) const {
    PrepareOptions options;
    options.inputs = {input};
    options.output = path(output);
    options.tokenizer = tokenizer;
    options.valid_fraction = 0;
    options.drop_ends = drop_ends;
    return prepare(options);
  }
  static std::vector<std::string> documents_of(const std::string& token_file, Split split) {
    const TokenFile file(token_file);
    const std::vector<std::int64_t> offsets = file.document_offsets(split);
    std::vector<std::string> documents;
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
      std::vector<std::int32_t> tokens(static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
      file.read(split, offsets[i], tokens);
      EXPECT_EQ(tokens.back(), file.end_of_document());
      documents.push_back(file.tokenizer().decode(tokens));
    }
    return documents;
  }
};

const std::vector<std::string> texts{"Once upon a time.", "x",
                                     "A second document, with two lines\nand no end",
                                     "Zw\xC3\xB6lf", "last"};

TEST_F(FormatsTest, MegatronsDatasetsComeBackByteForByte) {
  EXPECT_EQ(convert(golden("u16.idx"), "u16.h5").num_train_documents, 5);
  EXPECT_EQ(documents_of(path("u16.h5"), Split::train), texts);
  convert(path("u16.h5"), "back.idx", "");
  EXPECT_EQ(read("back.idx"), golden_bytes("u16.idx"));
  EXPECT_EQ(read("back.bin"), golden_bytes("u16.bin"));

  convert(golden("plain.bin"), "plain.h5");  // either of its files names a dataset
  EXPECT_EQ(documents_of(path("plain.h5"), Split::train), texts);
  convert(path("plain.h5"), "plain.idx", "", true);
  EXPECT_EQ(read("plain.idx"), golden_bytes("plain.idx"));
  EXPECT_EQ(read("plain.bin"), golden_bytes("plain.bin"));
}

TEST_F(FormatsTest, DocumentsOfSeveralSequencesAreJoined) {
  convert(golden("i32.idx"), "i32.h5");
  EXPECT_EQ(documents_of(path("i32.h5"), Split::train),
            (std::vector<std::string>{texts[0], texts[2], texts[3], texts[4], "A"}));
}

TEST_F(FormatsTest, NanogptsFilesComeBackByteForByte) {
  convert(golden("nanogpt.bin"), "nano.h5");
  EXPECT_EQ(documents_of(path("nano.h5"), Split::train), texts);
  convert(path("nano.h5"), "nano.bin", "");
  EXPECT_EQ(read("nano.bin"), golden_bytes("nanogpt.bin"));
  convert(golden("u16.idx"), "straight.bin");
  EXPECT_EQ(read("straight.bin"), golden_bytes("nanogpt.bin"));
}

TEST_F(FormatsTest, SplitsOfATokenFileAreKept) {
  PrepareOptions options;
  for (int i = 0; i < 40; ++i)
    options.inputs.push_back(write("text" + std::to_string(i), "text number " + std::to_string(i)));
  options.valid_fraction = 0.3;
  options.output = path("texts.h5");
  prepare(options);
  const auto valid = documents_of(path("texts.h5"), Split::valid);
  EXPECT_GT(valid.size(), 3u);
  convert(path("texts.h5"), "split.idx", "");
  convert(path("split_valid.idx"), "valid.h5");
  EXPECT_EQ(documents_of(path("valid.h5"), Split::train), valid);
  convert(path("split.idx"), "train.h5");
  EXPECT_EQ(documents_of(path("train.h5"), Split::train),
            documents_of(path("texts.h5"), Split::train));
  convert(path("texts.h5"), "copy.h5", "");
  EXPECT_EQ(documents_of(path("copy.h5"), Split::valid), valid);
}

TEST_F(FormatsTest, MistakesAreTold) {
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { convert(golden("u16.idx"), "a.h5", ""); }),
                       "holds token ids alone; --tokenizer must tell what they mean"));
  PrepareOptions mixed;
  mixed.inputs = {golden("u16.idx"), write("text.txt", "text")};
  mixed.output = path("mixed.h5");
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { prepare(mixed); }), "prepare them apart"));
  const std::string large(4, '\xFF');
  write("wild.bin", large);
  EXPECT_TRUE(contains(message_of<DataError>([&] { convert(path("wild.bin"), "a.h5"); }),
                       "wild.bin: token 0 is 65535, but the tokenizer has 257 tokens"));
  write("odd.bin", "abc");
  EXPECT_TRUE(contains(message_of<DataError>([&] { convert(path("odd.bin"), "a.h5"); }),
                       "odd.bin: has 3 bytes, but tokens of nanoGPT have two each"));
  EXPECT_THROW(convert(write("own.bin", std::string(4, '\0')), "own.bin"), Error);
  EXPECT_EQ(read("own.bin").size(), 4u);
  PrepareOptions onto;  // the .bin of an .idx is an output, too
  onto.inputs = {path("own.bin")};
  onto.output = path("own.idx");
  onto.tokenizer = "bytes";
  onto.overwrite = true;
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { prepare(onto); }), "is one of the inputs"));
  EXPECT_EQ(names().size(), 4u) << "nothing else is left behind";
}

TEST_F(FormatsTest, ADamagedIndexIsRefusedWithItsPlace) {
  const std::string idx = golden_bytes("u16.idx");
  write("d.bin", golden_bytes("u16.bin"));
  const auto refusal = [&](std::size_t at, std::string_view bytes) {
    std::string damaged = idx;
    damaged.replace(at, bytes.size(), bytes);
    write("d.idx", damaged);
    return message_of<DataError>([&] { convert(path("d.idx"), "d.h5"); });
  };
  EXPECT_TRUE(contains(refusal(0, "X"), "d.idx: does not begin with MMIDIDX"));
  EXPECT_TRUE(contains(refusal(9, "\2"), "has version 2"));
  EXPECT_TRUE(contains(refusal(17, "\7"), "floating-point"));
  EXPECT_TRUE(contains(refusal(17, "\11"), "the type code 9"));
  EXPECT_TRUE(contains(refusal(17, "\4"), "the one before ends at 72"));
  EXPECT_TRUE(contains(refusal(18, "\6"), "has 142 bytes, but 6 sequences"));
  EXPECT_TRUE(contains(refusal(25, "\xFF"), "claims"));
  EXPECT_TRUE(contains(refusal(34, "\x11"),
                       "sequence 1 begins at byte 36 of the .bin, the one before ends at 34"));
  EXPECT_TRUE(contains(refusal(37, "\xFF"), "sequence 0 has -"));
  EXPECT_TRUE(contains(refusal(142 - 8, "\4"), "its documents have 4 sequences, the index 5"));
  EXPECT_TRUE(contains(refusal(142 - 16, "\6"), "document 4 begins at sequence 6"));
  write("d.idx", idx.substr(0, 20));
  EXPECT_TRUE(contains(message_of<DataError>([&] { convert(path("d.idx"), "d.h5"); }),
                       "has 20 bytes, its head alone 34"));
  write("d.idx", idx + "12345");
  EXPECT_TRUE(contains(message_of<DataError>([&] { convert(path("d.idx"), "d.h5"); }),
                       "several modalities"));
}

// Whatever an index claims: refused, or its documents are those of the .bin.
TEST_F(FormatsTest, MutatedIndexesDoNoHarm) {
  const std::string idx = golden_bytes("i32.idx");
  write("m.bin", golden_bytes("i32.bin"));
  const RandomKey key = random_key(5, "mutations");
  int num_read = 0;
  for (std::uint64_t trial = 0; trial < 2000; ++trial) {
    std::string mutated = idx;
    for (std::uint64_t change = 0; change <= trial % 3; ++change) {
      const auto words = random_words(key, trial, change);
      if (words[2] % 8 == 0)
        mutated.resize(words[0] % (idx.size() + 20));
      else if (!mutated.empty())
        mutated[words[0] % mutated.size()] =
            static_cast<char>(words[2] % 16 == 1 ? words[1] % 3 : words[1]);
    }
    test::write_contents(path("m.idx"), mutated);
    try {
      const auto documents = formats::open_megatron(path("m.idx"), 257, 256);
      std::size_t num_tokens = 0;
      for (std::vector<std::int32_t> tokens; documents->next(tokens);) num_tokens += tokens.size();
      EXPECT_LE(num_tokens, golden_bytes("i32.bin").size());
      ++num_read;
    } catch (const DataError&) {
    }
  }
  EXPECT_LT(num_read, 1500);
  EXPECT_GT(num_read, 10);
}

}  // namespace
}  // namespace switchyard
