#include "trainer/families/tensor_map.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <memory>

#include "data/safetensors/numbers.hpp"
#include "model/transformer.hpp"
#include "tensor/error.hpp"
#include "trainer/placement/layer_placements.hpp"

namespace switchyard {

namespace {

std::string replaced(std::string_view text, std::string_view mark, std::string_view by) {
  std::string result(text);
  if (const std::size_t at = result.find(mark); at != std::string::npos)
    result.replace(at, mark.size(), by);
  return result;
}

// "layers.3.x" becomes "layers.{l}.x", and `layer` 3.
std::string pattern_of(const std::string& name, std::string& layer) {
  constexpr std::string_view start = "layers.";
  if (!name.starts_with(start)) return name;
  const std::size_t end = name.find('.', start.size());
  layer = name.substr(start.size(), end - start.size());
  return std::string(start) + "{l}" + name.substr(end);
}

struct RowRange {
  std::int64_t begin = 0, end = 0;
};

// num_rows: of the parameter, or of one expert's part of it.
RowRange rows_of(TensorPart part, std::int64_t num_rows, const ModelConfig& model) {
  const std::int64_t query_end = model.num_heads * model.effective_head_dim();
  const std::int64_t key_end = query_end + model.num_kv_heads * model.effective_head_dim();
  switch (part) {
    case TensorPart::query:
      return {0, query_end};
    case TensorPart::key:
      return {query_end, key_end};
    case TensorPart::value:
      return {key_end, num_rows};
    case TensorPart::gate:
      return {0, num_rows / 2};
    case TensorPart::up:
      return {num_rows / 2, num_rows};
    default:
      break;
  }
  return {0, num_rows};
}

// Pairs that turn are neighbours in published rows, and half of their number apart in ours
// (kernels/rows/rope.hpp). rows: of heads that are `width` wide and turn behind their first
// `still`.
std::vector<std::int64_t> rows_of_turned_pairs(std::int64_t num_rows, std::int64_t width,
                                               std::int64_t still) {
  const std::int64_t half = (width - still) / 2;
  std::vector<std::int64_t> row_of;
  for (std::int64_t row = 0; row < num_rows; ++row) {
    const std::int64_t head = row / width * width, at = row % width - still;
    row_of.push_back(at < 0 ? row : head + still + at / 2 + at % 2 * half);
  }
  return row_of;
}

// Rows of gate and up in turn, of ours the gate's first.
std::vector<std::int64_t> rows_in_turn(std::int64_t num_rows) {
  std::vector<std::int64_t> row_of;
  for (std::int64_t row = 0; row < num_rows; ++row)
    row_of.push_back(row / 2 + row % 2 * (num_rows / 2));
  return row_of;
}

std::vector<std::int64_t> row_order(TensorPart part, std::int64_t num_rows,
                                    const ModelConfig& model) {
  if (part == TensorPart::stacked_gate_up || part == TensorPart::stacked_gate_up_bias)
    return rows_in_turn(num_rows);
  if (part == TensorPart::latent_query)
    return rows_of_turned_pairs(num_rows, model.effective_head_dim(), model.latent.nope_dim);
  if (part == TensorPart::latent_key)
    return rows_of_turned_pairs(num_rows, num_rows, model.latent.kv_rank);
  return {};
}

// Elements of any type of this size.
template <std::size_t size>
struct Element {
  std::array<std::byte, size> bytes;
};

// to_run(j)[i] becomes element j of run i, of which take(i, j, out) gives out.size() from j on. It
// goes by squares that lie in the cache as they are turned: rows of matrices are often a power of
// two apart, where a cache keeps few of them.
template <class Value, class Take, class ToRun>
void transpose(std::int64_t num_from, std::int64_t num_to, const Take& take, const ToRun& to_run) {
  constexpr std::int64_t side = 64;
  std::array<std::array<Value, side>, side> square;
  for (std::int64_t from = 0; from < num_from; from += side)
    for (std::int64_t to = 0; to < num_to; to += side) {
      const auto height = static_cast<std::size_t>(std::min(side, num_from - from));
      const auto width = static_cast<std::size_t>(std::min(side, num_to - to));
      for (std::size_t i = 0; i < height; ++i)
        take(from + static_cast<std::int64_t>(i), to, std::span(square[i]).first(width));
      for (std::size_t j = 0; j < width; ++j) {
        Value* run = to_run(to + static_cast<std::int64_t>(j)) + from;
        for (std::size_t i = 0; i < height; ++i) run[i] = square[i][j];
      }
    }
}

std::int64_t our_begin(const MappedTensor& part, std::int64_t row) {
  return (part.row_of.empty() ? row : part.row_of[static_cast<std::size_t>(row)]) * part.num_cols;
}

template <class Number>
std::span<Number> run_of(std::span<Number> all, std::int64_t begin, std::int64_t numel) {
  return all.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(numel));
}

// Numbers of a type of this size.
template <std::size_t size>
void write_theirs(const MappedTensor& part, std::span<const float> ours,
                  safetensors::ElementType type, std::span<std::byte> theirs) {
  const std::int64_t num_cols = part.num_cols, num_rows = part.numel / num_cols;
  if (!part.is_transposed) {
    const std::int64_t row_bytes = num_cols * std::int64_t{size};
    for (std::int64_t row = 0; row < num_rows; ++row)
      safetensors::from_floats(run_of(ours, our_begin(part, row), num_cols), type,
                               run_of(theirs, row * row_bytes, row_bytes));
    return;
  }
  auto* const to = reinterpret_cast<Element<size>*>(theirs.data());
  transpose<Element<size>>(
      num_rows, num_cols,
      [&](std::int64_t row, std::int64_t col, std::span<Element<size>> out) {
        safetensors::from_floats(run_of(ours, our_begin(part, row) + col, std::ssize(out)), type,
                                 std::as_writable_bytes(out));
      },
      [&](std::int64_t col) { return to + col * num_rows; });
}

bool is_stacked(TensorPart part) {
  return part == TensorPart::stacked || part == TensorPart::stacked_gate_up ||
         part == TensorPart::stacked_gate_up_bias;
}

// One tensor with a matrix of each expert, or a row of numbers.
void add_stacked_parts(const NameRule& rule, const std::string& layer, const ModelConfig& model,
                       MappedParameter& parameter) {
  const Shape& shape = parameter.shape;
  const bool is_matrix = shape.num_dims() == 3;
  const std::int64_t num_rows = shape[1], num_cols = is_matrix ? shape[2] : 1;
  for (std::int64_t expert = 0; expert < shape[0]; ++expert) {
    MappedTensor part;
    part.theirs = replaced(rule.theirs, "{l}", layer);
    part.shape = {shape[0], num_rows};
    if (is_matrix) part.shape = {shape[0], num_cols, num_rows};
    part.numel = num_rows * num_cols;
    part.their_begin = part.our_begin = expert * part.numel;
    part.num_cols = num_cols;
    part.is_transposed = is_matrix;
    part.row_of = row_order(rule.part, num_rows, model);
    parameter.parts.push_back(std::move(part));
  }
}

void add_parts(const NameRule& rule, const std::string& layer, const ModelConfig& model,
               MappedParameter& parameter) {
  const bool by_expert = rule.theirs.find("{e}") != std::string_view::npos;
  const int first_dim = by_expert ? 1 : 0;
  const std::int64_t num_rows = parameter.shape[first_dim];
  const std::int64_t num_cols =
      parameter.shape.num_dims() > first_dim + 1 ? parameter.shape[first_dim + 1] : 1;
  const RowRange rows = rows_of(rule.part, num_rows, model);
  for (std::int64_t expert = 0; expert < (by_expert ? parameter.shape[0] : 1); ++expert) {
    MappedTensor part;
    part.theirs = with_number(replaced(rule.theirs, "{l}", layer), "{e}", expert);
    part.numel = (rows.end - rows.begin) * num_cols;
    part.our_begin = (expert * num_rows + rows.begin) * num_cols;
    part.num_cols = num_cols;
    part.row_of = row_order(rule.part, num_rows, model);
    if (rule.part == TensorPart::flat) {
      part.shape = {part.numel};
    } else {
      part.shape = {rows.end - rows.begin};
      if (parameter.shape.num_dims() > first_dim + 1) part.shape.push_back(num_cols);
    }
    parameter.parts.push_back(std::move(part));
  }
}

void map_parameter(const Family& family, const ModelConfig& model, MappedParameter& parameter) {
  std::string layer;
  const std::string pattern = pattern_of(parameter.ours, layer);
  for (const NameRule& rule : family.names)
    if (rule.ours == pattern)
      is_stacked(rule.part) ? add_stacked_parts(rule, layer, model, parameter)
                            : add_parts(rule, layer, model, parameter);
  std::ranges::sort(parameter.parts, {}, &MappedTensor::our_begin);
  std::int64_t end = 0;
  for (const MappedTensor& part : parameter.parts) {
    expect(part.our_begin == end, "parts of a parameter that follow each other");
    end += part.numel;
  }
  if (end != parameter.shape.numel())
    throw DataError(
        fmt::format("family {} has no name for the parameter {}", family.name, parameter.ours));
}

}  // namespace

