// A small model's parameters on this job's ranks, for the tests of the store and of the gradient
// reduction: dense matrices, odd-sized norms, and experts whose number divides by few layouts: a
// rank may hold one more than another, or none.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "parallel/parameter.hpp"
#include "parallel/placement.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {

inline constexpr std::int64_t num_experts = 3;

inline std::vector<ParameterSpec> small_model(const Mesh& mesh) {
  const Placement placement = Placement::contiguous(num_experts, mesh.degree(Axis::expert));
  const std::int64_t first = placement.first_place(mesh.index(Axis::expert));
  const std::int64_t count = placement.num_places_of(mesh.index(Axis::expert));
  std::vector<ParameterSpec> specs;
  specs.push_back({.name = "embedding.weight", .global_shape = {50, 24}});
  for (int layer = 0; layer < 3; ++layer) {
    const std::string prefix = "layers." + std::to_string(layer) + ".";
    specs.push_back({.name = prefix + "norm.weight",
                     .global_shape = {23},
                     .decay = false,
                     .initial = Initial::ones});
    specs.push_back({.name = prefix + "query.weight", .global_shape = {24, 24}});
    specs.push_back({.name = prefix + "experts.down.weight",
                     .global_shape = {num_experts, 5, 9},
                     .slice = Slice(0, {{first, first + count}}),
                     .replicas = Axis::expert_data,
                     .initial_std = 0.5f});
    specs.push_back(
        {.name = prefix + "bias", .global_shape = {11}, .decay = false, .initial = Initial::zeros});
  }
  // Fused tensors whose parts are each cut over the expert axis, along the columns: q|k|v of 5
  // heads of 4 and 2 kv heads of 2, and gate|up of 13 columns each. On 4 ranks some hold no kv
  // head.
  const std::int64_t index = mesh.index(Axis::expert);
  const std::int64_t degree = mesh.degree(Axis::expert);
  const auto share = [&](std::int64_t begin, std::int64_t num_units, std::int64_t unit) {
    return IndexRange{begin + num_units * index / degree * unit,
                      begin + num_units * (index + 1) / degree * unit};
  };
  specs.push_back({.name = "cut.qkv.weight",
                   .global_shape = {3, 28},
                   .slice = Slice(1, {share(0, 5, 4), share(20, 2, 2), share(24, 2, 2)}),
                   .replicas = Axis::expert_data});
  specs.push_back({.name = "cut.gate_up.weight",
                   .global_shape = {2, 2, 26},
                   .slice = Slice(2, {share(0, 13, 1), share(13, 13, 1)}),
                   .replicas = Axis::expert_data});
  return specs;
}

// One layout of the small model: mesh and store.
struct SmallModel {
  SmallModel(Device& device, std::int64_t expert, std::int64_t bucket_bytes, Group& ranks = world())
      : mesh(ranks, {.expert = expert}), store(device, mesh) {
    for (const ParameterSpec& spec : small_model(mesh)) store.add(spec);
    store.allocate(bucket_bytes);
  }

  Mesh mesh;
  ParameterStore store;
};

// Every legal expert degree on this job's ranks.
inline std::vector<std::int64_t> expert_degrees() {
  std::vector<std::int64_t> degrees;
  for (std::int64_t expert = 1; expert <= world().size(); ++expert)
    if (world().size() % expert == 0) degrees.push_back(expert);
  return degrees;
}

// Elements a bucket may hold: everything in one, several parameters each, one parameter each.
inline constexpr std::int64_t bucket_sizes[] = {1 << 20, 4000, 4};

}  // namespace switchyard::test
