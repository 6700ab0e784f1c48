// A folder for the files of one test, removed with it. Collective form: all ranks get rank 0's.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>
#include <string_view>

namespace switchyard::test {

class TemporaryFolder {
 public:
  TemporaryFolder() : path_(make()), owner_(true) {}
  // `world` is a Group; named by no type, since tests of files need nothing of parallel/.
  template <class World>
  explicit TemporaryFolder(World& world)
      : owner_(world.rank() == 0), wait_for_all_([&world] { world.barrier(); }) {
    if (owner_) path_ = make();
    world.broadcast_text(path_, 0);
  }
  ~TemporaryFolder() {
    if (wait_for_all_) wait_for_all_();
    std::error_code ignored;
    if (owner_) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  static std::string make() {
    std::string name = (std::filesystem::temp_directory_path() / "switchyard-XXXXXX").string();
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    return name;
  }

  std::string path_;
  bool owner_;
  std::function<void()> wait_for_all_;
};

inline std::string contents_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void write_contents(const std::string& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  EXPECT_TRUE(file.good()) << path;
}

}  // namespace switchyard::test
