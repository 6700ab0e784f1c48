#include "launch/fit/points.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

#include "data/files/atomic_file.hpp"
#include "tensor/error.hpp"

namespace switchyard {
namespace {

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();

// The columns of a file by their meaning.
class Columns {
 public:
  Columns(const Table& runs, const std::string& path, const PointSettings& settings)
      : runs_(runs), path_(path), settings_(settings) {}

  std::string name_of(std::string_view symbol) const {
    if (const auto given = settings_.columns.find(std::string(symbol));
        given != settings_.columns.end()) {
      if (!runs_.has(given->second))
        throw DataError(fmt::format("{}: there is no column '{}' for {}; it has {}", path_,
                                    given->second, symbol, fmt::join(runs_.names(), ", ")));
      return given->second;
    }
    for (const ColumnMeaning& meaning : column_meanings())
      if (meaning.symbol == symbol)
        for (const std::string_view name : meaning.names)
          if (runs_.has(name)) return std::string(name);
    return {};
  }

  // NaN in every row if there is no such column.
  std::vector<double> values(std::string_view symbol) const {
    const std::string name = name_of(symbol);
    return name.empty() ? std::vector<double>(runs_.num_rows(), unknown) : runs_.numbers(name);
  }

  void require(std::string_view symbol) const {
    if (!name_of(symbol).empty()) return;
    for (const ColumnMeaning& meaning : column_meanings())
      if (meaning.symbol == symbol)
        throw DataError(
            fmt::format("{}: no column holds {} ({}); name it with --columns {}=NAME; it has {}",
                        path_, symbol, meaning.what, symbol, fmt::join(runs_.names(), ", ")));
  }

 private:
  const Table& runs_;
  const std::string& path_;
  const PointSettings& settings_;
};

std::vector<double> sizes_of(const Table& runs, const Columns& columns, SizeKind kind) {
  std::vector<double> sizes = columns.values("N");
  if (kind == SizeKind::total) return columns.values("N_total");
  if (kind == SizeKind::active) return sizes;
  if (!runs.has("num_embedding_parameters"))
    throw DataError("--size non_embedding: there is no column num_embedding_parameters");
  const std::vector<double> embedding = runs.numbers("num_embedding_parameters");
  for (std::size_t i = 0; i < sizes.size(); ++i) sizes[i] -= embedding[i];
  return sizes;
}

void require_one_kind_of_loss(const Table& runs, const std::vector<bool>& is_used,
                              const std::string& path) {
  if (!runs.has("loss_kind")) return;
  const std::vector<std::string> kinds = runs.texts("loss_kind");
  std::set<std::string> found;
  for (std::size_t i = 0; i < kinds.size(); ++i)
    if (is_used[i]) found.insert(kinds[i]);
  if (found.size() > 1)
    throw DataError(
        fmt::format("{}: losses of two kinds ({}) would mix; evaluate after the last step "
                    "of every point (study.evaluate), or name one: --columns L=train_loss",
                    path, fmt::join(found, ", ")));
}

void drop_lowest_ratios(PointSet& set, std::int64_t count) {
  if (count <= 0) return;
  const auto ratio = [](const FitPoint& point) {
    return point.value(Variable::tokens) / point.value(Variable::size);
  };
  std::vector<double> ratios;
  for (const FitPoint& point : set.points) ratios.push_back(ratio(point));
  std::sort(ratios.begin(), ratios.end());
  const std::size_t num_dropped = std::min(static_cast<std::size_t>(count), set.points.size());
  if (num_dropped == 0) return;
  const double last = ratios[num_dropped - 1];
  std::size_t left = num_dropped;
  std::erase_if(set.points, [&](const FitPoint& point) {
    return ratio(point) <= last && left > 0 && left-- > 0;
  });
  set.notes.push_back(fmt::format("the {} runs of the lowest D/N ({:.3g} to {:.3g}) are dropped",
                                  num_dropped, ratios.front(), last));
}

// 1 - S: as told, else active over all parameters, else the share of experts that a token visits.
double density_of(double sparsity, double size, double total, double active_share) {
  if (!std::isnan(sparsity)) return 1 - sparsity;
  if (!std::isnan(total)) return size / total;
  return active_share;
}

}  // namespace

std::string text_of_family(const FitPoint& point) {
  if (point.is_dense()) return "dense";
  return fmt::format(
      "{:.0f} experts, {:.0f} a token, granularity {:.3g}", point.value(Variable::experts),
      point.value(Variable::experts) * point.active_share, point.value(Variable::granularity));
}

const std::vector<ColumnMeaning>& column_meanings() {
  static const std::vector<ColumnMeaning> meanings = {
      {"N", "parameters, those that a token passes", {"N", "num_active_parameters"}},
      {"N_total", "all parameters", {"N_total", "num_parameters"}},
      {"D", "tokens trained on", {"D", "num_tokens"}},
      {"C", "FLOPs of the run", {"C", "flops"}},
      {"L", "loss, nats a token", {"L", "loss"}},
      {"E", "experts of a layer, 1 if dense", {"E", "num_experts"}},
      {"K", "experts that a token visits", {"K", "top_k"}},
      {"G", "width of the dense feed-forward over that of an expert", {"G", "granularity"}},
      {"S", "sparsity: 1 - active / all parameters", {"S", "sparsity"}},
      {"LR", "peak learning rate", {"LR", "config.optimizer.learning_rate"}},
      {"B", "tokens of a step", {"B", "tokens_per_step"}},
      {"name", "of the run, a text", {"name", "point"}},
  };
  return meanings;
}

std::map<std::string, std::string> parse_columns(std::string_view text) {
  std::map<std::string, std::string> columns;
  while (!text.empty()) {
    const std::string_view part = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), part.size() + 1));
    const std::size_t equals = part.find('=');
    const std::string symbol(part.substr(0, equals));
    const auto& meanings = column_meanings();
    const bool is_known =
        std::any_of(meanings.begin(), meanings.end(),
                    [&](const ColumnMeaning& meaning) { return meaning.symbol == symbol; });
    if (!is_known || equals == std::string_view::npos) {
      std::vector<std::string_view> symbols;
      for (const ColumnMeaning& meaning : meanings) symbols.push_back(meaning.symbol);
      throw ConfigError(fmt::format("--columns {}: expected SYMBOL=NAME, with a symbol of {}", part,
                                    fmt::join(symbols, ", ")));
    }
    columns[symbol] = part.substr(equals + 1);
  }
  return columns;
}

