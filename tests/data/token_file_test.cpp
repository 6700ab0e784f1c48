#include "data/token_file.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <functional>
#include <random>
#include <thread>

#include "data/hdf5/hdf5.hpp"
#include "scratch_folder.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

using Documents = std::vector<std::vector<std::int32_t>>;

class TokenFileTest : public ScratchFolder {
 protected:
  // Documents of changing lengths, the empty one among them.
  static Documents some_documents(std::size_t count, std::uint32_t seed) {
    std::mt19937 random(seed);
    Documents documents(count);
    for (auto& document : documents) {
      document.resize(random() % 900);
      for (std::int32_t& token : document) token = static_cast<std::int32_t>(random() % 256);
    }
    documents.front().clear();
    return documents;
  }
  std::string write_tokens(std::string_view name, const Documents& train, const Documents& valid) {
    TokenFileWriter writer(folder_, *tokenizer_);
    for (const auto& document : train) writer.add_document(Split::train, document);
    for (const auto& document : valid) writer.add_document(Split::valid, document);
    writer.write(path(name), "[]\n");
    return path(name);
  }
  static std::vector<std::int32_t> stream_of(const Documents& documents) {
    std::vector<std::int32_t> stream;
    for (const auto& document : documents) {
      stream.insert(stream.end(), document.begin(), document.end());
      stream.push_back(256);
    }
    return stream;
  }
  // A token file that is right but for one thing.
  std::string write_by_hand(std::string_view name, std::int64_t version,
                            const std::vector<std::uint16_t>& tokens,
                            const std::vector<std::int64_t>& offsets) {
    hdf5::File file = hdf5::File::create(path(name));
    file.set_attribute("/", "format", "switchyard tokens");
    file.set_attribute("/", "version", version);
    file.set_attribute("/", "vocab_size", std::int64_t{257});
    file.set_attribute("/", "end_of_document", std::int64_t{256});
    hdf5::write_text(file, "tokenizer", tokenizer_->serialize());
    hdf5::write_text(file, "sources", "[]");
    for (const std::string split : {"train", "valid"}) {
      hdf5::Dataset dataset =
          file.create_dataset(split + "/tokens", {static_cast<std::int64_t>(tokens.size())},
                              hdf5::ElementType::u16, {.layout = hdf5::Layout::contiguous});
      dataset.write_all<std::uint16_t>(tokens);
      dataset.set_attribute("xxh3", "0123456789abcdef");
      file.create_dataset(split + "/block_checksums", {1}, hdf5::ElementType::u64)
          .write_all<std::uint64_t>(std::vector<std::uint64_t>{1});
      file.create_dataset(split + "/document_offsets", {static_cast<std::int64_t>(offsets.size())},
                          hdf5::ElementType::i64)
          .write_all<std::int64_t>(offsets);
    }
    return path(name);
  }

  std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
};

TEST_F(TokenFileTest, GivesBackWhatWasWritten) {
  const Documents train = some_documents(4000, 1), valid = some_documents(30, 2);
  const TokenFile file(write_tokens("t.h5", train, valid));
  const std::vector<std::int32_t> stream = stream_of(train);
  ASSERT_GT(stream.size(), std::size_t{3} << 19);  // several blocks
  EXPECT_EQ(file.num_tokens(Split::train), static_cast<std::int64_t>(stream.size()));
  EXPECT_EQ(file.num_tokens(Split::valid), static_cast<std::int64_t>(stream_of(valid).size()));
  EXPECT_EQ(file.num_documents(Split::train), 4000);
  EXPECT_EQ(file.num_documents(Split::valid), 30);
  EXPECT_EQ(file.bytes_per_token(), 2);
  EXPECT_EQ(file.tokenizer().name(), "bytes");
  EXPECT_EQ(tokenizer_from_file(file.path())->vocab_size(), 257);
  file.verify();

  std::mt19937 random(5);
  for (int trial = 0; trial < 300; ++trial) {
    const std::size_t begin = random() % stream.size();
    std::vector<std::int32_t> out(std::min<std::size_t>(random() % 5000, stream.size() - begin));
    file.read(Split::train, static_cast<std::int64_t>(begin), out);
    EXPECT_TRUE(
        std::equal(out.begin(), out.end(), stream.begin() + static_cast<std::ptrdiff_t>(begin)));
  }
  const std::vector<std::int64_t> offsets = file.document_offsets(Split::train);
  for (std::size_t d = 0; d + 1 < offsets.size(); ++d)
    ASSERT_EQ(offsets[d + 1] - offsets[d], static_cast<std::int64_t>(train[d].size()) + 1);
  std::vector<std::int32_t> beyond(2);
  EXPECT_THROW(file.read(Split::train, file.num_tokens(Split::train) - 1, beyond), InternalError);
}

