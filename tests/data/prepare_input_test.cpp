// The forms of text that prepare reads, and what it says of those that it cannot use.
#include <sys/wait.h>
#include <unistd.h>
#include <zstd.h>

#include <filesystem>

#include "prepare_case.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

TEST_F(Prepare, FilesFoldersGzipAndJsonLines) {
  write("folder/b.txt", "second\n");
  write("folder/a.txt", "first\n");
  write("folder/sub/c.txt", "third, \xC3\xA9\n");
  std::filesystem::create_symlink("a.txt", path("folder/z.txt"));
  options_.inputs.push_back(path("folder"));
  add_gz("d.txt.gz", "fourth\n%\nfifth\n");
  add("e.jsonl", "{\"text\": \"sixth\\n\", \"other\": 1}\n\n{\"text\": \"seventh\"}");
  add_gz("f.jsonl.gz", "{\"text\":\"eighth \\u00e9\"}\n");
  const PrepareSummary summary = run();
  EXPECT_EQ(documents(), (Texts{"first\n", "second\n", "third, \xC3\xA9\n", "fourth\n", "fifth\n",
                                "sixth\n", "seventh", "eighth \xC3\xA9"}));
  EXPECT_EQ(summary.num_train_documents, 8);
  EXPECT_EQ(summary.num_files, 6);
  EXPECT_TRUE(summary.skipped.empty());
  EXPECT_EQ(summary.num_train_tokens, summary.text_bytes + 8);
  EXPECT_TRUE(contains(messages_, "z.txt: is another name"));
  EXPECT_TRUE(contains(TokenFile(options_.output).sources(), "d.txt.gz"));
}

TEST_F(Prepare, WhatCannotBeUsedIsNamedWithFileAndLineAndCounted) {
  add("bad.txt", "good\n%\none\ntwo \xFF\n%\nalso good\n%\n \n%\n");
  add("binary.dat", std::string("\0\0\0\2", 4));
  add("empty.txt", "");
  add("windows.txt", std::string("\xFF\xFEg\0o\0", 6));
  add("lines.JSONL",
      "{\"text\": \"fine\"}\n{\"text\": broken\n{\"body\": \"x\"}\n{\"text\": 5}\n"
      "{\"text\": \"\xC3(\"}\n{\"text\": \"nul \\u0000\"}\n[1]\n");
  const PrepareSummary summary = run();
  EXPECT_EQ(documents(), (Texts{"good\n", "also good\n", "fine"}));
  EXPECT_TRUE(contains(messages_, "bad.txt:4: bad UTF-8: byte 0xff"));
  EXPECT_TRUE(contains(messages_, "bad.txt:8: empty document"));
  EXPECT_TRUE(contains(messages_, "binary.dat: binary file"));
  EXPECT_TRUE(contains(messages_, "windows.txt: binary file: UTF-16?"));
  EXPECT_TRUE(contains(messages_, "empty.txt: empty file"));
  EXPECT_TRUE(contains(messages_, "lines.JSONL:2: broken JSON"));
  EXPECT_TRUE(contains(messages_,
                       "lines.JSONL:3: missing field: no \"text\" in the line, "
                       "only \"body\" (--text-field)"));
  EXPECT_TRUE(contains(messages_, "lines.JSONL:4: field is not a text"));
  EXPECT_TRUE(contains(messages_, "lines.JSONL:5: bad UTF-8"));
  EXPECT_TRUE(contains(messages_, "lines.JSONL:6: NUL byte"));
  const std::map<std::string, std::int64_t> expected{
      {"bad UTF-8", 2},  {"binary file", 2}, {"broken JSON", 1},         {"empty document", 1},
      {"empty file", 1}, {"NUL byte", 1},    {"field is not a text", 1}, {"missing field", 2}};
  EXPECT_EQ(summary.skipped, expected);
  EXPECT_TRUE(contains(summary.to_string(), "bad UTF-8: 2, binary file: 2"));
}

