// A folder that appears whole or not at all: it is filled as NAME.tmp and renamed at the end. What
// was begun and not published is removed.
#pragma once

#include <string>

namespace switchyard {

class NewFolder {
 public:
  // ConfigError if there is something under the name already, an empty folder excepted, or under
  // NAME.tmp. IoError.
  explicit NewFolder(std::string path);
  ~NewFolder();
  NewFolder(const NewFolder&) = delete;
  NewFolder& operator=(const NewFolder&) = delete;

  const std::string& temporary() const { return temporary_; }
  void publish();

 private:
  std::string path_;
  std::string temporary_;
};

}  // namespace switchyard
