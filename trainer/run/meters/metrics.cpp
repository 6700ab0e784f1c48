#include "trainer/run/meters/metrics.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"
#include "trainer/number_text.hpp"

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

std::string spill_fields(const std::optional<SpillMetrics>& m) {
  if (!m) return {};
  return fmt::format(
      ", \"spill_bytes\": {}, \"spill_wait_seconds\": {}, \"spill_bytes_per_second\": {}",
      number(m->bytes), number(m->wait_seconds), number(m->bytes_per_second));
}

std::string load_field(const std::vector<double>& by_layer) {
  if (by_layer.empty()) return {};
  std::string values;
  for (const double value : by_layer)
    values += fmt::format("{}{:.4g}", values.empty() ? "" : ", ", value);
  return fmt::format(", \"load_by_layer\": [{}]", values);
}

// Rounded to four digits.
std::string rounded_field(std::string_view name, const std::optional<double>& value) {
  return value ? fmt::format(", \"{}\": {:.4g}", name, *value) : std::string();
}

std::string part_field(const std::optional<PartSeconds>& seconds) {
  if (!seconds) return {};
  std::string values;
  for (std::size_t part = 0; part < num_parts; ++part) {
    const double value = (*seconds)[part];
    if (value > 0)
      values += fmt::format("{}\"{}\": {:.4g}", values.empty() ? "" : ", ",
                            name_of(static_cast<Part>(part)), value);
  }
  return fmt::format(", \"part_seconds\": {{{}}}", values);
}

struct Line {
  bool complete = false;  // an object of ours with its end
  bool restart = false;
  std::int64_t step = -1;
};

Line parse_line(std::string_view text) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("step") || !json["step"].is_number_integer()) return {};
  const std::int64_t step = json["step"].get<std::int64_t>();
  return {.complete = step >= 0,
          .restart = json.contains("event") && json["event"] == "restart",
          .step = step};
}

// Calls visit(text, line) for every line. One without its end was not finished, even if what is
// there can be read.
void for_each_line(const std::string& path,
                   const std::function<void(std::string_view, const Line&)>& visit) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return;
  const std::string text = read_file(path, max_metrics_bytes);
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line = std::string_view(text).substr(begin, end - begin);
    visit(line, end < text.size() ? parse_line(line) : Line{});
    begin = end + 1;
  }
}

}  // namespace

std::string to_json(const StepMetrics& m) {
  return fmt::format(
      "{{\"step\": {}, \"loss\": {}, \"cross_entropy\": {}, \"balance_loss\": {}, \"z_loss\": {}, "
      "\"grad_norm\": {}, \"learning_rate\": {}, \"num_tokens\": {}, \"step_seconds\": {}, "
      "\"tokens_per_second\": {}, \"model_flops_per_second\": {}, \"memory_bytes\": {}, "
      "\"max_rows\": {}, \"load_max_over_mean\": {}, \"dropped_fraction\": {}{}{}{}}}",
      m.step, number(m.loss), number(m.cross_entropy), number(m.balance_loss), number(m.z_loss),
      number(m.grad_norm), number(m.learning_rate), m.num_tokens, number(m.step_seconds),
      number(m.tokens_per_second), number(m.model_flops_per_second), m.memory_bytes, m.max_rows,
      number(m.load_max_over_mean), number(m.dropped_fraction), spill_fields(m.spill),
      load_field(m.load_by_layer), part_field(m.part_seconds));
}

namespace {

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

std::string to_json(const EvaluationMetrics& m) {
  std::string corpora;
  for (const CorpusLoss& corpus : m.by_corpus)
    corpora += fmt::format("{}{}: {}", corpora.empty() ? "" : ", ", quoted(corpus.path),
                           number(corpus.loss));
  if (!corpora.empty()) corpora = fmt::format(", \"loss_by_corpus\": {{{}}}", corpora);
  const std::string accuracy = m.validation_accuracy ? fmt::format(", \"validation_accuracy\": {}",
                                                                   number(*m.validation_accuracy))
                                                     : "";
  return fmt::format("{{\"step\": {}, \"validation_loss\": {}{}{}}}", m.step,
                     number(m.validation_loss), accuracy, corpora);
}

std::string to_json(const LayerMetrics& m) {
  return fmt::format(
      "{{\"event\": \"layer\", \"step\": {}, \"layer\": {}{}{}, \"idle_experts\": {}{}{}{}{}{}{}, "
      "\"load_percent\": [{}]}}",
      m.step, m.layer, rounded_field("load_max_over_mean", m.load_max_over_mean),
      rounded_field("load_variation", m.load_variation), m.num_idle,
      rounded_field("router_entropy", m.entropy),
      rounded_field("dropped_fraction", m.dropped_fraction),
      rounded_field("other_nodes_fraction", m.other_nodes_fraction),
      rounded_field("expert_seconds", m.expert_seconds),
      rounded_field("exchange_seconds", m.exchange_seconds),
      rounded_field("wait_seconds", m.wait_seconds), fmt::join(m.load_percent, ", "));
}

std::string to_json(const RestartMetrics& m) {
  return fmt::format(
      "{{\"event\": \"restart\", \"restarts\": {}, \"step\": {}, \"lost_steps\": {}, "
      "\"lost_seconds\": {:.1f}, \"reason\": {}}}",
      m.restarts, m.step, m.lost_steps, m.lost_seconds, quoted(m.reason));
}

std::string to_json(const PlacementMetrics& m) {
  return fmt::format(
      "{{\"event\": \"placement\", \"step\": {}, \"layers\": {}, \"experts\": {}, "
      "\"replicated\": {}, \"bytes\": {}, \"seconds\": {}, \"imbalance_before\": {:.4g}, "
      "\"imbalance_after\": {:.4g}}}",
      m.step, m.change.num_layers, m.change.num_experts, m.change.num_replicated,
      number(m.change.bytes), number(m.change.seconds), m.change.imbalance_before,
      m.change.imbalance_after);
}

std::string to_sentence(const PlacementMetrics& m) {
  const PlacementChange& change = m.change;
  if (change.num_layers == 0)
    return fmt::format("step {}  experts stay: the fullest rank has {:.2f} times the mean's rows",
                       m.step, change.imbalance_before);
  return fmt::format(
      "step {}  moved {} experts (of layers: {}) to other ranks, {} in {:.2f} s{}; the fullest "
      "rank "
      "had {:.2f} times the mean's rows, so placed it would have had {:.2f}",
      m.step, change.num_experts, change.num_layers, format_bytes(change.bytes), change.seconds,
      change.num_replicated > 0 ? fmt::format(", {} have replicas", change.num_replicated) : "",
      change.imbalance_before, change.imbalance_after);
}

std::int64_t last_step_in(const std::string& path) {
  std::int64_t last = 0;
  for_each_line(path, [&](std::string_view, const Line& line) {
    if (line.complete && !line.restart) last = std::max(last, line.step);
  });
  return last;
}

MetricsWriter::MetricsWriter(std::string path, std::int64_t restored_step, RestartLines restarts)
    : path_(std::move(path)) {
  std::string kept;
  for_each_line(path_, [&](std::string_view text, const Line& line) {
    const bool keep = line.restart ? restarts == RestartLines::keep
                                   : line.step <= restored_step && restored_step > 0;
    if (line.complete && keep)
      kept.append(text).push_back('\n');
    else
      ++num_cut_;
  });
  if (num_cut_ > 0) write_file_atomically(path_, kept);
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
