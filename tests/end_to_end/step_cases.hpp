// Steps of every kind of layer, in small, that a device other than the CPU must do as the CPU does.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/end_to_end/small_run.hpp"
#include "tests/support/mpi_test.hpp"

namespace switchyard::test {

struct StepCase {
  std::string name;
  std::function<void(Config&)> change;
  int num_ranks = 0;  // the only number that it is for; 0: any
};

inline std::vector<StepCase> step_cases() {
  return {
      {"experts", [](Config&) {}},
      {"shared experts, a dense layer first",
       [](Config& c) {
         c.experts.shared = {.number = 2, .intermediate = 9, .gate = SharedGate::sigmoid};
         c.experts.first_dense = 1;
         c.parallel.expert = world().size();
       }},
      {"experts over the ranks", [](Config& c) { c.parallel.expert = world().size(); }},
      {"experts over the ranks, in chunks",
       [](Config& c) {
         c.parallel.expert = world().size();
         c.experts.dispatch.chunks = 2;
       }},
      {"dense, bf16",
       [](Config& c) {
         c.experts.every = 0;
         c.model.dense_intermediate = 40;
         c.run.precision = Precision::bf16;
       }},
      {"windows, sinks, documents",
       [](Config& c) {
         c.model.mixer = {{.kind = MixerKind::window, .window = 5, .sinks = 1}, {.sinks = 1}};
         c.data.document_mask = true;
         c.data.restart_positions = true;
       }},
      {"recurrent mixers and a convolution, documents",
       [](Config& c) {
         c.model.num_layers = 4;
         c.model.mixer = {{.kind = MixerKind::gated_delta, .conv = 4, .chunk = 4},
                          {.kind = MixerKind::ssd, .conv = 4, .chunk = 4},
                          {.kind = MixerKind::linear, .chunk = 4},
                          {.conv = 3}};
         c.model.position.kind = PositionKind::alibi;
         c.data.document_mask = true;
         c.parallel.context_split.ring = world().size();
       }},
      {"positions as sines and cosines",
       [](Config& c) {
         c.model.position.kind = PositionKind::sinusoidal;
         c.data.document_mask = true;
         c.data.restart_positions = true;
       }},
      {"dropout, dense layers between",
       [](Config& c) {
         c = varied_config(world().size() == 2 ? 2 : 1);
         c.run.precision = Precision::bf16;
       }},
      {"experts of gpt-oss, clipped queries and keys",
       [](Config& c) {
         c.model.clip_qkv = 0.5;
         c.experts.bias = c.experts.router.logit_bias = true;
         c.experts.activation = ExpertActivation::clamped_swiglu;
         c.experts.swiglu_limit = 0.5;
         c.experts.shared.number = 1;
         c.parallel.expert = world().size() % 2 == 0 ? 2 : 1;
         c.activations.policy = LayerPolicy::spill;
       }},
      {"noisy choices", [](Config& c) { c.experts.router.kind = RouterKind::noisy_top_k; }},
      {"experts choose, recomputed",
       [](Config& c) {
         c.experts.router.kind = RouterKind::expert_choice;
         c.activations.policy = LayerPolicy::recompute;
         c.parallel.context_split.ring = world().size();
       }},
      {"sigmoids, a plan over sequences, spilled",
       [](Config& c) {
         c.experts.router = {
             .kind = RouterKind::sinkhorn, .score = RouterScore::sigmoid, .jitter = 0.1};
         c.activations.policy = LayerPolicy::spill;
       }},
      {"recomputed", [](Config& c) { c.activations.policy = LayerPolicy::recompute; }},
      {"spilled to memory", [](Config& c) { c.activations.policy = LayerPolicy::spill; }},
      {"spilled to a file",
       [](Config& c) {
         c.activations.policy = LayerPolicy::spill;
         c.activations.store = SpillStore::hdf5;
       }},
      {"ring", [](Config& c) { c.parallel.context_split.ring = 2; }, 2},
      {"heads exchanged", [](Config& c) { c.parallel.context_split.ulysses = 2; }, 2},
      {"gathered, windows",
       [](Config& c) {
         c.parallel.context_split.ring = 2;
         c.parallel.context_split.method = ContextMethod::all_gather;
         c.model.mixer = {{.kind = MixerKind::window, .window = 7}, {}};
         c.parallel.expert = 2;
       },
       2},
  };
}

inline Config config_of(const StepCase& each) {
  Config config = small_config(1);
  each.change(config);
  return config;
}

// Whether there are kernels for all of it on a card.
inline bool runs_on_card(const Config& config) {
  return config.experts.router.runs_on_card() && config.experts.dispatch.chunks == 1 &&
         !config.model.has_recurrent_mixer() && !config.model.has_convolution() &&
         !config.model.has_globals() && !config.model.has_slots() && !config.model.has_spans() &&
         !config.model.scores_distances();
}

inline std::vector<StepCase> cases_here() {
  std::vector<StepCase> here;
  for (const StepCase& each : step_cases())
    if ((each.num_ranks == 0 || each.num_ranks == world().size()) &&
        (!is_tested_on_card() || runs_on_card(config_of(each))))
      here.push_back(each);
  return here;
}

}  // namespace switchyard::test