TEST_F(Prepare, JsonInAllItsForms) {
  add("array.json",
      " [{\"text\": \"one, [{\\\"\", \"more\": [{\"text\": \"inner\"}]},\n\n {\n  \"text\": "
      "\"two\"\n }\n]\n");
  add("lines.json", "{\"text\": \"three\"}\n{\"text\": \"bro\n{\"text\": \"four\"}\n");
  add("pretty.json", "{\n \"text\": \"five\"\n}\n{\n \"text\": \"six\"\n}");
  add("lines.ndjson", "{\"text\": \"seven\"}\n{\"text\": \"eight\"}\n");
  add_gz("array.JSON.gz", "[{\"text\":\"nine\"},{\"text\":\"ten\"}]");
  add("one.json", "{\n \"data\": [{\"text\": \"x\"}]\n}\n");
  add("broken.json",
      "[{\"text\": \"eleven\"},\n{\"text\": \"no end\n},\n{\"text\": \"twelve\"}, 5, "
      "\"s\"]\n}\n[{\"text\":");
  const PrepareSummary summary = run();
  EXPECT_EQ(documents(), (Texts{"one, [{\"", "two", "three", "four", "five", "six", "seven",
                                "eight", "nine", "ten", "eleven", "twelve"}));
  EXPECT_TRUE(contains(messages_, "lines.json:2: broken JSON"));
  EXPECT_TRUE(
      contains(messages_,
               "one.json:1: missing field: no \"text\" in the value; a .json file holds an array"));
  EXPECT_TRUE(contains(messages_, "broken.json:2: broken JSON"));
  const std::map<std::string, std::int64_t> expected{{"broken JSON", 4}, {"missing field", 3}};
  EXPECT_EQ(summary.skipped, expected);

  options_.overwrite = true;
  options_.inputs.clear();
  options_.max_document_bytes = 40;
  add("long.json", "[{\"text\": \"" + std::string(100, 'x') + "\"},\n{\"text\": \"short\"}]");
  EXPECT_EQ(run().skipped.at("value too long"), 1);
  EXPECT_EQ(documents(), Texts{"short"});
}

TEST_F(Prepare, HiddenFilesAndBackupsInFoldersAreLeftOutAndCounted) {
  write("folder/a.txt", "read\n");
  for (const char* name : {"folder/.git/HEAD", "folder/.a.txt.swp", "folder/sub/.hidden"})
    write(name, "not read\n");
  for (const char* name : {"folder/a.txt~", "folder/#a.txt#", "folder/a.BAK"})
    write(name, "not read\n");
  options_.inputs.push_back(path("folder"));
  options_.strict = true;  // they are no fault
  const std::map<std::string, std::int64_t> expected{{"backup file", 3},
                                                     {"hidden file or folder", 3}};
  EXPECT_EQ(run().skipped, expected);
  EXPECT_EQ(documents(), Texts{"read\n"});
  EXPECT_TRUE(contains(messages_, "folder/.git: hidden file or folder; left out"));
  // Who names one wants it.
  options_.overwrite = true;
  options_.inputs = {path("folder/.git"), path("folder/a.txt~")};
  EXPECT_TRUE(run().skipped.empty());
  EXPECT_EQ(documents(), (Texts{"not read\n", "not read\n"}));
}

TEST_F(Prepare, TheOutputInTheFolderOfTextsIsNoText) {
  write("texts/a.txt", "read\n");
  options_.inputs = {path("texts")};
  options_.output = path("texts/out.h5");
  run();
  options_.overwrite = true;
  options_.strict = true;
  EXPECT_EQ(run().skipped.at("token file in the folder of texts"), 1);
  EXPECT_EQ(documents(), Texts{"read\n"});
  EXPECT_TRUE(contains(
      messages_, "texts/out.h5: token file in the folder of texts: it is the output; left out"));
  // A text, or a token file that is named itself, is not replaced.
  options_.output = path("texts/a.txt");
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { run(); }), "is one of the inputs"));
  EXPECT_EQ(read("texts/a.txt"), "read\n");
  options_.output = path("texts/out.h5");
  options_.inputs.push_back(options_.output);
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { run(); }), "is one of the inputs"));
}

