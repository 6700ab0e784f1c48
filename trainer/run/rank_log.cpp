#include "trainer/run/rank_log.hpp"

#include <fmt/core.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include "tensor/error.hpp"

namespace switchyard {

// Not registered with spdlog's global registry: this object is the only owner.
struct RankLog::Sinks {
  explicit Sinks(std::vector<spdlog::sink_ptr> sinks) : logger("", sinks.begin(), sinks.end()) {}
  spdlog::logger logger;
};

RankLog::RankLog(const std::string& folder, int rank) {
  const std::string path = fmt::format("{}/rank-{}.log", folder, rank);
  try {
    std::vector<spdlog::sink_ptr> sinks;
    sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_st>(path));
    sinks.back()->set_pattern("%Y-%m-%dT%H:%M:%S.%e %^%l%$ %v");
    if (rank == 0) {
      sinks.push_back(std::make_shared<spdlog::sinks::stderr_sink_st>());
      sinks.back()->set_level(spdlog::level::warn);
      sinks.back()->set_pattern("%l: %v");
    }
    sinks_ = std::make_unique<Sinks>(std::move(sinks));
  } catch (const spdlog::spdlog_ex& error) {
    throw IoError(fmt::format("{}: cannot be opened: {}", path, error.what()));
  }
  sinks_->logger.flush_on(spdlog::level::info);
}

RankLog::~RankLog() = default;

void RankLog::info(const std::string& text) {
  sinks_->logger.log(spdlog::level::info, spdlog::string_view_t(text));
}
void RankLog::warning(const std::string& text) {
  sinks_->logger.log(spdlog::level::warn, spdlog::string_view_t(text));
}
void RankLog::error(const std::string& text) {
  sinks_->logger.log(spdlog::level::err, spdlog::string_view_t(text));
}

}  // namespace switchyard
