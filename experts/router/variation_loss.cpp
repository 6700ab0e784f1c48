#include "experts/router/variation_loss.hpp"

namespace switchyard {

namespace {

TensorView rows_of(const Tensor& tensor, std::int64_t num_rows) {
  return tensor->slice_rows(0, num_rows);
}

}  // namespace

VariationSums::VariationSums(Device& device, const ExpertsConfig& config,
                             std::int64_t num_sequences) {
  const Shape shape = {num_sequences, config.num_experts};
  if (has_importance(config.balance_loss))
    importance = Tensor(device, Purpose::activation, DType::f64, shape);
  if (has_load(config.balance_loss)) load = Tensor(device, Purpose::activation, DType::f64, shape);
}

void VariationSums::for_each_tensor(const RecordVisitor& visit) {
  visit_tensor(visit, "importance", importance);
  visit_tensor(visit, "load", load);
}

VariationLoss::VariationLoss(const ExpertsConfig& config, const Mesh& mesh)
    : config_(config),
      context_(mesh.group(Axis::context)),
      all_ranks_(mesh.group(Axis::dense_replica)) {}

void VariationLoss::complete(const TensorView& sums, const Pass& pass) const {
  if (config_.balance_scope == BalanceScope::sequence || !pass.training) {
    if (context_.size() > 1) context_.all_reduce(sums, ReduceOp::sum);
    return;
  }
  kernels::pool_rows(sums);
  all_ranks_.all_reduce(sums.slice_rows(0, 1), ReduceOp::sum);
  kernels::spread_first_row(sums);
}

void VariationLoss::forward(const Routed& routed, const Pass& pass, VariationSums& sums) const {
  const std::int64_t num_sequences = routed.counts.rows();
  const kernels::ExactTerms& rounding = pass.exact.score;
  if (!sums.importance.empty()) {
    const TensorView importance = rows_of(sums.importance, num_sequences);
    kernels::sum_importance(routed.weights, routed.indices, config_.router.scale, rounding,
                            importance);
    complete(importance, pass);
  }
  if (sums.load.empty()) return;
  const TensorView load = rows_of(sums.load, num_sequences);
  if (!pass.training) return kernels::counts_as_load(routed.counts, load);
  kernels::sum_noisy_load(routed.choice, rounding, load);
  complete(load, pass);
}

void VariationLoss::add(const VariationSums& sums, std::int64_t num_sequences, const Pass& pass,
                        const TensorView& losses) const {
  if (context_.rank() != 0) return;
  const double factor = pass.exact.is_on() ? 1 : 1 / pass.num_global_sequences;
  for (const Tensor* each : {&sums.importance, &sums.load})
    if (!each->empty())
      kernels::add_variation(rows_of(*each, num_sequences), factor, pass.exact.balance, losses);
}

void VariationLoss::add_weight_gradient(const VariationSums& sums, double weight,
                                        const TensorView& indices, const TensorView& slopes,
                                        const TensorView& dweights) const {
  if (sums.importance.empty()) return;
  kernels::variation_slopes(rows_of(sums.importance, slopes.rows()), weight, slopes);
  kernels::add_importance_gradient(slopes, indices, config_.router.scale, dweights);
}

void VariationLoss::add_logit_gradient(const VariationSums& sums, double weight,
                                       const kernels::NoisyChoice& choice, const TensorView& slopes,
                                       const TensorView& dlogits) const {
  if (sums.load.empty()) return;
  kernels::variation_slopes(rows_of(sums.load, slopes.rows()), weight, slopes);
  kernels::add_load_gradient(choice, slopes, dlogits);
}

void VariationLoss::add_noise_gradient(const VariationSums& sums, double weight,
                                       const kernels::NoisyChoice& choice, const TensorView& slopes,
                                       const TensorView& draw) const {
  if (sums.load.empty()) return;
  kernels::variation_slopes(rows_of(sums.load, slopes.rows()), weight, slopes);
  kernels::add_load_noise_gradient(choice, slopes, draw);
}

}  // namespace switchyard
