// A fixture whose every test has a folder of its own, and what tests of files ask.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/temporary_folder.hpp"

namespace switchyard {

class ScratchFolder : public ::testing::Test {
 protected:
  std::string path(std::string_view name) const { return temporary_ / name; }

  std::string write(std::string_view name, std::string_view content) const {
    std::filesystem::create_directories(std::filesystem::path(path(name)).parent_path());
    test::write_contents(path(name), content);
    return path(name);
  }
  std::string read(std::string_view name) const { return test::contents_of(path(name)); }
  // Names in the folder.
  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      result.push_back(entry.path().filename().string());
    return result;
  }
  void flip_bit(std::string_view name, std::size_t byte, int bit) const {
    std::string content = read(name);
    content.at(byte) = static_cast<char>(content.at(byte) ^ (1 << bit));
    write(name, content);
  }

  const test::TemporaryFolder temporary_;
  const std::string& folder_ = temporary_.path();
};

// The message of the exception of type E that `function` throws; fails the test if it throws none.
template <class E, class Function>
std::string message_of(Function&& function) {
  try {
    function();
  } catch (const E& error) {
    return error.what();
  }
  ADD_FAILURE() << "no such error was thrown";
  return {};
}

inline ::testing::AssertionResult contains(std::string_view text, std::string_view part) {
  if (text.find(part) != std::string_view::npos) return ::testing::AssertionSuccess();
  return ::testing::AssertionFailure() << "\"" << part << "\" is not in: " << text;
}

}  // namespace switchyard