Table read_runs(const std::string& path) {
  if (!hdf5::has_signature(path)) return table_of_csv(read_file(path), path);
  const hdf5::File file = hdf5::File::open(path);
  if (!file.has_attribute("/", "format") ||
      file.string_attribute("/", "format") != "switchyard study")
    throw DataError(
        fmt::format("{}: is not the file of a study; `switchyard sweep STUDY --collect` "
                    "builds one",
                    path));
  return read_table(file, "points");
}

PointSet points_of(const Table& runs, const std::string& path, const PointSettings& settings) {
  const Columns columns(runs, path, settings);
  columns.require("L");
  columns.require("N");
  if (columns.name_of("C").empty()) columns.require("D");
  const std::vector<double> loss = columns.values("L"), total = columns.values("N_total"),
                            experts = columns.values("E"), top_k = columns.values("K"),
                            granularity = columns.values("G"), sparsity = columns.values("S"),
                            rate = columns.values("LR"), batch = columns.values("B"),
                            size = sizes_of(runs, columns, settings.size);
  std::vector<double> tokens = columns.values("D"), compute = columns.values("C");
  const std::string name = columns.name_of("name");
  const std::vector<std::string> names =
      name.empty() ? std::vector<std::string>(runs.num_rows()) : runs.texts(name);
  const std::vector<std::string> status =
      runs.has("status") ? runs.texts("status") : std::vector<std::string>(runs.num_rows(), "done");
  PointSet set;
  std::size_t num_unfinished = 0, num_incomplete = 0;
  std::vector<bool> is_used(runs.num_rows(), false);
  for (std::size_t i = 0; i < runs.num_rows(); ++i) {
    if (status[i] != "done") {
      ++num_unfinished;
      continue;
    }
    if (std::isnan(tokens[i])) tokens[i] = compute[i] / (6 * size[i]);
    if (std::isnan(compute[i])) compute[i] = 6 * size[i] * tokens[i];
    if (!(loss[i] > 0) || !(size[i] > 0) || !(tokens[i] > 0) || !std::isfinite(loss[i])) {
      ++num_incomplete;
      continue;
    }
    const double num_experts = std::isnan(experts[i]) ? 1 : experts[i];
    const double share = num_experts == 1 || std::isnan(top_k[i]) ? 1 : top_k[i] / num_experts;
    FitPoint point;
    point.name = names[i].empty() ? fmt::format("row {}", i + 1) : names[i];
    point.value(Variable::size) = size[i];
    point.value(Variable::tokens) = tokens[i];
    point.value(Variable::compute) = compute[i];
    point.value(Variable::experts) = num_experts;
    point.value(Variable::density) = density_of(sparsity[i], size[i], total[i], share);
    point.value(Variable::granularity) = std::isnan(granularity[i]) ? 1 : granularity[i];
    point.loss = loss[i];
    point.learning_rate = rate[i];
    point.batch_tokens = batch[i];
    point.active_share = share;
    is_used[i] = true;
    set.points.push_back(std::move(point));
  }
  if (settings.columns.count("L") == 0) require_one_kind_of_loss(runs, is_used, path);
  if (num_unfinished > 0)
    set.notes.push_back(fmt::format("{} runs that are not done are left out", num_unfinished));
  if (num_incomplete > 0)
    set.notes.push_back(fmt::format(
        "{} runs without a finite loss above 0, a size or a number of tokens are left out",
        num_incomplete));
  drop_lowest_ratios(set, settings.drop_lowest_ratio);
  return set;
}

}  // namespace switchyard
