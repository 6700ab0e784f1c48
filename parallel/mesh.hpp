// The ranks as a mesh of axes, and the group of this rank along each. Attention is split over the
// axes pipeline x data x context; experts fold over the same ranks as pipeline x expert_data x
// expert:
//     pipeline x data x context = pipeline x expert_data x expert = ranks
// Neighbouring ranks share an expert group: rank = (expert_data index) * expert + (expert index),
// and rank = (data index) * context + (context index). The ranks that share a sequence are a ring
// of Ulysses groups, context = context_ring x context_ulysses, with neighbours in a Ulysses group:
// context index = (ring index) * context_ulysses + (Ulysses index). Pipeline is 1 for now.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/config_mistake.hpp"
#include "parallel/context/sequence_split.hpp"
#include "parallel/group/exchange_progress.hpp"
#include "parallel/group/group.hpp"

namespace switchyard {

// How keys and values reach the ranks of a ring; automatic: what
// parallel/context/context_choice.hpp takes.
enum class ContextMethod : std::uint8_t { automatic, ring, all_gather };
constexpr std::array<std::string_view, 3> choice_names(ContextMethod) {
  return {"auto", "ring", "all_gather"};
}

// What carries tensors between the cards of ranks; automatic: NCCL where every rank has a card of
// its own and the library, else MPI through the host.
enum class ExchangeBackend : std::uint8_t { automatic, nccl, mpi };
constexpr std::array<std::string_view, 3> choice_names(ExchangeBackend) {
  return {"auto", "nccl", "mpi"};
}

// How the ranks of the context axis share a sequence (docs/parallelism.md).
struct ContextConfig {
  std::int64_t ring = 0;     // ranks that keys and values travel over; 0: what ulysses leaves
  std::int64_t ulysses = 0;  // ranks that exchange sequence for heads; 0: what ring leaves
  ContextMethod method = ContextMethod::automatic;
  SequenceLayout layout = SequenceLayout::zigzag;
  bool pad = false;                    // whether chunks may differ by one position
  Progress progress = Progress::poll;  // what moves messages during the computation
  // What `auto` takes for granted of the machine (parallel/context/context_choice.hpp).
  double rank_flops = 1e12;    // FLOP/s that a rank attains in attention
  double link_bytes = 1.25e9;  // bytes/s that a rank sends: 10 Gbit/s
  // Whether attention has the bits of one rank with whole sequences. No key of its own: it follows
  // from numerics.exact.
  bool exact = false;
  // Whether documents do not see each other, wherever they begin. Follows from data.document_mask.
  bool documents = false;
};

// Key `parallel` of a configuration.
struct ParallelConfig {
  std::int64_t data = 0;     // ranks that hold different sequences; 0 takes the ranks that are left
  std::int64_t context = 1;  // ranks that share a sequence: ring x ulysses
  std::int64_t expert = 1;   // ranks that the experts of a layer are sharded over
  std::int64_t bucket_megabytes = 16;  // of gradients reduced by one exchange
  bool share_devices = false;          // whether ranks of a host may compute on one card
  ExchangeBackend backend = ExchangeBackend::automatic;
  ContextConfig context_split = {};
};

enum class Axis : std::uint8_t {
  world,
  pipeline,
  data,
  context,
  context_ring,     // ranks that hold the same piece of different ring ranks' chunks
  context_ulysses,  // ranks that share a ring rank's chunks
  expert,
  expert_data,    // replicas of the same experts
  dense_replica,  // data x context: replicas of every parameter that is not an expert's
};
inline constexpr int num_axes = 9;
std::string_view name_of(Axis axis);

class Mesh {
 public:
  // Takes data: 0 as ranks / context, and fills in the degrees of context_split: a ring unless
  // ulysses is given; if ring or ulysses is given and context is not (1), context is their product.
  // ConfigError with the mistakes() if there are any.
  static ParallelConfig resolved(const ParallelConfig& config, std::int64_t num_ranks);

  // What does not hold: the whole equation, the numbers and the legal values.
  static std::vector<ConfigMistake> mistakes(const ParallelConfig& config, std::int64_t num_ranks);

  // Collective over the world.
  Mesh(Group& world, const ParallelConfig& config);
  // The mesh of any rank among any number, on the plan device.
  Mesh(Device& plan_device, int rank, int num_ranks, const ParallelConfig& config);

  Group& group(Axis axis) const;
  int index(Axis axis) const { return group(axis).rank(); }
  int degree(Axis axis) const { return group(axis).size(); }
  const ParallelConfig& config() const { return config_; }

 private:
  Mesh(std::unique_ptr<Group> world, const ParallelConfig& config);

  ParallelConfig config_;
  Group* world_ = nullptr;
  std::unique_ptr<Group> owned_world_;       // the plan's
  std::unique_ptr<Group> groups_[num_axes];  // all but world
};

}  // namespace switchyard