TEST_F(TokenFileTest, ManyThreadsReadAtOnce) {
  const Documents train = some_documents(4000, 1);
  const TokenFile file(write_tokens("t.h5", train, {}));
  const std::vector<std::int32_t> stream = stream_of(train);
  std::vector<int> wrong(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < wrong.size(); ++t)
    threads.emplace_back([&, t] {
      std::vector<std::int32_t> out(1000);
      for (std::size_t begin = t * 7; begin + 1000 <= stream.size(); begin += 9973) {
        file.read(Split::train, static_cast<std::int64_t>(begin), out);
        wrong[t] += !std::equal(out.begin(), out.end(),
                                stream.begin() + static_cast<std::ptrdiff_t>(begin));
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4));
}

TEST_F(TokenFileTest, MovesTheEndOfASplit) {
  TokenFileWriter writer(folder_, *tokenizer_);
  for (std::int32_t d = 0; d < 3; ++d)
    writer.add_document(Split::train,
                        std::vector<std::int32_t>(static_cast<std::size_t>(d + 1), d));
  std::vector<std::int32_t> added(4);
  writer.read_tokens(Split::train, 1, added);
  EXPECT_EQ(added, (std::vector<std::int32_t>{256, 1, 1, 256}));
  writer.move_tail(Split::train, Split::valid, 5);
  writer.add_document(Split::train, std::vector<std::int32_t>{9});
  writer.write(path("t.h5"), "[]");
  const TokenFile file(path("t.h5"));
  EXPECT_EQ(file.document_offsets(Split::train), (std::vector<std::int64_t>{0, 2, 5, 7}));
  EXPECT_EQ(file.document_offsets(Split::valid), (std::vector<std::int64_t>{0, 4}));
  std::vector<std::int32_t> train(7), valid(4);
  file.read(Split::train, 0, train);
  file.read(Split::valid, 0, valid);
  EXPECT_EQ(train, (std::vector<std::int32_t>{0, 256, 1, 1, 256, 9, 256}));
  EXPECT_EQ(valid, (std::vector<std::int32_t>{2, 2, 2, 256}));
}

TEST_F(TokenFileTest, MovesTheEndOfADocumentAndThoseBehindIt) {
  TokenFileWriter writer(folder_, *tokenizer_);
  for (std::int32_t d = 0; d < 3; ++d)
    writer.add_document(Split::train, std::vector<std::int32_t>{d, d + 10, d + 20});
  writer.move_tail(Split::train, Split::valid, 5);
  writer.write(path("t.h5"), "[]");
  const TokenFile file(path("t.h5"));
  EXPECT_EQ(file.document_offsets(Split::train), (std::vector<std::int64_t>{0, 4, 6}));
  EXPECT_EQ(file.document_offsets(Split::valid), (std::vector<std::int64_t>{0, 3, 7}));
  std::vector<std::int32_t> train(6), valid(7);
  file.read(Split::train, 0, train);
  file.read(Split::valid, 0, valid);
  EXPECT_EQ(train, (std::vector<std::int32_t>{0, 10, 20, 256, 1, 256}));
  EXPECT_EQ(valid, (std::vector<std::int32_t>{11, 21, 256, 2, 12, 22, 256}));
}

TEST_F(TokenFileTest, WhatIsNoTokenFileIsCalledByItsName) {
  write("corpus.txt", "Once upon a time.\n");
  EXPECT_TRUE(contains(message_of<DataError>([&] { TokenFile file(path("corpus.txt")); }),
                       "is a text, not a token file; make one with `switchyard prepare "));
  write("empty.h5", "");
  EXPECT_TRUE(contains(message_of<DataError>([&] { TokenFile file(path("empty.h5")); }),
                       "is empty, or cannot be read"));
  write("other.h5", std::string("PAR1\0\0\1", 7));
  EXPECT_TRUE(contains(message_of<DataError>([&] { TokenFile file(path("other.h5")); }),
                       "is another kind of file, or damaged"));
}

// A lock as HDF5 sets it for a writer, held by this very process: on another open of the file.
TEST_F(TokenFileTest, ALockedFileIsInUseAndSaysByWhom) {
  write_tokens("t.h5", some_documents(3, 1), {});
  const int held = ::open(path("t.h5").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(held, 0);
  ASSERT_EQ(::flock(held, LOCK_EX), 0);
  const std::string message = message_of<IoError>([&] { TokenFile file(path("t.h5")); });
  EXPECT_TRUE(contains(message, "t.h5: is in use: it is locked"));
  EXPECT_TRUE(contains(message, "by process " + std::to_string(::getpid()) + " (data_token_file"))
      << message;
  ::close(held);
  EXPECT_NO_THROW(TokenFile file(path("t.h5")));
}

TEST_F(TokenFileTest, FlippedBitsAreFound) {
  const Documents train = some_documents(300, 3);
  write_tokens("t.h5", train, some_documents(20, 4));
  const std::string good = read("t.h5");
  const std::vector<std::int32_t> stream = stream_of(train);
  const std::vector<std::int64_t> offsets = TokenFile(path("t.h5")).document_offsets(Split::train);
  std::mt19937 random(11);
  int num_silent = 0, num_detected = 0;
  for (int trial = 0; trial < 100; ++trial) {
    write("bad.h5", good);
    flip_bit("bad.h5", random() % good.size(), static_cast<int>(random() % 8));
    try {
      const TokenFile file(path("bad.h5"));
      file.verify();
      std::vector<std::int32_t> out(stream.size());
      file.read(Split::train, 0, out);
      num_silent += out == stream && file.document_offsets(Split::train) == offsets ? 0 : 1;
    } catch (const Error& error) {
      ++num_detected;
      EXPECT_TRUE(contains(error.what(), "bad.h5"));
    }
  }
  EXPECT_EQ(num_silent, 0);
  EXPECT_GT(num_detected, 80);
}

TEST_F(TokenFileTest, ADamagedBlockIsNamedWhenItIsTouched) {
  const Documents train = some_documents(2500, 3);
  write_tokens("t.h5", train, {});
  std::int64_t offset = 0;
  {
    const hdf5::File file = hdf5::File::open(path("t.h5"));
    offset = *file.open_dataset("train/tokens").file_offset();
  }
  flip_bit("t.h5", static_cast<std::size_t>(offset) + (1 << 20) + 77, 0);  // in block 1
  const TokenFile file(path("t.h5"));
  std::vector<std::int32_t> out(100);
  file.read(Split::train, 0, out);
  EXPECT_TRUE(contains(message_of<DataError>([&] { file.read(Split::train, (1 << 19) - 1, out); }),
                       "block 1"));
  EXPECT_THROW(file.verify(), DataError);
}

TEST_F(TokenFileTest, AFileCutShortWhileInUseIsToldNotFatal) {
  const Documents train = some_documents(4000, 8);
  const std::string name = write_tokens("t.h5", train, some_documents(4, 9));
  const TokenFile file(name);
  std::vector<std::int32_t> tokens(100);
  file.read(Split::train, 0, tokens);
  std::filesystem::resize_file(name, 4096);  // most pages of the mapping are gone
  for (const std::int64_t begin : {std::int64_t{0}, file.num_tokens(Split::train) - 100})
    EXPECT_TRUE(contains(message_of<DataError>([&] { file.read(Split::train, begin, tokens); }),
                         "to 4096 bytes while it was in use; run `switchyard prepare` again"));
  EXPECT_TRUE(contains(message_of<DataError>([&] { file.verify(); }), "was cut short"));
}

TEST_F(TokenFileTest, MalformedFilesAreRefusedWithAReason) {
  const std::vector<std::uint16_t> tokens{1, 2, 256, 3, 256};
  const auto reason = [&](const std::string& file) {
    return message_of<DataError>([&] { TokenFile{file}; });
  };
  EXPECT_NO_THROW(TokenFile(write_by_hand("right.h5", 1, tokens, {0, 3, 5})));
  EXPECT_TRUE(contains(reason(write_by_hand("a.h5", 3, tokens, {0, 3, 5})), "version 3"));
  EXPECT_TRUE(contains(reason(write_by_hand("b.h5", 1, tokens, {0, 4, 3, 5})), "does not follow"));
  EXPECT_TRUE(contains(reason(write_by_hand("c.h5", 1, tokens, {0, 3, 6})), "end at token 6"));
  EXPECT_TRUE(contains(reason(write_by_hand("d.h5", 1, tokens, {1, 3, 5})), "[0] = 1"));
  EXPECT_TRUE(contains(reason(write_by_hand("e.h5", 1, {}, {0})), "block_checksums"));
  {
    hdf5::File file = hdf5::File::create(path("other.h5"));
    file.create_group("x");
  }
  EXPECT_TRUE(contains(reason(path("other.h5")), "not a token file"));
  const std::string whole = read("right.h5");
  write("cut.h5", std::string_view(whole).substr(0, whole.size() * 2 / 3));
  EXPECT_TRUE(contains(reason(path("cut.h5")), "cut.h5"));
  write("empty.h5", "");
  EXPECT_TRUE(contains(reason(path("empty.h5")), "empty.h5"));

  // Tokens beyond the vocabulary, with checksums that are right.
  write_tokens("t.h5", {{1, 2, 3}}, {});
  EXPECT_TRUE(contains(
      reason(write_by_hand("f.h5", 1, std::vector<std::uint16_t>(1 << 20, 256), {0, 1 << 20})),
      "block_checksums"));
}

}  // namespace
}  // namespace switchyard
