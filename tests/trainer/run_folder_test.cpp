#include "trainer/run/run_folder.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "tests/support/temporary_folder.hpp"

namespace switchyard::test {
namespace {

std::string message_of(const std::string& path) {
  try {
    const RunFolder folder(path);
  } catch (const ConfigError& error) {
    return error.what();
  }
  return {};
}

TEST(RunFolder, MakesTheFoldersAndFiles) {
  const TemporaryFolder temporary;
  const RunFolder folder(temporary / "runs/tiny");
  EXPECT_TRUE(std::filesystem::is_directory(folder.logs()));
  EXPECT_TRUE(std::filesystem::is_directory(folder.checkpoints()));
  EXPECT_EQ(folder.note(), "");
  folder.write_config("run: {}\n");
  EXPECT_EQ(contents_of(folder.path() + "/config.yaml"), "run: {}\n");
  folder.write_exit(ExitCode::stopped, "SIGUSR1", 42);
  const auto json = nlohmann::json::parse(contents_of(folder.path() + "/exit.json"));
  EXPECT_EQ(json["code"], 16);
  EXPECT_EQ(json["reason"], "SIGUSR1");
  EXPECT_EQ(json["step"], 42);
  EXPECT_EQ(json["time"].get<std::string>().size(), std::string("2026-01-01T00:00:00Z").size());
}

TEST(RunFolder, ASecondJobIsRefusedWithTheHoldersName) {
  const TemporaryFolder temporary;
  {
    const RunFolder folder(temporary.path());
    const std::string message = message_of(temporary.path());
    EXPECT_NE(message.find("process " + std::to_string(::getpid())), std::string::npos) << message;
    EXPECT_NE(message.find("run.output"), std::string::npos) << message;
  }
  EXPECT_EQ(message_of(temporary.path()), "");  // given back
  const RunFolder again(temporary.path());
  EXPECT_EQ(again.note(), "");
}

TEST(RunFolder, AnotherProcessHoldsItUntilItIsKilled) {
  const TemporaryFolder temporary;
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const RunFolder folder(temporary.path());
    const ssize_t count = ::write(ready[1], "x", 1);
    for (;;) ::sleep(static_cast<unsigned>(count));
  }
  char byte = 0;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  const std::string message = message_of(temporary.path());
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  ::close(ready[0]);
  ::close(ready[1]);
  EXPECT_NE(message.find("process " + std::to_string(child)), std::string::npos) << message;

  const RunFolder folder(temporary.path());
  EXPECT_NE(folder.note().find(std::to_string(child)), std::string::npos) << folder.note();
  EXPECT_NE(folder.note().find("has died"), std::string::npos) << folder.note();
}

TEST(RunFolder, AFileInTheWayIsAnIoError) {
  const TemporaryFolder temporary;
  write_contents(temporary / "file", "x");
  EXPECT_THROW(RunFolder(temporary / "file"), IoError);
}

}  // namespace
}  // namespace switchyard::test
