// Quoted words, read back by a real shell.
#include "data/files/shell_quote.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

TEST(ShellQuote, PlainWordsStayAsTheyAre) {
  for (const char* word : {"runs/first", "train.num_steps=10", "a@b:c,d%e+f-g_h.i", "-n"})
    EXPECT_EQ(quote_for_shell(word), word);
}

TEST(ShellQuote, AShellReadsEveryWordBack) {
  std::vector<std::string> words = {"",
                                    "a b",
                                    "it's",
                                    "\"quoted\"",
                                    "$HOME `id` $(id)",
                                    "~",
                                    "~/runs",
                                    "ä=1",
                                    "a#b",
                                    "#",
                                    "!!",
                                    "*?[x]",
                                    "{a,b}",
                                    "a\\b",
                                    "a\nb\t'c\\",
                                    "=ls",
                                    "model.mixer=[{kind: full}]",
                                    "a;b&c|d<e>f(g)"};
  std::string every;
  for (int byte = 1; byte < 256; ++byte) every += static_cast<char>(byte);
  words.push_back(every);
  const TemporaryFolder folder;
  write_contents(folder / "script", "printf '%s\\0' " + quote_all_for_shell(words));
  const std::string command = "bash " + (folder / "script") + " > " + (folder / "words");
  ASSERT_EQ(std::system(command.c_str()), 0);
  std::string expected;
  for (const std::string& word : words) expected += word + '\0';
  EXPECT_EQ(contents_of(folder / "words"), expected);
  EXPECT_EQ(quote_all_for_shell(words).find('\n'), std::string::npos);
}

}  // namespace
}  // namespace switchyard::test
