// The log of one rank: logs/rank-N.log, with time and level. Warnings and errors of rank 0 go to
// stderr too. Appends, so a resumed run has one log.
#pragma once

#include <memory>
#include <string>

namespace switchyard {

class RankLog {
 public:
  // `folder` exists. IoError if the file cannot be opened.
  RankLog(const std::string& folder, int rank);
  ~RankLog();
  RankLog(const RankLog&) = delete;
  RankLog& operator=(const RankLog&) = delete;

  void info(const std::string& text);
  void warning(const std::string& text);
  void error(const std::string& text);

 private:
  struct Sinks;
  std::unique_ptr<Sinks> sinks_;
};

}  // namespace switchyard