// A folder's part that cannot be read does not hold up the rest; what was named itself does.
TEST_F(Prepare, UnreadablePartsOfAFolderAreNamedAndCounted) {
  const std::string a = write("folder/a.txt", "read\n");
  const std::string closed_file = write("folder/closed.txt", "not read\n");
  write("folder/closed/b.txt", "not read\n");
  write("elsewhere/c.txt", "not read\n");
  std::filesystem::create_directory_symlink("../elsewhere", path("folder/link"));
  std::filesystem::create_directory_symlink("..", path("folder/circle"));
  options_.inputs.push_back(path("folder"));
  using std::filesystem::perms;
  std::filesystem::permissions(closed_file, perms::none);
  std::filesystem::permissions(path("folder/closed"), perms::none);
  std::filesystem::permissions(path(""), perms::all);
  // The superuser may read everything: another user prepares, in a process of its own.
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && (::setgid(65534) != 0 || ::setuid(65534) != 0)) ::_exit(1);
    const PrepareSummary summary = run();
    const std::map<std::string, std::int64_t> expected{
        {"link to a folder", 2}, {"unreadable file", 1}, {"unreadable folder", 1}};
    if (summary.skipped != expected || !contains(messages_, "folder/closed: unreadable"))
      ::_exit(2);
    options_.overwrite = true;
    options_.inputs = {closed_file};
    ::_exit(contains(message_of<IoError>([&] { run(); }), "closed.txt: cannot open") ? 0 : 3);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(documents(), Texts{"read\n"});
  std::filesystem::permissions(path("folder/closed"), perms::owner_all);
}

TEST_F(Prepare, StrictMakesThemErrorsAndLeavesNothing) {
  options_.strict = true;
  add("bad.txt", "good\n%\none\ntwo \xFF\n");
  EXPECT_TRUE(contains(message_of<DataError>([&] { run(); }), "bad.txt:4: bad UTF-8"));
  EXPECT_FALSE(has_output());
}

TEST_F(Prepare, DamagedGzip) {
  std::string content;
  for (int i = 0; i < 60000; ++i) content += "line " + std::to_string(i * 7919) + "\n%\n";
  add_gz("whole.gz", content);
  const std::string whole = read("whole.gz");
  options_.inputs.clear();
  add("cut.gz", std::string_view(whole).substr(0, whole.size() - 4000));
  add("fake.gz", "not compressed");
  const PrepareSummary summary = run();
  EXPECT_GT(summary.num_train_documents, 40000);
  EXPECT_LT(summary.num_train_documents, 60000);
  EXPECT_EQ(summary.skipped.at("damaged compressed file"), 2);
  EXPECT_TRUE(contains(messages_, "fake.gz:1: damaged compressed file"));
}

// Two frames behind each other, as parallel packers write them; one cut short, one of no such data.
TEST_F(Prepare, Zstandard) {
  const auto packed = [](const std::string& content) {
    std::string bytes(ZSTD_compressBound(content.size()), '\0');
    bytes.resize(ZSTD_compress(bytes.data(), bytes.size(), content.data(), content.size(), 3));
    return bytes;
  };
  add("two.jsonl.zst", packed("{\"text\": \"first\"}\n{\"te") + packed("xt\": \"second\"}\n"));
  EXPECT_EQ(run().num_train_documents, 2);
  EXPECT_EQ(documents(), (Texts{"first", "second"}));

  std::string content;
  for (int i = 0; i < 60000; ++i) content += "line " + std::to_string(i * 7919) + "\n%\n";
  const std::string whole = packed(content);
  options_.inputs.clear();
  options_.overwrite = true;
  add("whole.zst", whole);
  EXPECT_EQ(run().num_train_documents, 60000);
  options_.inputs.clear();
  add("cut.zst", std::string_view(whole).substr(0, whole.size() - 4000));
  add("fake.zst", "not compressed");
  const PrepareSummary summary = run();
  EXPECT_GT(summary.num_train_documents, 10000);
  EXPECT_LT(summary.num_train_documents, 60000);
  EXPECT_EQ(summary.skipped.at("damaged compressed file"), 2);
  EXPECT_TRUE(contains(messages_, "fake.zst:1: damaged compressed file"));
}

