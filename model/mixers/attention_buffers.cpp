// The records, scratch and sizes of attention.
#include "model/mixers/attention.hpp"

namespace switchyard {

void AttentionMixer::Saved::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "out", out);
  visit_tensor(visit, "lse", lse);
  if (!halo.empty()) visit_tensor(visit, "halo", halo);
  if (!chosen.empty()) visit_tensor(visit, "chosen", chosen);
  if (!branches.empty()) visit_tensor(visit, "branches", branches);
}

void AttentionMixer::Derived::for_each_tensor(const RecordVisitor& visit) {
  if (!projected.empty()) visit_tensor(visit, "projected", projected);
  visit_tensor(visit, "qkv", qkv);
  norm.for_each_tensor(visit);
  if (!inside.empty()) visit_tensor(visit, "inside", inside);
  if (!gates.empty()) visit_tensor(visit, "gates", gates);
}

AttentionMixer::Scratch::Scratch(Device& device, const Mesh& mesh, const ModelConfig& model,
                                 const MixerConfig& mixer, DType compute,
                                 std::int64_t num_sequences, const SequenceSplit& split)
    : attention(device, mesh, attention_sizes(model, mixer, num_sequences), compute, split,
                attention_patterns(model)) {
  const std::int64_t num_tokens = num_sequences * split.num_local(mesh.index(Axis::context));
  dqkv = Tensor(device, Purpose::workspace, compute, {num_tokens, projected_cols(model, false)});
  dout = Tensor(device, Purpose::workspace, compute, {num_tokens, model.query_cols()});
  if (const std::int64_t parameters = num_bias_parameters(model, mixer); parameters > 0) {
    d_bias =
        Tensor(device, Purpose::workspace, DType::f32, {num_tokens, model.num_heads * parameters});
    bias_ones = RowBias::make_ones(device, num_tokens, DType::f32);
  }
  if (mixer.stops_gradient())
    dq_of_memory = Tensor(device, Purpose::workspace, compute, {num_tokens, model.query_cols()});
  if (model.qkv_bias || model.output_bias) ones = RowBias::make_ones(device, num_tokens, compute);
  if (mixer.conv > 0)
    conv.emplace(device, mesh, compute, num_sequences, split,
                 projected_cols(model, mixer.shares_keys()), mixer.conv);
}

void AttentionMixer::Scratch::set_documents(kernels::DocumentStarts document_starts) {
  attention.begin(document_starts);
  if (compressed) compressed->set_documents(document_starts);
  if (conv) conv->document_starts.assign(document_starts.begin(), document_starts.end());
}

std::unique_ptr<MixerRecord> AttentionMixer::make_saved(std::int64_t num_tokens,
                                                        std::int64_t num_sequences) const {
  auto saved = std::make_unique<Saved>();
  if (conv_width_ > 1) saved->halo = conv_->make_halo(compute_, num_sequences);
  saved->out = Tensor(device_, Purpose::activation, compute_, {num_tokens, model_.query_cols()});
  const std::int64_t num_softmaxes = gates_ ? BranchGates::num_branches : 1;
  saved->lse = Tensor(device_, Purpose::activation, DType::f32,
                      {num_softmaxes * num_tokens, model_.num_heads});
  if (gates_) saved->branches = gates_->make_branches(num_tokens, Purpose::activation);
  if (pattern_.chosen_blocks > 0)
    saved->chosen = Tensor(device_, Purpose::activation, DType::i32,
                           {num_tokens, model_.num_kv_heads * pattern_.chosen_blocks});
  return saved;
}

std::unique_ptr<MixerRecord> AttentionMixer::make_derived(std::int64_t num_tokens,
                                                          std::int64_t /*num_sequences*/) const {
  auto derived = std::make_unique<Derived>();
  if (conv_ || config_.shares_keys())
    derived->projected = Tensor(device_, Purpose::activation, compute_,
                                {num_tokens, projected_cols(model_, config_.shares_keys())});
  derived->qkv =
      Tensor(device_, Purpose::activation, compute_, {num_tokens, projected_cols(model_, false)});
  if (norm_) derived->norm = norm_->make_derived(num_tokens, compute_, Purpose::activation);
  if (model_.clip_qkv > 0)
    derived->inside = Tensor(device_, Purpose::activation, DType::u8, derived->qkv->shape);
  if (gates_) derived->gates = gates_->make_gates(num_tokens, Purpose::activation);
  return derived;
}

std::unique_ptr<MixerScratch> AttentionMixer::make_scratch(std::int64_t num_sequences,
                                                           const SequenceSplit& split) const {
  auto scratch =
      std::make_unique<Scratch>(device_, mesh_, model_, config_, compute_, num_sequences, split);
  if (slots_) scratch->slots = slots_->make_scratch(scratch->dqkv->rows(), true);
  if (distances_) scratch->distances = distances_->make_scratch(scratch->dqkv->rows(), true);
  if (compressed_) scratch->compressed = compressed_->make_scratch(num_sequences, split.length());
  if (gates_) scratch->branches = gates_->make_scratch(scratch->dqkv->rows());
  if (norm_) {
    scratch->d_normed = Tensor(device_, Purpose::workspace, compute_,
                               {scratch->dqkv->rows(), model_.query_cols() + model_.key_cols()});
    scratch->norm_workspace = norm_->make_workspace();
  }
  return scratch;
}

}  // namespace switchyard
