// Parameters without a model, on any group of ranks and any layout: dense matrices, odd-sized
// norms, experts whose number no layout divides, and a tensor that spans several chunks of a file.
// Contents are a formula of (what, tensor, global index), so any part can be checked anywhere.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "parallel/placement.hpp"
#include "trainer/adamw_optimizer.hpp"

namespace switchyard::test {

inline constexpr std::int64_t num_experts = 5;

inline std::vector<ParameterSpec> synthetic_specs(const Mesh& mesh) {
  const Placement placement = Placement::contiguous(num_experts, mesh.degree(Axis::expert));
  const std::int64_t first = placement.first_place(mesh.index(Axis::expert));
  const std::int64_t count = placement.num_places_of(mesh.index(Axis::expert));
  const auto experts = [&](std::string name, std::int64_t rows, std::int64_t cols) {
    return ParameterSpec{.name = std::move(name),
                         .global_shape = {num_experts, rows, cols},
                         .first_row = first,
                         .num_rows = count,
                         .replicas = Axis::expert_data};
  };
  return {{.name = "embedding.weight", .global_shape = {1031, 300}, .num_rows = 1031},
          {.name = "layers.0.norm.weight", .global_shape = {23}, .num_rows = 23, .decay = false},
          {.name = "layers.0.attention.query.weight", .global_shape = {24, 25}, .num_rows = 24},
          experts("layers.0.experts.gate_up.weight", 14, 9),
          experts("layers.0.experts.down.weight", 9, 7),
          {.name = "head.weight", .global_shape = {31, 24}, .num_rows = 31}};
}

// `what` tells values, moments and gradients apart, and one step from another.
inline float formula(int what, int tensor, std::int64_t index) {
  const auto mixed = static_cast<std::uint64_t>(index) * 0x9E3779B97F4A7C15u +
                     static_cast<std::uint64_t>(tensor * 1000003 + what * 7919);
  const std::uint64_t bits = (mixed ^ (mixed >> 29)) * 0xBF58476D1CE4E5B9u;
  return static_cast<float>(static_cast<std::int64_t>(bits >> 40) - (1 << 23)) * 0x1p-23f;
}

struct SyntheticModel {
  SyntheticModel(Device& device, Group& world, std::int64_t expert,
                 const OptimizerConfig& config = {})
      : mesh(world, {.expert = expert}), store(device, mesh) {
    for (const ParameterSpec& spec : synthetic_specs(mesh)) store.add(spec);
    store.allocate(40000);  // bytes a bucket: several, some with several parameters
    optimizer.emplace(store, config);
  }

  void fill(int what) {
    for (const Parameter& parameter : store.parameters()) {
      const std::int64_t begin = global_begin(parameter);
      if (parameter.value().empty()) continue;
      float* value = parameter.value().as<float>();
      for (std::int64_t i = 0; i < parameter.value().numel(); ++i)
        value[i] = formula(what, parameter.index(), begin + i);
    }
    for (const OwnedRange& range : store.owned_ranges())
      for (std::int64_t i = 0; i < range.numel; ++i) {
        const std::int64_t index = range.global_begin + i;
        const int tensor = range.parameter->index();
        optimizer->moment1(range).as<float>()[i] = formula(what + 1, tensor, index);
        optimizer->moment2(range).as<float>()[i] = formula(what + 2, tensor, index);
      }
  }

  // Elements that are not bitwise those of fill(what): of values, and of moments if asked.
  std::int64_t count_wrong(int what, bool with_moments) const {
    std::int64_t wrong = 0;
    const auto check = [&](float got, float wanted) {
      if (std::bit_cast<std::uint32_t>(got) != std::bit_cast<std::uint32_t>(wanted)) ++wrong;
    };
    for (const Parameter& parameter : store.parameters()) {
      if (parameter.value().empty()) continue;
      const float* value = parameter.value().as<float>();
      for (std::int64_t i = 0; i < parameter.value().numel(); ++i)
        check(value[i], formula(what, parameter.index(), global_begin(parameter) + i));
    }
    if (!with_moments) return wrong;
    for (const OwnedRange& range : store.owned_ranges())
      for (std::int64_t i = 0; i < range.numel; ++i) {
        const std::int64_t index = range.global_begin + i;
        const int tensor = range.parameter->index();
        check(optimizer->moment1(range).as<float>()[i], formula(what + 1, tensor, index));
        check(optimizer->moment2(range).as<float>()[i], formula(what + 2, tensor, index));
      }
    return wrong;
  }

  static std::int64_t global_begin(const Parameter& parameter) {
    return parameter.spec().first_row * parameter.spec().global_shape.inner_numel();
  }

  Mesh mesh;
  ParameterStore store;
  std::optional<AdamW> optimizer;
};

// Every legal expert degree on `num_ranks` ranks.
inline std::vector<std::int64_t> expert_degrees(int num_ranks) {
  std::vector<std::int64_t> degrees;
  for (std::int64_t expert = 1; expert <= num_ranks; ++expert)
    if (num_ranks % expert == 0) degrees.push_back(expert);
  return degrees;
}

}  // namespace switchyard::test
