// The runs that laws are fitted to: from a study's file (docs/studies.md) or from a CSV file.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "launch/fit/law.hpp"
#include "launch/study/table.hpp"
#include "tensor/choice.hpp"

namespace switchyard {

// Which parameters N counts, where the file tells them apart.
enum class SizeKind : std::uint8_t { active, non_embedding, total };
constexpr std::array<std::string_view, 3> choice_names(SizeKind) {
  return {"active", "non_embedding", "total"};
}

struct PointSettings {
  SizeKind size = SizeKind::active;
  std::int64_t drop_lowest_ratio = 0;          // so many runs of the lowest D / N are left out
  std::map<std::string, std::string> columns;  // symbol -> name in the file, over the usual names
};

struct PointSet {
  std::vector<FitPoint> points;
  std::vector<std::string> notes;  // what was left out, and why
};

// The kind of model: "dense", "8 experts, 2 a token, granularity 4".
std::string text_of_family(const FitPoint& point);

// What a column may stand for: "N", "D", "C", "L", ... and the names by which files have it.
struct ColumnMeaning {
  std::string_view symbol;
  std::string_view what;
  std::vector<std::string_view> names;
};
const std::vector<ColumnMeaning>& column_meanings();

// "N=Model Size,C=Training FLOP". ConfigError for an unknown symbol.
std::map<std::string, std::string> parse_columns(std::string_view text);

// A study's /points if the file is HDF5, else a CSV file. IoError, DataError.
Table read_runs(const std::string& path);
// DataError if loss, size, or both tokens and compute are missing, or losses of two kinds would
// mix.
PointSet points_of(const Table& runs, const std::string& path, const PointSettings& settings);

}  // namespace switchyard
