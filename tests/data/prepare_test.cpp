// How prepared documents become tokens and splits, and what an error leaves behind.
#include "data/prepare/prepare.hpp"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>

#include "prepare_case.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST_F(Prepare, SeparatorsAndLongDocuments) {
  add("a.txt", "one\n\n\ntwo\n%\nthree");
  options_.overwrite = true;
  run();
  EXPECT_EQ(documents(), (Texts{"one\n\n\ntwo\n", "three"}));
  options_.separator = DocumentSeparator::blank_line;
  run();
  EXPECT_EQ(documents(), (Texts{"one\n", "two\n%\nthree"}));
  options_.separator = DocumentSeparator::none;
  run();
  EXPECT_EQ(documents(), (Texts{"one\n\n\ntwo\n%\nthree"}));

  options_.inputs.clear();
  add("long.txt", "0123456789\nabcdefghij\nABCDEFGHIJKLMNOPQRSTUVWXYZ\n");
  options_.max_document_bytes = 16;
  run();
  EXPECT_EQ(documents(),
            (Texts{"0123456789\n", "abcdefghij\n", "ABCDEFGHIJKLMNOP", "QRSTUVWXYZ\n"}));
  EXPECT_TRUE(contains(messages_, "long.txt:2: a document longer than 16 bytes is cut here"));
}

// A line longer than a document may be is cut between characters, wherever the limit falls and
// wherever the reader's own buffers end.
TEST_F(Prepare, ALongLineIsCutBetweenCharacters) {
  for (const std::int64_t limit : {16, 17, 18, 19, 1000, 262'144, 262'145, 262'146, 262'147}) {
    options_.inputs.clear();
    options_.overwrite = true;
    options_.max_document_bytes = limit;
    std::string line = "x";  // the characters lie at odd offsets
    while (std::ssize(line) < 3 * limit) line += "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x9A\x82";
    add("long.txt", line + "\nshort\n");
    const PrepareSummary summary = run();
    EXPECT_TRUE(summary.skipped.empty()) << limit;
    std::string joined;
    for (const std::string& text : documents()) {
      EXPECT_LE(std::ssize(text), limit);
      joined += text;
    }
    EXPECT_EQ(joined, line + "\nshort\n") << limit;
  }
  // Bytes that are no characters cannot hold the reader up.
  options_.inputs.clear();
  options_.max_document_bytes = 16;
  add("bad.txt", "good\n%\n" + std::string(100, '\xE2') + "\n%\nalso good\n");
  EXPECT_GT(run().skipped.at("bad UTF-8"), 0);
  EXPECT_EQ(documents(), (Texts{"good\n", "also good\n"}));
}

TEST_F(Prepare, CarriageReturnsAndByteOrderMarks) {
  const std::string mark = "\xEF\xBB\xBF";
  add("dos.txt", mark + "one\r\n%\r\ntwo\r\n");
  add("dos.jsonl", mark + "{\"text\": \"three\"}\r\n\r\n{\"text\": \"four\"}\r\n");
  EXPECT_TRUE(run().skipped.empty());
  EXPECT_EQ(documents(), (Texts{"one\r\n", "two\r\n", "three", "four"}));
  options_.overwrite = true;
  options_.separator = DocumentSeparator::blank_line;
  options_.inputs.clear();
  add("blank.txt", "one\r\n\r\n\r\ntwo\r\n");
  run();
  EXPECT_EQ(documents(), (Texts{"one\r\n", "two\r\n"}));
}

TEST_F(Prepare, ThreadsDoNotChangeTheFile) {
  std::string text;
  for (int i = 0; i < 30000; ++i)
    text += "Document " + std::to_string(i) + " of a corpus that fills some batches: " +
            std::string(static_cast<std::size_t>(i % 97), 'x') + "\n%\n";
  add("corpus", text);
  options_.valid_fraction = 0.1;
  for (std::int32_t vocab : {0, 350}) {
    options_.train_vocab = vocab;
    std::vector<std::string> files;
    for (int threads : {1, 4}) {
      options_.num_threads = threads;
      options_.output = path("out" + std::to_string(vocab) + "-" + std::to_string(threads));
      const PrepareSummary summary = run();
      EXPECT_NEAR(static_cast<double>(summary.num_valid_documents), 3000, 300);
      EXPECT_EQ(summary.num_valid_documents + summary.num_train_documents, 30000);
      files.push_back(read("out" + std::to_string(vocab) + "-" + std::to_string(threads)));
    }
    EXPECT_TRUE(files[0] == files[1]) << "vocabulary " << vocab;
  }
}