// The tokens of a prompt are read and not learned; texts without one are learned whole, as are
// ends.
TEST_F(Prepare, PromptsAreMasked) {
  add("chat.jsonl",
      "{\"prompt\": \"2+2=\", \"text\": \"4\"}\n{\"text\": \"plain\"}\n"
      "{\"prompt\": \"\", \"text\": \"x\"}\n{\"prompt\": 5, \"text\": \"y\"}\n"
      "{\"prompt\": \"\xC3\xA9\", \"text\": \"z\"}\n");
  options_.prompt_field = "prompt";
  EXPECT_EQ(run().skipped.at("field is not a text"), 1);
  const auto masks_of = [](const std::string& path) {
    const TokenFile file(path);
    file.verify();
    EXPECT_TRUE(file.has_loss_mask());
    std::string text;
    for (Split split : {Split::train, Split::valid}) {
      std::vector<std::uint8_t> mask(static_cast<std::size_t>(file.num_tokens(split)));
      file.read_mask(split, 0, mask);
      for (const std::uint8_t value : mask) text += static_cast<char>('0' + value);
      if (!mask.empty()) {  // a part is a part of the whole
        std::vector<std::uint8_t> part(mask.size() - 1);
        file.read_mask(split, 1, part);
        EXPECT_TRUE(std::equal(part.begin(), part.end(), mask.begin() + 1));
      }
    }
    return text;
  };
  EXPECT_EQ(documents(), (Texts{"2+2=4", "plain", "x", "\xC3\xA9z"}));
  EXPECT_EQ(masks_of(options_.output),
            "000011"
            "111111"
            "11"
            "0011");

  // A name that no document has would leave out every prompt.
  options_.prompt_field = "promt";
  options_.output = path("none.h5");
  EXPECT_TRUE(contains(message_of<DataError>([&] { run(); }), "--prompt-field promt"));
  EXPECT_FALSE(std::filesystem::exists(options_.output));
  options_.inputs = {path("out.h5")};
  EXPECT_TRUE(contains(message_of<ConfigError>([&] { run(); }), "the inputs are tokens"));

  // Copied with the tokens, moved with the end that becomes the validation split, and refused where
  // it would be lost.
  options_ = {};
  options_.inputs = {path("out.h5")};
  options_.output = path("copy.h5");
  run();
  EXPECT_EQ(masks_of(path("copy.h5")),
            "000011"
            "111111"
            "11"
            "0011");
  options_.output = path("copy.idx");
  EXPECT_TRUE(contains(message_of<DataError>([&] { run(); }), "cannot hold the loss mask"));
  options_ = {};
  add("two.jsonl",
      "{\"text\": \"first\\nsecond\\nthird\\nfourth\\n\"}\n"
      "{\"prompt\": \"question\\n\", \"text\": \"answer\\n\"}\n");
  options_.prompt_field = "prompt";
  options_.output = path("tail.h5");
  options_.valid_fraction = 0.3;
  run();
  const TokenFile tail(path("tail.h5"));
  ASSERT_GT(tail.num_tokens(Split::valid), 0);
  std::string all = masks_of(path("tail.h5"));
  std::erase(all, '1');
  EXPECT_EQ(all.size(), 9u) << "the prompt's tokens, in either split";
}

}  // namespace
}  // namespace switchyard