std::string with_number(std::string_view text, std::string_view mark, std::int64_t number) {
  return replaced(text, mark, std::to_string(number));
}

void to_ours(const MappedTensor& part, std::span<const float> theirs, std::span<float> ours) {
  const std::int64_t num_cols = part.num_cols, num_rows = part.numel / num_cols;
  if (!part.is_transposed) {
    for (std::int64_t row = 0; row < num_rows; ++row)
      std::ranges::copy(run_of(theirs, row * num_cols, num_cols),
                        ours.begin() + our_begin(part, row));
    return;
  }
  transpose<float>(
      num_cols, num_rows,
      [&](std::int64_t col, std::int64_t row, std::span<float> out) {
        std::ranges::copy(run_of(theirs, col * num_rows + row, std::ssize(out)), out.begin());
      },
      [&](std::int64_t row) { return ours.data() + our_begin(part, row); });
}

void to_theirs(const MappedTensor& part, std::span<const float> ours, safetensors::ElementType type,
               std::span<std::byte> theirs) {
  safetensors::size_of(type) == 2 ? write_theirs<2>(part, ours, type, theirs)
                                  : write_theirs<4>(part, ours, type, theirs);
}

std::vector<MappedParameter> map_parameters(const Family& family, const Config& config) {
  const std::unique_ptr<Device> device = make_plan_device();
  const Mesh mesh(*device, 0, 1, {.data = 1, .context = 1, .expert = 1});
  const std::vector<Placement> placements =
      layer_placements(config, Placement::contiguous(config.experts.num_experts, 1));
  ParameterStore store(*device, mesh);
  const Transformer model(store, placements, config.model, config.experts, DType::f32, 0,
                          config.model.vocab_size);
  std::vector<MappedParameter> parameters;
  for (const Parameter& parameter : store.parameters()) {
    const ParameterSpec& spec = parameter.spec();
    parameters.push_back({parameter.name(), spec.global_shape, spec.kind, {}});
    map_parameter(family, config.model, parameters.back());
  }
  return parameters;
}

}  // namespace switchyard