TEST_F(Prepare, EverySplitGetsADocument) {
  add("two.txt", "one\n%\ntwo\n");
  options_.valid_fraction = 0.001;
  run();
  EXPECT_EQ(documents(Split::train), Texts{"one\n"});
  EXPECT_EQ(documents(Split::valid), Texts{"two\n"});
  options_.overwrite = true;
  options_.valid_fraction = 0.999;
  run();
  EXPECT_EQ(documents(Split::train), Texts{"one\n"});
  EXPECT_EQ(documents(Split::valid), Texts{"two\n"});
}

// With one document, or two, the end of the tokens is for validation, from the beginning of a line
// on.
TEST_F(Prepare, TooFewDocumentsAreDividedAtALine) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += "line " + std::to_string(1000 + i) + "\n";
  add("one.txt", text);
  options_.overwrite = true;
  for (const double fraction : {0.05, 0.5}) {
    options_.valid_fraction = fraction;
    const PrepareSummary summary = run();
    const auto lines = static_cast<std::size_t>(std::lround(100 * fraction));
    EXPECT_EQ(documents(Split::train), Texts{text.substr(0, 10 * (100 - lines))}) << fraction;
    EXPECT_EQ(documents(Split::valid), Texts{text.substr(10 * (100 - lines))}) << fraction;
    EXPECT_TRUE(contains(summary.to_string(), "1 document is too few for a share of"));
    EXPECT_TRUE(contains(summary.to_string(), "one document is cut at a line"));
  }
  options_.valid_fraction = 0;
  EXPECT_EQ(run().num_valid_documents, 0);
  EXPECT_EQ(documents(), Texts{text});

  // A short second document and a part of the first. (Seed 1 draws neither.)
  options_.valid_fraction = 0.2;
  options_.seed = 1;
  add("two.txt", "the end\n");
  EXPECT_TRUE(contains(run().to_string(), "2 documents are too few for a share of 0.2"));
  EXPECT_EQ(documents(Split::valid), (Texts{text.substr(800), "the end\n"}));
  EXPECT_EQ(documents(Split::train), Texts{text.substr(0, 800)});

  std::string wagons;
  for (int i = 0; i < 500; ++i)
    wagons += "Wagon " + std::to_string(i) + " goes to the eastern yard.\n";
  options_.inputs.clear();
  add("wagons.txt", wagons);
  options_.train_vocab = 320;
  run();
  EXPECT_EQ(documents(Split::train).at(0) + documents(Split::valid).at(0), wagons);
  EXPECT_TRUE(documents(Split::valid).at(0).starts_with("Wagon 4"));
}

TEST_F(Prepare, ALoneLineIsDividedAtASpaceOrInsideAWord) {
  options_.overwrite = true;
  options_.valid_fraction = 0.3;
  add("line.txt", "a line that has words and no line end");
  EXPECT_TRUE(contains(run().to_string(), "cut at a space"));
  EXPECT_EQ(documents(Split::train), Texts{"a line that has words and "});
  EXPECT_EQ(documents(Split::valid), Texts{"no line end"});
  // The only other line begins so early that training would be left with nothing to speak of.
  options_.inputs.clear();
  add("lines.txt", "ab\n" + std::string(500, 'x') + " " + std::string(300, 'y') + "\n\n\n");
  EXPECT_TRUE(contains(run().to_string(), "cut at a space"));
  EXPECT_EQ(documents(Split::valid), Texts{std::string(300, 'y') + "\n\n\n"});
  options_.inputs.clear();
  add("word.txt", "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9");
  EXPECT_TRUE(contains(run().to_string(), "cut inside a word"));
  EXPECT_EQ(documents(Split::train), Texts{"\xC3\xA9\xC3\xA9\xC3\xA9"});
  EXPECT_EQ(documents(Split::valid), Texts{"\xC3\xA9"});
  options_.inputs.clear();
  add("letter.txt", "x");
  EXPECT_TRUE(contains(run().to_string(), "there is no place to divide them: no validation set"));
  EXPECT_EQ(documents(), Texts{"x"});
}

