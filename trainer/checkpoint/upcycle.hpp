// A dense checkpoint becomes one of a model with experts, of weights alone, to begin a run with
// (checkpoint.start_from). Sparse upcycling: Komatsuzaki et al. 2022; of finer experts, with the
// weights scaled and routers in virtual groups: He et al. 2024.
//
// A layer that gets experts has in the dense model a feed-forward of width D; its experts have
// width I, and D / I = g is a whole number. Expert e is part e mod g of the feed-forward: those I
// of its inner elements; with g = 1 the experts are copies. The g experts of a copy follow each
// other and have the same router weights, so that a token chooses whole copies. The rows of `down`
// are multiplied by what makes the parts that a token chooses, with their weights, one
// feed-forward. So the first loss is the dense model's where a token's weights are known before the
// router has learnt: where they sum to the router's scale, or where the router is zero.
#pragma once

#include <array>
#include <string>

#include "trainer/checkpoint/checkpoint.hpp"
#include "trainer/config.hpp"
#include "trainer/config_text.hpp"

namespace switchyard {

// zero: all experts score alike at first, and ties decide; small: as in an untrained model.
enum class UpcycledRouter : std::uint8_t { zero, small };
constexpr std::array<std::string_view, 2> choice_names(UpcycledRouter) {
  return {"zero", "small"};
}

struct UpcycleOptions {
  std::string dense;   // a checkpoint, or a folder of them, or a run
  std::string output;  // folder of the new checkpoint, step-00000000
  UpcycledRouter router = UpcycledRouter::small;
  double noise = 0;  // added to each expert's weights: normal, as part of their root mean square
};

struct Upcycled {
  std::string path;             // of the new checkpoint
  std::int64_t num_layers = 0;  // that got experts
  std::int64_t num_parts = 1;   // g
  bool keeps_loss = false;      // the first loss is the dense model's, to rounding
};

// In this process alone, on the CPU. config: of the model with experts; configuration: its text.
// Shared experts begin with zeros in `down`, so that they add nothing. ConfigError: widths or
// numbers that do not divide, a router of another kind than it takes. CheckpointError: the
// checkpoint is damaged, has experts, or is another model's. IoError.
Upcycled upcycle(const Config& config, const ConfigText& configuration,
                 const UpcycleOptions& options, const Report& report);

}  // namespace switchyard
