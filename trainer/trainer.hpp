// The training of one model on this rank: the model, its optimizer, and the step that reads in the
// order of the mathematics. The same code runs on the plan device, which is how `switchyard plan`
// knows the memory, the work and the bytes on the wire.
//
// All memory is allocated in the constructor, except that expert-side buffers grow with the rows
// that the router sends.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.hpp"
#include "model/transformer.hpp"
#include "trainer/accuracy.hpp"
#include "trainer/activations/activation_setup.hpp"
#include "trainer/adamw_optimizer.hpp"
#include "trainer/batch_layout.hpp"
#include "trainer/batch_source.hpp"
#include "trainer/config.hpp"
#include "trainer/device_batch.hpp"
#include "trainer/load_statistics.hpp"
#include "trainer/placement/expert_mover.hpp"
#include "trainer/routing/routing_record.hpp"
#include "trainer/routing/routing_replay.hpp"
#include "trainer/step_report.hpp"

namespace switchyard {

// What one step did; the same on every rank.
struct StepResult {
  LossSums losses;           // means over the step's tokens and sequences
  double loss = 0;           // cross-entropy + weighted balance and z losses: what is minimised
  double gradient_norm = 0;  // of the whole model, before clipping
  double learning_rate = 0;
  ExpertLoad load;
  std::optional<PlacementChange> moved;  // if it was time for experts to move after the step
  GatheredReport report;                 // what the ranks told each other
};

// What a caller adds to this rank's report: called when it is about to be sent.
using AddToReport = std::function<void(HostFigures&)>;

struct EvaluationResult {
  double loss = 0;              // mean cross-entropy a token, nats
  std::int64_t num_tokens = 0;  // targets that count
  // Share of them that are the most probable token; none unless the configuration asks for it.
  std::optional<double> accuracy = {};
};

// Of the tokens of a batch, [S n].
struct TokenScores {
  std::vector<float> losses;  // -log p of the target, nats; 0 where there is none
  std::vector<bool>
      is_greedy;  // whether the target is the most probable token, of equals the first
};

class Trainer {
 public:
  // config.parallel is resolved; vocab_size_used: ids the tokenizer may give. planned_rows: plan
  // device only, see RowCapacity. placement: where the experts of every layer live at first, as
  // experts.placement says unless given. The weights are initialised and packed.
  Trainer(Device& device, const Mesh& mesh, const Config& config, std::int64_t vocab_size_used,
          std::int64_t planned_rows = 0, std::optional<Placement> placement = {});

  // One optimizer step, number `step` counted from 1, on the micro-batches that `source` gives.
  // Collective over the mesh. The host waits for the device when all of the step has been put on
  // its streams. NumericalError, with the step and the values, if loss or gradient is not finite;
  // weights and moments are then those before it.
  StepResult step(std::int64_t step, BatchSource& source, const AddToReport& add = {});

  // For a plan: the micro-steps between the first of a step and its last are alike there. One is
  // taken, and recorded as often as there are. For all else, each is taken.
  void take_alike_micro_steps_once() { takes_alike_once_ = true; }

  // Mean cross-entropy, and accuracy if it is asked for, over the targets that count of all
  // sequences of `batches`; collective.
  EvaluationResult evaluate(const FixedBatches& batches);

  // What the model makes of each token of a batch by itself. Collective, with as many batches on
  // all ranks.
  TokenScores score(const Batch& batch);

  BatchLayout batch_layout() const;
  // Rows received by the fullest rank in a layer so far, over all ranks. Every rank now has room
  // for them, so that memory follows from this one figure (RowCapacity). Collective.
  std::int64_t agree_on_rows();
  // Room for that many at once: for a run that continues on the layout it had.
  void reserve_rows(std::int64_t rows) { activations_.reserve_rows(rows); }
  // Tells `observer` (null: nobody) of the activations of steps from now on.
  void observe_with(ActivationObserver* observer) { activations_.observe_with(observer); }
  // Whether routing_record(), which runs with `trace.routing` have, observes steps from now on.
  void record_routing(bool records) {
    activations_.observe_routing_with(records ? routing_record_.get() : nullptr);
  }
  const RoutingRecord* routing_record() const { return routing_record_.get(); }
  // Of runs with experts.router.replay, before the first step.
  void replay_routing(std::unique_ptr<RoutingReplay> replay) { replay_ = std::move(replay); }
  // Bytes that this rank moved to the store of spilled records and back, so far.
  double bytes_spilled() const { return activations_.bytes_spilled(); }
  // Null if nothing is spilled.
  const ActivationStore* activation_store() const { return activation_store_.get(); }
  // Peak of the device memory so far on the rank where it is largest; collective.
  std::int64_t peak_memory_bytes() const;

  // The optimizer's moments had so many updates before step 1.
  void count_earlier_updates(std::int64_t count) { earlier_updates_ = count; }
  // After the values in the store changed (a checkpoint was loaded).
  void weights_changed() { model_.pack_weights(); }
  ParameterStore& store() { return store_; }
  AdamW& optimizer() { return optimizer_; }
  const Transformer& model() const { return model_; }
  // Where experts live now: of the layers with experts, in their order, one at least.
  const std::vector<Placement>& placements() const { return placements_; }
  const Config& config() const { return config_; }
  Device& device() { return device_; }

 private:
  Pass pass_of(std::int64_t step, bool training);
  const TokenBatch& next_batch(BatchSource& source, std::int64_t step);
  const TokenBatch& upload(const Batch& batch);
  // What exact sums over so many sequences are still to be divided by.
  std::array<double, 3> loss_scale_of(std::int64_t num_sequences) const;
  void exchange_report(const AddToReport& add);
  void update(std::int64_t step, double learning_rate);
  StepResult read_report();
  void move_experts(std::int64_t step, StepResult& result);
  void take_rows(GatheredReport& report);
  // The names of parameters whose exact sums overflowed on any rank. Collective.
  std::string overflowed() const;
  void require_finite(const StepResult& result, std::int64_t step) const;

  Device& device_;
  const Mesh& mesh_;
  Config config_;
  BatchLayout layout_;
  std::vector<Placement> placements_;  // of the layers with experts
  ParameterStore store_;
  Transformer model_;
  GradientSync sync_;
  LayerOrder order_;
  AdamW optimizer_;
  std::unique_ptr<ExpertMover> mover_;                 // null if experts stay
  std::unique_ptr<ActivationStore> activation_store_;  // null if nothing is spilled
  Activations activations_;
  std::unique_ptr<RoutingRecord> routing_record_;  // null: nothing is traced
  std::unique_ptr<RoutingReplay> replay_;          // null: routers choose
  CausalObjective objective_;
  DeviceBatch batch_;
  StepReport report_;
  std::optional<Accuracy> accuracy_;  // if the configuration asks for it
  std::int64_t earlier_updates_ = 0;
  std::int64_t agreed_rows_ = 0;                  // for which all ranks have room
  ExactFigures exact_;                            // all 0 unless sums are exact
  std::array<double, 3> loss_scale_ = {1, 1, 1};  // of the losses' sums
  bool takes_alike_once_ = false;
};

DType compute_dtype(const RunConfig& run);

}  // namespace switchyard