TEST_F(Prepare, ASentencePieceTokenizerTrainedHereIsUsedElsewhere) {
  std::string text;
  for (int i = 0; i < 500; ++i)
    text += "Wagon " + std::to_string(i) + " goes to the eastern yard.\n%\n";
  add("corpus.txt", text);
  options_.train_vocab = 320;
  const PrepareSummary summary = run();
  EXPECT_EQ(summary.tokenizer, "sentencepiece");
  EXPECT_EQ(summary.vocab_size, 320);
  EXPECT_LT(summary.num_train_tokens, summary.text_bytes / 2);
  const Texts first = documents();
  EXPECT_EQ(first[7], "Wagon 7 goes to the eastern yard.\n");

  options_.train_vocab = 0;
  options_.tokenizer = options_.output;
  options_.output = path("out2.h5");
  EXPECT_EQ(run().num_train_tokens, summary.num_train_tokens);
  EXPECT_EQ(documents(), first);
}

TEST_F(Prepare, ErrorsLeaveNothingBehind) {
  options_.inputs = {path("absent.txt")};
  EXPECT_TRUE(contains(message_of<DataError>([&] { run(); }), "absent.txt"));
  options_.inputs.clear();
  EXPECT_THROW(run(), ConfigError);
  add("empty.txt", "");
  EXPECT_TRUE(contains(message_of<DataError>([&] { run(); }), "empty file: 1"));
  options_.inputs.clear();
  add("good.txt", "good\n");
  options_.valid_fraction = 1;
  EXPECT_THROW(run(), ConfigError);
  options_.valid_fraction = 0;
  options_.output = path("no/folder/out.h5");
  EXPECT_TRUE(contains(message_of<IoError>([&] { run(); }), "make it (mkdir -p "));
  options_.output = path("out.h5");
  EXPECT_FALSE(has_output());

  std::filesystem::create_directory(path("empty"));
  options_.inputs = {path("empty")};
  EXPECT_TRUE(contains(message_of<DataError>([&] { run(); }), "empty: no documents found"));
  // Links that lead nowhere or to themselves are named, and hold nothing up.
  std::filesystem::create_symlink("nowhere", path("empty/dangling"));
  std::filesystem::create_symlink("loop", path("empty/loop"));
  EXPECT_TRUE(contains(message_of<DataError>([&] { run(); }), "not a file: 2"));
  options_.inputs = {path("good.txt")};
  for (const std::int32_t vocab : {1, 299}) {
    options_.train_vocab = vocab;
    EXPECT_TRUE(contains(message_of<ConfigError>([&] { run(); }), "at least 300"));
  }
  options_.train_vocab = 5000;
  EXPECT_TRUE(contains(message_of<DataError>([&] { run(); }), "5000"));
  options_.train_vocab = 0;
  options_.tokenizer = "byte";
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { run(); }), "give bytes, a SentencePiece"));
  options_.tokenizer = "bytes";
  EXPECT_FALSE(has_output());

  write("out.h5", "precious");
  EXPECT_TRUE(contains(message_of<IoError>([&] { run(); }), "exists already"));
  EXPECT_EQ(read("out.h5"), "precious");

  options_.overwrite = true;
  options_.output = path("good.txt");
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { run(); }), "is one of the inputs"));
  EXPECT_EQ(read("good.txt"), "good\n");
  options_.output = path("empty");
  EXPECT_TRUE(contains(message_of<IoError>([&] { run(); }), "not a file that could be replaced"));
  std::filesystem::create_symlink("/dev/null", path("null"));
  options_.output = path("null");
  EXPECT_TRUE(contains(message_of<IoError>([&] { run(); }), "not a file that could be replaced"));
}

// A file size limit makes writes fail in the middle, as a full disk does.
TEST_F(Prepare, AFailedWriteIsAnErrorAndLeavesNothing) {
  add("corpus.txt", std::string(3 << 20, 'x'));
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const struct rlimit limit { 2 << 20, 2 << 20 };
    ::setrlimit(RLIMIT_FSIZE, &limit);
    int code = 0;
    try {
      run();
    } catch (const IoError&) {
      code = 6;
    }
    ::_exit(code);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 6);
  EXPECT_FALSE(has_output());
}

}  // namespace
}  // namespace switchyard
