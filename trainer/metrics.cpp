#include "trainer/metrics.hpp"

#include <fmt/format.h>

#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "data/atomic_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr std::int64_t max_metrics_bytes = std::int64_t{8} << 30;

// fmt's {} of a double is the shortest text that reads back as the same double. A whole number
// keeps a point, so that a reader of JSON takes it for a floating-point number (and -0 for what it
// is).
std::string number(double value) {
  if (std::isnan(value)) return "\"nan\"";
  if (std::isinf(value)) return value > 0 ? "\"inf\"" : "\"-inf\"";
  std::string text = fmt::format("{}", value);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

// The step of a line; none if the line is not a complete one of ours.
std::int64_t step_of(std::string_view line) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) return -1;
  return json["step"].get<std::int64_t>();
}

}  // namespace

std::string to_json(const StepMetrics& m) {
  return fmt::format(
      "{{\"step\": {}, \"loss\": {}, \"cross_entropy\": {}, \"balance_loss\": {}, \"z_loss\": {}, "
      "\"grad_norm\": {}, \"learning_rate\": {}, \"num_tokens\": {}, \"step_seconds\": {}, "
      "\"tokens_per_second\": {}, \"model_flops_per_second\": {}, \"memory_bytes\": {}, "
      "\"max_rows\": {}, \"load_max_over_mean\": {}, \"dropped_fraction\": {}}}",
      m.step, number(m.loss), number(m.cross_entropy), number(m.balance_loss), number(m.z_loss),
      number(m.grad_norm), number(m.learning_rate), m.num_tokens, number(m.step_seconds),
      number(m.tokens_per_second), number(m.model_flops_per_second), m.memory_bytes, m.max_rows,
      number(m.load_max_over_mean), number(m.dropped_fraction));
}

std::string to_json(const EvaluationMetrics& m) {
  return fmt::format("{{\"step\": {}, \"validation_loss\": {}}}", m.step,
                     number(m.validation_loss));
}

MetricsWriter::MetricsWriter(std::string path, std::int64_t restored_step)
    : path_(std::move(path)) {
  std::error_code error;
  if (std::filesystem::exists(path_, error)) {
    const std::string text = read_file(path_, max_metrics_bytes);
    std::string kept;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find('\n', begin), text.size());
      const std::string_view line = std::string_view(text).substr(begin, end - begin);
      const std::int64_t step = step_of(line);
      // A line without its end was not finished, even if what is there can be read.
      if (end < text.size() && step >= 0 && step <= restored_step && restored_step > 0)
        kept.append(line).push_back('\n');
      else
        ++num_cut_;
      begin = end + 1;
    }
    if (num_cut_ > 0) write_file_atomically(path_, kept);
  }
  file_.reset(std::fopen(path_.c_str(), "ae"));
  if (!file_) throw IoError(fmt::format("{}: cannot be opened: {}", path_, std::strerror(errno)));
}

void MetricsWriter::append(const std::string& line) {
  const std::string whole = line + "\n";
  if (std::fwrite(whole.data(), 1, whole.size(), file_.get()) != whole.size() ||
      std::fflush(file_.get()) != 0)
    throw IoError(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
}

}  // namespace switchyard
