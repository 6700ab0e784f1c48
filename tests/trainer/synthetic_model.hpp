// Parameters without a model, on any group of ranks and any layout: dense matrices, odd-sized
// norms, experts whose number no layout divides, a tensor that spans several chunks of a file,
// fused tensors whose parts are cut unevenly along an inner dim, and one that is state. Contents
// are a formula of (what, tensor, global index), so any part can be checked anywhere.
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
                         .slice = Slice(0, {{first, first + count}}),
                         .replicas = Axis::expert_data};
  };
  const std::int64_t index = mesh.index(Axis::expert);
  const std::int64_t degree = mesh.degree(Axis::expert);
  const auto share = [&](std::int64_t begin, std::int64_t num_units, std::int64_t unit) {
    return IndexRange{begin + num_units * index / degree * unit,
                      begin + num_units * (index + 1) / degree * unit};
  };
  return {
      {.name = "embedding.weight", .global_shape = {1031, 300}},
      {.name = "layers.0.norm.weight", .global_shape = {23}, .decay = false},
      {.name = "layers.0.attention.query.weight", .global_shape = {24, 25}},
      experts("layers.0.experts.gate_up.weight", 14, 9),
      experts("layers.0.experts.down.weight", 9, 7),
      {.name = "layers.0.router.bias", .global_shape = {num_experts}, .kind = ParameterKind::state},
      // q|k|v of 7 heads of 30 and 2 kv heads of 6, as columns; gate|up of 11 columns each. The
      // expert axis stands for one that cuts matrices.
      {.name = "layers.1.attention.qkv.weight",
       .global_shape = {151, 234},
       .slice = Slice(1, {share(0, 7, 30), share(210, 2, 6), share(222, 2, 6)}),
       .replicas = Axis::expert_data},
      {.name = "layers.1.gate_up.weight",
       .global_shape = {3, 5, 22},
       .slice = Slice(2, {share(0, 11, 1), share(11, 11, 1)}),
       .replicas = Axis::expert_data},
      {.name = "head.weight", .global_shape = {31, 24}}};
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
      if (parameter.value().empty()) continue;
      float* value = parameter.value().as<float>();
      for (std::int64_t i = 0; i < parameter.value().numel(); ++i)
        value[i] = formula(what, parameter.index(), parameter.global_index(i));
    }
    for (const OwnedRange& range : store.owned_ranges())
      for (std::int64_t i = 0; i < range.numel && range.parameter->is_trained(); ++i) {
        const std::int64_t index = range.global_index(i);
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
        check(value[i], formula(what, parameter.index(), parameter.global_index(i)));
    }
    if (!with_moments) return wrong;
    for (const OwnedRange& range : store.owned_ranges())
      for (std::int64_t i = 0; i < range.numel && range.parameter->is_trained(); ++i) {
        const std::int64_t index = range.global_index(i);
        const int tensor = range.parameter->index();
        check(optimizer->moment1(range).as<float>()[i], formula(what + 1, tensor, index));
        check(optimizer->moment2(range).as<float>()[i], formula(what + 2, tensor, index));
      }
    return wrong;
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
