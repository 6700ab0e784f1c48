#include "data/files/atomic_file.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <span>

#include "data/files/checksum.hpp"
#include "scratch_folder.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

class AtomicFile : public ScratchFolder {};

TEST_F(AtomicFile, AppearsOnlyOnCommit) {
  {
    OutputFile output(path("a.txt"));
    std::ofstream(output.temporary_path()) << "half";
    EXPECT_FALSE(std::filesystem::exists(path("a.txt")));
  }
  EXPECT_TRUE(names().empty());
  {
    OutputFile output(path("a.txt"));
    std::ofstream(output.temporary_path()) << "whole";
    output.commit();
  }
  EXPECT_EQ(names(), std::vector<std::string>{"a.txt"});
  EXPECT_EQ(read("a.txt"), "whole");
}

TEST_F(AtomicFile, ReplacesOrRefuses) {
  write_file_atomically(path("a.json"), "one");
  write_file_atomically(path("a.json"), "two");
  EXPECT_EQ(read_file(path("a.json")), "two");
  EXPECT_TRUE(contains(message_of<IoError>([&] { OutputFile(path("a.json"), Existing::refuse); }),
                       "a.json"));
  // A file that appears while we write is not overwritten either.
  OutputFile output(path("b.json"), Existing::refuse);
  std::ofstream(output.temporary_path()) << "ours";
  write("b.json", "theirs");
  EXPECT_THROW(output.commit(), IoError);
  EXPECT_EQ(read("b.json"), "theirs");
}

TEST_F(AtomicFile, KilledWritersLeaveNothingForGood) {
  const pid_t child = ::fork();
  if (child == 0) {
    OutputFile output(path("big.h5"));
    std::ofstream(output.temporary_path()) << "half";
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  ASSERT_EQ(names().size(), 1u);
  EXPECT_TRUE(contains(names().front(), "big.h5.tmp-"));
  write("big.h5.tmp-otherhost-" + std::to_string(child), "of another host");
  const OutputFile next(path("big.h5"));
  EXPECT_EQ(names(), std::vector<std::string>{"big.h5.tmp-otherhost-" + std::to_string(child)});
}

TEST_F(AtomicFile, ErrorsSayWhatAndWhy) {
  EXPECT_TRUE(
      contains(message_of<IoError>([&] { write_file_atomically(path("no/folder/x"), "x"); }),
               "no/folder/x"));
  EXPECT_THROW(read_file(path("absent")), IoError);
  write("large", "12345");
  EXPECT_THROW(read_file(path("large"), 4), IoError);
  EXPECT_TRUE(contains(
      message_of<IoError>([&] { require_free_space(folder_, std::int64_t{1} << 60, "the test"); }),
      "the test needs"));
}

TEST_F(AtomicFile, ChecksumsOfFilesPiecesAndBytesAgree) {
  std::string text(3'000'000, 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 3);
  write("file", text);
  const auto bytes = std::as_bytes(std::span(text));
  Checksum pieces;
  pieces.add(bytes.first(17));
  pieces.add(bytes.subspan(17));
  EXPECT_EQ(checksum_of_file(path("file")), checksum_of(bytes));
  EXPECT_EQ(pieces.value(), checksum_of(bytes));
  // The published value of XXH3 for no bytes and seed 0.
  EXPECT_EQ(checksum_text(checksum_of({})), "2d06800538d394c2");
}

}  // namespace
}  // namespace switchyard
